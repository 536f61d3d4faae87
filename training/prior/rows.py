"""An optimiser for numbers of things, of which most steps touch a few: Adam for each thing by itself."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class Rows(nn.Module):
    """The numbers of all things, with Adam for each by itself: moments, a count and an average of its own."""

    def __init__(self, value: Float[Tensor, "things n"]):
        super().__init__()
        self.value, self.mean, self.moment, self.square, self.count = (
            nn.Buffer(tensor)
            for tensor in (
                value, value.clone(), torch.zeros_like(value), torch.zeros_like(value), torch.zeros(len(value), 1)
            )
        )  # fmt: skip

    def settle(self) -> None:
        """Put the averages in the numbers' place."""
        self.value.copy_(self.mean)

    def step(self, rows: Int[Tensor, " m"], gradient: Float[Tensor, "m n"], rate: float, average: float) -> None:
        """Update distinct rows (Adam: Kingma and Ba 2015, with decays of 0.9 and 0.99)."""
        first, second = 0.9, 0.99
        self.count[rows] += 1
        count = self.count[rows]
        moment = self.moment[rows].lerp_(gradient, 1 - first)
        square = self.square[rows].lerp_(gradient.square(), 1 - second)
        down = (square / (1 - second**count)).sqrt_().add_(1e-8)
        value = self.value[rows] - rate * (moment / (1 - first**count)) / down
        keep = ((count - 1) / (count + 8)).clamp(max=average)
        self.mean[rows] = value.lerp(self.mean[rows], keep)
        self.moment[rows], self.square[rows], self.value[rows] = moment, square, value
