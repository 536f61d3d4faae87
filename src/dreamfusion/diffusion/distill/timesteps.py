"""Timesteps of distillation: uniformly random, or decreasing over the run (DreamTime)."""

from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from dreamfusion.config import DistillConfig
from dreamfusion.diffusion.priors import NoiseSchedule
from dreamfusion.errors import UserError
from dreamfusion.schedules import Schedule

LEAST, MOST = DistillConfig.t_min, DistillConfig.t_max
"""The paper's limits, as fractions of the timesteps"""


@dataclass(frozen=True)
class UniformTimesteps:
    """Timesteps are uniform between two limits, which may move in the course of the run (annealing)."""

    t_min: Schedule = LEAST
    """smallest timestep as a fraction of all, in [0, 1], over the progress of the run"""
    t_max: Schedule = MOST
    """largest timestep, likewise"""

    def __call__(
        self, schedule: NoiseSchedule, shape: tuple[int, int], progress: float, generator: Generator
    ) -> Int[Tensor, "d b"]:
        """Timesteps of `shape` (draws, pictures); those of one picture are stratified, the expectation is as it was."""
        low, high = limits(self.t_min, self.t_max, progress)
        u = torch.rand(shape, generator=generator, device=generator.device)
        stratum = (torch.arange(shape[0], device=u.device)[:, None] + u) / shape[0]
        t = (low + (high - low) * stratum) * schedule.steps
        return t.long().clamp(max=schedule.steps - 1)


@dataclass(frozen=True)
class DreamTime:
    """One timestep for all pictures of a step, falling with the progress of the run, long where its weight is large.

    The tail of the weights from t on is the share of the run that is done (Huang et al. 2023, arXiv 2306.12422,
    section 3):
    W(t) = sigma / alpha exp(-(t - centre)^2 / (2 spread^2)), normalised over the timesteps between the limits.
    """

    t_min: Schedule = LEAST
    """smallest timestep as a fraction of all; of a schedule, the smaller of its two ends"""
    t_max: Schedule = MOST
    """largest timestep, likewise the larger"""
    centre: float = 0.5
    """where the run stays longest, as a fraction of the timesteps, but for the factor sigma / alpha"""
    spread: float = 0.125
    """how far from there it still stays long, idem"""

    def __call__(
        self, schedule: NoiseSchedule, shape: tuple[int, int], progress: float, generator: Generator
    ) -> Int[Tensor, "d b"]:
        """Timesteps of `shape` (draws, pictures), all equal; nothing is drawn."""
        low, high = (round(limit * (schedule.steps - 1)) for limit in self._limits())
        # Pure noise (alpha = 0, at the end of some schedules) says nothing of a picture.
        last = int((schedule.alphas > 0).sum()) - 1
        low, high = min(low, last), min(high, last)
        t = torch.arange(low, high + 1)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        noise_to_signal = sigma / alpha
        distance = (t.to(alpha) / (schedule.steps - 1) - self.centre) / self.spread
        weight = noise_to_signal * torch.exp(-0.5 * distance**2)
        tail = weight.flip(0).cumsum(0).flip(0) / weight.sum()
        return (low + (tail - progress).abs().argmin()).expand(shape)

    def _limits(self) -> tuple[float, float]:
        """The widest of both ends of the run. Raises UserError, as `limits`."""
        lows, highs = zip(*(limits(self.t_min, self.t_max, end) for end in (0.0, 1.0)), strict=True)
        return min(lows), max(highs)


TimestepSampler = UniformTimesteps | DreamTime


def limits(t_min: Schedule, t_max: Schedule, progress: float) -> tuple[float, float]:
    """Smallest and largest timestep now, as fractions. Raises UserError unless 0 <= t_min <= t_max <= 1."""
    low, high = t_min(progress), t_max(progress)
    if not 0 <= low <= high <= 1:
        raise UserError(f"the noise levels must satisfy 0 <= t_min <= t_max <= 1, not {low} and {high}")
    return low, high
