"""What all laws of distillation share: noise levels, random noise, guidance, weights, and the mean over the draws."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.diffusion.distill.law import Law, LearnedLaw
from dreamfusion.diffusion.distill.laws import Sds
from dreamfusion.diffusion.distill.noised import NoisedBatch
from dreamfusion.diffusion.distill.timesteps import TimestepSampler, UniformTimesteps
from dreamfusion.diffusion.distill.weighting import SigmaSquared, Weighting
from dreamfusion.diffusion.guidance import Guidance
from dreamfusion.diffusion.priors import Conditioning, Prior
from dreamfusion.errors import UserError

SDS, GUIDANCE, LEVELS, WEIGHTING = Sds(), Guidance(), UniformTimesteps(), SigmaSquared()


@dataclass(frozen=True)
class Distillation:
    """The gradient w(t) law(x, t, eps) at pictures x, for some t and random eps. The defaults are the paper's."""

    law: Law = SDS
    guidance: Guidance = GUIDANCE
    timesteps: TimestepSampler = LEVELS
    weighting: Weighting = WEIGHTING
    noise_samples: int = 1
    """noisy copies per picture, averaged"""
    grad_clip: float | None = None
    """longest gradient per picture (Euclidean norm); longer ones are shortened. None: no limit"""

    def __post_init__(self) -> None:
        if self.noise_samples < 1:
            raise UserError(f"distillation needs at least one draw per picture, not {self.noise_samples}")
        if self.grad_clip is not None and self.grad_clip <= 0:
            raise UserError(f"the greatest norm of the distillation gradient must be positive, not {self.grad_clip}")

    @torch.no_grad()
    def __call__(
        self, x: Float[Tensor, "b c u v"], given: Conditioning, prior: Prior, progress: float, generator: Generator
    ) -> Float[Tensor, "b c u v"]:
        """dL/dx for pictures x in the prior's diffusion space; no graph. `progress` in [0, 1] is that of the run."""
        at = self._noised(x, given, prior, progress, generator)
        weight = self.weighting(prior.schedule, at.t).to(x)[:, None, None, None]
        gradient = (weight * self.law(at)).unflatten(0, (self.noise_samples, len(x))).mean(0)
        return gradient if self.grad_clip is None else clip_per_image_norm(gradient, self.grad_clip)

    def auxiliary_losses(
        self, x: Float[Tensor, "b c u v"], given: Conditioning, prior: Prior, progress: float, generator: Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses of what the law itself learns from pictures x, at the noise levels at which it will be asked."""
        if not isinstance(self.law, LearnedLaw):
            return {}
        at = self._noised(x.detach(), given, prior, progress, generator)
        weight = self.weighting(prior.schedule, at.t).to(x)
        with torch.enable_grad():
            return {name: (weight * loss).mean() for name, loss in self.law.auxiliary_losses(at).items()}

    def _noised(
        self, x: Float[Tensor, "b c u v"], given: Conditioning, prior: Prior, progress: float, generator: Generator
    ) -> NoisedBatch:
        """All pictures for the first draw, then all of them for the second, and so on."""
        copies = x.repeat(self.noise_samples, 1, 1, 1)
        t = self.timesteps(prior.schedule, (self.noise_samples, len(x)), progress, generator).flatten().to(x.device)
        eps = torch.randn(copies.shape, generator=generator, device=generator.device).to(x)
        return NoisedBatch(copies, t, eps, given.repeated(self.noise_samples), prior, self.guidance)


def clip_per_image_norm(gradient: Float[Tensor, "b c u v"], max_norm: float) -> Float[Tensor, "b c u v"]:
    """Each picture's gradient, scaled down to the norm `grad_clip` if it is longer."""
    norm = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient * (max_norm / norm).clamp(max=1)[:, None, None, None]


def surrogate(x: Float[Tensor, "b c u v"], gradient: Float[Tensor, "b c u v"]) -> Float[Tensor, ""]:
    """A scalar whose gradient in x is `gradient` / b, to feed backpropagation with. Its value means nothing."""
    return (x * gradient.detach()).sum() / len(x)
