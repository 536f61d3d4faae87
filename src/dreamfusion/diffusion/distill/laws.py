"""Laws that compare the guided estimate with what costs nothing: the noise itself, or an estimate made on the way."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.config.distill import NfsdLaw
from dreamfusion.diffusion.distill.noised import NoisedBatch


@dataclass(frozen=True)
class Sds:
    """Score distillation sampling: eps_hat(x_t; y, t) - eps (Poole et al. 2022, arXiv 2209.14988, equation 3).

    Since eps_hat - eps = alpha / sigma (x - x0_hat), it pulls x towards what the model sees in its noisy copy.
    """

    def __call__(self, at: NoisedBatch) -> Float[Tensor, "b c u v"]:
        return at.guided() - at.eps


@dataclass(frozen=True)
class Csd:
    """Classifier score distillation: s (eps(x_t; y, t) - eps(x_t; t)) (Yu et al. 2023, arXiv 2310.19415, section 4).

    Guidance alone, the gradient of an implicit classifier of the caption.
    The guidance scale is only a factor. A negative prompt takes the place of the empty caption. Nothing of guidance's
    contrast is taken back, as that is all there is: `rescale` does not count.
    """

    def __call__(self, at: NoisedBatch) -> Float[Tensor, "b c u v"]:
        says = replace(at, guidance=replace(at.guidance, rescale=None)).estimates()
        return says.guided - says.uncond


@dataclass(frozen=True)
class Nfsd:
    """Noise-free score distillation: delta_D + s delta_C (Katzir et al. 2023, arXiv 2310.17590, section 4).

    delta_C = eps(x_t; y, t) - eps(x_t; t). The way to the domain of pictures, delta_D, is eps(x_t; t) where there is so
    little noise that it is nearly all that the model sees, and eps(x_t; t) - eps(x_t; negative, t) elsewhere. In short
    eps_hat(x_t; y, t) - [t >= clean_below] eps(x_t; negative, t). Without a negative prompt it is CSD above that level.
    """

    config: NfsdLaw = NfsdLaw()

    def __call__(self, at: NoisedBatch) -> Float[Tensor, "b c u v"]:
        says = replace(at, given=replace(at.given, negative=None)).estimates()
        reference = says.uncond
        if at.given.negative is not None:
            reference = at.prior.predict_noise(at.noisy, at.t, at.given.negative, at.given.known)
        much = at.t >= self.config.clean_below * at.prior.schedule.steps
        return says.guided - torch.where(much[:, None, None, None], reference, 0.0)
