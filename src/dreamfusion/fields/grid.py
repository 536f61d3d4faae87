"""The fast field: nested dense grids.

The density logit is a sum of trilinear grids of one channel. Each grid's vertices lie among those of the next finer
one, so the sum of all levels *is* one trilinear grid at the finest resolution: the levels are merged once per query
(a fraction of the cost of the query) and every sample costs eight reads of one number, without a network. The levels
are there for the optimiser: a coarse vertex moves a whole region at once, so shapes grow before details.

Colour follows its own grids, one set of features per level, decoded by a tiny network; it may vary as fast as the
finest colour grid, whatever density does.

Normals are central differences of the logit one fine cell apart, interpolated. That is smoother than the exact slope
of a trilinear interpolant, which jumps from cell to cell, and needs no second derivative of `grid_sample`.
"""

from dataclasses import dataclass, field
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion.fields import Gaussians, Matter, outward
from dreamfusion.fields.density import Activation, Exp, GaussianBlob
from dreamfusion.fields.layers import linear

FEATURE_SPREAD = 0.05  # standard deviation of the first colour features: grey, but no two places alike


@dataclass(frozen=True)
class GridFieldOptions:
    """Sizes of the fast field, and the soft ball in empty space that it starts as."""

    radius: float = 1.0
    """the grids span the cube [-radius, radius]^3"""
    cells: tuple[int, ...] = (16, 32, 64)
    """per side of each density grid, coarse to fine, each a multiple of the one before"""
    detail: float = 0.5
    """How much less each finer density grid counts than the one before. Under Adam, whose steps have one size, this is
    a learning rate per level: below 1, noise in the gradients roughens the surface less."""
    colour_cells: tuple[int, ...] = (16, 32, 64)
    """per side of each colour grid"""
    features: int = 4
    """per vertex of a colour grid"""
    hidden: int = 32
    """width of the colour network's hidden layer"""
    activation: Activation = field(default_factory=lambda: Exp(shift=-5.0, limit=5.0))
    blob: GaussianBlob = field(default_factory=lambda: GaussianBlob(height=8.0, width=0.35))

    def __post_init__(self) -> None:
        if any(fine % coarse for coarse, fine in pairwise(self.cells)):
            raise ValueError(f"cells must each be a multiple of the one before, got {self.cells}")


class GridField(nn.Module):
    """See the module's docstring. Blind to the width of the Gaussians it is asked at."""

    def __init__(self, options: GridFieldOptions, generator: Generator) -> None:
        super().__init__()
        self.options = options
        self.logits = nn.ParameterList(_cube(1, cells) for cells in options.cells)
        self.features = nn.ParameterList(_cube(options.features, cells) for cells in options.colour_cells)
        self.hide = linear(options.features * len(options.colour_cells), options.hidden, generator)
        self.to_albedo = linear(options.hidden, 3, generator)
        with torch.no_grad():
            # The blob is not added at every query but written into the finest grid, once.
            blob = options.blob(_vertices(options)) / options.detail ** (len(self.logits) - 1)
            self.logits[-1].copy_(blob.view_as(self.logits[-1]))
            for level in self.features:
                level.copy_(torch.randn(level.shape, generator=generator) * FEATURE_SPREAD)

    def density(self, at: Gaussians) -> Float[Tensor, " m"]:
        """See `Field`."""
        return self.options.activation(_sample(self.merged_logits(), self._to_cube(at.mean))[:, 0])

    def matter(self, at: Gaussians) -> Matter:
        """See `Field`."""
        return Matter(density=self.density(at), albedo=self._albedo(self._to_cube(at.mean)))

    def surface(self, at: Gaussians) -> Matter:
        """See `SurfaceField`."""
        place = self._to_cube(at.mean)
        logits = self.merged_logits()
        logit, slope = _sample(torch.cat([logits, _slopes(logits)]), place).split([1, 3], dim=-1)
        return Matter(density=self.options.activation(logit[:, 0]), albedo=self._albedo(place), normal=outward(slope))

    def merged_logits(self) -> Float[Tensor, "1 d h w"]:
        """The density logit at the vertices of the finest grid, axes in the order z, y, x."""
        total = self.logits[0]
        for level, finer in enumerate(list(self.logits)[1:], start=1):
            total = self.options.detail**level * finer + refined(total, finer.shape[-1])
        return total

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Field`."""
        network = [*self.hide.parameters(), *self.to_albedo.parameters()]
        return {"grid": [*self.logits, *self.features], "network": network}

    def _to_cube(self, position: Float[Tensor, "m 3"]) -> Float[Tensor, "m 3"]:
        return position * (1.0 / self.options.radius)

    def _albedo(self, place: Float[Tensor, "m 3"]) -> Float[Tensor, "m 3"]:
        features = torch.cat([_sample(level, place) for level in self.features], dim=-1)
        return torch.sigmoid(self.to_albedo(F.silu(self.hide(features))))


def refined(grid: Float[Tensor, "c d d d"], size: int) -> Float[Tensor, "c e e e"]:
    """The same trilinear function, written down at `size` vertices per axis.

    A product with one narrow matrix per axis: on CPUs many times faster than `F.interpolate` and its backward pass.
    """
    coarse = torch.arange(grid.shape[-1], device=grid.device, dtype=grid.dtype)
    fine = torch.linspace(0, grid.shape[-1] - 1, size, device=grid.device, dtype=grid.dtype)
    hat = (1 - (fine[:, None] - coarse).abs()).clamp(min=0)
    planes = hat @ (grid @ hat.T)  # y and x
    return (hat @ planes.flatten(2)).view(-1, size, size, size)


def _cube(channels: int, cells: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(channels, cells + 1, cells + 1, cells + 1))


def _vertices(options: GridFieldOptions) -> Float[Tensor, "v 3"]:
    """World positions of the finest density grid's vertices, in memory order."""
    axis = torch.linspace(-options.radius, options.radius, options.cells[-1] + 1)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)


def _slopes(grid: Float[Tensor, "1 d h w"]) -> Float[Tensor, "3 d h w"]:
    """Central differences along x, y, z, one vertex to either side (the border repeats itself); unit: per two cells."""
    wide = F.pad(grid[None], (1, 1, 1, 1, 1, 1), mode="replicate")[0, 0]
    inner = slice(1, -1)
    return torch.stack(
        [
            wide[inner, inner, 2:] - wide[inner, inner, :-2],
            wide[inner, 2:, inner] - wide[inner, :-2, inner],
            wide[2:, inner, inner] - wide[:-2, inner, inner],
        ]
    )


def _sample(grid: Float[Tensor, "c d h w"], place: Float[Tensor, "m 3"]) -> Float[Tensor, "m c"]:
    """Trilinear interpolation at places in [-1, 1]^3; beyond the cube, its border goes on."""
    rows = F.grid_sample(grid[None], place[None, None, None], padding_mode="border", align_corners=True)
    return rows[0, :, 0, 0].T
