"""From a network's output to density: activations, and the blob of matter that a run begins with."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Exp:
    """density = exp(logit + shift), the paper's activation (appendix A.2).

    Above `limit` the exponential goes on along its tangent: values stay far from overflow, and the gradient keeps the
    slope exp(limit) instead of vanishing, so that density which ran away can come back.
    """

    shift: float = 0.0
    limit: float = 15.0

    def __call__(self, logit: Float[Tensor, "*m"]) -> Float[Tensor, "*m"]:
        x = logit + self.shift
        capped = x.clamp(max=self.limit)
        return capped.exp() * (1.0 + (x - capped))


@dataclass(frozen=True)
class Softplus:
    """density = scale * log(1 + exp(logit + shift)): grows linearly where matter is, never overflows."""

    shift: float = 0.0
    scale: float = 1.0

    def __call__(self, logit: Float[Tensor, "*m"]) -> Float[Tensor, "*m"]:
        return self.scale * F.softplus(logit + self.shift)


Activation = Exp | Softplus


@dataclass(frozen=True)
class GaussianBlob:
    """height * exp(-|x|^2 / (2 width^2)), added to the density logit *before* the activation.

    The paper gives height 5 and width 0.2 in a ball of radius 1.4 and does not say on which side of the activation;
    after it, a density of 5 would be almost transparent at this width.
    """

    height: float = 5.0
    width: float = 0.2

    def __call__(self, position: Float[Tensor, "m 3"]) -> Float[Tensor, " m"]:
        return self.height * torch.exp(position.square().sum(-1) * (-0.5 / self.width**2))

    def radius_above(self, level: float) -> float:
        """Distance from the centre at which the blob falls to `level` (0 if it never reaches it)."""
        return self.width * math.sqrt(2.0 * math.log(self.height / level)) if 0 < level < self.height else 0.0
