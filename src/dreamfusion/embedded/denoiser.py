"""The embedded prior's denoiser: what the things look like (`tables`), and which of them a noisy picture may show.

The caption, the camera, the light, the background and the variety that are told decide a picture, up to a spread. What
is not told is marginalised, not averaged: things that the caption fits and cameras that the view word fits are guesses,
each with the picture of its own; the colour of the background and the parts of the light are amounts within a guess.
The noisy picture says how likely each is (`mixture`).
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dreamfusion.cameras import orbit
from dreamfusion.diffusion.priors import ViewCondition
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.embedded.corrections import StoredCorrections, decoded
from dreamfusion.embedded.mixture import Guesses, log_evidence, posterior_mean
from dreamfusion.embedded.noise import signal_share
from dreamfusion.embedded.storage import StoredModule
from dreamfusion.embedded.tables import MAPS, Angles, Shape, StoredThings, decoder, draw
from dreamfusion.embedded.world import COLOURS, DISTANCE, ELEVATION_DEG, FOV_DEG
from dreamfusion.records import Record, mapped

AZIMUTHS, ELEVATIONS = 36, 9
"""of the cameras that may be meant where none is told: every 10 degrees, evenly by the area of the sphere"""
NO_SHAPE = MappingProxyType[str, Any]({})
VIEWS = ViewWords("front", "left", "back", "right", "overhead")
"""the words that tell views apart, in the order of `Reading.view`"""
VARIETIES = 12
"""number of varieties per noun"""
SHARPNESS = 20.0
"""of the reading of captions: a noun that fits a word better than another is meant e^20 times as likely"""
NOTHING = 0.5
"""how well a caption fits no noun at all; a noun of n words fits 2 for each that is there, less n"""
BEHIND, BEHIND_WIDTH = 0.5, 0.3
"""mean and standard deviation of a background that nobody told"""
AMBIENT, TOWARD, LIGHT_WIDTH = 0.75, 0.25, 0.3
"""of a light that nobody told: its ambient part, its part towards the camera, and the standard deviation of each"""
LEAST_LUMA = 0.05
LEAST_SPREAD = 0.006
"""of pixels that a thing is nowhere near, standard deviation in [-1, 1], as measured"""
POOLED = 4
"""pixels per side of what one number says, where guesses are compared: their noise is as much smaller"""
SEEN_WHOLE = 16
"""most guesses of which a picture is made"""
REMEMBERED = 16
"""things whose pictures from all cameras of the grid are kept, 30 MB each"""


@dataclass(frozen=True, eq=False)
class Reading:
    """What captions say."""

    thing: Float[Tensor, "b t"]
    """probability of each thing; the last: none"""
    colour: Float[Tensor, "b n"]
    """share of each of `COLOURS` in the paint; what is missing from 1 is the thing's own"""
    view: Float[Tensor, "b 5"]
    """share of each of `VIEWS`; all zero: nothing is said"""
    textureless: Float[Tensor, " b"]


@dataclass(frozen=True, eq=False)
class Seen:
    """Maps of k guesses of one picture, multiplied by the coverage, in their colours."""

    albedo: Float[Tensor, "*k h w 3"]
    normal: Float[Tensor, "*k h w 3"]
    """where something is covered, of length one at most"""
    alpha: Float[Tensor, "*k h w 1"]


@dataclass(frozen=True, eq=False)
class Noise:
    """Noisy pictures: alpha times clean ones plus sigma times noise."""

    noisy: Float[Tensor, "b 3 h w"]
    alpha: Float[Tensor, " b"]
    sigma: Float[Tensor, " b"]


@dataclass(frozen=True, eq=False)
class Meant:
    """All k things from all cameras that one picture may show."""

    thing: Int[Tensor, " k"]
    pose: Float[Tensor, "k 4 4"]
    log_prior: Float[Tensor, " k"]
    pooled: Float[Tensor, "k s s 10"]
    whole: Callable[[Int[Tensor, " n"]], Float[Tensor, "n h w 10"]]
    """the maps of some of them at full size"""


class TablesDenoiser(StoredModule):
    """Predicts the clean picture ("sample" in diffusers' words) from a noisy one and all that is known."""

    def __init__(self, things: int, text_width: int, sample_size: int = 64, shape: Mapping[str, Any] = NO_SHAPE):
        """`shape`: fields of `Shape` other than its defaults."""
        config = {"things": things, "text_width": text_width, "sample_size": sample_size, "shape": dict(shape)}
        super().__init__(config)
        self.shape = Shape(size=sample_size, **shape)
        self.things = StoredThings(things + 1, self.shape)
        self.corrections = StoredCorrections(things + 1, self.shape)
        self.decode = decoder(self.shape)
        self.noun_words = nn.Buffer(torch.zeros(text_width, things))
        """2 for the words of a thing's noun, less for its adjective"""
        self.noun_length = nn.Buffer(torch.zeros(things))
        self.colour_words = nn.Buffer(torch.zeros(text_width, len(COLOURS)))
        self.view_words = nn.Buffer(torch.zeros(text_width, len(VIEWS.words)))
        self.textureless_word = nn.Buffer(torch.zeros(text_width))
        self.luma = nn.Buffer(torch.zeros(things + 1))
        """mean brightness of the paint"""
        self.spread = nn.Buffer(torch.zeros(things + 1, 2))
        """of pixels about the truth (root mean square), from a camera that is told and from the nearest of the grid"""
        self._remembered: OrderedDict[tuple[int, Any], tuple[Tensor, Tensor]] = OrderedDict()

    def forward(
        self,
        sample: Float[Tensor, "b 3 h w"],
        timestep: Int[Tensor, " b"],
        encoder_hidden_states: Float[Tensor, "b l d"],
        **known: Any,
    ) -> Float[Tensor, "b 3 h w"]:
        """The clean picture in [-1, 1]; called as diffusers calls its U-Nets, plus those of `ViewCondition` by name."""
        wide = _wide(sample)
        said, told, share = self.read(encoder_hidden_states), ViewCondition(**known), signal_share(timestep).to(wide)
        noise = Noise(wide, share.sqrt(), (1 - share).sqrt())
        if told.pose is not None and told.variety is not None:
            return self._decided(noise, said, told).to(sample)
        own = [slice(i, i + 1) for i in range(len(sample))]
        each = [self._undecided(_rows(noise, i), _rows(said, i), told.rows(i)) for i in own]
        return torch.cat(each).to(sample)

    def read(self, text: Float[Tensor, "b l d"]) -> Reading:
        """What captions say, from the sum of their words; blends of captions say some of each."""
        words = _wide(text).sum(1)
        fit = words @ self.noun_words.to(words) - self.noun_length
        fit = torch.cat([fit, torch.full_like(fit[:, :1], NOTHING)], dim=1)
        colour, view = words @ self.colour_words.to(words), words @ self.view_words.to(words)
        return Reading(
            thing=(SHARPNESS * fit).softmax(1),
            colour=colour / colour.sum(1, keepdim=True).clamp_min(1),
            view=view / view.sum(1, keepdim=True).clamp_min(1),
            textureless=(words @ self.textureless_word.to(words)).clamp(0, 1),
        )

    def _decided(self, noise: Noise, said: Reading, told: ViewCondition) -> Float[Tensor, "b 3 h w"]:
        """The thing and the camera are known: one guess of each picture."""
        assert told.pose is not None
        assert told.variety is not None
        thing = _chosen(said.thing, told.variety)
        maps = self.drawn(thing, told.pose[:, None])
        spread = _wide(self.spread)[thing, :1]
        guesses = _guesses(self._seen(maps, thing[:, None], said), spread, told.pose[:, None], said, told)
        return posterior_mean(noise.noisy, noise.alpha, noise.sigma, guesses, torch.ones_like(spread))

    def _undecided(self, noise: Noise, said: Reading, told: ViewCondition) -> Float[Tensor, "1 3 h w"]:
        """All things and all cameras that may be meant by one picture.

        How likely each is, is told by small pictures; the most likely ones are then seen whole. An adapted network sees
        these, which are the likeliest without its adapter, in its own way, and weighs them anew: to draw the hundreds
        that there are, with gradients, took twelve seconds.
        """
        meant = self._meant(said, told)
        spread = _wide(self.spread)[meant.thing, int(told.pose is None)]

        def guessed(maps: Float[Tensor, "k h w 10"], kept: Int[Tensor, " k"]) -> Guesses:
            seen = self._seen(maps[None], meant.thing[None, kept], said)
            made = _guesses(seen, spread[None, kept], meant.pose[None, kept], said, told)
            return replace(made, log_prior=meant.log_prior[None, kept])

        pooled = F.avg_pool2d(noise.noisy, POOLED), noise.alpha, noise.sigma / POOLED
        every = torch.arange(len(spread), device=spread.device)
        probability = log_evidence(*pooled, guessed(meant.pooled, every)).softmax(1)
        weight, kept = probability.topk(min(SEEN_WHOLE, len(every)))
        maps = meant.whole(kept[0])
        guesses = guessed(maps, kept[0])
        if self._adapted:
            weight = log_evidence(*pooled, guessed(_pooled(maps), kept[0])).softmax(1)
        return posterior_mean(noise.noisy, noise.alpha, noise.sigma, guesses, weight / weight.sum())

    def _meant(self, said: Reading, told: ViewCondition) -> Meant:
        """All that one picture may be."""
        if told.variety is None:
            things = (said.thing[0] >= said.thing[0].max() / 2).nonzero()[:, 0]
        else:
            things = _chosen(said.thing, told.variety)
        if told.pose is None:
            pose, weight = cameras_meant(said.view[0])
            fits = (weight > 0).nonzero()[:, 0]
            pose, weight = pose[fits], weight[fits]
            around = [self._from_around(int(thing)) for thing in things]
            pooled = torch.cat([small[fits] for _, small in around])

            def whole(kept: Int[Tensor, " k"]) -> Float[Tensor, "k h w 10"]:
                if self._adapted:
                    return self.drawn(things[kept // len(fits)], pose[kept % len(fits), None])[:, 0]
                some = [around[i // len(fits)][0][fits[i % len(fits)]] for i in kept.tolist()]
                return torch.stack(some).to(pooled)
        else:
            pose, weight = told.pose, torch.ones_like(said.view[0, :1])
            maps = self.drawn(things, pose.expand(len(things), 1, 4, 4))[:, 0]
            pooled = _pooled(maps)

            def whole(kept: Int[Tensor, " k"]) -> Float[Tensor, "k h w 10"]:
                return maps[kept]

        log_prior = (said.thing[0, things, None].log() + weight.log()).flatten()
        return Meant(things.repeat_interleave(len(pose)), pose.repeat(len(things), 1, 1), log_prior, pooled, whole)

    def _from_around(self, thing: int) -> tuple[Float[Tensor, "v h w 10"], Float[Tensor, "v s s 10"]]:
        """The maps of a thing from all cameras of the grid in half precision, and small ones, without any adapter."""
        weights = tuple((weight.data_ptr(), weight._version) for weight in self.decode.parameters())
        if (thing, weights) in self._remembered:
            self._remembered.move_to_end((thing, weights))
            return self._remembered[thing, weights]
        things = torch.tensor([thing], device=self.luma.device)
        poses = grid().to(self.luma.device)[None].split(12, dim=1)
        maps = torch.cat([self.drawn(things, part, adapted=False)[0] for part in poses])
        self._remembered[thing, weights] = maps.half(), _pooled(maps)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)
        return self._remembered[thing, weights]

    @property
    def _adapted(self) -> bool:
        """Whether an adapter is on the decoder: it hooks into its layers."""
        return any(layer._forward_hooks for layer in self.decode)

    def drawn(
        self,
        things: Int[Tensor, " m"],
        pose: Float[Tensor, "m v 4 4"],
        adapted: bool = True,
    ) -> Float[Tensor, "m v h w 10"]:
        """The maps of things, from cameras of their own; `adapted`: as an adapter has it (`corrections.decoded`)."""
        decode = partial(decoded, self.decode, self.corrections(things), adapted=adapted)
        return _wide(draw(self.things(things), decode, self.shape, pose))

    def _seen(self, maps: Float[Tensor, "b k h w 10"], thing: Int[Tensor, "b k"], said: Reading) -> Seen:
        """Maps in the colours that the captions ask for."""
        paint, rest, normal, alpha = maps.split(MAPS, dim=-1)
        alpha = alpha.clamp(0, 1)
        luma = _wide(self.luma)[thing].clamp_min(LEAST_LUMA)[..., None, None, None]
        colours = maps.new_tensor(list(COLOURS.values()))
        new = (said.colour @ colours)[:, None, None, None] * paint.mean(-1, keepdim=True) / luma
        own = 1 - said.colour.sum(1)[:, None, None, None, None]
        length = torch.maximum(alpha, normal.norm(dim=-1, keepdim=True)).clamp_min(1e-3)
        return Seen((own * paint + new.clamp(max=1) + rest).clamp(0, 1), normal / length, alpha)


def _wide(tensor: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """In single precision at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _rows(record: Record, own: slice) -> Record:
    """Those of some of the pictures."""
    return mapped(record, lambda tensor: tensor[own])


def _pooled(maps: Float[Tensor, "k h w 10"]) -> Float[Tensor, "k s s 10"]:
    return F.avg_pool2d(maps.movedim(-1, 1), POOLED).movedim(1, -1).contiguous()


def _chosen(likely: Float[Tensor, "b t"], variety: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Of the things that a caption fits, the one that this number stands for. Nothing waits for the device."""
    fitting = likely >= likely.amax(1, keepdim=True) / 2
    rank = variety % VARIETIES % fitting.sum(1)
    return (fitting & (fitting.cumsum(1) - 1 == rank[:, None])).float().argmax(1)


def _guesses(
    seen: Seen,
    spread: Float[Tensor, "b k"],
    pose: Float[Tensor, "b k 4 4"],
    said: Reading,
    told: ViewCondition,
) -> Guesses:
    """Light the maps and put them before backgrounds, as far as these are known; all as likely as each other."""
    white = said.textureless if told.light is None else told.light.textureless.to(said.textureless)
    albedo = torch.lerp(seen.albedo, seen.alpha.expand_as(seen.albedo), _per_pixel(white))
    parts, width = list[Tensor](), list[float]()
    if told.light is None:
        toward = pose[..., None, None, :3, 3] / DISTANCE
        light = AMBIENT + TOWARD * (seen.normal * toward).sum(-1, keepdim=True)
        parts += [albedo, *(albedo * axis for axis in seen.normal.split(1, dim=-1))]
        width += [LIGHT_WIDTH] * 4
    else:
        toward = F.normalize(told.light.position, dim=-1)[:, None, None, None]
        lambert = (seen.normal * toward).sum(-1, keepdim=True).relu()
        light = _per_pixel(told.light.ambient) + _per_pixel(told.light.diffuse) * lambert
    if told.background is None:
        behind = torch.full_like(said.textureless, BEHIND)[:, None, None, None, None]
        parts += [(1 - seen.alpha) * channel for channel in torch.eye(3, device=albedo.device)]
        width += [BEHIND_WIDTH] * 3
    else:
        behind = told.background[:, None, None, None]
    mean = (albedo * light + (1 - seen.alpha) * behind).clamp(0, 1)
    amounts = 2 * torch.stack(parts, dim=2) if parts else mean.new_zeros(*mean.shape[:2], 0, *mean.shape[2:])
    return Guesses(
        mean=(2 * mean - 1).movedim(-1, 2),
        spread=laid(spread, seen.alpha[..., 0]),
        log_prior=torch.zeros_like(spread),
        parts=amounts.movedim(-1, 3),
        width=torch.tensor(width).to(mean),
    )


def laid(spread: Float[Tensor, "b k"], alpha: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
    """A picture's spread, the root of its mean square, laid over the pixels: what is nothing but background is known.

    On views that nothing learned from, a pixel's squared error is proportional to the largest coverage that is drawn
    within one pixel of it (docs/reference/embedded-prior.md); where that is zero, `LEAST_SPREAD` is left.
    """
    near = F.max_pool2d(alpha, 3, stride=1, padding=1)
    share = near / near.mean((2, 3), keepdim=True).clamp_min(1e-3)
    return (spread.square()[..., None, None] * share + LEAST_SPREAD**2).sqrt()


def _per_pixel(numbers: Float[Tensor, " b"]) -> Float[Tensor, "b 1 1 1 1"]:
    return numbers[:, None, None, None, None]


def grid() -> Float[Tensor, "v 4 4"]:
    """Cameras from all around, evenly in azimuth and in the area of the sphere."""
    low, high = (math.sin(math.radians(degrees)) for degrees in ELEVATION_DEG)
    height = low + (high - low) * (torch.arange(ELEVATIONS) + 0.5) / ELEVATIONS
    azimuth = (torch.arange(AZIMUTHS) * (2 * math.pi / AZIMUTHS)).repeat_interleave(ELEVATIONS)
    like = torch.ones_like(azimuth)
    return orbit(azimuth, height.asin().repeat(AZIMUTHS), DISTANCE * like, math.radians(FOV_DEG) * like, 1).pose


def cameras_meant(view: Float[Tensor, " 5"]) -> tuple[Float[Tensor, "v 4 4"], Float[Tensor, " v"]]:
    """The cameras of the grid, and the probability of each under the shares of view words; all equal without any."""
    pose = grid().to(view)
    angles = Angles.of(pose[None])
    fits = VIEWS.weights(angles.azimuth[0], angles.elevation[0])
    weight = (fits / fits.sum(0)) @ view.clamp_min(0)
    return pose, weight if bool(weight.sum() > 0) else torch.full_like(weight, 1 / len(weight))
