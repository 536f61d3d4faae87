"""Histograms along rays: where a ray should be cut, given what is known of the matter on it.

mip-NeRF 360 (Barron et al. 2022, sections 3.1 to 3.3). A histogram has ascending edges t and one weight per bin; its
weights are those of `compositing.composite`, >= 0 with a sum of at most 1. Nothing here has gradients in the edges.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Histogram:
    """What r rays of s bins see where."""

    t: Float[Tensor, "r edges"]
    weights: Float[Tensor, "r bins"]


def inverse_cdf(
    t: Float[Tensor, "r edges"], mass: Float[Tensor, "r bins"], share: Float[Tensor, "r k"]
) -> Float[Tensor, "r k"]:
    """Where the given shares, in [0, 1), of a ray's mass lie before; mass is spread evenly within a bin.

    mass: >= 0, of any sum. A ray without any is taken to have equal mass in all bins.
    """
    mass = mass.clamp_min(torch.finfo(mass.dtype).tiny)
    cumulative = mass.cumsum(-1)
    cumulative = torch.cat([torch.zeros_like(cumulative[:, :1]), cumulative], dim=-1) / cumulative[:, -1:]
    right = torch.searchsorted(cumulative, share.contiguous(), right=True).clamp(1, mass.shape[-1])
    low, high = cumulative.gather(-1, right - 1), cumulative.gather(-1, right)
    within = (share - low) / (high - low).clamp_min(torch.finfo(mass.dtype).tiny)
    return torch.lerp(t.gather(-1, right - 1), t.gather(-1, right), within.clamp(0, 1))


def sample_intervals(
    t: Float[Tensor, "r edges"], mass: Float[Tensor, "r bins"], bins: int, offset: Float[Tensor, " r"]
) -> Float[Tensor, "r {bins}+1"]:
    """Edges of `bins` new bins, about equal shares of each ray's mass; they cover the same way or less, and ascend.

    The bins' centres lie at the shares (i + offset) / bins. Edges are half-way between centres, the two outer ones as
    far beyond the outer centres as the next are before them, but never outside the ray. offset: in [0, 1), 0.5 in the
    middle of each share; random, it makes the centres a sample of the mass.
    """
    share = (torch.arange(bins, device=t.device, dtype=t.dtype) + offset[:, None]) / bins
    centre = inverse_cdf(t, mass, share)
    if bins == 1:
        return t[:, [0, -1]]
    inner = 0.5 * (centre[:, 1:] + centre[:, :-1])
    first, last = 2 * centre[:, :1] - inner[:, :1], 2 * centre[:, -1:] - inner[:, -1:]
    return torch.cat([torch.maximum(first, t[:, :1]), inner, torch.minimum(last, t[:, -1:])], dim=-1)


def max_dilate(
    t: Float[Tensor, "r edges"], weights: Float[Tensor, "r bins"], by: Float[Tensor, " r"]
) -> tuple[Float[Tensor, "r wide"], Float[Tensor, "r parts"]]:
    """The least histogram whose density is everywhere at least that of all places up to `by` away.

    It forgives a proposal that is a little off, and a ray that moved a little since. The ends of the ray stay. Its mass
    is the integral of the greatest density nearby, so it is not less than before.
    """
    density = weights / t.diff(dim=-1).clamp_min(torch.finfo(t.dtype).eps)
    low, high = t[:, :-1] - by[:, None], t[:, 1:] + by[:, None]
    edges = torch.cat([t, low, high], dim=-1).clamp(t[:, :1], t[:, -1:]).sort(-1).values
    start = edges[:, :-1, None]
    near = (low[:, None] <= start) & (start < high[:, None])
    return edges, torch.where(near, density[:, None], 0.0).amax(-1) * edges.diff(dim=-1)


def outer_measure(t: Float[Tensor, "r cuts"], histogram: Histogram) -> Float[Tensor, "r bins"]:
    """For each bin between neighbouring `t`, the weight of all bins of the histogram that overlap it.

    That is the most that the histogram can have in that bin; differentiable in its weights.
    """
    before = torch.nn.functional.pad(histogram.weights.cumsum(-1), (1, 0))
    edges, count = histogram.t.contiguous(), histogram.weights.shape[-1]
    first = torch.searchsorted(edges, t[:, :-1].contiguous(), right=True) - 1
    behind = torch.searchsorted(edges, t[:, 1:].contiguous())
    return before.gather(-1, behind.clamp(0, count)) - before.gather(-1, first.clamp(0, count))
