"""Trilinear interpolation in a table of grid vertices: eight reads a place, eight additions on the way back.

`F.grid_sample` computes the same. It wants channels in separate planes, though, and takes the whole grid apart again
for every query; on CPUs its backward pass with four channels costs four times as much (`benchmarks/fields.py`). Here
the corners are found once for all tables of one resolution, and a vertex's channels lie side by side in memory.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


@dataclass(frozen=True, eq=False)
class Corners:
    """The eight vertices around each of m places, and what each counts."""

    index: Int[Tensor, "8 m"]
    """rows of the table"""
    weight: Float[Tensor, "8 m"]
    """in [0, 1], summing to 1"""


def corners(place: Float[Tensor, "m 3"], cells: int) -> Corners:
    """Of places x, y, z in [-1, 1]^3 (beyond, the nearest point on the border) in a grid of `cells` per side.

    The table has (cells + 1)^3 rows, x running fastest, then y.
    """
    row, layer = cells + 1, (cells + 1) ** 2
    low, share = located(place, cells)
    first = (low[2] * row + low[1]) * row + low[0]
    corner = torch.arange(8, device=place.device)
    index = first + ((corner & 1) + (corner >> 1 & 1) * row + (corner >> 2) * layer)[:, None]
    return Corners(index, weights_of(share))


def located(place: Float[Tensor, "m 3"], cells: int) -> tuple[Int[Tensor, "3 m"], Float[Tensor, "3 m"]]:
    """The cell that each place lies in, by its lowest vertex along x, y and z, and where in it, in [0, 1]."""
    scaled = ((place.T + 1) * (0.5 * cells)).clamp(0, cells)
    low = scaled.detach().clamp(max=cells - 1).long()  # `long` rounds towards zero
    return low, scaled - low


def weights_of(share: Float[Tensor, "3 m"]) -> Float[Tensor, "8 m"]:
    """What each corner of a cell counts at places in it, x running fastest, then y."""
    x, y, z = torch.stack([1 - share, share], dim=1)
    return (z[:, None, None] * y[:, None] * x).flatten(0, 2)


def slopes_of(share: Float[Tensor, "3 m"]) -> Float[Tensor, "3 8 m"]:
    """How those weights change along x, y and z, per cell."""
    x, y, z = torch.stack([1 - share, share], dim=1)
    rise = x.new_tensor([-1.0, 1.0])[:, None].expand_as(x)
    along = ((z, y, rise), (z, rise, x), (rise, y, x))
    return torch.stack([(c[:, None, None] * b[:, None] * a).flatten(0, 2) for c, b, a in along])


def interpolate(table: Float[Tensor, "v c"], at: Corners) -> Float[Tensor, "m c"]:
    """Values of the table between its vertices; differentiable in the table and in the places, once."""
    return _Interpolate.apply(table, at.index, at.weight)


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, weight)
        if table.shape[1] == 1:
            return (table[:, 0].index_select(0, index.flatten()).view_as(index) * weight).sum(0)[:, None]
        return F.embedding_bag(index.T.contiguous(), table, per_sample_weights=weight.T.contiguous(), mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]  # decorated
        (gradient,) = grad_outputs
        table, index, weight = ctx.saved_tensors
        to_table = to_weight = None
        if ctx.needs_input_grad[0]:
            to_table = _scattered(weight, gradient, index, table)
        if ctx.needs_input_grad[2]:
            to_weight = (table[index] * gradient).sum(-1)
        return to_table, None, to_weight


def _scattered(
    weight: Float[Tensor, "8 m"], gradient: Float[Tensor, "m c"], index: Int[Tensor, "8 m"], like: Float[Tensor, "v c"]
) -> Tensor:
    """For each row of the table, the weighted gradients of all places that it is a corner of."""
    total, number = torch.zeros_like(like), index.flatten()
    for channel in range(like.shape[1]):  # on CPUs, half the time of all channels at once
        total[:, channel].scatter_add_(0, number, (weight * gradient[:, channel]).flatten())
    return total
