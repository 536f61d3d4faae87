"""A prior's noise estimate, sharpened towards a caption: classifier-free guidance and Perp-Neg in one expression."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.config import DistillConfig
from dreamfusion.diffusion.priors import Conditioning, NoiseSchedule, Prior
from dreamfusion.errors import UserError


@dataclass(frozen=True, eq=False)
class NoiseEstimates:
    """Noise estimates of a prior."""

    uncond: Float[Tensor, "b c u v"]
    """for the empty caption, or the negative prompt in its place"""
    cond: Float[Tensor, "b c u v"]
    guided: Float[Tensor, "b c u v"]


@dataclass(frozen=True)
class Guidance:
    """How a noise estimate is sharpened. The default is the paper's."""

    scale: float = DistillConfig.guidance_scale
    """diffusers' s: 1 is the plain conditional estimate, 0 the empty one; the paper's omega = 100 is s - 1"""
    rescale: float | None = None
    """share in [0, 1] of the contrast added by guidance that is taken back (see `rescale_contrast`); None: nothing"""

    def __post_init__(self) -> None:
        if self.rescale is not None and not 0 <= self.rescale <= 1:
            raise UserError(f"the guidance rescale is a share between 0 and 1, not {self.rescale}")

    def __call__(
        self, prior: Prior, noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"], given: Conditioning
    ) -> NoiseEstimates:
        """All estimates from one call of the network."""
        uncond, cond, perp_neg = _by_caption(prior, noisy, t, given)
        guided = combine_guidance(uncond, cond, perp_neg, given.perp_neg_weight, self.scale)
        if self.rescale is not None:
            guided = rescale_contrast(prior.schedule, noisy, t, guided, cond, self.rescale)
        return NoiseEstimates(uncond, cond, guided)

    def guided(
        self, prior: Prior, noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"], given: Conditioning
    ) -> Float[Tensor, "b c u v"]:
        """The guided estimate alone; at a scale of 1, without Perp-Neg, it is the caption's and costs half."""
        if self.scale == 1 and not given.perp_neg_text.shape[1]:
            return prior.predict_noise(noisy, t, given.text, given.known)
        return self(prior, noisy, t, given).guided


def _by_caption(
    prior: Prior, noisy: Float[Tensor, "b c u v"], t: Int[Tensor, " b"], given: Conditioning
) -> tuple[Float[Tensor, "b c u v"], Float[Tensor, "b c u v"], Float[Tensor, "k b c u v"]]:
    null_text = given.null_text if given.negative is None else given.negative
    captions = torch.cat([null_text[None], given.text[None], given.perp_neg_text.transpose(0, 1)])
    count = len(captions)
    eps = prior.predict_noise(
        noisy.repeat(count, 1, 1, 1), t.repeat(count), captions.flatten(0, 1), given.known.repeated(count)
    )
    uncond, cond, *perp_neg = eps.unflatten(0, (count, len(noisy)))
    return uncond, cond, torch.stack(perp_neg) if perp_neg else eps.new_zeros(0, *noisy.shape)


def combine_guidance(
    uncond: Float[Tensor, "b c u v"],
    cond: Float[Tensor, "b c u v"],
    perp_neg: Float[Tensor, "k b c u v"],
    weight: Float[Tensor, "b k"],
    scale: float,
) -> Float[Tensor, "b c u v"]:
    """uncond + s (d + sum_k w_k perp(d_k, d)), with d = cond - uncond and d_k = perp_neg_k - uncond.

    Without `perp_neg` this is classifier-free guidance (Ho and Salimans 2022, arXiv 2207.12598). With it it is Perp-Neg
    (Armandpour et al. 2023, arXiv 2304.04968): only what another caption says *besides* the main one counts, and a
    negative weight steers away from it.
    """
    main = cond - uncond
    aside = perpendicular_component(perp_neg - uncond, main.expand_as(perp_neg))
    return uncond + scale * (main + (weight.T[:, :, None, None, None].to(aside) * aside).sum(0))


def perpendicular_component(v: Float[Tensor, "*n c u v"], axis: Float[Tensor, "*n c u v"]) -> Float[Tensor, "*n c u v"]:
    """The part of each picture-sized vector that is orthogonal to `axis` (all of it where the axis is zero)."""
    dims = (-3, -2, -1)
    along = (v * axis).sum(dims, keepdim=True) / (axis * axis).sum(dims, keepdim=True).clamp_min(
        torch.finfo(axis.dtype).tiny
    )
    return v - along * axis


def rescale_contrast(
    schedule: NoiseSchedule,
    noisy: Float[Tensor, "b c u v"],
    t: Int[Tensor, " b"],
    guided: Float[Tensor, "b c u v"],
    cond: Float[Tensor, "b c u v"],
    share: float,
) -> Float[Tensor, "b c u v"]:
    """Bring the contrast of the guided clean picture back towards that of the conditional one, against over-saturation.

    The idea is guidance rescaling (Lin et al. 2023, arXiv 2305.08891, section 3.4), here on the estimate of x0, as
    MVDream does for distillation (Shi et al. 2023, arXiv 2308.16512). `share` is their phi: 0 changes nothing, 1 makes
    the standard deviation of each picture equal. In pure noise (alpha = 0) there is no picture, and nothing changes.
    """
    wanted, got = (schedule.x0_from_eps(eps, noisy, t) for eps in (cond, guided))
    contrast = got.std((1, 2, 3), keepdim=True).clamp_min(torch.finfo(got.dtype).tiny)
    ratio = wanted.std((1, 2, 3), keepdim=True) / contrast
    eps = schedule.eps_from_x0(got * (share * ratio + 1 - share), noisy, t)
    return torch.where(schedule.alpha(t).to(eps)[:, None, None, None] > 0, eps, guided)
