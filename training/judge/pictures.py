"""The judge's pictures: its buffers painted, lit, softened and put before backgrounds, by laws of its own.

Nothing here is shared with the pictures that the prior learns from except what the colour words mean. Painting and
lighting are linear in the buffers, so one product of matrices makes both; the rest keeps to few passes over pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from dreamfusion.embedded.world import COLOURS
from dreamfusion.evaluate.judge.network import OWN, before
from dreamfusion.evaluate.judge.sides import MIRRORED
from training.mesh_views import Views

PAINT, REST, NORMAL, ALPHA = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)
"""where they lie among the channels of the buffers"""
LAMPS = 2
TINT = 0.12
"""standard deviation of the numbers by which colours are mixed anew"""
USUAL_GREY = (0.6, 0.9)
PALETTE = torch.tensor(list(COLOURS.values()))
UNSEEN = -100
"""colour of a picture without texture; cross entropy leaves it out"""


@dataclass(frozen=True)
class Look:
    """How pictures look; probabilities, except where something else is said."""

    painted: float = 0.5
    """that the main colour is changed to one of the colour words, where the texture is seen"""
    tinted: float = 0.3
    """that all other colours are mixed anew"""
    textureless: float = 0.35
    flat: float = 0.25
    """that a picture with texture shows the albedo, without light"""
    soft: float = 0.35
    """that it is blurred, blotchy and noisy, and its contrast and saturation are off"""
    noise: float = 0.03
    """greatest standard deviation of the pixels' noise, where it is soft"""
    shift: int = 3
    """pixels by which a batch may be off to any side"""


TRAINING = Look()
CLEAN = Look(tinted=0.0, soft=0.0, shift=0)
"""what accuracy is measured on, with a `textureless` of 0 or 1"""


@dataclass(frozen=True, eq=False)
class Batch:
    """What the judge's eye cuts out of pictures, and the truth about them."""

    cut: Float[Tensor, "b 4 h w"]
    mesh: Int[Tensor, " b"]
    noun: Int[Tensor, " b"]
    colour: Int[Tensor, " b"]
    """number in `COLOURS`, `OWN` or `UNSEEN`"""
    side: Int[Tensor, " b"]


def draw(views: Views, look: Look, generator: Generator) -> Batch:
    """One picture of each of the views."""
    count, chance = len(views.noun), _Chance(len(views.noun), generator)
    buffers = _shifted(views.buffers(), look.shift, generator).float().mul_(1 / 255)
    textureless, flat, painted = chance(look.textureless), chance(look.flat), chance(look.painted)
    mixture = mixtures(chance(look.tinted), generator)
    soft, mirrored = chance(look.soft), chance(0.5)
    colour = torch.where(painted, torch.randint(OWN, (count,), generator=generator), OWN)
    colour = torch.where(textureless, UNSEEN, colour)
    paint = torch.where(_matrix(colour < OWN), repaint(buffers[:, PAINT], colour, generator), mixture)
    paint, rest = (matrix * ~_matrix(textureless) for matrix in (paint, mixture))
    white = _matrix(textureless).expand(-1, 3, 1).float()
    surface = _product(torch.cat([paint, rest, torch.zeros(count, 3, 3), white], dim=2), buffers).clamp_(0, 1)
    shaded = surface.mul_(lit(views.eye, buffers[:, NORMAL], flat & ~textureless, generator)).clamp_(max=1)
    background = backgrounds(count, generator)
    differs = shaded.sub_(buffers[:, ALPHA] * background)
    differs[soft] = _softened(differs[soft], background[soft], look.noise, generator)
    differs[mirrored] = differs[mirrored].flip(-1)
    return Batch(
        cut=before(background, differs),
        mesh=views.mesh,
        noun=views.noun,
        colour=colour,
        side=torch.where(mirrored, MIRRORED[views.side], views.side),
    )


def repaint(paint: Float[Tensor, "b 3 h w"], colour: Int[Tensor, " b"], generator: Generator) -> Float[Tensor, "b 3 3"]:
    """The matrix that gives the painted part a colour near the named one and keeps its light and dark places."""
    luma = paint.mean(1)
    mean = luma.sum((1, 2)) / (luma > 0.03).sum((1, 2)).clamp(min=1)
    draws = torch.randn(len(paint), 4, generator=generator)
    new = PALETTE[colour.clamp(0, OWN - 1)] * (1 + 0.12 * draws[:, :1]) + 0.04 * draws[:, 1:]
    return (new / mean.clamp(min=0.05)[:, None])[:, :, None].expand(-1, 3, 3) / 3


def mixtures(tinted: Bool[Tensor, " b"], generator: Generator) -> Float[Tensor, "b 3 3"]:
    """How red, green and blue are made of red, green and blue: as before, but where `tinted`."""
    noise = TINT * torch.randn(len(tinted), 3, 3, generator=generator)
    return torch.eye(3) + noise * _matrix(tinted)


def lit(
    eye: Float[Tensor, "b 3"], normal: Float[Tensor, "b 3 h w"], flat: Bool[Tensor, " b"], generator: Generator
) -> Float[Tensor, "b 1 h w"]:
    """Brightness under ambient light and one or two lamps on the camera's half of the sky, far away; 1 where `flat`.

    `normal` in [0, 1], as the buffers have it.
    """
    count = len(eye)
    ambient = torch.where(flat, 1.0, 0.1 + 0.5 * torch.rand(count, generator=generator))
    power = torch.rand(count, LAMPS, generator=generator).pow(3)
    power = (1.1 - ambient)[:, None] * power / power.sum(1, keepdim=True).clamp(min=1e-6)
    power *= ~flat[:, None]
    spread = torch.tensor([0.3, 0.9])[torch.randint(2, (count, 1, 1), generator=generator)]
    toward = F.normalize(eye, dim=-1)[:, None] + spread * torch.randn(count, LAMPS, 3, generator=generator)
    toward = F.normalize(toward, dim=-1) * power[:, :, None]
    lambert = _product(toward * (255 / 127), normal).sub_(toward.sum(2)[:, :, None, None]).relu_()
    return lambert.sum(1, keepdim=True).add_(_wide(ambient))


def backgrounds(count: int, generator: Generator) -> Float[Tensor, "{count} 3 1 1"]:
    """Greys as evaluations have behind things, six in ten; any greys, two in ten; any colours."""
    colour, kind = torch.rand(count, 3, generator=generator), torch.rand(count, 1, generator=generator)
    low, high = USUAL_GREY
    usual = low + (high - low) * colour[:, :1]
    return torch.where(kind < 0.6, usual, torch.where(kind < 0.8, colour[:, :1], colour))[:, :, None, None]


def _shifted(buffers: Tensor, pixels: int, generator: Generator) -> Tensor:
    """All moved together by up to so many pixels: the cut-outs leave room for it."""
    by = tuple(torch.randint(-pixels, pixels + 1, (2,), generator=generator).tolist())
    return torch.roll(buffers, by, (-2, -1)) if any(by) else buffers


def _softened(
    differs: Float[Tensor, "b 3 h w"], background: Float[Tensor, "b 3 1 1"], noise: float, generator: Generator
) -> Float[Tensor, "b 3 h w"]:
    """As volumes look: blurred, blotchy, noisy, fainter or stronger against the background, saturation off."""
    count, size = len(differs), differs.shape[-1]
    amount, spread, blotch, contrast, saturation = (_wide(one) for one in torch.rand(5, count, generator=generator))
    coarse = F.avg_pool2d(differs, 3, stride=2, padding=1)
    differs = torch.lerp(differs, F.interpolate(coarse, (size, size), mode="bilinear"), amount)
    grey = differs.mean(1, keepdim=True)
    differs = torch.lerp(grey, differs, 0.6 + 0.8 * saturation).mul_(0.6 + 0.7 * contrast)
    blotches = torch.randn(count, 1, size // 8, size // 8, generator=generator) * (0.2 * blotch)
    blotches = F.interpolate(blotches, (size, size), mode="bilinear") * (grey.abs() > 0.02)
    grain = torch.randn(count, 1, size, size, generator=generator) * (noise * spread)
    image = differs.add_(background).mul_(1 + blotches).add_(grain)
    return image.clamp_(0, 1).sub_(background)


class _Chance:
    """Independent events, one for each picture."""

    def __init__(self, count: int, generator: Generator):
        self.count, self.generator = count, generator

    def __call__(self, probability: float) -> Bool[Tensor, " b"]:
        return torch.rand(self.count, generator=self.generator) < probability


def _product(matrix: Float[Tensor, "b m k"], planes: Float[Tensor, "b k h w"]) -> Float[Tensor, "b m h w"]:
    return (matrix @ planes.flatten(2)).unflatten(2, planes.shape[2:])


def _wide(values: Tensor) -> Tensor:
    """One value per picture, spread over its pixels."""
    return values[:, None, None, None]


def _matrix(values: Tensor) -> Tensor:
    """One value per picture, spread over its matrix."""
    return values[:, None, None]
