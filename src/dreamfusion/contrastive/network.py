"""The network of the embedded contrastive model: a small residual convolutional net, and words in no order."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 64
"""pixels per side of the pictures"""
CHANNELS = (32, 64, 160)
"""of the maps of 16 x 16, 8 x 8 and 4 x 4"""
HIDDEN, WIDTH = 384, 256
"""of the layer before the embedding; numbers of an embedding"""
LOGIT_SCALE = 1 / 0.07
"""at the start (CLIP, section 2.5)"""
GREATEST_SCALE = 100.0


class Residual(nn.Module):
    """Two 3 x 3 convolutions after a normalisation, and a way around them."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(self.norm(x))))


class ToyboxNet(nn.Module):
    """Two encoders into one space, and the scale of their cosines.

    What all pictures have in common is taken out before they are embedded (`centre`): embeddings that begin nearly
    parallel would stay so for long.
    """

    def __init__(self, words: int):
        """`words`: how many words it knows."""
        super().__init__()
        fine, middle, coarse = CHANNELS
        self.see = nn.Sequential(
            nn.Conv2d(3, fine, 6, stride=4, padding=1),
            Residual(fine),
            nn.Conv2d(fine, middle, 2, stride=2),
            Residual(middle),
            nn.Conv2d(middle, coarse, 2, stride=2),
            Residual(coarse),
        )
        self.conclude = nn.Sequential(
            nn.BatchNorm1d(2 * coarse), nn.Linear(2 * coarse, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, WIDTH, bias=False)
        )
        self.centre = nn.BatchNorm1d(WIDTH, affine=False)
        self.read = nn.Linear(words, WIDTH, bias=False)
        hidden, blended = nn.Linear(WIDTH, HIDDEN), nn.Linear(HIDDEN, WIDTH, bias=False)
        self.blend = nn.Sequential(hidden, nn.SiLU(), blended)
        self.log_scale = nn.Parameter(torch.tensor(math.log(LOGIT_SCALE)))
        nn.init.normal_(self.read.weight)
        nn.init.zeros_(blended.weight)

    def embed_images(self, image: Float[Tensor, "b 3 64 64"]) -> Float[Tensor, "b d"]:
        """Unit vectors of pictures in [0, 1]."""
        maps = self.see((image * 2 - 1).contiguous(memory_format=torch.channels_last))
        pooled = torch.cat([maps.mean((2, 3)), maps.amax((2, 3))], dim=1)
        return F.normalize(self.centre(self.conclude(pooled)), dim=-1)

    def embed_words(self, said: Float[Tensor, "n words"]) -> Float[Tensor, "n d"]:
        """Unit vectors of captions: 1 for each word that stands in it, 0 for the others."""
        read = self.read(said)
        return F.normalize(read + self.blend(read), dim=-1)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """By which cosines are multiplied: the inverse of the temperature."""
        return self.log_scale.exp().clamp(max=GREATEST_SCALE)


def new_network(words: int, seed: int) -> ToyboxNet:
    """An untrained network; torch's global generator is as it was afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ToyboxNet(words).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # missing in stubs
