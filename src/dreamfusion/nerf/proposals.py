"""Samples along a ray from a proposal network (mip-NeRF 360, section 3.1).

In rounds: the network says how dense each bin is, the next bins are drawn where it sees weight, and the field is asked
in the last ones. The network learns from the field through `regularise.interlevel` alone; bins carry no gradient.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion.config import ProposalConfig
from dreamfusion.nerf.compositing import composite
from dreamfusion.nerf.fields import Gaussians
from dreamfusion.nerf.fields.density import DensityActivation
from dreamfusion.nerf.fields.encoding import encoded_size, integrated, isotropic
from dreamfusion.nerf.fields.layers import linear
from dreamfusion.nerf.fields.mip_mlp import FIRST_VARIANCE
from dreamfusion.nerf.rays import Rays, means
from dreamfusion.nerf.stepfun import Histogram, max_dilate, sample_intervals


class Proposal(nn.Module):
    """One network for all rounds: an MLP on the same blurred places as the paper's field, for density alone."""

    variance: Tensor
    power: Tensor

    def __init__(self, config: ProposalConfig, law: DensityActivation, generator: Generator) -> None:
        super().__init__()
        self.config, self.law = config, law
        self.register_buffer("variance", torch.tensor(FIRST_VARIANCE))
        self.register_buffer("power", torch.tensor(0.0))
        sizes = [encoded_size(config.levels)] + [config.width] * config.layers
        self.hidden = nn.ModuleList(linear(size, config.width, generator, gain=2**0.5) for size in sizes[:-1])
        self.to_density = linear(config.width, 1, generator, gain=0.1)

    def set_variance(self, variance: float, progress: float) -> None:
        """See as finely as the field does, and count as much as at this progress of the run, in [0, 1]."""
        slope = self.config.slope
        self.variance.fill_(variance)
        self.power.fill_(slope * progress / ((slope - 1) * progress + 1))

    def density(self, at: Gaussians) -> Float[Tensor, " m"]:
        """What the field's density is taken to be."""
        x = integrated(isotropic(at.mean, self.variance), self.config.levels)
        for layer in self.hidden:
            x = F.silu(layer(x))
        return self.law(self.to_density(x)[:, 0], at.mean)

    def edges(
        self, rays: Rays, ends: Float[Tensor, "r 2"], bins: int, offset: Float[Tensor, "r levels"]
    ) -> tuple[Float[Tensor, "r {bins}+1"], tuple[Histogram, ...]]:
        """The edges of the field's `bins` bins between the two ends of each ray, and what each round saw on the way.

        offset: in [0, 1), shifts the bins of each round, see `stepfun.sample_intervals`.
        """
        seen: list[Histogram] = []
        t, mass, expected = ends, torch.ones_like(ends[:, :1]), 1
        for number, count in enumerate(self.config.rounds):
            t = sample_intervals(t, mass, count, offset[:, number])
            seen.append(Histogram(t, self._weights(rays, t)))
            expected *= count
            t, mass = self._widened(seen[-1], ends, expected)
        return sample_intervals(t, mass, bins, offset[:, -1]), tuple(seen)

    def _weights(self, rays: Rays, t: Float[Tensor, "r edges"]) -> Float[Tensor, "r bins"]:
        place = means(rays, t)
        return composite(self.density(isotropic(place.view(-1, 3), 0.0)).view(place.shape[:2]), t)

    @torch.no_grad()
    def _widened(
        self, seen: Histogram, ends: Float[Tensor, "r 2"], expected: int
    ) -> tuple[Float[Tensor, "r wide"], Float[Tensor, "r parts"]]:
        """Edges and masses to draw the next bins by."""
        in_bins, in_rays = self.config.dilation
        t, weights = max_dilate(seen.t, seen.weights, (in_bins / expected + in_rays) * (ends[:, 1] - ends[:, 0]))
        return t, torch.where(t.diff(dim=-1) > 0, weights**self.power, 0.0)
