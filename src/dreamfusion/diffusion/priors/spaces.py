"""Where a diffusion model works: on pixels, or on the latents of a variational auto-encoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor
from torch.nn import functional as F

COLOURS, CELLS = 8, 4
"""The mosaic from which the short cut is learnt: colours per side, latents per side of each"""


@dataclass(frozen=True)
class PixelSpace:
    """Pictures "b 3 s s" in [-1, 1]."""

    size: int
    """pixels per side"""
    factor = 1
    limit = 1.0
    """bound of the values of clean pictures"""

    def encode(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 s s"]:
        """Square pictures in [0, 1], resampled only if they have another size; differentiable."""
        return 2 * resized(image, self.size).permute(0, 3, 1, 2) - 1

    def encode_linear(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 s s"]:
        """`encode`, which is as cheap as it gets here."""
        return self.encode(image)

    def decode(self, x: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b s s 3"]:
        """Back to pictures in [0, 1]."""
        return (x.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """Latents "b c u v" of an `AutoencoderKL`, shifted and scaled to about unit variance."""

    vae: Any
    size: int
    """pixels per side of the pictures that are encoded"""
    device: torch.device
    """where the auto-encoder computes; its weights may be elsewhere"""
    limit = None

    @property
    def factor(self) -> int:
        """Pixels per latent, along a side."""
        return pixels_per_latent(self.vae.config.block_out_channels)

    def encode(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b c u v"]:
        """Square pictures in [0, 1] to the mean of their latents; differentiable, in the dtype of `image`.

        The mean, not a sample: the noise of sampling is far below that of diffusion, and a gradient through it is one
        more random factor.
        """
        return self._latents(resized(image, self.size))

    def encode_linear(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b c u v"]:
        """A linear short cut: each latent an affine function of the mean colour of its pixels.

        Stable Diffusion's latents are close to linear in colour, which is usually used to preview them. Here the map is
        fitted, once, to what the auto-encoder makes of a mosaic of plain colours, so it suits any auto-encoder.
        """
        small = resized(image, self.size // self.factor)
        return (torch.einsum("bhwi,ic->bchw", small, self._colour_map[:3].to(small))
                + self._colour_map[3].to(small)[:, None, None])  # fmt: skip

    @torch.no_grad()
    def decode(self, x: Float[Tensor, "b c u v"]) -> Float[Tensor, "b h w 3"]:
        """Latents to pictures in [0, 1]; for people, a step never needs it."""
        unscaled = x / self._scale + self._shift
        picture = self.vae.decode(unscaled.to(self.vae.dtype)).sample.to(x)
        return (picture.permute(0, 2, 3, 1) / 2 + 0.5).clamp(0, 1)

    @cached_property
    def _colour_map(self) -> Float[Tensor, "4 c"]:
        """Rows: what red, green, blue and the constant add to a latent; least squares over all latents of a mosaic."""
        colours = torch.rand(1, COLOURS, COLOURS, 3, generator=Generator().manual_seed(0)).to(self.device)
        cells = colours.repeat_interleave(CELLS, 1).repeat_interleave(CELLS, 2)
        pixels = cells.repeat_interleave(self.factor, 1).repeat_interleave(self.factor, 2)
        with torch.no_grad():
            latents = self._latents(pixels).permute(0, 2, 3, 1).flatten(0, 2)
        known = torch.cat([cells.flatten(0, 2), torch.ones_like(cells[..., :1]).flatten(0, 2)], dim=-1)
        # On the CPU, and there in double precision, which not every device has: alike to rounding everywhere.
        solution = torch.linalg.lstsq(known.cpu().double(), latents.cpu().double()).solution
        return solution.float().to(self.device)

    def _latents(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b c u v"]:
        x = 2 * image.permute(0, 3, 1, 2) - 1
        mean = self.vae.encode(x.to(self.vae.dtype)).latent_dist.mean
        return (mean.to(image) - self._shift) * self._scale

    @property
    def _scale(self) -> float:
        return self.vae.config.scaling_factor

    @property
    def _shift(self) -> float:
        return self.vae.config.shift_factor or 0.0


def pixels_per_latent(block_out_channels: Sequence[int]) -> int:
    """Along a side, of an `AutoencoderKL` with these levels."""
    return 2 ** (len(block_out_channels) - 1)


def resized(image: Float[Tensor, "b h w 3"], size: int) -> Float[Tensor, "b s s 3"]:
    """Square pictures of another size (linear, antialiased), or the same ones. ValueError if they are not square."""
    if image.shape[1] != image.shape[2]:
        raise ValueError(f"pictures for the prior must be square, not {image.shape[1]} x {image.shape[2]}")
    if image.shape[1] == size:
        return image
    x = F.interpolate(image.permute(0, 3, 1, 2), size=(size, size), mode="bilinear", antialias=True)
    return x.permute(0, 2, 3, 1)
