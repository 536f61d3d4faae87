"""Variational score distillation (ProlificDreamer): score of the renderings from a LoRA copy of the prior."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion.config.distill import VsdLaw
from dreamfusion.diffusion.distill.adapter import Adapter
from dreamfusion.diffusion.distill.noised import NoisedBatch
from dreamfusion.diffusion.priors import Prior
from dreamfusion.errors import UserError


@runtime_checkable
class HasNetwork(Protocol):
    """A prior whose noise estimates come from a network that takes low-rank adapters."""

    @property
    def network(self) -> nn.Module:
        """What `predict_noise` calls; frozen."""
        ...


class Vsd(nn.Module):
    """eps_hat(x_t; y, t) - eps_phi(x_t; y, c, t) (Wang et al. 2023, arXiv 2305.16213, section 3.2).

    eps_phi is the prior with low-rank adapters (LoRA), trained beside the scene to denoise its renderings. It is
    evaluated and trained without guidance. The camera c enters as in the prior: by view words, and by the pose if the
    prior takes one.
    """

    def __init__(self, config: VsdLaw = VsdLaw()) -> None:
        """Parameters come with the first network (`attach`)."""
        super().__init__()
        self.rank, self.rate, self.adapter = config.rank, config.rate, Adapter()

    def attach(self, prior: Prior, generator: Generator) -> None:
        """See `LearnedLaw`. Raises UserError if the prior has no network, or if the adapters belong to another."""
        network = network_of(prior)
        if self.adapter.empty:
            self.adapter.grow(network, self.rank, generator)
        self.adapter.require_fit(network)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """See `LearnedLaw`: adapters for whatever layers the state has, on its device."""
        self.adapter.adopt({name.removeprefix("adapter."): tensor for name, tensor in state_dict.items()})
        return super().load_state_dict(state_dict, strict, assign)

    def forward(self, at: NoisedBatch) -> Float[Tensor, "b c u v"]:
        return at.guided() - self.estimate(at)

    def estimate(self, at: NoisedBatch) -> Float[Tensor, "b c u v"]:
        """eps_phi."""
        with self.adapter.on(network_of(at.prior)):
            return at.prior.predict_noise(at.noisy, at.t, at.given.text, at.given.known)

    def auxiliary_losses(self, at: NoisedBatch) -> dict[str, Float[Tensor, " b"]]:
        """|eps_phi - eps|^2 of each picture, which is least, in the mean, for the score of the renderings."""
        return {"adapter": (self.estimate(at) - at.eps).square().sum((1, 2, 3))}


def network_of(prior: Prior) -> nn.Module:
    """Raises UserError for a prior without one."""
    if not isinstance(prior, HasNetwork):
        raise UserError(f"the prior {prior.name} has no network to adapt: use another --distill than vsd and esd")
    return prior.network
