"""What a law of distillation is: one function, and for laws that learn what the loop asks of them besides."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Generator, Tensor, nn

from dreamfusion.diffusion.distill.noised import NoisedBatch
from dreamfusion.diffusion.priors import Prior


@runtime_checkable
class Law(Protocol):
    """Says in which direction pictures should change."""

    def __call__(self, at: NoisedBatch) -> Float[Tensor, "b c u v"]:
        """A difference of two noise estimates for each picture, the guided one first; called without gradients."""
        ...


@runtime_checkable
class StatefulLaw(Law, Protocol):
    """A law that remembers something, an `nn.Module`: checkpoints hold its parameters and buffers."""

    def attach(self, prior: Prior, generator: Generator) -> None:
        """Called before every step. What depends on the prior is made at the first call.

        Raises UserError for a prior that does not go with the law, or with what it has learnt.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint must hold; as of `nn.Module`."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take what `state_dict` gave, before the first `attach`. Raises ValueError, KeyError or RuntimeError."""
        ...


@runtime_checkable
class LearnedLaw(StatefulLaw, Protocol):
    """A law with parameters of its own. The run's optimiser moves them."""

    @property
    def rate(self) -> float:
        """Learning rate of the parameters, > 0, before the schedule that all rates follow."""
        ...

    def auxiliary_losses(self, at: NoisedBatch) -> Mapping[str, Float[Tensor, " b"]]:
        """Losses of each picture, by the name they are logged under; `at.x` has no gradient, the parameters do."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """All that it learns, in an order that does not change; as of `nn.Module`."""
        ...
