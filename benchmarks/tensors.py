"""What a step holds in memory as its backward pass begins: the largest tensors, and what autograd saved for it."""

import gc
from collections.abc import Callable
from dataclasses import dataclass
from unittest.mock import patch

import torch
from torch import Tensor, nn

from dreamfusion.loop import Run

Held = dict[int, "Block"]
"""By address, so that views of one tensor count once"""


@dataclass(frozen=True)
class Block:
    """One stretch of memory, and the largest tensor seen on it."""

    size: int
    """bytes"""
    shape: tuple[int, ...]
    dtype: torch.dtype
    what: str


def tensor_report(run: Run, step: Callable[[], object], rows: int = 10) -> dict[str, object]:
    """Do one step of the run; what it held when its first backward pass began, in megabytes."""
    alive: Held = {}
    saved: Held = {}
    begin = torch.autograd.backward
    names: dict[int, str] = {}

    def look_and_begin(*arguments, **options) -> None:
        if not alive:
            names.update(_names(run))
            _note_all(alive, names)
        begin(*arguments, **options)

    def note(tensor: Tensor) -> Tensor:
        if not alive:  # the pass itself saves nothing that stays
            _note(saved, tensor, {})
        return tensor

    # `Tensor.backward` ends here too.
    saving = torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor)
    with patch.object(torch.autograd, "backward", look_and_begin), saving:
        step()
    graph = {address: block for address, block in saved.items() if address not in names}
    return {
        "alive_mb": _megabytes(alive),
        "largest_alive": _table(alive, rows),
        "saved_for_backward_mb": _megabytes(graph),  # without parameters, which are there anyway
        "largest_saved": _table(graph, rows),
    }


def _note_all(held: Held, names: dict[int, str]) -> None:
    """All tensors that Python knows of."""
    for thing in gc.get_objects():
        if issubclass(type(thing), Tensor):
            _note(held, thing, names)


def _note(held: Held, tensor: Tensor, names: dict[int, str]) -> None:
    if tensor.device.type == "meta" or tensor.layout != torch.strided:
        return
    storage = tensor.untyped_storage()
    address, size = storage.data_ptr(), storage.nbytes()
    known = held.get(address)
    if size and (known is None or tensor.numel() > torch.Size(known.shape).numel()):
        made_by = "" if tensor.grad_fn is None else f"from {tensor.grad_fn.name()}"
        held[address] = Block(size, tuple(tensor.shape), tensor.dtype, names.get(address, made_by))


def _names(run: Run) -> dict[int, str]:
    """What is known of the tensors that outlive a step, by address."""
    names: dict[int, str] = {}
    modules = [thing for thing in gc.get_objects() if issubclass(type(thing), nn.Module)]
    inner = {id(child) for module in modules for child in module.children()}
    for module in [module for module in modules if id(module) not in inner]:
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
            names[_address(tensor)] = f"{type(module).__name__}.{name}"
    for name, tensor in [*run.scene.named_parameters(), *run.scene.named_buffers()]:
        names[_address(tensor)] = f"scene.{name}"
        if tensor.grad is not None:
            names[_address(tensor.grad)] = f"gradient of scene.{name}"
        for key, value in run.optimiser.state.get(tensor, {}).items():
            if isinstance(value, Tensor):
                names[_address(value)] = f"{key} of scene.{name}"
    return names


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _megabytes(held: Held) -> float:
    return round(sum(block.size for block in held.values()) / 1e6, 2)


def _table(held: Held, rows: int) -> list[dict[str, object]]:
    largest = sorted(held.values(), key=lambda block: block.size, reverse=True)[:rows]
    return [
        {
            "mb": round(block.size / 1e6, 2),
            "shape": list(block.shape),
            "dtype": str(block.dtype).removeprefix("torch."),
            "what": block.what,
        }
        for block in largest
    ]
