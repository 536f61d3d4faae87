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
LAYERS, LAYER_SIZE = 7, 16
"""coverage, colour, and normals in the camera's axes, all times coverage"""
CHANNELS, HIDDEN = (48, 96), 512
"""of the maps at 16 x 16 and 8 x 8, and of the layer that sees them whole"""


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
    """From pictures in [0, 1] to opinions about `nouns` nouns.

    Objects are in the middle, so the places of the last map are not averaged: one wide layer sees them all.
    """

    def __init__(self, nouns: int):
        super().__init__()
        fine, coarse = CHANNELS
        self.see = nn.Sequential(
            nn.Conv2d(3, fine, 7, stride=4, padding=3, bias=False),
            nn.BatchNorm2d(fine),
            nn.ReLU(),
            nn.Conv2d(fine, coarse, 3, stride=2, padding=1),
            Residual(coarse),
            nn.BatchNorm2d(coarse),
            nn.ReLU(),
        )
        self.think = nn.Sequential(
            nn.Flatten(),
            nn.Linear(coarse * (SIZE // 8) ** 2, HIDDEN, bias=False),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(),
        )
        self.noun, self.colour, self.side = (nn.Linear(HIDDEN, count) for count in (nouns, COLOURS, SIDES))
        self.recall = nn.Linear(HIDDEN, LAYERS * LAYER_SIZE**2)

    def forward(self, image: Float[Tensor, "b 3 64 64"]) -> Opinion:
        return self.with_layers(image)[0]

    def with_layers(self, image: Float[Tensor, "b 3 64 64"]) -> tuple[Opinion, Float[Tensor, "b 7 16 16"]]:
        """The opinion, and the picture's layers as remembered: only training asks for these, to learn shapes faster."""
        centred = (image * 2 - 1).contiguous(memory_format=torch.channels_last)
        thought = self.think(self.see(centred))
        layers = self.recall(thought).view(-1, LAYERS, LAYER_SIZE, LAYER_SIZE)
        return Opinion(self.noun(thought), self.colour(thought), self.side(thought)), layers


def new_network(nouns: int, seed: int) -> JudgeNet:
    """An untrained network, drawn by torch's global generator, which is seeded here and then given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return JudgeNet(nouns)
