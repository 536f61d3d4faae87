"""The judge's network: a residual convolutional classifier that looks at 64 x 64 pixels and has three opinions."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 64
"""pixels per side of what it looks at"""
COLOURS, SIDES = 11, 5
LAYERS, CELL = 7, 4
"""coverage, colour, and normals in the camera's axes, all times coverage; each their mean over cells of 4 x 4 pixels"""
ZOOM = 8 // CELL
"""cells per side of what one place of the map at 8 x 8 sees"""
STEM, CHANNELS, HIDDEN = 32, (64, 128, 256), 512
"""channels of the map at 32 x 32, of those at 16 x 16, 8 x 8 and 4 x 4, and of the layer after all maps"""


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
        fine, middle, coarse = CHANNELS
        self.see = nn.Sequential(
            nn.Conv2d(3, STEM, 3, stride=2, padding=1, bias=False), *_halved(STEM, fine), *_halved(fine, middle)
        )
        self.recall = nn.Conv2d(middle, LAYERS * ZOOM**2, 1)
        self.think = nn.Sequential(*_halved(middle, coarse), nn.BatchNorm2d(coarse), nn.ReLU())
        self.conclude = nn.Sequential(nn.Linear(2 * coarse, HIDDEN, bias=False), nn.BatchNorm1d(HIDDEN), nn.ReLU())
        self.noun, self.colour, self.side = (nn.Linear(HIDDEN, count) for count in (nouns, COLOURS, SIDES))

    def forward(self, image: Float[Tensor, "b 3 h w"]) -> Opinion:
        return self.with_layers(image)[0]

    def with_layers(self, image: Float[Tensor, "b 3 h w"]) -> tuple[Opinion, Float[Tensor, "b 7 h4 w4"]]:
        """The opinion, and the layers seen in the picture: only training asks for these, to learn shapes faster."""
        centred = (image * 2 - 1).contiguous(memory_format=torch.channels_last)
        seen = self.see(centred)
        layers = F.pixel_shuffle(self.recall(seen), ZOOM)
        features = self.think(seen)
        thought = self.conclude(torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1))
        return Opinion(self.noun(thought), self.colour(thought), self.side(thought)), layers


def _halved(channels: int, more: int) -> tuple[nn.Module, ...]:
    """From a map to one of half its size and `more` channels."""
    return (
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, more, 3, stride=2, padding=1, bias=False),
        Residual(more),
    )


def new_network(nouns: int, seed: int) -> JudgeNet:
    """An untrained network, drawn by torch's global generator, which is seeded here and then given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return JudgeNet(nouns)
