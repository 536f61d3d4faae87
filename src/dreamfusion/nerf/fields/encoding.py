"""Positional encodings, plain and integrated over a Gaussian (mip-NeRF, section 3.1; DreamFusion, appendix A.2).

The frequencies are 2^0 .. 2^(levels - 1), in radians per unit length. Features come as all sines, then all cosines,
each level by level with the axes innermost.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.nerf.rays import Gaussians


def encoded_size(levels: int, axes: int = 3) -> int:
    """Number of features that `levels` frequencies make."""
    return 2 * levels * axes


def positional(x: Float[Tensor, "m d"], levels: int) -> Float[Tensor, "m c"]:
    """sin(2^l x) and cos(2^l x) for l < levels."""
    phase = _scaled(x, levels, power=1)
    return torch.cat([phase.sin(), phase.cos()], dim=-1)


def integrated(at: Gaussians, levels: int) -> Float[Tensor, "m c"]:
    """The expectation of `positional` under the Gaussians.

    E[sin(f x)] = sin(f mean) exp(-f^2 var / 2), and likewise for the cosine: what varies faster than the Gaussian is
    wide fades to zero instead of aliasing.
    """
    var = at.var if at.var.stride(0) else at.var[:1]  # one number for all places is damped once
    damping = torch.exp(-0.5 * _scaled(var, levels, power=2))
    phase = _scaled(at.mean, levels, power=1)
    return torch.cat([phase.sin() * damping, phase.cos() * damping], dim=-1)


def isotropic(mean: Float[Tensor, "m 3"], variance: float | Float[Tensor, ""]) -> Gaussians:
    """Points with covariance `variance` * I, whatever the pixel's cone (the paper's annealed lambda_Sigma * I)."""
    one = variance.view(1, 1).to(mean) if isinstance(variance, Tensor) else mean.new_full((1, 1), variance)
    return Gaussians(mean=mean, var=one.expand_as(mean))


def _scaled(x: Tensor, levels: int, power: int) -> Tensor:
    """x times the `power`-th power of every frequency: "m d" -> "m levels*d"."""
    frequency = 2.0 ** (power * torch.arange(levels, device=x.device, dtype=x.dtype))
    return (x[:, None, :] * frequency[:, None]).flatten(1)
