"""The pictures that results are judged by: eight azimuths, 30 degrees above the horizon, three kinds of light."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreamfusion.cameras import Cameras, evaluation_ring
from dreamfusion.errors import damage_explained
from dreamfusion.files import permitted, replacing
from dreamfusion.geometry import normalise
from dreamfusion.lights import Light, albedo_only, key_light
from dreamfusion.nerf.render import RenderOptions, render_views
from dreamfusion.nerf.scene import Scene
from dreamfusion.video import to_bytes

VIEWS, SIZE = 8, 128
ELEVATION, FOV_Y = math.radians(30), math.radians(40)
BACKDROP = 0.7
"""grey level behind the object: none of the colour words"""
KINDS = ("albedo", "shaded", "textureless")


@dataclass(frozen=True, eq=False)
class Views:
    """What is seen of a scene, or of a thing, from the eight sides."""

    pictures: Float[Tensor, "k 8 h w 3"]
    """before the backdrop: all `KINDS`, or the first of them alone"""
    normal: Float[Tensor, "8 h w 3"]
    """in the world; of length 1 where there is something, of any elsewhere"""
    opacity: Float[Tensor, "8 h w"]


def cameras(radius: float, size: int = SIZE) -> Cameras:
    """Once around, the front first, from where a ball of `radius` just fills the picture."""
    return evaluation_ring(VIEWS, ELEVATION, radius / math.sin(FOV_Y / 2), FOV_Y, size)


def lights(ring: Cameras) -> dict[str, Light]:
    """Lights by kind: albedo only, shaded, and shaded with albedo 1 (textureless)."""
    return {
        "albedo": albedo_only(len(ring), ring.pose.device),
        "shaded": key_light(ring, textureless=False),
        "textureless": key_light(ring, textureless=True),
    }


def evaluation_views(scene: Scene, options: RenderOptions, size: int = SIZE) -> Views:
    """A scene in all kinds of light."""
    ring = cameras(scene.radius, size).to(scene.occupancy.density.device).about(scene.centre)
    behind = torch.full_like(ring.position, BACKDROP)
    seen = {kind: render_views(scene, ring, light, options, behind) for kind, light in lights(ring).items()}
    surface = seen["shaded"]
    assert surface.normal is not None  # because it is lit
    pictures = torch.stack([seen[kind].rgb.cpu() for kind in KINDS])
    return Views(pictures, normalise(surface.normal.cpu()), surface.opacity.cpu())


def sheet(rows: Float[Tensor, "k v h w 3"]) -> Image.Image:
    """All pictures on one page."""
    return Image.fromarray(to_bytes(rows.permute(0, 2, 1, 3, 4).flatten(0, 1).flatten(1, 2)))


def read_sheet(path: Path, rows: int, mode: str, advice: str) -> Float[Tensor, "{rows} 8 h w c"]:
    """The pictures of a page in a file, in steps of 1/255. Raises UserError, which ends in `advice`, if it cannot be
    read."""
    with damage_explained(path, advice):
        with permitted(path), Image.open(path) as file:
            page = np.asarray(file.convert(mode))
        tiles = torch.from_numpy(page.copy()).view(rows, SIZE, VIEWS, SIZE, len(mode))
    return tiles.permute(0, 2, 1, 3, 4).float() / 255


def save_views(views: Views, path: Path) -> None:
    """One picture, PNG or WebP: a row for each kind of light and one of the normals, whose alpha channel is the
    opacity; a column for each azimuth."""
    page = sheet(torch.cat([views.pictures, views.normal[None] / 2 + 0.5]))
    opacity = views.opacity[None, ..., None].expand_as(views.pictures[:1])
    page.putalpha(sheet(torch.cat([torch.ones_like(views.pictures), opacity])).getchannel(0))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part:
        page.save(part, lossless=True, method=6)  # which PNG takes no notice of


def read_views(path: Path, kinds: int = len(KINDS), advice: str = "delete it, and it will be made again") -> Views:
    """What `save_views` wrote. Raises UserError as `read_sheet`."""
    rows = read_sheet(path, kinds + 1, "RGBA", advice)
    return Views(rows[:-1, ..., :3], rows[-1, ..., :3] * 2 - 1, rows[-1, ..., 3])
