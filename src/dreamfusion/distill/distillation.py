"""What all laws of distillation share: noise levels, random noise, guidance, weights, and the mean over the draws."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.distill.draw import Draw
from dreamfusion.distill.interval import Ism
from dreamfusion.distill.laws import Csd, Nfsd, Sds
from dreamfusion.distill.levels import Levels, UniformLevels
from dreamfusion.distill.variational import Vsd
from dreamfusion.distill.weighting import SigmaSquared, Weighting
from dreamfusion.errors import UserError
from dreamfusion.guidance import Guidance
from dreamfusion.priors import Conditioning, Prior

Law = Sds | Csd | Nfsd | Ism | Vsd
"""A difference of two noise estimates for each picture of a draw; the guided one comes first"""

SDS, GUIDANCE, LEVELS, WEIGHTING = Sds(), Guidance(), UniformLevels(), SigmaSquared()


@dataclass(frozen=True)
class Distillation:
    """The gradient w(t) law(x, t, eps) at pictures x, for some t and random eps. The defaults are the paper's."""

    law: Law = SDS
    guidance: Guidance = GUIDANCE
    levels: Levels = LEVELS
    weighting: Weighting = WEIGHTING
    draws: int = 1
    """noisy copies per picture, averaged"""
    max_norm: float | None = None
    """longest gradient per picture (Euclidean norm); longer ones are shortened. None: no limit"""

    def __post_init__(self) -> None:
        if self.draws < 1:
            raise UserError(f"distillation needs at least one draw per picture, not {self.draws}")
        if self.max_norm is not None and self.max_norm <= 0:
            raise UserError(f"the greatest norm of the distillation gradient must be positive, not {self.max_norm}")

    @torch.no_grad()
    def __call__(
        self, x: Float[Tensor, "b c u v"], given: Conditioning, prior: Prior, progress: float, generator: Generator
    ) -> Float[Tensor, "b c u v"]:
        """dL/dx for pictures x in the prior's diffusion space; no graph. `progress` in [0, 1] is that of the run."""
        at = self._draw(x, given, prior, progress, generator)
        weight = self.weighting(prior.schedule, at.t).to(x)[:, None, None, None]
        gradient = (weight * self.law(at)).unflatten(0, (self.draws, len(x))).mean(0)
        return gradient if self.max_norm is None else shortened(gradient, self.max_norm)

    def lessons(
        self, x: Float[Tensor, "b c u v"], given: Conditioning, prior: Prior, progress: float, generator: Generator
    ) -> dict[str, Float[Tensor, ""]]:
        """Losses of what the law itself learns from pictures x, at the noise levels at which it will be asked."""
        if not isinstance(self.law, Vsd):
            return {}
        at = self._draw(x.detach(), given, prior, progress, generator)
        return {"adapter": (self.weighting(prior.schedule, at.t).to(x) * self.law.misfit(at)).mean()}

    def _draw(
        self, x: Float[Tensor, "b c u v"], given: Conditioning, prior: Prior, progress: float, generator: Generator
    ) -> Draw:
        """All pictures for the first draw, then all of them for the second, and so on."""
        copies = x.repeat(self.draws, 1, 1, 1)
        objects = len(x) // given.together
        t = self.levels(prior.schedule, (self.draws, objects), progress, generator)
        t = t.repeat_interleave(given.together, dim=1).flatten().to(x.device)
        eps = torch.randn(copies.shape, generator=generator, device=generator.device).to(x)
        return Draw(copies, t, eps, given.repeated(self.draws), prior, self.guidance)


def shortened(gradient: Float[Tensor, "b c u v"], max_norm: float) -> Float[Tensor, "b c u v"]:
    """Each picture's gradient, scaled down to the norm `max_norm` if it is longer."""
    norm = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient * (max_norm / norm).clamp(max=1)[:, None, None, None]


def surrogate(x: Float[Tensor, "b c u v"], gradient: Float[Tensor, "b c u v"]) -> Float[Tensor, ""]:
    """A scalar whose gradient in x is `gradient` / b, to feed backpropagation with. Its value means nothing."""
    return (x * gradient.detach()).sum() / len(x)
