"""From a network's output to density: activations, and the blob of matter that a run begins with."""

import math
from dataclasses import dataclass, field
from typing import Literal

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

    bias: float = 0.0
    clamp: float = 15.0

    def __call__(self, logit: Float[Tensor, "*m"]) -> Float[Tensor, "*m"]:
        x = logit + self.bias
        capped = x.clamp(max=self.clamp)
        return capped.exp() * (1.0 + (x - capped))


@dataclass(frozen=True)
class Softplus:
    """density = scale * log(1 + exp(logit + shift)): grows linearly where matter is, never overflows."""

    bias: float = 0.0
    scale: float = 1.0

    def __call__(self, logit: Float[Tensor, "*m"]) -> Float[Tensor, "*m"]:
        return self.scale * F.softplus(logit + self.bias)


Activation = Exp | Softplus


@dataclass(frozen=True)
class GaussianBlob:
    """height * exp(-|x|^2 / (2 width^2)): matter in the middle; the paper gives height 5 and width 0.2."""

    height: float = 5.0
    width: float = 0.2

    def __call__(self, position: Float[Tensor, "m 3"]) -> Float[Tensor, " m"]:
        return self.height * torch.exp(position.square().sum(-1) * (-0.5 / self.width**2))

    def radius_above(self, level: float) -> float:
        """Distance from the centre at which the blob falls to `level` (0 if it never reaches it)."""
        return self.width * math.sqrt(2.0 * math.log(self.height / level)) if 0 < level < self.height else 0.0


@dataclass(frozen=True)
class DensityActivation:
    """From a network's output at a place to the density there."""

    activation: Activation = field(default_factory=Exp)
    blob: GaussianBlob = field(default_factory=GaussianBlob)
    blob_on: Literal["logit", "density"] = "logit"
    """whether the blob is added before the activation or after it; see `config.BlobConfig`"""

    def __call__(self, logit: Float[Tensor, " m"], position: Float[Tensor, "m 3"]) -> Float[Tensor, " m"]:
        if self.blob_on == "logit":
            return self.activation(logit + self.blob(position))
        return self.activation(logit) + self.blob(position)
