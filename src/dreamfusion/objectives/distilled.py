"""Score distillation as an objective: DreamFusion's own (section 3.4, algorithm 1)."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Generator, Tensor

from dreamfusion.diffusion.distill import Distillation, surrogate
from dreamfusion.diffusion.priors import Prior, encoded
from dreamfusion.diffusion.prompts import PromptTable
from dreamfusion.distributed import ProcessGroup
from dreamfusion.errors import UserError
from dreamfusion.objectives.protocol import Guide, Judged, Seen, Words


@dataclass(frozen=True)
class Distilled:
    """The gradient of score distillation, as the term "distillation", and the losses of a law that learns."""

    distillation: Distillation
    group: ProcessGroup
    """the processes that share the prior's work"""
    latent_until: float
    """progress up to which latents are a linear map of the colours"""

    def __call__(self, seen: Seen, guide: Guide, words: Words, generator: Generator) -> Judged:
        """See `Objective`. "distillation" is logged as the mean norm of its gradient per picture."""
        assert isinstance(guide, Prior)
        assert isinstance(words, PromptTable)
        x, progress = self._encoded(guide, seen), seen.progress
        given = words(seen.cameras, seen.light, seen.background)
        everyone = self.distillation(self.group.all_gather(x), given, guide, progress, generator)
        gradient = self.group.own_rows(everyone)
        auxiliary = self.distillation.auxiliary_losses(x, given, guide, progress, generator)
        per_number = math.sqrt(gradient[0].numel()) * max(self.distillation.guidance.scale, 1.0)
        return Judged(
            terms={"distillation": surrogate(x, gradient), **auxiliary},
            logged={"distillation": gradient.flatten(1).norm(dim=1).mean()},
            vitals={"pull": per_number},
        )

    def _encoded(self, prior: Prior, seen: Seen) -> Float[Tensor, "b c u v"]:
        """The pictures in the prior's diffusion space."""
        rgb = seen.picture.rgb
        x = encoded(prior, rgb, linear=seen.progress < self.latent_until)
        if not x.requires_grad:
            whose = "prior's encode" if rgb.requires_grad else "field or background"
            raise UserError(f"nothing would train the scene: the {whose} returns tensors without their graph")
        return x
