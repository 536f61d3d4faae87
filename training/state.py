"""What changes while a network learns: saved whole or not at all, read back to the last bit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from dreamfusion.checkpoint import require_fit
from dreamfusion.errors import damage_explained
from dreamfusion.files import replacing

STATE = "state.safetensors"


@dataclass
class State:
    """Weights, moments and chance of a training, and how far it is."""

    network: nn.Module
    optimiser: Optimizer
    generators: Sequence[Generator]
    average: nn.Module | None = None
    """the network with the exponential moving average of its weights"""
    copies: Sequence[nn.Module] = ()
    """of the network, which learn beside it and have statistics of their own"""
    step: int = 0
    """updates done"""
    seconds: float = 0.0
    """of wall time, spent in updates"""

    def tensors(self) -> dict[str, Tensor]:
        """Everything but `step` and `seconds`, by name."""
        named = {
            f"{kind}.{name}": tensor
            for kind, module in self._modules().items()
            for name, tensor in module.state_dict().items()
        }
        for index, moments in self.optimiser.state_dict()["state"].items():
            named |= {f"optimiser.{index}.{name}": tensor for name, tensor in moments.items()}
        named |= {f"generator.{index}": generator.get_state() for index, generator in enumerate(self.generators)}
        return {name: tensor.contiguous().clone() for name, tensor in named.items()}

    def save(self, work: Path) -> None:
        """Write `state.safetensors` in the folder; the old one stays until the new one is complete."""
        told = {"step": str(self.step), "seconds": str(self.seconds)}
        with replacing(work / STATE) as part:
            save_file(self.tensors(), part, metadata=told)

    def restore(self, work: Path) -> None:
        """Read back what `save` wrote. Raises UserError if it is damaged or of another network."""
        with damage_explained(work / STATE, "restore it, or delete it to start anew"):
            self._restore(work / STATE)

    def _restore(self, file: Path) -> None:
        with safe_open(file, "pt") as opened:
            told = opened.metadata()
        tensors = load_file(file)
        for kind, module in self._modules().items():
            module.load_state_dict(_under(f"{kind}.", tensors))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _under("optimiser.", tensors).items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = tensor
        require_fit(self.optimiser, moments)
        parameters = [parameter for group in self.optimiser.param_groups for parameter in group["params"]]
        laid_out = {index: _like(parameters[index], named) for index, named in moments.items()}
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": laid_out})
        for index, generator in enumerate(self.generators):
            generator.set_state(tensors[f"generator.{index}"])
        self.step, self.seconds = int(told["step"]), float(told["seconds"])

    def _modules(self) -> dict[str, nn.Module]:
        average = {} if self.average is None else {"average": self.average}
        return {"network": self.network, **average} | {f"copy.{i}": copy for i, copy in enumerate(self.copies)}


def _like(parameter: Tensor, moments: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those of its shape in its layout in memory: fused optimisers go through both as they lie there."""
    return {
        name: torch.empty_like(parameter).copy_(tensor) if tensor.shape == parameter.shape else tensor
        for name, tensor in moments.items()
    }


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
