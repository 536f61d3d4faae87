"""The density of a scene on a regular grid of points, evaluated in occupied cells only."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.errors import UserError
from dreamfusion.nerf.fields import Field, Gaussians, precomputed
from dreamfusion.nerf.scene import Scene

BLUR = 0.015
"""About half a pixel of the small pictures that a prior judges: what is finer than that no view ever confirmed, and it
would show as bumps, where renderings average it out along their rays."""
_BELL = 3.0  # standard deviations at which the bell is cut off
_CHUNK = 1 << 16  # points per evaluation of the field


@dataclass(frozen=True, eq=False)
class DensityGrid:
    """Density at lattice points; outermost it is zero, so that every level set is closed."""

    density: Float[np.ndarray, "x y z"]
    origin: Float[np.ndarray, " 3"]
    """world position of the first point"""
    spacing: float


def density_grid(scene: Scene, resolution: int, blur: float) -> DensityGrid:
    """Density on a grid of `resolution` points per diameter of the scene's sphere, cropped to the occupied cells.

    The field is evaluated in occupied cells inside the sphere; elsewhere renderings are empty, and the density is 0.
    Then it is blurred by a bell of the standard deviation `blur`, in radii of the ball. Four bytes are kept for every
    point in the box of the occupied cells. Raises UserError for a resolution below 8.
    """
    from scipy.ndimage import gaussian_filter  # here, as a run needs it only at its end

    if resolution < 8:
        raise UserError(f"a mesh resolution of {resolution} is too coarse: give at least 8")
    spacing = 2 * scene.radius / (resolution - 1)
    low, high = scene.occupancy.bounds.cpu().double().numpy()
    width = blur * scene.radius / spacing
    margin = int(_BELL * width + 0.5) + 1  # how far the blur reaches, and a layer of zeros
    first = np.floor((low + scene.radius) / spacing).astype(int) - margin
    size = np.ceil((high + scene.radius) / spacing).astype(int) + 1 + margin - first
    origin = first * spacing - scene.radius
    density = np.zeros(size, np.float32)
    x, y, z = (
        torch.from_numpy((start + np.arange(count) * spacing).astype(np.float32)).to(device_of(scene))
        for start, count in zip(origin, size, strict=True)
    )
    inner, field = slice(margin, -margin), precomputed(scene.field)
    for number in range(margin, len(x) - margin):
        layer = torch.stack(torch.meshgrid(x[number], y[inner], z[inner], indexing="ij"), -1)
        found = density_at(scene, field, layer.reshape(-1, 3), spacing)
        density[number, inner, inner] = found.view(layer.shape[:-1]).cpu().numpy()
    gaussian_filter(density, width, output=density, truncate=_BELL)
    return DensityGrid(density, origin, spacing)


@torch.no_grad()
def density_at(scene: Scene, field: Field, points: Float[Tensor, "m 3"], width: float) -> Float[Tensor, " m"]:
    """Density (per unit length) in cubes of edge `width` about `points`; 0 outside the ball and in empty cells.

    `field` is the scene's, prepared for several queries.
    """
    density = points.new_zeros(points.shape[0])
    inside = ((points.square().sum(-1) <= scene.radius**2) & scene.occupancy.mask(points)).nonzero()[:, 0]
    for chunk in inside.split(_CHUNK):
        mean = points[chunk]
        density[chunk] = field.density(Gaussians(mean, torch.full_like(mean, width**2 / 12)))
    return density


def device_of(scene: Scene) -> torch.device:
    """Where the scene's numbers live."""
    return scene.occupancy.occupied.device
