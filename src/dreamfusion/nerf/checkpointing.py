"""Gradient checkpointing: the graph of a result is not kept but computed again in the backward pass.

torch's own checkpoints know nested tuples of tensors only; these know frozen records, and what differentiates inside
itself (normals are slopes).
"""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from dreamfusion.records import tensors_of, with_tensors

Result = TypeVar("Result")


def checkpointed(compute: Callable[[], Result]) -> Result:
    """What `compute` returns, without what it would remember; gradients reach parameters by `Tensor.backward` only.

    `compute` must give the same result every time. It may return tensors in tuples and records, and depend on no tensor
    that needs a gradient but on leaves (parameters).
    """
    with torch.no_grad():
        result = compute()
    tensors = tensors_of(result)
    anchor = torch.zeros((), requires_grad=True)
    attached = _Recomputed.apply(anchor, lambda: tensors_of(compute()), *tensors)
    return with_tensors(result, attached)


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, anchor: Tensor, compute: Callable[[], list[Tensor]], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.compute = compute
        copies = tuple(tensor.view_as(tensor) for tensor in tensors)
        ctx.mark_non_differentiable(*(copy for copy in copies if not copy.is_floating_point()))
        ctx.set_materialize_grads(False)
        return copies

    @staticmethod
    def backward(ctx, *gradients: Tensor | None) -> tuple[None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        with torch.enable_grad():
            again = ctx.compute()
        pairs = zip(again, gradients, strict=True)
        asked = [(tensor, given) for tensor, given in pairs if given is not None and tensor.requires_grad]
        if asked:
            torch.autograd.backward([tensor for tensor, _ in asked], [given for _, given in asked])
        return (None,) * (2 + len(gradients))
