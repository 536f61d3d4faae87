"""A level of a grid that is there near surfaces alone: a trilinear grid of values that are zero but in some bricks.

A brick is a cube of `SIDE`^3 neighbouring vertices, and every vertex belongs to one brick. A dense table says where in
the level's own tables a brick stands; vertices of bricks that are not there are zero and stay so. So the level is one
continuous function, without seams, and what it costs grows with the surface and not with the volume.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dreamfusion.nerf.fields.trilinear import Corners, interpolate, located, slopes_of, weights_of

SIDE = 4
"""vertices per side of a brick, a power of two"""
_SHIFT, _INNER = SIDE.bit_length() - 1, SIDE - 1
_CHUNK = 1 << 16  # places looked up at once without gradients: what a processor's cache holds


@dataclass(frozen=True, eq=False)
class BrickCorners(Corners):
    """The eight vertices around places; those that are not there weigh nothing."""

    share: Float[Tensor, "3 m"]
    """where in its cell each place is, along x, y and z, in [0, 1]"""
    there: Bool[Tensor, "8 m"]


class Bricks(nn.Module):
    """Density logits and colour features to be added to those of coarser grids; all zero at first."""

    first: Tensor  # "b^3": the row of each brick's first vertex, or -1; x running fastest, then y

    def __init__(self, cells: int, features: int, present: Bool[Tensor, "b b b"]) -> None:
        """`cells` per side of the whole grid, a multiple of `SIDE`; `present`: cells / SIDE + 1 along z, y and x."""
        super().__init__()
        self.cells, self.per_side = cells, len(present)
        there = present.flatten()
        rows = max(1, int(there.sum())) * SIDE**3
        self.register_buffer("first", torch.where(there, (there.cumsum(0) - 1) * SIDE**3, -1))
        self.logits = nn.Parameter(torch.zeros(rows, 1, device=present.device))
        self.features = nn.Parameter(torch.zeros(rows, features, device=present.device))

    def near(self, place: Float[Tensor, "m 3"]) -> BrickCorners:
        """The corners around places in [-1, 1]^3."""
        low, share = located(place, self.cells)
        ends = torch.stack([low, low + 1], dim=1)
        brick = _numbers(ends >> _SHIFT, self.per_side)
        first = self.first.index_select(0, brick.flatten()).view_as(brick)
        there = first >= 0
        index = first.clamp_(min=0).add_(_numbers(ends & _INNER, SIDE))
        return BrickCorners(index, weights_of(share) * there, share, there)

    def logit(self, place: Float[Tensor, "m 3"]) -> Float[Tensor, " m"]:
        """The logits alone."""
        if torch.is_grad_enabled():
            return interpolate(self.logits, self.near(place))[:, 0]
        return torch.cat([interpolate(self.logits, self.near(part))[:, 0] for part in place.split(_CHUNK)])

    def logit_and_slope(self, at: BrickCorners) -> tuple[Float[Tensor, " m"], Float[Tensor, "m 3"]]:
        """The logits, and the slopes of their trilinear function per unit of `place`."""
        slopes = slopes_of(at.share) * (0.5 * self.cells * at.there)
        jet = _Weighted.apply(self.logits, at.index, torch.cat([at.weight[None], slopes]))
        return jet[0], jet[1:].T


def bricks_near_surfaces(density: Float[Tensor, "d d d"], matter: float, solid: float) -> Bool[Tensor, "b b b"]:
    """Where the bricks of a grid of twice as many cells have a surface in reach, given the density at all vertices now.

    In reach is what lies at most one of the present cells away from what the brick can change. A surface is where some
    density is above `matter` and some below `solid`: neither empty space, nor what is buried.
    """
    half, reach = SIDE // 2, 2  # in present cells; the brick's own cells begin half a cell before it
    padded = F.pad(density[None, None], (reach, half + reach - 1) * 3)
    window = half + 2 * reach
    most, least = (sign * F.max_pool3d(sign * padded, window, stride=half)[0, 0] for sign in (1, -1))
    return (most > matter) & (least < solid)


def _numbers(ends: Int[Tensor, "3 2 m"], per_side: int) -> Int[Tensor, "8 m"]:
    """Of the eight combinations of two numbers along x, y and z, in a cube of so many per side."""
    x, y, z = ends
    return ((z[:, None, None] * per_side + y[:, None]) * per_side + x).flatten(0, 2)


class _Weighted(torch.autograd.Function):
    """Several weighted sums of the same rows: of a table "v 1", an index "8 m" and weights "k 8 m", "k m"."""

    @staticmethod
    def forward(ctx, table: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, weights)
        return (table[:, 0].index_select(0, index.flatten()).view_as(index) * weights).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]  # decorated
        (gradient,) = grad_outputs
        table, index, weights = ctx.saved_tensors
        to_table = to_weights = None
        if ctx.needs_input_grad[0]:
            total = torch.zeros_like(table)
            total[:, 0].scatter_add_(0, index.flatten(), (weights * gradient[:, None]).sum(0).flatten())
            to_table = total
        if ctx.needs_input_grad[2]:
            to_weights = table[:, 0][index] * gradient[:, None]
        return to_table, None, to_weights
