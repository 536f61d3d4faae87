"""Scenes whose surface and colours are known, and a body without any symmetry."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from dreamfusion.config import OccupancyConfig
from dreamfusion.mesh import Mesh
from dreamfusion.mesh import density_grid as lattice
from dreamfusion.mesh.sample import DensityGrid
from dreamfusion.nerf.background import Solid
from dreamfusion.nerf.fields import FieldOutput, Gaussians
from dreamfusion.nerf.occupancy import Occupancy
from dreamfusion.nerf.scene import Scene

RADIUS = 1.0
CENTRE = (0.1, -0.05, 0.02)
Law = Callable[[Tensor], Tensor]


class Known(nn.Module):
    """A field given by formulas for density and albedo."""

    uses_covariance = False

    def __init__(self, density: Law, albedo: Law) -> None:
        super().__init__()
        self.density_law, self.albedo_law = density, albedo

    def density(self, at: Gaussians) -> Tensor:
        return self.density_law(at.mean)

    def evaluate(self, at: Gaussians) -> FieldOutput:
        return FieldOutput(self.density(at), self.albedo_law(at.mean))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {}


def by_place(points: Tensor) -> Tensor:
    return 0.5 + 0.5 * points


def ball(radius: float, centre: tuple[float, float, float] = CENTRE, density: float = 50.0) -> Law:
    return lambda points: density * ((points - points.new_tensor(centre)).norm(dim=-1) < radius)


def soft_ball(radius: float) -> Law:
    """Solid but for a thin skin, so that there are normals."""
    return lambda points: 200.0 * torch.sigmoid(200.0 * (radius - points.norm(dim=-1)))


def bell(peak: float, spread: float) -> Law:
    """Density peak * exp(-r^2 / (2 spread^2))."""
    return lambda points: peak * torch.exp(-points.square().sum(-1) / (2 * spread**2))


def union(*laws: Law) -> Law:
    return lambda points: torch.stack([law(points) for law in laws]).amax(0)


def scene_of(density: Law, albedo: Law = by_place) -> Scene:
    return Scene(Known(density, albedo), Solid(), Occupancy(OccupancyConfig(cells=8), RADIUS), RADIUS)


def density_grid(scene: Scene, resolution: int, blur: float = 0.03) -> DensityGrid:
    """A lattice of sharp things that is blurred about as widely as its coarsest cells are apart."""
    return lattice(scene, resolution, blur)


def lopsided() -> Mesh:
    """A tetrahedron without symmetry: 0.6 wide, 0.9 high, 0.3 deep; each face has a corner of the texture to itself.

    The texture's corners are red (bottom left), green (bottom right), blue (top left) and white (top right).
    """
    vertices = np.array([[0, 0, 0], [0.6, 0, 0.1], [0.1, 0.9, 0.2], [0.2, 0.1, 0.3]], np.float32) - 0.2
    faces = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [0, 3, 2]])
    corner = np.array([[0, 0], [0.3, 0], [0, 0.2]], np.float32) + 0.1
    places = np.array([[0, 0], [0.5, 0], [0, 0.5], [0.5, 0.5]], np.float32)
    uv = corner + places[:, None]
    texture = np.zeros((64, 64, 3), np.uint8)
    texture[32:, :32], texture[32:, 32:] = (255, 0, 0), (0, 255, 0)
    texture[:32, :32], texture[:32, 32:] = (0, 0, 255), (255, 255, 255)
    colours = np.array([[1, 0, 0], [0, 0.5, 0], [0, 0, 0.2], [1, 1, 0]], np.float32)
    return Mesh(vertices, faces, colours, uv, texture, normal_map=np.full_like(texture, (128, 128, 255)))


FACE_COLOURS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]])
