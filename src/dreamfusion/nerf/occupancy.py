"""EMA occupancy grid used to skip empty space."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor, nn

from dreamfusion.config import OccupancyConfig
from dreamfusion.nerf.fields import Field, Gaussians

FINEST = 128
"""Cells per side up to which it grows with the field: finer ones take longer to renew than they save"""


class Occupancy(nn.Module):
    """Decayed maximum of the density on a grid over the cube [-radius, radius]^3.

    All state is in buffers and so in checkpoints. Cells count as occupied until their first update.
    """

    cells: int
    """per side now: those of the configuration, doubled as often as it was refined"""

    density: Tensor  # "cells^3", axes in the order z, y, x
    occupied: Tensor  # likewise, bool
    phase: Tensor  # which share of the cells is refreshed next
    bounds: Tensor  # "2 3", the corners of the box around all occupied cells; a point if there are none

    def __init__(self, config: OccupancyConfig, radius: float) -> None:
        super().__init__()
        self.config, self.cells = config, config.cells
        self.radius = radius
        self.register_load_state_dict_pre_hook(_refine_like)
        self.register_buffer("density", torch.full((config.cells**3,), torch.inf))
        self.register_buffer("occupied", torch.ones(config.cells**3, dtype=torch.bool))
        self.register_buffer("phase", torch.zeros((), dtype=torch.long))
        self.register_buffer("bounds", torch.tensor([[-radius] * 3, [radius] * 3]))

    @torch.no_grad()
    def update(self, field: Field, generator: Generator, parts: int = 1) -> None:
        """Evaluate the field at one random point of every `parts`-th cell; `parts` calls in a row reach all cells."""
        every = torch.arange(0, self.cells**3, parts, device=self.phase.device)
        cell = (every + self.phase % parts) % self.cells**3
        place = self._point_in(cell, generator)
        fresh = field.density(Gaussians(mean=place, var=torch.zeros_like(place))).to(self.density)
        old = self.density[cell]
        self.density[cell] = torch.where(old.isinf(), fresh, torch.maximum(old * self.config.decay, fresh))
        self.phase += 1
        self.occupied.copy_(self._widened(self.density > self.config.threshold))
        self.bounds.copy_(self._box())

    def refine(self, field: Field, generator: Generator) -> None:
        """Halve the cells, up to `FINEST`; those in occupied ones are asked again, at two random points, others not.

        The field may be finer than it was: what is known of it no longer counts.
        """
        if self.config.every == 0 or 2 * self.cells > FINEST:
            return
        self._halve_cells()
        self.density = torch.where(self.occupied, torch.inf, 0.0)
        for _ in range(2):
            self.update(field, generator)

    def mask(self, points: Float[Tensor, "*m 3"]) -> Bool[Tensor, "*m"]:
        """Whether the points lie in occupied cells; points outside the cube take its border's cells."""
        cells = self.cells
        scaled = points * (0.5 * cells / self.radius) + 0.5 * cells
        x, y, z = scaled.clamp_(0, cells - 1).int().unbind(-1)  # `int` rounds towards zero: the cell's number
        return self.occupied[(z * cells + y) * cells + x]

    def occupied_fraction(self) -> Float[Tensor, ""]:
        """Fraction of the cells that are occupied, in [0, 1]."""
        return self.occupied.float().mean()

    def _box(self) -> Float[Tensor, "2 3"]:
        cells = self.cells
        cube = self.occupied.view(cells, cells, cells)
        number = torch.arange(cells, device=cube.device)
        ends = []
        for others in ((0, 1), (0, 2), (1, 2)):  # what is left is x, y, z
            there = cube.any(others[1]).any(others[0])
            low, high = number.where(there, cells).amin(), number.where(there, -1).amax() + 1
            ends.append(torch.stack([torch.minimum(low, high), high]))
        return torch.stack(ends, dim=1) * (2 * self.radius / cells) - self.radius

    def _point_in(self, cell: Int[Tensor, " m"], generator: Generator) -> Float[Tensor, "m 3"]:
        cells = self.cells
        corner = torch.stack([cell % cells, cell // cells % cells, cell // cells**2], dim=-1)
        jitter = torch.rand(corner.shape, generator=generator, device=generator.device).to(self.density)
        return (corner + jitter) * (2 * self.radius / cells) - self.radius

    def _widened(self, occupied: Bool[Tensor, " v"]) -> Bool[Tensor, " v"]:
        reached = occupied.view(1, 1, self.cells, self.cells, self.cells).float()
        width, margin = 2 * self.config.margin + 1, self.config.margin
        for axis in range(3):  # a cube's neighbourhood, one axis after the other
            window, padding = [1, 1, 1], [0, 0, 0]
            window[axis], padding[axis] = width, margin
            reached = F.max_pool3d(reached, window, stride=1, padding=padding)
        return reached.flatten() > 0

    def _halve_cells(self) -> None:
        """The same in cells of half the size."""
        for name in ("density", "occupied"):
            cube = getattr(self, name).view(self.cells, self.cells, self.cells)
            for axis in range(3):
                cube = cube.repeat_interleave(2, axis)
            setattr(self, name, cube.flatten())
        self.cells *= 2


def _refine_like(occupancy: Occupancy, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Before a state is loaded: as many cells as it has, if that many can have grown."""
    wanted = state.get(f"{prefix}density", occupancy.density).numel()
    while occupancy.cells**3 < wanted and 2 * occupancy.cells <= FINEST:
        occupancy._halve_cells()
