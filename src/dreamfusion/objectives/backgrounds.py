"""Random pictures to put behind an object, so that it cannot be confused with its surroundings.

All are display values in [0, 1], "b s s 3", drawn on the generator's device. Sizes and blurs are relative to the
picture's side, so that they look the same at any size.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

FOURIER_SPREAD, FOURIER_DECAY = 0.2 * math.sqrt(224) / 4, 1.5
"""Standard deviation of a component of one cycle per picture, before the sigmoid, and how it falls with the frequency:
those of Dream Fields' pictures of 224 pixels [code]"""
REACH = 7 / 224
"""Half the side of the largest blur's window, as a fraction of the picture's [code]"""


def noise(count: int, size: int, generator: Generator) -> Float[Tensor, "b s s 3"]:
    """Uniform, each number by itself."""
    return torch.rand(count, size, size, 3, generator=generator, device=generator.device)


def checker(colours: Float[Tensor, "b 2 3"], squares: Int[Tensor, " b"], size: int) -> Float[Tensor, "b s s 3"]:
    """Squares of two colours in turn, `squares` per side of each picture; the first colour is at the corners."""
    place = (torch.arange(size, device=squares.device) + 0.5) / size
    number = (place * squares[:, None]).floor().long()
    second = (number[:, :, None] + number[:, None, :]) % 2 == 1
    return torch.where(second[..., None], colours[:, None, None, 1], colours[:, None, None, 0])


def fourier(count: int, size: int, generator: Generator) -> Float[Tensor, "b s s 3"]:
    """Smooth random textures: the sigmoid of waves whose spectrum falls as f^-1.5, each channel by itself."""
    down = torch.fft.fftfreq(size, 1 / size, device=generator.device)
    across = torch.fft.rfftfreq(size, 1 / size, device=generator.device)
    frequency = torch.hypot(down[:, None], across[None, :]).clamp(min=1.0)
    parts = torch.randn(count, 3, size, len(across), 2, generator=generator, device=generator.device)
    spectrum = torch.view_as_complex(parts) * (FOURIER_SPREAD * frequency**-FOURIER_DECAY)
    waves = torch.fft.irfft2(spectrum, s=(size, size), norm="forward")
    return torch.sigmoid(waves).movedim(1, -1)


def blurred(
    pictures: Float[Tensor, "b s s 3"], deviation: Float[Tensor, " b"], reach: float = REACH
) -> Float[Tensor, "b s s 3"]:
    """Each blurred by a Gaussian of its own standard deviation, a fraction of the side; 0 leaves it as it is.

    reach: half the side of the window, likewise. Beyond the border the picture is mirrored.
    """
    count, size = pictures.shape[:2]
    half = min(max(1, round(reach * size)), size - 1)
    offset = torch.arange(-half, half + 1, device=pictures.device, dtype=pictures.dtype)
    spread = (deviation.to(pictures) * size).clamp(min=1e-3)
    weight = torch.exp(-0.5 * (offset / spread[:, None]).square())
    window = (weight / weight.sum(-1, keepdim=True)).repeat_interleave(3, 0)
    layers = pictures.movedim(-1, 1).reshape(1, 3 * count, size, size)
    layers = F.conv2d(F.pad(layers, (0, 0, half, half), mode="reflect"), window[:, None, :, None], groups=3 * count)
    layers = F.conv2d(F.pad(layers, (half, half, 0, 0), mode="reflect"), window[:, None, None, :], groups=3 * count)
    return layers.view(count, 3, size, size).movedim(1, -1)


def chosen(kinds: list[Float[Tensor, "b s s 3"]], generator: Generator) -> Float[Tensor, "b s s 3"]:
    """One of several kinds for each picture, all equally likely."""
    count = len(kinds[0])
    kind = torch.randint(len(kinds), (count,), generator=generator, device=generator.device)
    return torch.stack(kinds)[kind, torch.arange(count, device=kind.device)]


def uniform(span: tuple[float, float], count: int, generator: Generator) -> Float[Tensor, " b"]:
    """Between two numbers."""
    low, high = span
    return low + (high - low) * torch.rand(count, generator=generator, device=generator.device)
