"""A diffusion model whose data are one Gaussian per caption, so that everything it says has a closed form."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dreamfusion.diffusion.priors import NoiseSchedule, ViewCondition
from dreamfusion.diffusion.view_words import ViewWords


def cosine_schedule(steps: int = 1000, dtype: torch.dtype = torch.float64) -> NoiseSchedule:
    """alpha^2 from 0.9999 down to 0.0001 along a squared cosine."""
    angle = torch.linspace(0.01, 0.5 * torch.pi - 0.01, steps, dtype=dtype)
    return NoiseSchedule.variance_preserving(angle.cos() ** 2)


@dataclass(frozen=True, eq=False)
class GaussianPrior:
    """Implements `Prior`: pictures of a caption are N(mean, std^2 I) in diffusion space.

    An embedding *is* the caption's mean, one token of 3 * size * size numbers, so a blend of them is a Gaussian too.
    """

    means: Mapping[str, Tensor]
    """by caption, "3 s s"; a caption takes the mean of the longest key that it contains ("" is in every caption)"""
    std: float
    schedule: NoiseSchedule
    image_size: int
    name: str = "gaussian"
    view_words: ViewWords = ViewWords()  # noqa: RUF009 (frozen)
    conditions: frozenset[str] = frozenset()
    vocabulary: frozenset[str] | None = None

    def embed(self, prompts: Sequence[str]) -> Tensor:
        keys = [max((key for key in self.means if key in prompt), key=len) for prompt in prompts]
        return torch.stack([self.means[key].flatten()[None] for key in keys])

    def encode(self, image: Tensor) -> Tensor:
        return 2 * image.permute(0, 3, 1, 2) - 1

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, known: ViewCondition) -> Tensor:
        """sigma (x_t - alpha mean) / (alpha^2 std^2 + sigma^2): minus sigma times the score of the noisy Gaussian."""
        alpha, sigma = (
            value.to(noisy)[:, None, None, None] for value in (self.schedule.alpha(t), self.schedule.sigma(t))
        )
        mean = text[:, 0].view_as(noisy).to(noisy)
        return sigma * (noisy - alpha * mean) / (alpha**2 * self.std**2 + sigma**2)
