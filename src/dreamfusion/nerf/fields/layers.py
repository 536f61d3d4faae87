"""Linear layers whose first weights come from a given generator."""

import math

import torch
from torch import Generator, nn


def linear(inputs: int, outputs: int, generator: Generator, gain: float = 1.0) -> nn.Linear:
    """A linear layer with weights ~ N(0, gain^2 / inputs) and no bias at the start."""
    layer = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")  # without torch's own draw
    with torch.no_grad():
        layer.weight.copy_(torch.randn(outputs, inputs, generator=generator) * (gain / math.sqrt(inputs)))
        layer.bias.zero_()
    return layer
