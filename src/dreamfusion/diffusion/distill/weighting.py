"""w(t), the weight of a noise level in score distillation."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.diffusion.priors import NoiseSchedule


@dataclass(frozen=True)
class SigmaSquared:
    """w = sigma^2: the paper's. It weighs x - x0_hat by alpha sigma."""

    def __call__(self, schedule: NoiseSchedule, t: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        return schedule.sigma(t) ** 2


@dataclass(frozen=True)
class Uniform:
    """w = 1. It weighs x - x0_hat by alpha / sigma; about as good as sigma^2, says the paper."""

    def __call__(self, schedule: NoiseSchedule, t: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        return torch.ones_like(schedule.sigma(t))


@dataclass(frozen=True)
class AlphaSigma:
    """w = alpha sigma. It weighs x - x0_hat by alpha^2: little weight for estimates from almost pure noise."""

    def __call__(self, schedule: NoiseSchedule, t: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        return schedule.alpha(t) * schedule.sigma(t)


Weighting = SigmaSquared | Uniform | AlphaSigma
