"""How each thing corrects the decoder that all share: to every layer it adds a product of two thin matrices.

That is LoRA (Hu et al. 2021) for each thing, in few bits. A thing's numbers are vectors, `Shape.rank` of each length in
`Shape.vectors`, one after the other; they are kept as levels, with a step from level to level for each vector.
"""

import math

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from dreamfusion.embedded.tables import Shape

BITS = 4
"""of a stored number of a correction"""
LEVELS = 2**BITS
STEP = 0.335
"""between levels, in root mean squares of a vector: least squared error of 16 levels for normal numbers (Max 1960)"""
IN_A_BYTE = 8 // BITS
Corrections = tuple[tuple[Float[Tensor, "m _ r"], Float[Tensor, "m r _"]], ...]
"""Of each of the decoder's layers with weights, for m things"""


def decoded(
    decode: nn.Sequential, corrections: Corrections, cells: Float[Tensor, "m k t"], adapted: bool = True
) -> Float[Tensor, "m k n"]:
    """The maps of k cells of each of m things, each by the decoder as it corrects it.

    `adapted`: with what hooks add to the layers, as those of adapters do. Threads may call it at the same time.
    """
    made = []
    for thing, drawn in enumerate(cells):
        left = iter(corrections)
        for layer in decode:
            if isinstance(layer, nn.Linear):
                thin, flat = next(left)
                drawn = _called(layer, drawn, thin[thing], flat[thing], adapted)
            else:
                drawn = layer(drawn)
        made.append(drawn)
    return torch.stack(made)


def _called(
    layer: nn.Linear, cells: Float[Tensor, "k i"], thin: Float[Tensor, "i r"], flat: Float[Tensor, "r o"], adapted: bool
) -> Float[Tensor, "k o"]:
    """What a layer with corrected weights makes of cells."""
    out = F.linear(cells, layer.weight + (thin @ flat).mT, layer.bias)
    for hook in layer._forward_hooks.values() if adapted else ():
        out = hook(layer, (cells,), out)
    return out


def matrices(numbers: Float[Tensor, "m n"], shape: Shape) -> Corrections:
    """Corrections from their numbers, vector after vector."""
    parts = _vectors(numbers, shape)
    return tuple((thin.mT, flat) for thin, flat in zip(parts[::2], parts[1::2], strict=True))


def rounded(numbers: Float[Tensor, "m n"], shape: Shape) -> tuple[UInt8[Tensor, "m n"], Float[Tensor, "m v"]]:
    """Numbers of corrections as levels of `BITS` bits, and for each vector the step from level to level."""
    levels, steps = [], []
    for part in _vectors(numbers, shape):
        step = STEP * part.square().mean(-1, keepdim=True).sqrt()
        levels.append((part / step.clamp_min(1e-12) + LEVELS / 2).floor().clamp(0, LEVELS - 1).byte().flatten(1))
        steps.append(step.flatten(1))
    return torch.cat(levels, dim=1), torch.cat(steps, dim=1)


def unrounded(level: UInt8[Tensor, "m n"], step: Float[Tensor, "m v"], shape: Shape) -> Float[Tensor, "m n"]:
    """The numbers that levels and steps stand for."""
    lengths = (length for length in shape.vectors for _ in range(shape.rank))
    each = [one.expand(-1, length) for one, length in zip(step.split(1, dim=1), lengths, strict=True)]
    return (level.to(step) - (LEVELS - 1) / 2) * torch.cat(each, dim=1)


def _vectors(numbers: Shaped[Tensor, "m n"], shape: Shape) -> list[Shaped[Tensor, "m r length"]]:
    parts = numbers.split([shape.rank * length for length in shape.vectors], dim=1)
    return [part.unflatten(1, (shape.rank, -1)) for part in parts]


class StoredCorrections(nn.Module):
    """The corrections of all things, several numbers in a byte."""

    def __init__(self, count: int, shape: Shape):
        super().__init__()
        self.shape = shape
        self.number = nn.Buffer(torch.zeros(count, math.ceil(shape.corrected / IN_A_BYTE), dtype=torch.uint8))
        self.step = nn.Buffer(torch.zeros(count, shape.rank * len(shape.vectors)))

    def forward(self, things: Int[Tensor, " m"]) -> Corrections:
        """The corrections of some things."""
        number = self.number[things]
        levels = torch.stack([number >> BITS * i & LEVELS - 1 for i in range(IN_A_BYTE)], dim=-1).flatten(1)
        return matrices(unrounded(levels[:, : self.shape.corrected], self.step[things], self.shape), self.shape)

    def store(self, numbers: Float[Tensor, "m n"]) -> None:
        """Take the corrections of all things, rounded."""
        levels, step = rounded(numbers, self.shape)
        parts = F.pad(levels, (0, -levels.shape[1] % IN_A_BYTE)).unflatten(1, (-1, IN_A_BYTE))
        number = sum(parts[..., i] << BITS * i for i in range(IN_A_BYTE))
        self.load_state_dict({"number": number, "step": step})
