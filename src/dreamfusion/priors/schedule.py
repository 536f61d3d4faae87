"""The noise of a diffusion model: how much of it there is at each timestep, and what its network predicts about it."""

from dataclasses import dataclass
from enum import Enum

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Prediction(Enum):
    """What a network was trained to predict. The values are diffusers' names (`prediction_type`)."""

    EPSILON = "epsilon"
    """the noise"""
    X0 = "sample"
    """the clean picture"""
    V = "v_prediction"
    """alpha eps - sigma x0 (Salimans and Ho 2022, arXiv 2202.00512, section 4)"""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A variance preserving process: x_t = alpha x0 + sigma eps, alpha^2 + sigma^2 = 1, t an index in 0 .. steps - 1.

    Conversions take diffusion-space tensors "b c u v" and compute in their dtype; `noisy` is x_t. They invert each
    other wherever alpha > 0 (a schedule that ends in pure noise has alpha = 0 at its last step).
    """

    alphas_cumprod: Float[Tensor, " T"]
    """alpha^2 at each timestep, strictly decreasing, in [0, 1)"""

    def __post_init__(self) -> None:
        products = self.alphas_cumprod
        if not (products.min() >= 0 and products.max() < 1 and bool((products.diff() < 0).all())):
            raise ValueError("alphas_cumprod must decrease strictly and lie in [0, 1)")

    @property
    def steps(self) -> int:
        """The number of timesteps T."""
        return len(self.alphas_cumprod)

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        return NoiseSchedule(self.alphas_cumprod.to(device))

    def alpha(self, t: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The share of the signal."""
        return self.alphas_cumprod[t].sqrt()

    def sigma(self, t: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The share of the noise; > 0 everywhere."""
        return (1 - self.alphas_cumprod[t]).sqrt()

    def add_noise(
        self, x0: Float[Tensor, "b c u v"], eps: Float[Tensor, "b c u v"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c u v"]:
        """x_t."""
        alpha, sigma = self._at(t, x0)
        return alpha * x0 + sigma * eps

    def x0_from_eps(
        self, eps: Float[Tensor, "b c u v"], noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c u v"]:
        alpha, sigma = self._at(t, noisy)
        return (noisy - sigma * eps) / alpha

    def eps_from_x0(
        self, x0: Float[Tensor, "b c u v"], noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c u v"]:
        alpha, sigma = self._at(t, noisy)
        return (noisy - alpha * x0) / sigma

    def eps_from_v(
        self, v: Float[Tensor, "b c u v"], noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c u v"]:
        alpha, sigma = self._at(t, noisy)
        return alpha * v + sigma * noisy

    def v_from_eps(
        self, eps: Float[Tensor, "b c u v"], noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c u v"]:
        alpha, sigma = self._at(t, noisy)
        return (eps - sigma * noisy) / alpha

    def epsilon(
        self,
        prediction: Prediction,
        output: Float[Tensor, "b c u v"],
        noisy: Float[Tensor, "b c u v"],
        t: Int[Tensor, " b"],
    ) -> Float[Tensor, "b c u v"]:
        """The noise that a network's output stands for."""
        match prediction:
            case Prediction.EPSILON:
                return output
            case Prediction.X0:
                return self.eps_from_x0(output, noisy, t)
            case Prediction.V:
                return self.eps_from_v(output, noisy, t)

    def _at(self, t: Int[Tensor, " b"], like: Tensor) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        alpha, sigma = (value.to(like)[:, None, None, None] for value in (self.alpha(t), self.sigma(t)))
        return alpha, sigma
