"""The judge's network: a residual convolutional classifier that looks at 64 x 64 pixels and has three opinions.

Most of its work is done on small maps with many channels, which a CPU does best.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 64
"""pixels per side of what it looks at"""
COLOURS, SIDES = 11, 5
WIDTHS = (64, 128, 256)
"""channels at 16 x 16, 8 x 8 and 4 x 4"""


@dataclass(frozen=True, eq=False)
class Opinion:
    """Logits about each picture."""

    noun: Float[Tensor, "b n"]
    colour: Float[Tensor, "b 11"]
    """which colour word it was painted with, if with one"""
    side: Float[Tensor, "b 5"]
    """which side of the object is seen"""


class Residual(nn.Module):
    """Two 3 x 3 convolutions, each after a normalisation, and a way around them."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.conv1(F.relu(self.norm1(x)))
        return x + self.conv2(F.relu(self.norm2(hidden)))


class JudgeNet(nn.Module):
    """From pictures in [0, 1] to opinions about `nouns` nouns."""

    def __init__(self, nouns: int):
        super().__init__()
        fine, middle, coarse = WIDTHS
        self.body = nn.Sequential(
            nn.Conv2d(3, fine, 7, stride=4, padding=3),
            Residual(fine),
            nn.Conv2d(fine, middle, 2, stride=2),
            Residual(middle),
            nn.Conv2d(middle, coarse, 2, stride=2),
            Residual(coarse),
            nn.BatchNorm2d(coarse),
            nn.ReLU(),
        )
        self.noun, self.colour, self.side = (nn.Linear(coarse, count) for count in (nouns, COLOURS, SIDES))

    def forward(self, image: Float[Tensor, "b 3 64 64"]) -> Opinion:
        centred = (image * 2 - 1).contiguous(memory_format=torch.channels_last)
        features = self.body(centred).mean((2, 3))
        return Opinion(self.noun(features), self.colour(features), self.side(features))


def new_network(nouns: int, seed: int) -> JudgeNet:
    """An untrained network, drawn by torch's global generator, which is seeded here and then given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return JudgeNet(nouns)
