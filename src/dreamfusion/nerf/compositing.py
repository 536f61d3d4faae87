"""Alpha compositing along rays (mip-NeRF, equation 1), with its gradient in closed form.

In bin i of length delta_i, of depth d_i = density_i delta_i, with T_i = exp(-sum over j < i of d_j) of the light still
there, the weight is w_i = T_i (1 - exp(-d_i)): the share of the bin in the colour of its ray. For a loss L,
dL/dd_i = dL/dw_i T_(i+1) - sum over j > i of dL/dw_j w_j: what the bin shows, less what it hides.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

OPAQUE = 100.0
"""Depth from which on a bin is simply opaque: exp(-100) is less than the least float32."""


@dataclass(frozen=True, eq=False)
class Composition:
    """What light meets along r rays of s bins, without gradients."""

    weights: Float[Tensor, "r s"]
    """>= 0, with a sum of at most 1"""
    after: Float[Tensor, "r s"]
    """T behind each bin"""
    length: Float[Tensor, "r s"]


@torch.no_grad()
def composed(density: Float[Tensor, "r s"], t: Float[Tensor, "r s+1"]) -> Composition:
    """The weights of the bins between neighbouring `t`, exact for constant density in each bin."""
    length = t.diff(dim=-1)
    depth = (density * length).clamp(max=OPAQUE)  # keeps infinities out of the sum
    after = torch.exp(-depth.cumsum(-1))
    before = F.pad(after[:, :-1], (1, 0), value=1.0)
    return Composition(before * -torch.expm1(-depth), after, length)


def learning(composition: Composition, index: Int[Tensor, " m"], density: Float[Tensor, " m"]) -> Float[Tensor, "r s"]:
    """The weights, with gradients in the densities of some bins: those at `index` in the flattened table.

    `density` has the values that were composed. Values and gradients are finite for every finite density >= 0.
    """
    return _Learning.apply(density, index, composition.weights, composition.after, composition.length)


def composite(density: Float[Tensor, "r s"], t: Float[Tensor, "r s+1"]) -> Float[Tensor, "r s"]:
    """The weights of all bins, differentiable in all densities."""
    every = torch.arange(density.numel(), device=density.device)
    return learning(composed(density, t), every, density.flatten())


class _Learning(torch.autograd.Function):
    @staticmethod
    def forward(ctx, density: Tensor, index: Tensor, weights: Tensor, after: Tensor, length: Tensor) -> Tensor:
        ctx.save_for_backward(index, weights, after, length)
        return weights.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]  # decorated
        (gradient,) = grad_outputs
        index, weights, after, length = ctx.saved_tensors
        shown = gradient * weights
        hidden = shown.flip(-1).cumsum(-1).flip(-1) - shown  # from the back: exactly 0 where nothing lies behind
        return ((gradient * after - hidden) * length).flatten()[index], None, None, None, None
