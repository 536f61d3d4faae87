"""The judge's pictures: its buffers painted, lit, softened and put before backgrounds, by laws of its own.

Nothing here is shared with the pictures that the prior learns from except what the colour words mean.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from dreamfusion.embedded.world import COLOURS
from dreamfusion.evaluate.judge.sides import MIRRORED
from training.judge.views import Views
from training.views import BUFFERS

LAMPS = 3
TINT = 0.2
"""standard deviation of the numbers by which colours are mixed anew"""
PALETTE = torch.tensor(list(COLOURS.values()))
UNPAINTED = -100
"""colour of a picture that was not painted with a colour word; cross entropy leaves it out"""


@dataclass(frozen=True)
class Look:
    """How pictures look; probabilities, except where something else is said."""

    painted: float = 0.5
    """that the main colour is changed to one of the colour words, where the texture is seen"""
    tinted: float = 0.3
    """that all other colours are mixed anew"""
    textureless: float = 0.3
    flat: float = 0.25
    """that a picture with texture shows the albedo, without light"""
    soft: float = 0.3
    """that it is blurred, translucent, noisy, and its contrast and saturation are off"""
    noise: float = 0.03
    """greatest standard deviation of the pixels' noise, where it is soft"""
    shift: int = 5
    """pixels by which a batch may be off to any side"""


TRAINING = Look()
CLEAN = Look(tinted=0.0, soft=0.0, shift=0)
"""what accuracy is measured on, with a `textureless` of 0 or 1"""


@dataclass(frozen=True, eq=False)
class Batch:
    """Pictures in [0, 1] and the truth about them."""

    image: Float[Tensor, "b 3 h w"]
    noun: Int[Tensor, " b"]
    colour: Int[Tensor, " b"]
    """number in `COLOURS`, or `UNPAINTED`"""
    side: Int[Tensor, " b"]


def draw(views: Views, look: Look, generator: Generator) -> Batch:
    """One picture of each of the views."""
    views, chance = _shifted(views, look.shift, generator), _Chance(len(views.noun), generator)
    textureless, flat, painted = chance(look.textureless), chance(look.flat), chance(look.painted)
    mixture = mixtures(chance(look.tinted), generator)
    painted, soft, mirrored = painted & ~textureless, chance(look.soft), chance(0.5)
    colour = torch.where(painted, torch.randint(len(PALETTE), (len(views.noun),), generator=generator), UNPAINTED)
    rest, paint = (mixed(colours / 255, mixture) for colours in (views.rest, views.paint))
    albedo = rest + torch.where(_wide(painted), repaint(views.paint / 255, colour, generator), paint)
    alpha = views.alpha / 255
    brightness = torch.where(_wide(flat & ~textureless), 1.0, lit(views, generator))
    surface = torch.where(_wide(textureless), alpha, albedo)
    shaded = surface * brightness
    cut_out = _softened(torch.cat([shaded, alpha], dim=1), soft, generator)
    image = cut_out[:, :3] + (1 - cut_out[:, 3:]) * backgrounds(alpha.shape[0], alpha.shape[2], generator)
    image = _as_filmed(image, soft, look.noise, generator)
    return Batch(
        image=torch.where(_wide(mirrored), image.flip(-1), image),
        noun=views.noun,
        colour=colour,
        side=torch.where(mirrored, MIRRORED[views.side], views.side),
    )


def balanced(noun: Int[Tensor, " n"], count: int, generator: Generator) -> Int[Tensor, " {count}"]:
    """`count` random places in `noun`, every noun as often as every other."""
    weight = 1 / torch.bincount(noun)[noun].double()
    return torch.multinomial(weight, count, replacement=True, generator=generator)


def repaint(
    paint: Float[Tensor, "b 3 h w"], colour: Int[Tensor, " b"], generator: Generator
) -> Float[Tensor, "b 3 h w"]:
    """The painted part in a colour near the named one, its light and dark places kept; unpainted ones as they are."""
    luma = paint.mean(1, keepdim=True)
    mean = luma.sum((2, 3), keepdim=True) / (luma > 0.03).sum((2, 3), keepdim=True).clamp(min=1)
    draws = torch.randn(len(paint), 4, generator=generator)
    new = PALETTE[colour.clamp(min=0)] * (1 + 0.12 * draws[:, :1]) + 0.04 * draws[:, 1:]
    fresh = (new[:, :, None, None] * luma / mean.clamp(min=0.05)).clamp(0, 1)
    return torch.where(_wide(colour != UNPAINTED), fresh, paint)


def mixtures(tinted: Bool[Tensor, " b"], generator: Generator) -> Float[Tensor, "b 3 3"]:
    """How red, green and blue are made of red, green and blue: as before, but where `tinted`."""
    noise = TINT * torch.randn(len(tinted), 3, 3, generator=generator)
    return torch.eye(3) + noise * tinted[:, None, None]


def mixed(colours: Float[Tensor, "b 3 h w"], mixture: Float[Tensor, "b 3 3"]) -> Float[Tensor, "b 3 h w"]:
    """Every colour in a new mixture, within its range."""
    return (mixture @ colours.flatten(2)).view_as(colours).clamp(0, 1)


def lit(views: Views, generator: Generator) -> Float[Tensor, "b 1 h w"]:
    """Brightness under ambient light and one to three lamps on the camera's half of the sky, far away."""
    count = len(views.noun)
    ambient = 0.15 + 0.5 * torch.rand(count, generator=generator)
    power = torch.rand(count, LAMPS, generator=generator).pow(3)
    power = (1.1 - ambient)[:, None] * power / power.sum(1, keepdim=True).clamp(min=1e-6)
    eye = F.normalize(views.eye, dim=-1)[:, None]
    toward = F.normalize(eye + 0.7 * torch.randn(count, LAMPS, 3, generator=generator), dim=-1)
    normal = (views.normal.flatten(2) / 127 - 1).transpose(1, 2)
    lambert = (normal @ toward.transpose(1, 2)).clamp(min=0) @ power[:, :, None]
    return (ambient[:, None, None] + lambert).transpose(1, 2).view_as(views.alpha)


def backgrounds(count: int, size: int, generator: Generator) -> Float[Tensor, "{count} 3 {size} {size}"]:
    """Plain greys, seven in ten; plain colours; gradients of them, one in ten."""
    corners = torch.rand(count, 3, 2, 2, generator=generator)
    kind = torch.rand(count, 1, 1, 1, generator=generator)
    corners = torch.where(kind < 0.9, corners[:, :, :1, :1], corners)
    corners = torch.where(kind < 0.7, corners[:, :1], corners)
    return F.interpolate(corners, (size, size), mode="bilinear", align_corners=True)


def _shifted(views: Views, pixels: int, generator: Generator) -> Views:
    """All views moved together by up to so many pixels: the objects of the judge's views leave room for it."""
    by = tuple(torch.randint(-pixels, pixels + 1, (2,), generator=generator).tolist())
    moved = {name: torch.roll(getattr(views, name), by, (-2, -1)) for name in BUFFERS}
    return replace(views, **moved)


def _softened(
    cut_out: Float[Tensor, "b 4 h w"], soft: Bool[Tensor, " b"], generator: Generator
) -> Float[Tensor, "b 4 h w"]:
    """Blurred and translucent, as volumes are."""
    amount = soft * torch.rand(2, len(soft), generator=generator)
    blurred = F.avg_pool2d(F.avg_pool2d(cut_out, 3, stride=1, padding=1), 3, stride=1, padding=1)
    return torch.lerp(cut_out, blurred, _wide(amount[0])) * _wide(1 - 0.4 * amount[1].square())


def _as_filmed(
    image: Float[Tensor, "b 3 h w"], soft: Bool[Tensor, " b"], noise: float, generator: Generator
) -> Float[Tensor, "b 3 h w"]:
    """Contrast and saturation off by up to a half, noise of up to the given standard deviation, where soft."""
    spread, contrast, saturation = torch.rand(3, len(soft), generator=generator)
    grey = image.mean(1, keepdim=True)
    image = torch.where(_wide(soft), torch.lerp(grey, image, _wide(0.6 + 0.9 * saturation)), image)
    image = torch.where(_wide(soft), (image - 0.5) * _wide(0.7 + 0.6 * contrast) + 0.5, image)
    image = image + _wide(noise * spread * soft) * torch.randn(image.shape, generator=generator)
    return image.clamp(0, 1)


class _Chance:
    """Independent events, one for each picture."""

    def __init__(self, count: int, generator: Generator):
        self.count, self.generator = count, generator

    def __call__(self, probability: float) -> Bool[Tensor, " b"]:
        return torch.rand(self.count, generator=self.generator) < probability


def _wide(values: Tensor) -> Tensor:
    """One value per picture, spread over its pixels."""
    return values[:, None, None, None]
