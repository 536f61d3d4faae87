"""Pictures of the contrastive model: its views painted, lit, moved, and put before backgrounds, by laws of its own.

Nothing here is shared with the pictures of the prior or of the judge but what the colour words mean.
"""

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor
from torch.nn import functional as F

from dreamfusion.embedded.world import COLOURS
from training.clip.backgrounds import backgrounds, blurred
from training.clip.captions import NONE, Facts
from training.clip.views import SIDES, SIZE
from training.mesh_views import Views

PAINT, REST, NORMAL, ALPHA = slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)
"""where they lie among the channels of the buffers"""
LUMA = torch.tensor([0.30, 0.59, 0.11])
PALETTE = torch.tensor(list(COLOURS.values()))
MIRRORED = torch.tensor([SIDES.index({"left": "right", "right": "left"}.get(side, side)) for side in SIDES])


@dataclass(frozen=True)
class Look:
    """How pictures look; probabilities, except where something else is said."""

    painted: float = 0.55
    """that the main colour is one of the colour words, where there is texture"""
    textureless: float = 0.3
    flat: float = 0.25
    """that a picture with texture shows the albedo, without light"""
    soft: float = 0.25
    """that the object's edges are blurred, it lets the background through, and the picture is noisy"""
    toned: float = 0.3
    """that the picture's contrast, brightness and saturation are off"""
    zoom: tuple[float, float] = (0.85, 1.6)
    """size of the picture against the ball around the object, from ... to"""
    shift: float = 0.8
    """of the room that there is around the object, the share in which it is moved"""
    roll_deg: float = 12.0
    """greatest"""
    plain: float = 0.5
    """that the background is one colour; the others have noise, squares or waves"""


TRAINING = Look()
SIMPLE = Look(soft=0.0, toned=0.0, zoom=(1.0, 1.3), shift=0.3, roll_deg=0.0, plain=1.0)
"""whole objects near the middle, before one colour"""


def eased(look: Look, hardness: float) -> Look:
    """Between `SIMPLE` pictures (0) and those of `look` (1) in all that makes a thing hard to see."""

    def between(name: str) -> float:
        return getattr(SIMPLE, name) + hardness * (getattr(look, name) - getattr(SIMPLE, name))

    zoom = [low + hardness * (high - low) for low, high in zip(SIMPLE.zoom, look.zoom, strict=True)]
    names = ("soft", "toned", "shift", "roll_deg", "plain")
    return replace(look, zoom=(zoom[0], zoom[1]), **{name: between(name) for name in names})


@torch.no_grad()
def draw(
    views: Views,
    adjective_of: Int[Tensor, " meshes"],
    look: Look,
    generator: Generator,
    colour: Int[Tensor, " b"] | None = None,
) -> tuple[Float[Tensor, "b 3 h w"], Facts]:
    """One picture in [0, 1] of each of the views, and what is known of it.

    `colour`: what the main colours are to be, by number among the colour words, or `NONE`; by default it is drawn.
    """
    count = len(views)
    chance = torch.rand(6, count, generator=generator)
    textureless = chance[0] < look.textureless
    flat, mirrored = (chance[1] < look.flat) & ~textureless, chance[2] < 0.5
    if colour is None:
        painted = chance[3] < look.painted
        colour = torch.where(painted, torch.randint(len(PALETTE), (count,), generator=generator), NONE)
    colour = torch.where(textureless, NONE, colour)
    buffers = views.buffers().float().mul_(1 / 255)
    surface = _coloured(buffers, colour, textureless, generator)
    surface *= _light(buffers[:, NORMAL], views.eye, flat, generator)
    layer = torch.cat([surface.clamp_(max=1), buffers[:, ALPHA]], dim=1)
    layer = _moved(layer, mirrored, look, generator)
    soft = chance[4] < look.soft
    layer[soft] = _softened(layer[soft], generator)
    behind = backgrounds(count, look.plain, SIZE, generator)
    image = layer[:, :3].add_(behind.mul_(1 - layer[:, 3:]))
    toned = chance[5] < look.toned
    image[toned] = _toned(image[toned], generator)
    image[soft] += (
        0.05
        * _each(torch.rand(int(soft.sum()), generator=generator))
        * torch.randn(int(soft.sum()), 3, SIZE, SIZE, generator=generator)
    )
    side = torch.where(mirrored & (views.side != NONE), MIRRORED[views.side.clamp(min=0)], views.side)
    return image.clamp_(0, 1), Facts(views.noun, colour, adjective_of[views.mesh], side, textureless.long())


def _coloured(
    buffers: Float[Tensor, "b 10 h w"],
    colour: Int[Tensor, " b"],
    textureless: Bool[Tensor, " b"],
    generator: Generator,
) -> Float[Tensor, "b 3 h w"]:
    """Albedo times coverage: a linear map of the buffers' channels."""
    count = len(buffers)
    draws = torch.rand(count, 8, generator=generator)
    brightness = (buffers[:, PAINT] * LUMA[:, None, None]).sum(1)
    mean = brightness.sum((1, 2)) / (brightness > 0.02).sum((1, 2)).clamp(min=1)
    new = PALETTE[colour.clamp(min=0)] * (0.8 + 0.4 * draws[:, :1]) + 0.12 * (draws[:, 1:4] - 0.5)
    repaint = (new.clamp(min=0) / mean.clamp(min=0.05)[:, None])[:, :, None] * LUMA
    own = torch.diag_embed(0.85 + 0.3 * draws[:, 4:7])
    mix = torch.zeros(count, 3, buffers.shape[1])
    mix[:, :, PAINT] = torch.where((colour == NONE)[:, None, None], own, repaint)
    mix[:, :, REST] = own
    mix[textureless] = 0
    mix[:, :, ALPHA] = ((0.5 + 0.5 * draws[:, 7]) * textureless)[:, None, None].expand(-1, 3, 1)
    return (mix @ buffers.flatten(2)).unflatten(2, buffers.shape[2:]).clamp_(0, 1)


def _light(
    normal: Float[Tensor, "b 3 h w"], eye: Float[Tensor, "b 3"], flat: Bool[Tensor, " b"], generator: Generator
) -> Float[Tensor, "b 1 h w"]:
    """Brightness under a sky that is darker below and one sun, by the camera or anywhere above; 1 where `flat`.

    `normal` as the buffers have it: 0..254 / 255 for -1..1.
    """
    count = len(eye)
    draws, away = torch.rand(count, 3, generator=generator), torch.randn(count, 3, generator=generator)
    sun = F.normalize(eye + (0.2 + 1.2 * draws[:, :1]) * away, dim=-1)
    sky = torch.where(flat, 1.0, 0.15 + 0.45 * draws[:, 1])
    below = torch.where(flat, 0.0, 0.5 * draws[:, 2]) * sky
    across = torch.zeros(count, 2, 3)
    across[:, 0] = sun * torch.where(flat, 0.0, 1.05 - sky)[:, None]
    across[:, 1, 1] = below / 2
    along = (across * (255 / 127)) @ normal.flatten(2) - across.sum(2, keepdim=True)
    light = along[:, :1].clamp_(min=0) + along[:, 1:] + (sky - below / 2)[:, None, None]
    return light.unflatten(2, normal.shape[2:])


def _moved(
    layer: Float[Tensor, "b 4 h w"], mirrored: Bool[Tensor, " b"], look: Look, generator: Generator
) -> Float[Tensor, "b 4 h w"]:
    """Smaller or larger, elsewhere, tilted, and as in a mirror."""
    u = torch.rand(4, len(layer), generator=generator)
    zoom = look.zoom[0] * (look.zoom[1] / look.zoom[0]) ** u[0]
    roll = math.radians(look.roll_deg) * (2 * u[1] - 1)
    room = (zoom - 0.8).clamp(min=0) * look.shift
    sign = torch.where(mirrored, -1.0, 1.0)
    theta = torch.stack(
        [
            *(zoom * roll.cos() * sign, -zoom * roll.sin() * sign, room * (2 * u[2] - 1)),
            *(zoom * roll.sin(), zoom * roll.cos(), room * (2 * u[3] - 1)),
        ],
        dim=1,
    ).view(-1, 2, 3)
    grid = F.affine_grid(theta, list(layer.shape), align_corners=False)
    return F.grid_sample(layer, grid, align_corners=False)


def _softened(layer: Float[Tensor, "b 4 h w"], generator: Generator) -> Float[Tensor, "b 4 h w"]:
    """As volumes look: blurred by up to 1.5 pixels, and half of them thin enough to see through."""
    sigma, opacity = torch.rand(2, len(layer), generator=generator)
    opacity = torch.where(opacity < 0.5, 0.6 + 0.8 * opacity, 1.0)
    return blurred(layer, 1.5 * sigma) * _each(opacity)


def _toned(image: Float[Tensor, "b 3 h w"], generator: Generator) -> Float[Tensor, "b 3 h w"]:
    """Another contrast, brightness and saturation."""
    contrast, brightness, saturation = (_each(one) for one in torch.rand(3, len(image), generator=generator))
    grey = (image * LUMA[:, None, None]).sum(1, keepdim=True)
    image = torch.lerp(grey.expand_as(image), image, 0.6 + 0.8 * saturation)
    return (image - 0.5) * (0.7 + 0.6 * contrast) + (0.5 + 0.2 * (brightness - 0.5))


def _each(values: Tensor) -> Tensor:
    """One value per picture, spread over its pixels."""
    return values[:, None, None, None]
