"""EMA occupancy grid used to skip empty space."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from dreamfusion.config import OccupancyConfig
from dreamfusion.nerf.fields import Field, Gaussians


class Occupancy(nn.Module):
    """Decayed maximum of the density on a grid over the cube [-radius, radius]^3.

    All state is in buffers and so in checkpoints. Cells count as occupied until their first update.
    """

    density: Tensor  # "cells^3", axes in the order z, y, x
    occupied: Tensor  # likewise, bool
    phase: Tensor  # which share of the cells is refreshed next
    bounds: Tensor  # "2 3", the corners of the box around all occupied cells; a point if there are none

    def __init__(self, config: OccupancyConfig, radius: float) -> None:
        super().__init__()
        self.config = config
        self.radius = radius
        self.register_buffer("density", torch.full((config.cells**3,), torch.inf))
        self.register_buffer("occupied", torch.ones(config.cells**3, dtype=torch.bool))
        self.register_buffer("phase", torch.zeros((), dtype=torch.long))
        self.register_buffer("bounds", torch.tensor([[-radius] * 3, [radius] * 3]))

    @torch.no_grad()
    def update(self, field: Field, generator: Generator, parts: int = 1) -> None:
        """Evaluate the field at one random point of every `parts`-th cell; `parts` calls in a row reach all cells."""
        every = torch.arange(0, self.config.cells**3, parts, device=self.phase.device)
        cell = (every + self.phase % parts) % self.config.cells**3
        place = self._point_in(cell, generator)
        fresh = field.density(Gaussians(mean=place, var=torch.zeros_like(place))).to(self.density)
        old = self.density[cell]
        self.density[cell] = torch.where(old.isinf(), fresh, torch.maximum(old * self.config.decay, fresh))
        self.phase += 1
        self.occupied.copy_(_widened(self.density > self.config.threshold, self.config))
        self.bounds.copy_(self._box())

    def mask(self, points: Float[Tensor, "*m 3"]) -> Bool[Tensor, "*m"]:
        """Whether the points lie in occupied cells; points outside the cube take its border's cells."""
        cells = self.config.cells
        scaled = points * (0.5 * cells / self.radius) + 0.5 * cells
        x, y, z = scaled.clamp_(0, cells - 1).int().unbind(-1)  # `int` rounds towards zero: the cell's number
        return self.occupied[(z * cells + y) * cells + x]

    def occupied_fraction(self) -> Float[Tensor, ""]:
        """Fraction of the cells that are occupied, in [0, 1]."""
        return self.occupied.float().mean()

    def _box(self) -> Float[Tensor, "2 3"]:
        cells = self.config.cells
        cube = self.occupied.view(cells, cells, cells)
        number = torch.arange(cells, device=cube.device)
        ends = []
        for others in ((0, 1), (0, 2), (1, 2)):  # what is left is x, y, z
            there = cube.any(others[1]).any(others[0])
            low, high = number.where(there, cells).amin(), number.where(there, -1).amax() + 1
            ends.append(torch.stack([torch.minimum(low, high), high]))
        return torch.stack(ends, dim=1) * (2 * self.radius / cells) - self.radius

    def _point_in(self, cell: Int[Tensor, " m"], generator: Generator) -> Float[Tensor, "m 3"]:
        cells = self.config.cells
        corner = torch.stack([cell % cells, cell // cells % cells, cell // cells**2], dim=-1)
        jitter = torch.rand(corner.shape, generator=generator, device=generator.device).to(self.density)
        return (corner + jitter) * (2 * self.radius / cells) - self.radius


def _widened(occupied: Bool[Tensor, " v"], config: OccupancyConfig) -> Bool[Tensor, " v"]:
    reached = occupied.view(1, 1, config.cells, config.cells, config.cells).float()
    width, margin = 2 * config.margin + 1, config.margin
    for axis in range(3):  # a cube's neighbourhood, one axis after the other
        window, padding = [1, 1, 1], [0, 0, 0]
        window[axis], padding[axis] = width, margin
        reached = F.max_pool3d(reached, window, stride=1, padding=padding)
    return reached.flatten() > 0
