"""Grid field: nested dense grids.

The density logit is a sum of trilinear grids of one channel. Each grid's vertices lie among those of the next finer
one, so the sum of all levels *is* one trilinear grid at the finest resolution: the levels are merged once per picture
(a fraction of the cost of the query) and every sample costs eight reads of one number, without a network. The levels
are there for the optimiser: a coarse vertex moves a whole region at once, so shapes grow before details.

Colour follows its own grids, one set of features per level, decoded by a tiny network; it may vary as fast as the
finest colour grid, whatever density does.

Normals are central differences of the logit one fine cell apart, interpolated. That is smoother than the exact slope
of a trilinear interpolant, which jumps from cell to cell, and needs no second derivatives.

The field may grow: a level of twice as many cells is added to the logits and to the finest features, in bricks near
the surfaces that there are (`bricks`). It begins as zero, so the field is the same function before and after, and its
normals are: the new level adds the exact slope of its own function to those differences, per unit of length.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torch.autograd.function import once_differentiable

from dreamfusion.config import GridFieldConfig
from dreamfusion.nerf.fields import FieldOutput, Gaussians, normals_from_gradient
from dreamfusion.nerf.fields.bricks import SIDE, BrickCorners, Bricks, bricks_near_surfaces
from dreamfusion.nerf.fields.density import DensityActivation, gaussian
from dreamfusion.nerf.fields.encoding import isotropic
from dreamfusion.nerf.fields.layers import linear
from dreamfusion.nerf.fields.trilinear import Corners, corners, interpolate

FEATURE_SPREAD = 0.05  # standard deviation of the first colour features: grey, but no two places alike
MATTER, SOLID = 0.5, 15.0
"""Optical depths of a whole radius of it, under which there is nothing to refine, and above which nobody looks in"""

GROWN, GROWN_COLOUR = 2.0, 0.25
"""Factors of the grown logits, which have fewer steps than others to come to what is sharp, and of grown features"""

Fine = Sequence[tuple[Bricks, BrickCorners]]
"""The grown levels, and where in them some places are"""


class GridField(nn.Module):
    """See the module's docstring."""

    uses_covariance = False

    def __init__(self, config: GridFieldConfig, law: DensityActivation, radius: float, generator: Generator) -> None:
        """The grids span the cube [-radius, radius]^3; the blob of `law` is added to the logit."""
        super().__init__()
        self.config, self.activation, self.radius = config, law.activation, radius
        self.logits = nn.ParameterList(_cube(cells)[None] for cells in config.cells)
        self.features = nn.ParameterList(_cube(cells, config.features) for cells in config.colour_cells)
        self.hide = linear(config.features * len(config.colour_cells), config.hidden, generator)
        self.to_albedo = linear(config.hidden, 3, generator)
        self.fine = nn.ModuleList()
        self.register_load_state_dict_pre_hook(_grow_like)
        with torch.no_grad():
            # The blob is not added at every query but written into the finest grid, once.
            blob = gaussian(law.blob, _vertices(radius, config.cells[-1])) / config.detail ** (len(self.logits) - 1)
            self.logits[-1].copy_(blob.view_as(self.logits[-1]))
            for level in self.features:
                level.copy_(torch.randn(level.shape, generator=generator) * FEATURE_SPREAD)

    def density(self, at: Gaussians) -> Float[Tensor, " m"]:
        """See `Field`."""
        return self.precomputed().density(at)

    def evaluate(self, at: Gaussians) -> FieldOutput:
        """See `Field`."""
        return self.precomputed().evaluate(at)

    def surface(self, at: Gaussians) -> FieldOutput:
        """See `SurfaceField`."""
        return self.precomputed().surface(at)

    def precomputed(self) -> "MergedGrid":
        """See `PrecomputableField`."""
        return MergedGrid(self, self.merged_logits()[0])

    def grow(self, progress: float, occupied: Callable[[Tensor], Tensor]) -> bool:
        """See `GrowingField`."""
        due = sum(progress >= at for at in self.config.grow)
        known = len(self.fine)
        while len(self.fine) < due:
            self._add(self._near_surfaces(occupied))
        return due > known

    @property
    def cells(self) -> int:
        """Per side, of the finest density level."""
        return self.config.cells[-1] << len(self.fine)

    def levels(self) -> Iterator[Bricks]:
        """Those that have grown."""
        for level in self.fine:
            assert isinstance(level, Bricks)
            yield level

    def _add(self, present: Bool[Tensor, "b b b"]) -> None:
        self.fine.append(Bricks(2 * self.cells, self.config.features, present).to(self.logits[0]))

    @torch.no_grad()
    def _near_surfaces(self, occupied: Callable[[Tensor], Tensor]) -> Bool[Tensor, "b b b"]:
        """The bricks of the next level."""
        field, side = self.precomputed(), self.cells + 1
        axis = torch.linspace(-self.radius, self.radius, side).to(self.logits[0])
        layers = []
        for z in axis:
            y, x = torch.meshgrid(axis, axis, indexing="ij")
            place = torch.stack([x, y, z.expand_as(x)], dim=-1).view(-1, 3)
            layers.append(field.density(isotropic(place, 0.0)) * occupied(place))
        density = torch.stack(layers).view(side, side, side) * self.radius
        return bricks_near_surfaces(density, MATTER, SOLID)

    def merged_logits(self) -> Float[Tensor, "1 d h w"]:
        """The density logit at the vertices of the finest grid, axes in the order z, y, x."""
        total = self.logits[0]
        for level, finer in enumerate(list(self.logits)[1:], start=1):
            total = self.config.detail**level * finer + refined(total, finer.shape[-1])
        return total

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Field`."""
        network = [*self.hide.parameters(), *self.to_albedo.parameters()]
        return {"grid": [*self.logits, *self.features, *self.fine.parameters()], "network": network}

    def albedo(self, at: Mapping[int, Corners], fine: Fine = ()) -> Float[Tensor, "m 3"]:
        """Colours at places, given by their corners in the grids of so many cells per side, and in grown levels."""
        features = [interpolate(level.flatten(0, 2), at[level.shape[0] - 1]) for level in self.features]
        for level, near in fine:
            features[-1] = features[-1] + GROWN_COLOUR * interpolate(level.features, near)
        return torch.sigmoid(self.to_albedo(F.silu(self.hide(torch.cat(features, dim=-1)))))


@dataclass(frozen=True, eq=False)
class MergedGrid:
    """A grid field whose density levels are merged, once for several queries."""

    field: GridField
    logits: Float[Tensor, "d d d"]
    uses_covariance = False

    def density(self, at: Gaussians) -> Float[Tensor, " m"]:
        """See `Field`."""
        place = at.mean / self.field.radius
        if torch.is_grad_enabled():
            logit = interpolate(self.logits.view(-1, 1), corners(place, len(self.logits) - 1))
        else:  # one channel without gradients is what grid_sample does best
            logit = _sampled(self.logits, place)
        logit = logit[:, 0]
        for level in self.field.levels():
            logit = logit + GROWN * level.logit(place)
        return self.field.activation(logit)

    def evaluate(self, at: Gaussians) -> FieldOutput:
        """See `Field`."""
        near, fine = self._corners(at), self._fine(at)
        logit = interpolate(self.logits.view(-1, 1), near[len(self.logits) - 1])[:, 0]
        for level, there in fine:
            logit = logit + GROWN * interpolate(level.logits, there)[:, 0]
        return FieldOutput(density=self.field.activation(logit), albedo=self.field.albedo(near, fine))

    def surface(self, at: Gaussians) -> FieldOutput:
        """See `SurfaceField`."""
        near, fine = self._corners(at), self._fine(at)
        table, cells = _WithSlopes.apply(self.logits), len(self.logits) - 1
        value, slope = interpolate(table.flatten(0, 2), near[cells]).split([1, 3], dim=-1)
        logit = value[:, 0]
        for level, there in fine:
            more, steeper = level.logit_and_slope(there)
            logit = logit + GROWN * more
            slope = slope + (GROWN * 4 / cells) * steeper  # per two cells, as the table has it
        density, albedo = self.field.activation(logit), self.field.albedo(near, fine)
        return FieldOutput(density=density, albedo=albedo, normal=normals_from_gradient(slope))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """See `Field`."""
        return self.field.parameter_groups()

    def _corners(self, at: Gaussians) -> dict[int, Corners]:
        """In the merged grid and in all colour grids."""
        place = at.mean / self.field.radius
        return {cells: corners(place, cells) for cells in {len(self.logits) - 1, *self.field.config.colour_cells}}

    def _fine(self, at: Gaussians) -> Fine:
        """In all levels that have grown."""
        place = at.mean / self.field.radius
        return [(level, level.near(place)) for level in self.field.levels()]


def refined(grid: Float[Tensor, "c d d d"], size: int) -> Float[Tensor, "c e e e"]:
    """The same trilinear function, written down at `size` vertices per axis.

    A product with one narrow matrix per axis: on CPUs many times faster than `F.interpolate` and its backward pass.
    """
    coarse = torch.arange(grid.shape[-1], device=grid.device, dtype=grid.dtype)
    fine = torch.linspace(0, grid.shape[-1] - 1, size, device=grid.device, dtype=grid.dtype)
    hat = (1 - (fine[:, None] - coarse).abs()).clamp(min=0)
    planes = hat @ (grid @ hat.T)  # y and x
    return (hat @ planes.flatten(2)).view(-1, size, size, size)


def _grow_like(field: GridField, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Before a state is loaded: levels that it has, and the field has not."""
    for number in range(len(field.fine), len(field.config.grow)):
        if (first := state.get(f"{prefix}fine.{number}.first")) is None:
            return
        side = 2 * field.cells // SIDE + 1
        field._add(first.view(side, side, side) >= 0)


def _cube(cells: int, *channels: int) -> Float[Tensor, "..."]:
    return torch.zeros(cells + 1, cells + 1, cells + 1, *channels)


def _vertices(radius: float, cells: int) -> Float[Tensor, "v 3"]:
    """World positions of the finest density grid's vertices, in memory order."""
    axis = torch.linspace(-radius, radius, cells + 1)
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    return torch.stack([x, y, z], dim=-1).reshape(-1, 3)


class _WithSlopes(torch.autograd.Function):
    """The grid "d d d" and its central differences along x, y, z, side by side: "d d d 4".

    One vertex to either side (the border repeats itself); unit: per two cells.
    """

    @staticmethod
    def forward(ctx, grid: Tensor) -> Tensor:
        table = grid.new_empty(*grid.shape, 4)
        table[..., 0] = grid
        for channel, axis in enumerate((2, 1, 0), start=1):
            value, slope = grid.movedim(axis, 0), table[..., channel].movedim(axis, 0)
            torch.sub(value[2:], value[:-2], out=slope[1:-1])
            slope[0], slope[-1] = value[1] - value[0], value[-1] - value[-2]
        return table

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  # decorated
        (gradient,) = grad_outputs
        total = gradient[..., 0].clone()
        for channel, axis in enumerate((2, 1, 0), start=1):
            to, slope = total.movedim(axis, 0), gradient[..., channel].movedim(axis, 0)
            to[1:] += slope[:-1]
            to[:-1] -= slope[1:]
            to[-1] += slope[-1]
            to[0] -= slope[0]
        return total


def _sampled(grid: Float[Tensor, "d h w"], place: Float[Tensor, "m 3"]) -> Float[Tensor, "m 1"]:
    """Trilinear interpolation at places in [-1, 1]^3; beyond the cube, its border goes on."""
    # Threads share out the pictures of a batch, and nothing else: so make one batch of as many parts.
    parts = torch.get_num_threads() if place.device.type == "cpu" else 1
    batch = F.pad(place, (0, 0, 0, -len(place) % parts)).view(parts, 1, 1, -1, 3)
    values = F.grid_sample(grid.expand(parts, 1, *grid.shape), batch, padding_mode="border", align_corners=True)
    return values.reshape(-1, 1)[: len(place)]
