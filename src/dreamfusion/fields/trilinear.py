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

    index: Int[Tensor, "m 8"]
    """rows of the table, int32"""
    weight: Float[Tensor, "m 8"]
    """in [0, 1], summing to 1"""


def corners(place: Float[Tensor, "m 3"], cells: int) -> Corners:
    """Of places x, y, z in [-1, 1]^3 (beyond, the nearest point on the border) in a grid of `cells` per side.

    The table has (cells + 1)^3 rows, x running fastest, then y.
    """
    row, layer = cells + 1, (cells + 1) ** 2
    scaled = ((place + 1) * (0.5 * cells)).clamp(0, cells)
    low = scaled.detach().clamp(max=cells - 1).int()  # `int` rounds towards zero
    share = scaled - low
    x, y, z = torch.stack([1 - share, share], dim=-1).unbind(1)
    weight = (z[:, :, None, None] * y[:, None, :, None] * x[:, None, None, :]).flatten(1)
    first = (low[:, 2] * row + low[:, 1]) * row + low[:, 0]
    corner = torch.arange(8, dtype=torch.int32, device=place.device)
    return Corners(first[:, None] + (corner & 1) + (corner >> 1 & 1) * row + (corner >> 2) * layer, weight)


def interpolate(table: Float[Tensor, "v c"], at: Corners) -> Float[Tensor, "m c"]:
    """Values of the table between its vertices; differentiable in the table and in the places, once."""
    return _Interpolate.apply(table, at.index, at.weight)


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, table: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(table, index, weight)
        if table.shape[1] == 1:
            return (table[:, 0][index] * weight).sum(1, keepdim=True)
        return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]  # decorated
        (gradient,) = grad_outputs
        table, index, weight = ctx.saved_tensors
        to_table = to_weight = None
        if ctx.needs_input_grad[0]:
            to_table = _scattered(weight[:, :, None] * gradient[:, None], index, table)
        if ctx.needs_input_grad[2]:
            to_weight = (table[index] * gradient[:, None]).sum(-1)
        return to_table, None, to_weight


def _scattered(rows: Float[Tensor, "m 8 c"], index: Int[Tensor, "m 8"], like: Float[Tensor, "v c"]) -> Tensor:
    """The sum of all rows that belong to each row of the table."""
    number = index.flatten().long()  # narrower numbers take a path that is ten times slower
    if like.shape[1] == 1:
        return torch.zeros_like(like[:, 0]).scatter_add_(0, number, rows.flatten())[:, None]
    return torch.zeros_like(like).index_add_(0, number, rows.flatten(0, 1))
