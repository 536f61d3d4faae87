"""Score distillation sampling (DreamFusion, section 2): a frozen diffusion model says how a rendering should change."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from dreamfusion.errors import UserError
from dreamfusion.guidance import guided_noise
from dreamfusion.priors import Conditioning, NoiseSchedule, Prior
from dreamfusion.schedules import Constant, Schedule


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
    """w = alpha sigma. It weighs x - x0_hat by alpha^2: little say for what is guessed from almost pure noise."""

    def __call__(self, schedule: NoiseSchedule, t: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        return schedule.alpha(t) * schedule.sigma(t)


Weighting = SigmaSquared | Uniform | AlphaSigma

EARLIEST, LATEST, WEIGHTING = Constant(0.02), Constant(0.98), SigmaSquared()


@dataclass(frozen=True)
class Sds:
    """The gradient w(t) (eps_hat(x_t; y, t) - eps) at pictures x, for random t and eps. The defaults are the paper's.

    Since eps_hat - eps = alpha / sigma (x - x0_hat), it pulls x towards what the model sees in its noisy copy.
    """

    guidance_scale: float = 101.0
    """diffusers' s; the paper's omega = 100 is s - 1"""
    t_min: Schedule = EARLIEST
    """least noise, as a fraction of the timesteps, in [0, 1], over the progress of the run"""
    t_max: Schedule = LATEST
    """most noise, idem; t is uniform between the two"""
    weighting: Weighting = WEIGHTING
    draws: int = 1
    """noisy copies per picture, averaged; their noise levels are stratified, which leaves the expectation as it is"""
    max_norm: float | None = None
    """longest gradient per picture (Euclidean norm); longer ones are shortened. None: no limit"""
    rescale: float | None = None
    """share in [0, 1] of the contrast added by guidance that is taken back; None: nothing"""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise UserError(f"distillation needs at least one draw per picture, not {self.draws}")
        if self.max_norm is not None and self.max_norm <= 0:
            raise UserError(f"the greatest norm of the distillation gradient must be positive, not {self.max_norm}")
        if self.rescale is not None and not 0 <= self.rescale <= 1:
            raise UserError(f"the guidance rescale is a share between 0 and 1, not {self.rescale}")

    @torch.no_grad()
    def __call__(
        self, x: Float[Tensor, "b c u v"], given: Conditioning, prior: Prior, progress: float, generator: Generator
    ) -> Float[Tensor, "b c u v"]:
        """dL/dx for pictures x in the prior's diffusion space; no graph. `progress` in [0, 1] is that of the run."""
        schedule, copies = prior.schedule, x.repeat(self.draws, 1, 1, 1)
        t = self.timesteps(len(x) // given.together, schedule.steps, progress, generator)
        t = t.repeat_interleave(given.together).to(x.device)
        eps = torch.randn(copies.shape, generator=generator, device=generator.device).to(x)
        noisy = schedule.add_noise(copies, eps, t)
        eps_hat = guided_noise(prior, noisy, t, given.repeated(self.draws), self.guidance_scale, self.rescale)
        weight = self.weighting(schedule, t).to(x)[:, None, None, None]
        gradient = (weight * (eps_hat - eps)).unflatten(0, (self.draws, len(x))).mean(0)
        return gradient if self.max_norm is None else shortened(gradient, self.max_norm)

    def timesteps(self, count: int, steps: int, progress: float, generator: Generator) -> Int[Tensor, " n"]:
        """Random timesteps of `count` pictures for the first draw, then of all of them for the second, and so on."""
        low, high = self.t_min(progress), self.t_max(progress)
        if not 0 <= low <= high <= 1:
            raise UserError(f"the noise levels must satisfy 0 <= t_min <= t_max <= 1, not {low} and {high}")
        u = torch.rand(self.draws, count, generator=generator, device=generator.device)
        stratum = (torch.arange(self.draws, device=u.device)[:, None] + u) / self.draws
        t = (low + (high - low) * stratum) * steps
        return t.long().clamp(max=steps - 1).flatten()


def shortened(gradient: Float[Tensor, "b c u v"], max_norm: float) -> Float[Tensor, "b c u v"]:
    """Each picture's gradient, scaled down to the norm `max_norm` if it is longer."""
    norm = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient * (max_norm / norm).clamp(max=1)[:, None, None, None]


def surrogate(x: Float[Tensor, "b c u v"], gradient: Float[Tensor, "b c u v"]) -> Float[Tensor, ""]:
    """A scalar whose gradient in x is `gradient` / b, to feed backpropagation with. Its value means nothing."""
    return (x * gradient.detach()).sum() / len(x)
