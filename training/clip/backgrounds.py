"""What is behind things in the pictures of the contrastive model: one colour, noise, squares, or waves, blurred."""

import math

import torch
from jaxtyping import Float
from torch import Generator, Tensor

GREATEST_SIGMA = 0.1
"""of the blur, in sizes of the picture"""


def backgrounds(count: int, plain: float, size: int, generator: Generator) -> Float[Tensor, "b 3 h w"]:
    """Pictures in [0, 1]: so large a share `plain`, the others a third each of noise, squares and waves, blurred."""
    one = torch.rand(count, 3, generator=generator)
    grey = torch.rand(count, 2, generator=generator)
    one = torch.where(grey[:, :1] < 0.5, grey[:, 1:], one)
    image = one[:, :, None, None].repeat(1, 1, size, size)
    kind = torch.rand(count, generator=generator)
    busy = kind >= plain
    which = ((kind[busy] - plain) / max(1 - plain, 1e-6) * 3).long().clamp(0, 2)
    textures = torch.empty(len(which), 3, size, size)
    for number, draw in enumerate((noise, squares, waves)):
        mine = which == number
        if mine.any():
            textures[mine] = draw(int(mine.sum()), size, generator)
    sigma = GREATEST_SIGMA * size * torch.rand(len(which), generator=generator)
    image[busy] = blurred(textures, sigma)
    return image


def noise(count: int, size: int, generator: Generator) -> Float[Tensor, "b 3 h w"]:
    """Every pixel another colour."""
    return torch.rand(count, 3, size, size, generator=generator)


def squares(count: int, size: int, generator: Generator) -> Float[Tensor, "b 3 h w"]:
    """Chequers of two random colours, 2 to 10 along each side."""
    colours = torch.rand(2, count, 3, 1, 1, generator=generator)
    across = 2 + 8 * torch.rand(count, 1, generator=generator)
    place = (torch.arange(size) / size * across).long()
    odd = ((place[:, :, None] + place[:, None, :]) % 2)[:, None]
    return torch.where(odd == 1, colours[0], colours[1])


def waves(count: int, size: int, generator: Generator) -> Float[Tensor, "b 3 h w"]:
    """Random Fourier textures: amplitudes fall with the frequency; each picture from its least to its greatest."""
    columns = size // 2 + 1
    parts = torch.randn(2, count, 3, size, columns, generator=generator)
    down, right = torch.fft.fftfreq(size)[:, None] * size, torch.arange(columns)[None]
    fall = (1 + torch.hypot(down, right.float())) ** -1.5
    image = torch.fft.irfft2(torch.complex(parts[0], parts[1]) * fall, s=(size, size))
    low, high = image.amin((1, 2, 3), keepdim=True), image.amax((1, 2, 3), keepdim=True)
    return (image - low) / (high - low).clamp(min=1e-6)


def blurred(image: Float[Tensor, "b c h w"], sigma: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
    """Gaussian blur of square pictures by `sigma` pixels, each by its own; at the border the kernel is cut."""
    place = torch.arange(image.shape[-1], dtype=image.dtype)
    distance = (place[:, None] - place[None]).square()
    kernel = torch.exp(-distance / (2 * sigma.clamp(min=math.sqrt(0.01))[:, None, None].square()))
    kernel = (kernel / kernel.sum(2, keepdim=True))[:, None]
    return kernel @ image @ kernel.mT
