"""Low-rank adapters: a frozen network that behaves otherwise for a while, with few parameters of its own."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from dreamfusion.errors import UserError


class Adapter(nn.Module):
    """Every linear layer W x + b of a network becomes W x + b + up (down x) (LoRA, Hu et al. 2021, arXiv 2106.09685).

    It begins without parameters, belongs to no network, and never touches a weight: layers are changed by hooks, only
    within `on`. With `up` at its first value, zero, nothing changes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.ParameterDict(), nn.ParameterDict()

    @property
    def empty(self) -> bool:
        return len(self.down) == 0

    def grow(self, network: nn.Module, rank: int, generator: Generator) -> None:
        """Get fresh parameters in single precision for all linear layers, on their devices."""
        for key, layer in _linear_layers(network):
            down = torch.randn(rank, layer.in_features, generator=generator, device=generator.device) / rank
            up = torch.zeros(layer.out_features, rank)
            self._add(key, down.to(layer.weight.device), up.to(layer.weight.device))

    def adopt(self, state: Mapping[str, Tensor]) -> None:
        """Get the parameters of another adapter's `state_dict`, whatever layers they are for.

        Raises KeyError or ValueError for what is none.
        """
        for name in sorted(state):  # a file has an order of its own, and optimisers count parameters
            if name.startswith("down."):
                key = name.removeprefix("down.")
                down, up = state[name], state[f"up.{key}"]
                if down.dim() != 2 or up.dim() != 2 or len(down) != up.shape[1] or not down.is_floating_point():
                    raise ValueError(f"{key} is no pair of low-rank factors")
                self._add(key, down.float(), up.float())

    def require_fit(self, network: nn.Module) -> None:
        """Raises UserError unless the parameters are those of this network's layers."""
        wanted = {key: (layer.in_features, layer.out_features) for key, layer in _linear_layers(network)}
        if wanted != {key: (down.shape[1], len(self.up[key])) for key, down in self.down.items()}:
            raise UserError("the run's adapter belongs to another prior: give the --prior that the run began with")

    @contextmanager
    def on(self, network: nn.Module) -> Iterator[None]:
        """Within it, the network behaves as adapted."""
        handles = [layer.register_forward_hook(self._hook(key)) for key, layer in _linear_layers(network)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _add(self, key: str, down: Float[Tensor, "r i"], up: Float[Tensor, "o r"]) -> None:
        self.down[key], self.up[key] = nn.Parameter(down), nn.Parameter(up)

    def _hook(self, key: str):
        down, up = self.down[key], self.up[key]

        def add(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            # In single precision, whatever the network computes in: small gradients vanish in half.
            return output + F.linear(F.linear(inputs[0].to(down), down), up).to(output)

        return add


def _linear_layers(network: nn.Module) -> Iterator[tuple[str, nn.Linear]]:
    """Sorted by name. In names "/" stands for ".", which parameters may not have; the network itself is "/"."""
    layers = ((name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear))
    yield from sorted((name.replace(".", "/") or "/", layer) for name, layer in layers)
