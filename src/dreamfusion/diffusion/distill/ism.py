"""Interval score matching (LucidDreamer): two noise levels on one deterministic path instead of random noise."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.config.distill import IsmLaw
from dreamfusion.diffusion.distill.noised import NoisedBatch
from dreamfusion.diffusion.priors import NoiseSchedule


@dataclass(frozen=True)
class Ism:
    """eps_hat(x_t; y, t) - eps(x_s; s) with s < t (Liang et al. 2023, arXiv 2311.11284, section 3.2).

    x_s and x_t come from x by inverting DDIM with the empty caption, so that equal pictures get equal noise: the pull
    does not change its mind from step to step as that of SDS does.
    """

    config: IsmLaw = IsmLaw()
    """With `start` 0, the paper's, the path begins at the picture itself, taken as that of the first timestep; else
    that much random noise is added: a network that predicts the clean picture says nothing sound of the noise at 0."""

    def __call__(self, at: NoisedBatch) -> Float[Tensor, "b c u v"]:
        schedule = at.prior.schedule
        s = (at.t - max(round(self.config.gap * schedule.steps), 1)).clamp(min=0)
        x_s = self.ddim_inversion(at, s)
        reference = uncond_estimate(at, x_s, s)
        x_t = ddim_step(schedule, x_s, reference, s, at.t)
        return at.guidance.guided(at.prior, x_t, at.t, at.given) - reference

    def ddim_inversion(self, at: NoisedBatch, s: Int[Tensor, " b"]) -> Float[Tensor, "b c u v"]:
        """x_s: the picture x, moved from the start of the path (or from s itself, if that is lower) up to s."""
        schedule = at.prior.schedule
        first = s.clamp(max=round(self.config.start * schedule.steps))
        noisy, t = schedule.add_noise(at.x, at.eps, first) if self.config.start else at.x, first
        for step in range(1, self.config.inversions + 1):
            following = first + (s - first) * step // self.config.inversions
            noisy = ddim_step(schedule, noisy, uncond_estimate(at, noisy, t), t, following)
            t = following
        return noisy


def uncond_estimate(at: NoisedBatch, noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"]) -> Float[Tensor, "b c u v"]:
    """Noise estimate with the empty caption."""
    return at.prior.predict_noise(noisy, t, at.given.null_text, at.given.known)


def ddim_step(
    schedule: NoiseSchedule,
    noisy: Float[Tensor, "b c u v"],
    eps: Float[Tensor, "b c u v"],
    t: Int[Tensor, " b"],
    to: Int[Tensor, " b"],
) -> Float[Tensor, "b c u v"]:
    """One DDIM step (Song et al. 2020, arXiv 2010.02502, equation 12 with eta = 0) from timesteps t to others."""
    return schedule.add_noise(schedule.x0_from_eps(eps, noisy, t), eps, to)
