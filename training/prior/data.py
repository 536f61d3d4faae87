"""The embedded prior's training pictures: buffers of many views, shaded, recoloured and captioned at training time."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor
from torch.nn import functional as F

from dreamfusion.embedded.denoiser import VARIETIES
from dreamfusion.embedded.world import COLOURS, DISTANCE
from dreamfusion.lights import Light
from training.nouns import Noun, learned, names
from training.prior.views import Views

OVERHEAD_ABOVE_DEG = 60.0
VIEW_WORDS = {
    "front": "front view", "left": "left side view", "right": "right side view", "back": "back view",
    "overhead": "overhead view", "textureless": "untextured",
}  # fmt: skip
FORMS = ("a {}", "a {}", "{}", "the {}", "a photo of a {}", "a 3d model of a {}")
COLOURED = ("golden", "autumn")
"""adjectives that speak of colour: never beside a colour word"""


def vocabulary(table: Sequence[Noun]) -> list[str]:
    """Every word that a training caption can hold."""
    forms = [form.format("an") for form in FORMS]
    rows = learned(table)
    texts = [*forms, *names(rows), *(row.adjective for row in rows), *COLOURS, *VIEW_WORDS.values()]
    return sorted({word for text in texts for word in text.split()})


def held_out(colour: str, noun: str) -> bool:
    """Whether this pair is never trained on: a fixed 15 % of all (colour, noun) pairs, by a hash of the two words."""
    return hashlib.sha256(f"{colour} {noun}".encode()).digest()[0] < 0.15 * 256


@dataclass(frozen=True)
class Batch:
    """Training pictures "b 3 h w" in [-1, 1], their captions, and what is known of them."""

    image: Float[Tensor, "b 3 h w"]
    captions: list[str]
    pose: Float[Tensor, "b 4 4"]
    background: Float[Tensor, "b 3"]
    light: Light
    variety: Int[Tensor, " b"]
    """which mesh of its noun: a number that stands for it (`meant_by`)"""


class Pictures:
    """Endless shaded, recoloured, captioned batches from the buffers."""

    def __init__(self, views: Views, table: Sequence[Noun]):
        self.views, self.table, self.colours = views, learned(table), list(COLOURS)
        total, area = torch.zeros(2, len(self.table))
        for mesh, paint in zip(views.mesh.split(1000), views.paint.split(1000), strict=True):
            painted = paint.float().mean(-1)
            total.index_add_(0, mesh, painted.sum((1, 2)))
            area.index_add_(0, mesh, (painted > 8).float().sum((1, 2)))
        self.varieties = meant_by(self.table)
        noun = torch.tensor([names(self.table).index(row.noun) for row in self.table])[views.mesh]
        self.by_noun, self.per_noun = noun.argsort(stable=True), noun.unique(return_counts=True)[1]
        self.mean_luma = total / area.clamp(min=1) / 255

    def batch(self, size: int, generator: Generator, halve: bool = False) -> Batch:
        """One batch: any noun, view, colour, light and background; with `halve`, of half as many pixels a side."""
        pick = self._any_views(size, generator)
        mesh, pose = self.views.mesh[pick], self.views.pose[pick]
        light, background = random_lights(pose, generator), random_backgrounds(size, generator)
        colour = [self._colour(int(m), generator) for m in mesh]
        paint, rest, normal, alpha = self._buffers(pick, halve)
        albedo = rest + self._repaint(paint, mesh, colour)
        image = shade(albedo, normal, alpha, light) + (1 - alpha) * background[:, None, None]
        variety = torch.tensor([_any_of(self.varieties[int(m)], generator) for m in mesh])
        captions = [
            self._caption(int(mesh[i]), colour[i], pose[i], bool(light.textureless[i]), generator) for i in range(size)
        ]
        return Batch((image * 2 - 1).permute(0, 3, 1, 2).contiguous(), captions, pose, background, light, variety)

    def _any_views(self, size: int, generator: Generator) -> Int[Tensor, " b"]:
        """Indices of views: any noun, however many views it has, then any of them."""
        noun = torch.randint(len(self.per_noun), (size,), generator=generator)
        count = self.per_noun[noun]
        first = self.per_noun.cumsum(0)[noun] - count
        return self.by_noun[first + (torch.rand(size, generator=generator) * count).long()]

    def _buffers(self, pick: Int[Tensor, " b"], halve: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Paint, rest, normal and coverage of some views, colours and coverage in [0, 1]."""
        views = self.views
        paint, rest, normal = views.paint[pick], views.rest[pick], views.normal[pick]
        alpha = views.alpha[pick, ..., None]
        if not halve:
            return paint / 255, rest / 255, normal / 127 - 1, alpha / 255
        covered = _quartets((alpha > 0).to(torch.uint8)).clamp(min=1)  # normals count where there is something
        directed = (_quartets(normal) - 4 * 127) / covered / 127
        return _quartets(paint) / 1020, _quartets(rest) / 1020, directed, _quartets(alpha) / 1020

    def _colour(self, mesh: int, generator: Generator) -> str | None:
        """None (the mesh's own colours) for half of the pictures, else a colour that is not held out for this noun."""
        draw = torch.rand(2, generator=generator)
        allowed = [c for c in self.colours if not held_out(c, self.table[mesh].noun)]
        return None if draw[0] < 0.5 else allowed[int(draw[1] * len(allowed))]

    def _repaint(self, paint: Tensor, mesh: Tensor, colour: list[str | None]) -> Tensor:
        """The painted part in its new colour, keeping its light and dark places."""
        brightness = paint.mean(-1, keepdim=True) / self.mean_luma[mesh].clamp(min=0.05)[:, None, None, None]
        new = torch.tensor([COLOURS[c] if c else (0.0, 0.0, 0.0) for c in colour])[:, None, None]
        changed = torch.tensor([c is not None for c in colour])[:, None, None, None]
        return torch.where(changed, (new * brightness).clamp(max=1), paint)

    def _caption(self, mesh: int, colour: str | None, pose: Tensor, white: bool, generator: Generator) -> str:
        draw = torch.rand(3, generator=generator)
        name = described(self.table[mesh], colour, with_adjective=bool(draw[2] < 0.5))
        words = [with_article(FORMS[int(draw[0] * len(FORMS))], name)]
        if draw[1] < 0.85:
            words.append(VIEW_WORDS[side(pose[:3, 3])])
        if white:
            words.append(VIEW_WORDS["textureless"])
        return ", ".join(words)


def degraded(batch: Batch, generator: Generator) -> Float[Tensor, "b c h w"]:
    """The batch's pictures, blurred, half transparent and of a wrong colour; what was told of them stays right.

    Such are the first pictures of a 3D object in the making. A denoiser that never saw them corrects them away from
    what it was told (docs/reference/embedded-prior.md).
    """
    count, size = len(batch.image), batch.image.shape[-2:]
    coarse = F.interpolate(F.avg_pool2d(batch.image, 8), size, mode="bilinear")
    blurred = torch.lerp(batch.image, coarse, torch.rand(count, 1, 1, 1, generator=generator))
    behind = batch.background[:, :, None, None] * 2 - 1
    gain = torch.rand(count, 3, 1, 1, generator=generator) * 1.5 - 0.25
    return behind + gain * (blurred - behind)


def meant_by(table: Sequence[Noun]) -> list[list[int]]:
    """The varieties that stand for each row: the meshes of a noun take turns in all numbers below `VARIETIES`.

    Where a noun has more meshes than there are numbers, the later ones share theirs with the first.
    """
    rows = [row.noun for row in table]
    meant = []
    for index, noun in enumerate(rows):
        rank, count = rows[:index].count(noun), rows.count(noun)
        meant.append([v for v in range(VARIETIES) if v % count == rank] or [rank % VARIETIES])
    return meant


def _any_of(choices: list[int], generator: Generator) -> int:
    return choices[int(torch.randint(len(choices), (), generator=generator))]


def _quartets(pixels: UInt8[Tensor, "b h w c"]) -> Int[Tensor, "b h2 w2 c"]:
    """Sums of two by two pixels."""
    rows = pixels[:, ::2].short() + pixels[:, 1::2].short()
    return rows[:, :, ::2] + rows[:, :, 1::2]


def described(row: Noun, colour: str | None, with_adjective: bool) -> str:
    """A noun's name after its colour and, if it has one that does not contradict the colour, its adjective."""
    fits = with_adjective and not (colour and row.adjective in COLOURED)
    return " ".join(word for word in (colour, row.adjective if fits else "", row.noun) if word)


def with_article(form: str, name: str) -> str:
    """Put `name` into a caption form, with "an" for "a" before a vowel."""
    return form.replace("a {}", "an {}" if name[0] in "aeiou" else "a {}").format(name)


def side(eye: Float[Tensor, "3"]) -> str:
    """Which of front, left, right, back, overhead a camera at `eye` sees."""
    x, y, z = (float(v) for v in eye)
    if np.degrees(np.arctan2(y, np.hypot(x, z))) > OVERHEAD_ABOVE_DEG:
        return "overhead"
    quadrant = int(np.floor((np.degrees(np.arctan2(x, z)) + 45) / 90)) % 4
    return ("front", "left", "back", "right")[quadrant]


def random_lights(pose: Float[Tensor, "b 4 4"], generator: Generator) -> Light:
    """40 % albedo only, 35 % lit, 25 % lit and textureless; lights from around the camera, ambient 0.1 to 0.5."""
    count = len(pose)
    kind, ambient = torch.rand(count, generator=generator), 0.1 + 0.4 * torch.rand(count, generator=generator)
    lit = kind > 0.4
    position = pose[:, :3, 3] + DISTANCE * 0.6 * torch.randn(count, 3, generator=generator)
    ambient = torch.where(lit, ambient, torch.ones(()))
    return Light(position, ambient, torch.where(lit, 1 - ambient, torch.zeros(())), kind > 0.75)


def random_backgrounds(count: int, generator: Generator) -> Float[Tensor, "b 3"]:
    """Plain colours: a random grey, pulled towards a random colour."""
    grey, tint, amount = (torch.rand(count, n, generator=generator) for n in (1, 3, 1))
    return torch.lerp(grey.expand(-1, 3), tint, amount * 0.7)


def shade(
    albedo: Float[Tensor, "b h w 3"], normal: Float[Tensor, "b h w 3"], alpha: Float[Tensor, "b h w 1"], light: Light
) -> Float[Tensor, "b h w 3"]:
    """Ambient plus Lambert from far away, textureless where `light.white`; colours are multiplied by alpha."""
    toward = torch.nn.functional.normalize(light.position, dim=-1)
    lambert = (normal @ toward[:, None, :, None])[..., 0].clamp(min=0)[..., None]
    amount = light.ambient[:, None, None, None] + light.diffuse[:, None, None, None] * lambert
    return torch.where(light.textureless[:, None, None, None], alpha.expand_as(albedo), albedo) * amount
