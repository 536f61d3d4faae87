"""The pictures that results are judged by: eight azimuths, 30 degrees above the horizon, three kinds of light."""

import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from dreamfusion.cameras import Cameras, evaluation_ring
from dreamfusion.errors import damage_explained
from dreamfusion.files import permitted
from dreamfusion.lights import Light, albedo_only, key_light
from dreamfusion.nerf.render import RenderOptions, render_views
from dreamfusion.nerf.scene import Scene
from dreamfusion.video import to_bytes, write_png

VIEWS, SIZE = 8, 128
ELEVATION, FOV_Y = math.radians(30), math.radians(40)
BACKDROP = 0.7
"""grey level behind the object: none of the colour words"""
KINDS = ("albedo", "shaded", "textureless")


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


def evaluation_views(scene: Scene, options: RenderOptions) -> Float[Tensor, "3 8 h w 3"]:
    """All kinds of pictures of a scene, in the order of `KINDS`."""
    ring = cameras(scene.radius).to(scene.occupancy.density.device)
    behind = torch.full_like(ring.position, BACKDROP)
    light_of = lights(ring)
    return torch.stack([render_views(scene, ring, light_of[kind], options, behind).rgb.cpu() for kind in KINDS])


def save_views(pictures: Float[Tensor, "k v h w 3"], path: Path) -> None:
    """One PNG: a row for each kind, a column for each azimuth."""
    kinds, views, height, width, _ = pictures.shape
    write_png(to_bytes(pictures.permute(0, 2, 1, 3, 4).reshape(kinds * height, views * width, 3)), path)


def read_views(path: Path) -> Float[Tensor, "3 8 h w 3"]:
    """What `save_views` wrote. Raises UserError if the file cannot be read."""
    with damage_explained(path, "delete it, and it will be made again"):
        with permitted(path), Image.open(path) as file:
            page = np.asarray(file.convert("RGB"))
        grid = torch.from_numpy(page.copy()).view(len(KINDS), SIZE, VIEWS, SIZE, 3)
    return grid.permute(0, 2, 1, 3, 4).float() / 255
