"""Input of a law of distillation: noisy pictures with their timesteps, noise, conditioning and prior."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from dreamfusion.diffusion.guidance import Guidance, NoiseEstimates
from dreamfusion.diffusion.priors import Conditioning, Prior


@dataclass(frozen=True, eq=False)
class NoisedBatch:
    """Pictures in the prior's diffusion space with random noise on them."""

    x: Float[Tensor, "b c u v"]
    t: Int[Tensor, " b"]
    """the timestep of each picture"""
    eps: Float[Tensor, "b c u v"]
    given: Conditioning
    prior: Prior
    guidance: Guidance

    @property
    def noisy(self) -> Float[Tensor, "b c u v"]:
        """x_t = alpha x + sigma eps."""
        return self.prior.schedule.add_noise(self.x, self.eps, self.t)

    def estimates(self) -> NoiseEstimates:
        """Noise estimates of the prior at x_t."""
        return self.guidance(self.prior, self.noisy, self.t, self.given)

    def guided(self) -> Float[Tensor, "b c u v"]:
        """The guided noise estimate of the prior at x_t alone."""
        return self.guidance.guided(self.prior, self.noisy, self.t, self.given)
