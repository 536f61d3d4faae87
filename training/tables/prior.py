"""The tables as a prior: an estimate of x0 from the camera, or from a word for it and the noisy picture.

What is told decides the picture, up to a spread. What is not told is marginalised: the camera is one of many on a grid,
each with the picture of its own; the noisy picture says how likely each is, and the estimate is the mean of theirs by
those weights. That is the best denoiser of a mixture of Gaussians about those pictures: nothing is averaged that the
noisy picture tells apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dreamfusion.cameras import orbit
from dreamfusion.diffusion.priors import NoiseSchedule, ViewCondition
from dreamfusion.diffusion.priors.spaces import PixelSpace
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.embedded.noise import cosine_alphas
from dreamfusion.embedded.world import DISTANCE, ELEVATION_DEG, FOV_DEG, SIZE
from dreamfusion.errors import UserError
from dreamfusion.records import mapped
from training.prior.data import VIEW_WORDS
from training.tables.network import Shape, decoder, draw, shown

Camera = Literal["told", "weighted", "mean"]
"""how the camera is known: by its angles; by its view word and what the noisy picture says; by the word alone"""
AZIMUTHS, ELEVATIONS = 36, 9
"""of the cameras that may be meant: every 10 degrees, by the area"""
WORDS = ViewWords(
    VIEW_WORDS["front"], VIEW_WORDS["left"], VIEW_WORDS["back"], VIEW_WORDS["right"], VIEW_WORDS["overhead"],
    textureless=VIEW_WORDS["textureless"],
)  # fmt: skip


@dataclass(frozen=True)
class Spread:
    """How far the truth is from what the tables draw: a standard deviation in [-1, 1]."""

    told: float = 0.1
    guessed: float = 0.2
    """for a camera of the grid, which is a few degrees from the true one"""


@dataclass(frozen=True)
class Bank:
    """What a thing looks like from all cameras of a grid."""

    pose: Float[Tensor, "k 4 4"]
    words: Float[Tensor, "k n"]
    """which word each view has"""
    maps: Float[Tensor, "k h w 10"]


@dataclass(frozen=True, eq=False)
class TablesPrior:
    """A `Prior` of one thing. With `conditions` that leave out the pose it goes by view words."""

    thing: Float[Tensor, " n"]
    decode: nn.Module
    shape: Shape
    schedule: NoiseSchedule
    bank: Bank
    conditions: frozenset[str]
    weighted: bool = True
    """False: all cameras that fit the word count the same, whatever the noisy picture shows"""
    spread: Spread = Spread()
    name = "tables"
    view_words = WORDS
    vocabulary = None
    image_size = SIZE

    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "p 1 w"]:
        """Which view words a caption holds."""
        return torch.tensor([[[float(word in prompt) for word in WORDS.words]] for prompt in prompts])

    def encode(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 s s"]:
        """See `Prior.encode`."""
        return PixelSpace(SIZE).encode(image)

    def predict_noise(
        self, noisy: Float[Tensor, "b 3 s s"], t: Int[Tensor, " b"], text: Float[Tensor, "b 1 w"], known: ViewCondition
    ) -> Float[Tensor, "b 3 s s"]:
        """See `Prior.predict_noise`."""
        x0 = [
            self._estimate(noisy[i : i + 1], t[i : i + 1], text[i, 0], known.rows(slice(i, i + 1)))
            for i in range(len(noisy))
        ]
        return self.schedule.eps_from_x0(torch.cat(x0), noisy, t)

    @torch.no_grad()
    def _estimate(
        self, noisy: Float[Tensor, "1 3 s s"], t: Int[Tensor, " 1"], word: Float[Tensor, " w"], known: ViewCondition
    ) -> Float[Tensor, "1 3 s s"]:
        """The posterior mean of one picture."""
        alpha, sigma = float(self.schedule.alpha(t)), float(self.schedule.sigma(t))
        if known.pose is not None:
            maps = draw(self.thing[None], self.decode, self.shape, known.pose[None])[0]
            return wiener(noisy, self._shown(maps, known), alpha, sigma, self.spread.told)
        fits = self.bank.words @ word > 0 if bool(word.any()) else torch.ones(len(self.bank.words), dtype=torch.bool)
        means = self._shown(self.bank.maps[fits], known)
        variance = sigma**2 + (alpha * self.spread.guessed) ** 2
        likely = -(noisy - alpha * means).square().sum((1, 2, 3)) / (2 * variance)
        weight = likely.softmax(0) if self.weighted else torch.full_like(likely, 1 / len(likely))
        each = wiener(noisy, means, alpha, sigma, self.spread.guessed) if self.weighted else means
        return (weight[:, None, None, None] * each).sum(0, keepdim=True)

    def _shown(self, maps: Float[Tensor, "k h w 10"], known: ViewCondition) -> Float[Tensor, "k 3 s s"]:
        """Pictures in the light and before the background that were told."""
        assert known.light is not None
        assert known.background is not None
        return self.encode(
            shown(
                maps,
                mapped(known.light, lambda part: part.expand(len(maps), *part.shape[1:])),
                known.background.expand(len(maps), 3),
            )
        )


def wiener(noisy: Tensor, mean: Tensor, alpha: float, sigma: float, spread: float) -> Tensor:
    """E[x | x_t] for a Gaussian x about `mean` with that spread in every pixel."""
    return mean + alpha * spread**2 / (sigma**2 + (alpha * spread) ** 2) * (noisy - alpha * mean)


def bank(thing: Float[Tensor, " n"], decode: nn.Module, shape: Shape) -> Bank:
    """Draw a thing from all cameras of the grid, evenly spread in azimuth and in the area of the sphere."""
    low, high = (math.sin(math.radians(degrees)) for degrees in ELEVATION_DEG)
    height = low + (high - low) * (torch.arange(ELEVATIONS) + 0.5) / ELEVATIONS
    azimuth = (torch.arange(AZIMUTHS) * (2 * math.pi / AZIMUTHS)).repeat_interleave(ELEVATIONS)
    elevation = height.asin().repeat(AZIMUTHS)
    like = torch.ones_like(azimuth)
    pose = orbit(azimuth, elevation, DISTANCE * like, math.radians(FOV_DEG) * like, SIZE).pose
    with torch.no_grad():
        maps = torch.cat([draw(thing[None], decode, shape, part[None])[0] for part in pose.split(12)])
    return Bank(pose, WORDS.weights(azimuth, elevation), maps)


def open_tables(state: Path, mesh: int, camera: Camera) -> TablesPrior:
    """The prior of one mesh (an index into `learned(nouns())`) by the last weights of a training's state.

    Raises UserError if it did not learn that mesh.
    """
    saved, shape = torch.load(state / "state.pt", weights_only=True), Shape()
    if mesh not in saved["meshes"]:
        raise UserError(f"{state} has not learned this thing")
    decode, thing = decoder(shape), saved["rows"]["value"][saved["meshes"].index(mesh)]
    decode.load_state_dict(saved["decode"])
    decode.requires_grad_(False)
    told = {"background", "light"} | ({"pose"} if camera == "told" else set())
    schedule = NoiseSchedule.variance_preserving(cosine_alphas(1000))
    seen = bank(thing, decode, shape)
    return TablesPrior(thing, decode, shape, schedule, seen, frozenset(told), weighted=camera != "mean")
