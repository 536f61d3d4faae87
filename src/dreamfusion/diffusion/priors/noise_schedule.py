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
    """alpha eps - sigma x0 of variance preserving processes (Salimans and Ho 2022, arXiv 2202.00512, section 4)"""
    FLOW = "flow"
    """eps - x0, the velocity dx_t / dsigma of a straight path (docs/reference/derivations.md)"""


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """A noising process: x_t = alpha x0 + sigma eps, t an index in 0 .. steps - 1 that grows with the noise.

    Conversions take diffusion-space tensors "b c u v" and compute in their dtype; `noisy` is x_t. They invert each
    other wherever alpha > 0 (a schedule that ends in pure noise has alpha = 0 at its last step).
    """

    alphas: Float[Tensor, " T"]
    """alpha at each timestep, strictly decreasing, in [0, 1)"""
    sigmas: Float[Tensor, " T"]
    """sigma at each timestep, in (0, 1], never less than before (close to 1, rounding makes neighbours equal)"""

    def __post_init__(self) -> None:
        alpha, sigma = self.alphas, self.sigmas
        if not (alpha.min() >= 0 and alpha.max() < 1 and bool((alpha.diff() < 0).all())):
            raise ValueError("the share of the signal must decrease strictly and lie in [0, 1)")
        if not (sigma.min() > 0 and sigma.max() <= 1 and bool((sigma.diff() >= 0).all())):
            raise ValueError("the share of the noise must not decrease and lie in (0, 1]")

    @classmethod
    def variance_preserving(cls, alphas_cumprod: Float[Tensor, " T"]) -> "NoiseSchedule":
        """alpha^2 + sigma^2 = 1 (DDPM), from alpha^2 at each timestep."""
        return cls(alphas_cumprod.sqrt(), (1 - alphas_cumprod).sqrt())

    @classmethod
    def rectified_flow(cls, sigmas: Float[Tensor, " T"]) -> "NoiseSchedule":
        """alpha + sigma = 1 (flow matching, rectified flow), from sigma at each timestep."""
        return cls(1 - sigmas, sigmas)

    @property
    def steps(self) -> int:
        """The number of timesteps T."""
        return len(self.alphas)

    def to(self, device: torch.device | str) -> "NoiseSchedule":
        return NoiseSchedule(self.alphas.to(device), self.sigmas.to(device))

    def alpha(self, t: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The share of the signal."""
        return self.alphas[t]

    def sigma(self, t: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """The share of the noise; > 0 everywhere."""
        return self.sigmas[t]

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

    def eps_from_flow(
        self, flow: Float[Tensor, "b c u v"], noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"]
    ) -> Float[Tensor, "b c u v"]:
        """From flow = eps - x0: eps = (x_t + alpha flow) / (alpha + sigma); defined at pure noise too."""
        alpha, sigma = self._at(t, noisy)
        return (noisy + alpha * flow) / (alpha + sigma)

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
            case Prediction.FLOW:
                return self.eps_from_flow(output, noisy, t)

    def _at(self, t: Int[Tensor, " b"], like: Tensor) -> tuple[Float[Tensor, "b 1 1 1"], Float[Tensor, "b 1 1 1"]]:
        alpha, sigma = (value.to(like)[:, None, None, None] for value in (self.alpha(t), self.sigma(t)))
        return alpha, sigma
