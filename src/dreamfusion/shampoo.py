"""Distributed Shampoo (Gupta et al. 2018, arXiv 1802.09568; Anil et al. 2020, arXiv 2002.09018), on one device.

A parameter is read as a matrix and cut into blocks. Each block G keeps decaying averages of G G^T and G^T G, and is
multiplied by an inverse root of each, so that directions in which the gradient is always large count no more than
others. The length of the step is not Shampoo's but grafted: sqrt(N) for a parameter of N numbers.

Packages have Shampoo, but none that was found keeps its state in tensors alone, which checkpoints need, and offers this
graft.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dreamfusion.config import OptimiseConfig

TINY = 1e-16
"""Keeps the graft of a gradient that is zero at zero"""


SIDES = ("left", "right")


class Shampoo(torch.optim.Optimizer):
    """See the module's docstring. All state is in tensors; a parameter without a gradient stays as it is."""

    def __init__(self, params: Iterable[dict[str, Any]], config: OptimiseConfig) -> None:
        super().__init__(params, {"lr": 0.0})
        self.config = config

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update. Takes no `closure`."""
        if closure is not None:
            raise ValueError("Shampoo asks for no loss: call backward before step")
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group["lr"])

    def state_shapes(self, parameter: Tensor) -> dict[str, torch.Size]:
        """What is remembered of a parameter after its first update, by name."""
        size, matrix = self.config.shampoo.block, as_matrix(parameter)
        blocks = [block for rows in matrix.split(size) for block in rows.split(size, dim=1)]
        sides = {f"{side}.{n}": len(b if side == "left" else b.T) for n, b in enumerate(blocks) for side in SIDES}
        roots = {f"{name}{end}": torch.Size((k, k)) for name, k in sides.items() if k > 1 for end in ("", ".root")}
        return {"step": torch.Size(), "momentum": parameter.shape, **roots}

    def _update(self, parameter: nn.Parameter, gradient: Tensor, rate: float) -> None:
        config, own, state = self.config, self.config.shampoo, self.state[parameter]
        added = 1.0 - config.betas[0] if own.averaged else 1.0
        if not state:
            state["step"], state["momentum"] = torch.zeros(()), torch.zeros_like(parameter)
        renew = int(state["step"]) % own.every == 0  # on the host: torch keeps "step" on the CPU
        direction = self._preconditioned(state, as_matrix(gradient), renew).view_as(parameter)
        direction = direction * (direction.numel() ** 0.5 / (direction.norm() + TINY))
        momentum = state["momentum"].mul_(config.betas[0]).add_(direction, alpha=added)
        ahead = config.betas[0] * momentum + added * direction if own.nesterov else momentum
        parameter.add_(ahead, alpha=-rate)
        state["step"] += 1

    def _preconditioned(self, state: dict[str, Tensor], gradient: Float[Tensor, "m n"], renew: bool) -> Tensor:
        """The gradient, block by block between its inverse roots; updates the statistics."""
        result = torch.empty_like(gradient)
        size = self.config.shampoo.block
        targets = [block for rows in result.split(size) for block in rows.split(size, dim=1)]
        blocks = [block for rows in gradient.split(size) for block in rows.split(size, dim=1)]
        for number, (block, target) in enumerate(zip(blocks, targets, strict=True)):
            for side, along in (("left", block), ("right", block.T)):
                if len(along) > 1:  # along a side of length one there is nothing to balance
                    self._observe(state, f"{side}.{number}", along, renew)
            left, right = state.get(f"left.{number}.root"), state.get(f"right.{number}.root")
            block = block if left is None else left @ block
            target.copy_(block if right is None else block @ right)
        return result

    def _observe(self, state: dict[str, Tensor], name: str, block: Float[Tensor, "k l"], renew: bool) -> None:
        """Take one more gradient into the statistics of a side, and renew its root."""
        beta, product = self.config.betas[1], block @ block.T
        if name not in state:
            state[name] = torch.zeros_like(product)
        state[name].mul_(beta).add_(product, alpha=1.0 - beta)
        if renew:
            state[f"{name}.root"] = inverse_root(state[name], self.config.shampoo.exponent, self.config.epsilon)


def as_matrix(tensor: Tensor) -> Float[Tensor, "m n"]:
    """The first axis against all others; a vector is a column."""
    return tensor.reshape(len(tensor) if tensor.dim() else 1, -1)


def inverse_root(matrix: Float[Tensor, "k k"], exponent: float, epsilon: float) -> Float[Tensor, "k k"]:
    """(M + epsilon lambda I)^(-1/exponent) for a symmetric M >= 0, with lambda its greatest eigenvalue.

    A matrix of zeros gives zeros: there is no gradient to turn.
    """
    values, vectors = torch.linalg.eigh(matrix)
    greatest = values[-1].clamp_min(torch.finfo(matrix.dtype).tiny)
    ridged = values.clamp_min(0.0) / greatest + epsilon
    return (vectors * ridged.pow(-1.0 / exponent)) @ vectors.T * greatest.pow(-1.0 / exponent) * (values[-1] > 0)
