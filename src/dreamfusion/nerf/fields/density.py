"""From a network's output to density: activations, and the initial blob of density."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from dreamfusion.config import BlobConfig, SceneConfig


@dataclass(frozen=True)
class Exp:
    """density = exp(logit + bias), the paper's activation (appendix A.2).

    Above `clamp` the exponential goes on along its tangent: values stay far from overflow, and the gradient keeps the
    slope exp(clamp) instead of vanishing, so that density which ran away can come back.
    """

    bias: float = SceneConfig.density_bias
    clamp: float = SceneConfig.exp_clamp

    def __call__(self, logit: Float[Tensor, "*m"]) -> Float[Tensor, "*m"]:
        x = logit + self.bias
        capped = x.clamp(max=self.clamp)
        return capped.exp() * (1.0 + (x - capped))


@dataclass(frozen=True)
class Softplus:
    """density = scale * log(1 + exp(logit + bias)): grows linearly where matter is, never overflows."""

    bias: float = SceneConfig.density_bias
    scale: float = 1.0

    def __call__(self, logit: Float[Tensor, "*m"]) -> Float[Tensor, "*m"]:
        return self.scale * F.softplus(logit + self.bias)


Activation = Exp | Softplus


def gaussian(blob: BlobConfig, position: Float[Tensor, "m 3"]) -> Float[Tensor, " m"]:
    """height * exp(-|x|^2 / (2 width^2)), at the centre; the paper gives height 5 and width 0.2."""
    return blob.height * torch.exp(position.square().sum(-1) * (-0.5 / blob.width**2))


def radius_above(blob: BlobConfig, level: float) -> float:
    """Distance from the centre at which the blob falls to `level` (0 if it never reaches it)."""
    return blob.width * math.sqrt(2.0 * math.log(blob.height / level)) if 0 < level < blob.height else 0.0


@dataclass(frozen=True)
class DensityActivation:
    """From a network's output at a place to the density there."""

    activation: Activation
    blob: BlobConfig

    def __call__(self, logit: Float[Tensor, " m"], position: Float[Tensor, "m 3"]) -> Float[Tensor, " m"]:
        if self.blob.on == "logit":
            return self.activation(logit + gaussian(self.blob, position))
        return self.activation(logit) + gaussian(self.blob, position)
