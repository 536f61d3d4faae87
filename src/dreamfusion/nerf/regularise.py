"""Regularisers of the shape. Each maps a render (or a grid) to one number >= 0."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.nerf.fields import DenseField, Field
from dreamfusion.nerf.render import Picture, Render
from dreamfusion.nerf.scene import Scene
from dreamfusion.nerf.stepfun import outer_measure


@runtime_checkable
class Regulariser(Protocol):
    """A term of the loss that asks no prior."""

    def __call__(self, render: Render, scene: Scene) -> Float[Tensor, ""] | None:
        """One number >= 0 for the pictures of a step and the scene they show; None where it says nothing of them."""
        ...


WeightedRegulariser = tuple[Callable[[float], float], Regulariser]
"""The weight, a function of the run's progress in [0, 1], and what it weighs"""


def opacity(picture: Picture) -> Float[Tensor, ""]:
    """Mean over pixels of sqrt(opacity^2 + 0.01): keep space empty (DreamFusion, appendix A.2, from Dream Fields)."""
    return (picture.opacity.square() + 0.01).sqrt().mean()


def orientation(render: Render) -> Float[Tensor, ""]:
    """Mean over rays of sum_i stopgrad(w_i) max(0, n_i . v)^2, v away from the camera (DreamFusion, appendix A.2).

    The sum is over the samples that were asked for a normal (`RenderConfig.colour_threshold`).
    Visible surfaces face the camera; normals that do not are a sign of fog. Needs a render with normals.
    """
    along = render.along
    if along.normal is None:
        raise ValueError("orientation needs normals: render with RenderOptions(normals=True) or a diffuse light")
    averted = (along.normal * along.direction).sum(-1).clamp(min=0)
    return (along.weight.detach() * averted.square()).sum() / along.rays


def entropy(picture: Picture) -> Float[Tensor, ""]:
    """Mean over pixels of the binary entropy of the opacity, in nats: 0 where clear or opaque, log 2 halfway."""
    p = picture.opacity.clamp(1e-5, 1 - 1e-5)  # within this, the logarithm and its gradient are harmless
    return -(p * p.log() + (1 - p) * (1 - p).log()).mean()


def distortion(render: Render) -> Float[Tensor, ""]:
    """Mean over rays of the distortion loss (mip-NeRF 360, equation 15), the spread of the weights, world units.

    sum_ij w_i w_j |m_i - m_j| + 1/3 sum_i w_i^2 delta_i, with bins of middle m and length delta.
    """
    w, t = render.along.weights, render.along.t
    middle = 0.5 * (t[:, 1:] + t[:, :-1]) - t[:, :1]
    # Middles ascend, so |m_i - m_j| opens into running sums over the bins before each bin.
    weight_before = w.cumsum(-1) - w
    moment_before = (w * middle).cumsum(-1) - w * middle
    pairs = 2 * (w * (middle * weight_before - moment_before)).sum(-1)
    return (pairs + (w.square() * t.diff(dim=-1)).sum(-1) / 3).sum() / render.along.rays


def interlevel(render: Render) -> Float[Tensor, ""]:
    """Mean over rays of the interlevel loss (mip-NeRF 360, equation 13), summed over all rounds.

    sum_i max(0, w_i - bound_i)^2 / w_i, where w_i are the field's weights, without gradient, and bound_i is the weight
    of the proposal's bins that overlap bin i. Proposals may overestimate, not underestimate. Needs proposals.
    """
    along = render.along
    weights = along.weights.detach()
    missing = [(weights - outer_measure(along.t.detach(), seen)).clamp(min=0) for seen in along.proposals]
    floor = torch.finfo(weights.dtype).eps
    return torch.stack([(each.square() / (weights + floor)).sum() for each in missing]).sum() / along.rays


def total_variation(grid: Float[Tensor, "c d h w"]) -> Float[Tensor, ""]:
    """Mean square difference of neighbours, summed over the three axes."""
    along_axes = [grid.diff(dim=axis).square().mean() for axis in (1, 2, 3)]
    return torch.stack(along_axes).sum()


def smoothness(field: Field) -> Float[Tensor, ""] | None:
    """Total variation of the density logits; None for a field that has no grid of them."""
    return total_variation(field.merged_logits()) if isinstance(field, DenseField) else None
