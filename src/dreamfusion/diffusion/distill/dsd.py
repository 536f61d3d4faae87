"""Diverse score distillation: a run's noise follows the path that the prior's sampler takes from the run's seed."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion.config.distill import DsdLaw
from dreamfusion.diffusion.ddim import picture_shape
from dreamfusion.diffusion.distill.ism import ddim_step
from dreamfusion.diffusion.distill.noised import NoisedBatch
from dreamfusion.diffusion.priors import Prior
from dreamfusion.errors import UserError


class Dsd(nn.Module):
    """eps_hat(x_t; y, t) - e with x_t = alpha x + sigma e (Xu et al. 2024, arXiv 2412.06780).

    e is the guided estimate of the noise a little above t on the path that deterministic DDIM takes down from the run's
    own noise, the same for all views, which is drawn once. On that path x_t has this form with the clean estimate in
    place of x, so the rendering is moved as that estimate moves: each seed to the picture that it would be sampled to.
    """

    def __init__(self, config: DsdLaw = DsdLaw()) -> None:
        """The noise comes with the first prior (`attach`)."""
        super().__init__()
        self.config, self.noise = config, nn.Buffer(torch.zeros(0))

    def attach(self, prior: Prior, generator: Generator) -> None:
        """See `StatefulLaw`."""
        if not self.noise.numel():
            shape = picture_shape(prior)
            drawn = torch.randn(shape, generator=generator, device=generator.device)
            self.noise = drawn.to(prior.schedule.alphas.device)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """See `StatefulLaw`: the noise of whatever prior it was, on its device."""
        self.noise = torch.empty_like(state_dict["noise"])
        return super().load_state_dict(state_dict, strict, assign)

    def forward(self, at: NoisedBatch) -> Float[Tensor, "b c u v"]:
        seeds = self.along_the_path(at)
        noisy = at.prior.schedule.add_noise(at.x, seeds, at.t)
        return at.guidance.guided(at.prior, noisy, at.t, at.given) - seeds

    def along_the_path(self, at: NoisedBatch) -> Float[Tensor, "b c u v"]:
        """e: the estimate of the noise where the path ends, `gap` above each picture's level, but not above its start.

        Raises UserError for a prior of pictures of another shape than that of the first.
        """
        if self.noise.shape != at.x.shape[1:]:
            raise UserError("the run's noise belongs to another prior: give the --prior that the run began with")
        schedule = at.prior.schedule
        start = torch.full_like(at.t, min(round(self.config.start * schedule.steps), schedule.steps - 1))
        end = torch.minimum(at.t + round(self.config.gap * schedule.steps), start)
        noisy, t = schedule.add_noise(torch.zeros_like(at.x), self.noise.to(at.x).expand_as(at.x), start), start
        for step in range(1, self.config.steps + 1):
            following = start + (end - start) * step // self.config.steps
            noisy = ddim_step(schedule, noisy, at.guidance.guided(at.prior, noisy, t, at.given), t, following)
            t = following
        return at.guidance.guided(at.prior, noisy, t, at.given)
