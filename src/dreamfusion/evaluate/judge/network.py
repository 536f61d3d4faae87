"""The judge's network: a residual convolutional classifier of cut-out objects, outputs noun, colour and side."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 128
"""pixels per side of what it is given"""
OWN, SIDES = 11, 5
"""the answer about the colour that is "its own", after those of the colour words; answers about the side"""
CUT = 96
"""pixels per side of what it cuts out"""
REACH = 1.9
"""half the side of the cut-out, in root mean square distances of the object's pixels from their middle"""
STEM, CHANNELS, HIDDEN = 32, (64, 128, 256), 512
"""channels at 24 x 24, of the maps at 12 x 12, 6 x 6 and 3 x 3, and of the layer that sees the last one whole"""


@dataclass(frozen=True, eq=False)
class Opinion:
    """Logits about each picture."""

    noun: Float[Tensor, "b n"]
    colour: Float[Tensor, "b 12"]
    """which colour word it was painted with; the last: with none, it has colours of its own"""
    side: Float[Tensor, "b 5"]
    """logits of the visible side"""


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
    """From what `cut_out` gives to opinions about `nouns` nouns."""

    def __init__(self, nouns: int):
        super().__init__()
        fine, middle, coarse = CHANNELS
        self.see = nn.Sequential(
            nn.Conv2d(4, STEM, 8, stride=4, padding=2, bias=False),
            *_halved(STEM, fine),
            *_halved(fine, middle),
            *_halved(middle, coarse),
            nn.BatchNorm2d(coarse),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(coarse * (CUT // 32) ** 2, HIDDEN, bias=False),
            nn.BatchNorm1d(HIDDEN),
            nn.ReLU(),
        )
        self.noun, self.colour, self.side = (nn.Linear(HIDDEN, count) for count in (nouns, OWN + 1, SIDES))

    def forward(self, cut: Float[Tensor, "b 4 96 96"]) -> Opinion:
        return self.opinion(self.see(cut.contiguous(memory_format=torch.channels_last)))

    def opinion(self, seen: Float[Tensor, "b d"]) -> Opinion:
        """About what `see` saw."""
        return Opinion(self.noun(seen), self.colour(seen), self.side(seen))


def _halved(channels: int, more: int) -> tuple[nn.Module, ...]:
    """From a map to one of half its size and `more` channels."""
    return (
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Conv2d(channels, more, 3, stride=2, padding=1, bias=False),
        Residual(more),
    )


def cut_out(image: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 4 96 96"]:
    """What stands before a plain background, of pictures in [0, 1]; see `before`.

    The background is the median of the border. The object comes to lie in the middle, at a size of its own.
    """
    edges = [image[:, :, 0], image[:, :, -1], image[:, :, :, 0], image[:, :, :, -1]]
    background = torch.cat(edges, dim=2).median(dim=2).values[:, :, None, None]
    differs = image - background
    grid = F.affine_grid(window(_there(differs)[:, 0]), [len(image), 3, CUT, CUT], align_corners=False)
    return before(background, F.grid_sample(differs, grid, align_corners=False))


def before(background: Float[Tensor, "b 3 1 1"], differs: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 4 h w"]:
    """Colours, in [-1, 1], times whether something is there, and that; `differs` from the background tells it."""
    there = _there(differs)
    return torch.cat([((differs + background) * 2 - 1) * there, there], dim=1)


def _there(differs: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    strong = F.pad(differs.abs().amax(1, keepdim=True), (1, 1, 1, 1))
    rows = strong[:, :, :-2] + strong[:, :, 1:-1] + strong[:, :, 2:]  # a mean over 3 x 3 pixels: faster than avg_pool2d
    smooth = (rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:]) / 9
    return ((smooth - 0.03) / 0.09).clamp(0, 1)


def window(there: Float[Tensor, "b h w"]) -> Float[Tensor, "b 2 3"]:
    """The square around what is there, as `affine_grid` wants it: the picture reaches from -1 to 1."""
    size = there.shape[-1]
    place = (torch.arange(size, device=there.device) + 0.5) * 2 / size - 1
    mass = there.sum((1, 2)).clamp(min=1e-3)
    along = torch.stack([there.sum(1), there.sum(2)], dim=1)  # how much at each x, at each y
    middle = along @ place / mass[:, None]
    spread = along @ place.square() / mass[:, None] - middle.square()
    half = (REACH * spread.sum(1).clamp(min=0).sqrt()).clamp(0.15, 1.2)
    zero = torch.zeros_like(half)
    return torch.stack([half, zero, middle[:, 0], zero, half, middle[:, 1]], dim=1).view(-1, 2, 3)


def new_network(nouns: int, seed: int) -> JudgeNet:
    """An untrained network, drawn by torch's global generator, which is seeded here and then given back as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return JudgeNet(nouns)
