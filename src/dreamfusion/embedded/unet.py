"""The embedded prior's denoiser: a small U-Net conditioned on caption, camera, background, light and variety.

What the words, the camera and the light say is used twice. A multi-layer perceptron draws a *sketch* from it, the
picture to expect before anything is seen of it (`sketch.py`): parameters used once per picture, not once per pixel, so
that to remember objects costs almost no time on a CPU and is learnt from batches of hundreds. The U-Net gets the sketch
beside what the noisy picture has in addition, and corrects the best guess that can be made pixel by pixel. And, merged
with the noise level into one vector, what is known modulates every block. Wide channels on small maps for the same
reason as above (docs/reference/embedded-prior.md).
"""

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from dreamfusion.embedded.sketch import SKETCH, Sketch, merge
from dreamfusion.embedded.storage import StoredModule
from dreamfusion.lights import Light

PATCH = 4
"""pixels per side of a cell of the finest map"""
FINE = 16
"""channels of the convolutions at full size"""
VARIETIES = 12
"""number of varieties per noun"""
GROUPS = (11, 4, 7, 1 + VARIETIES)
"""numbers that tell the pose, the background, the light, the variety"""
TIME_FEATURES = 128
STEPS = 1000
"""of the noise schedule, the cosine of Nichol and Dhariwal 2021"""


def pose_features(pose: Float[Tensor, "b 4 4"]) -> Float[Tensor, "b 11"]:
    """A flag, then sine and cosine of 1 to 4 times the camera's azimuth, and of its elevation, about the origin."""
    x, y, z = pose[:, :3, 3].unbind(-1)
    azimuth, elevation = torch.atan2(x, z), torch.atan2(y, torch.hypot(x, z))
    angles = [azimuth, 2 * azimuth, 3 * azimuth, 4 * azimuth, elevation]
    waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
    return torch.stack([torch.ones_like(x), *waves], dim=-1)


def background_features(background: Float[Tensor, "b 3"]) -> Float[Tensor, "b 4"]:
    """A flag, then the colour in [-1, 1]."""
    return torch.cat([torch.ones_like(background[:, :1]), background * 2 - 1], dim=-1)


def light_features(light: Light, pose: Float[Tensor, "b 4 4"]) -> Float[Tensor, "b 7"]:
    """A flag, ambient, diffuse, white, and the light's direction in the camera's axes times its diffuse part."""
    toward = F.normalize(light.position, dim=-1)[:, None] @ pose[:, :3, :3]
    white = light.textureless.to(pose.dtype)
    numbers = torch.stack([torch.ones_like(white), light.ambient, light.diffuse, white], dim=-1)
    return torch.cat([numbers, toward[:, 0] * light.diffuse[:, None]], dim=-1)


def variety_features(variety: Int[Tensor, " b"]) -> Float[Tensor, "b v"]:
    """A flag, then which of `VARIETIES` it is, counted round and round."""
    numbers = torch.arange(VARIETIES, device=variety.device)
    meant = (variety[:, None] % VARIETIES == numbers).float()  # not F.one_hot, which waits for the device
    return torch.cat([torch.ones_like(meant[:, :1]), meant], dim=-1)


def time_features(timestep: Int[Tensor, " b"]) -> Float[Tensor, "b w"]:
    """Sinusoids of the timestep, slower and slower down to one radian in 10,000 steps."""
    count = TIME_FEATURES // 2
    rate = torch.exp(torch.arange(count, device=timestep.device) * (-math.log(10_000) / count))
    angle = timestep[:, None].float() * rate
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


def signal_share(timestep: Int[Tensor, " b"]) -> Float[Tensor, "b 1 1 1"]:
    """Share of the clean picture's variance in the noisy one, as `diffusers` defines it for "squaredcos_cap_v2"."""

    def cosine(at: Tensor) -> Tensor:
        return torch.cos((at / STEPS + 0.008) / 1.008 * (math.pi / 2)).square()

    first = math.cos(0.008 / 1.008 * (math.pi / 2)) ** 2
    return (cosine(timestep[:, None, None, None].float() + 1) / first).clamp(0, 1)


def pooled(text: Float[Tensor, "b l d"]) -> Float[Tensor, "b d"]:
    """The sum of a caption's tokens over the root of their number; padding is zero and does not count.

    In a mean, the noun would weigh a ninth of "a photo of a red sofa, front view", and be learnt that much later.
    """
    tokens = (text != 0).any(-1, keepdim=True).sum(1).clamp(min=1)
    return text.sum(1) / tokens.to(text).sqrt()


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of each pixel of a "b c h w" map."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Block(nn.Module):
    """Norm, convolution of neighbours, modulation by the vector, convolution of each pixel, residual."""

    def __init__(self, channels: int, vector: int):
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(channels), ChannelNorm(channels)
        self.conv1, self.conv2 = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, channels, 1)
        self.modulate = nn.Linear(vector, 2 * channels)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.modulate(vector)[:, :, None, None].chunk(2, dim=1)
        hidden = self.conv1(F.silu(self.norm1(x)))
        hidden = self.norm2(hidden) * (1 + scale) + shift
        return x + self.conv2(F.silu(hidden))


class Fine(nn.Module):
    """A few convolutions pixel by pixel, modulated by the vector: what cells of `PATCH` pixels cannot clean."""

    def __init__(self, inputs: int, channels: int, vector: int):
        super().__init__()
        self.first, self.second = nn.Conv2d(inputs, channels, 3, padding=1), nn.Conv2d(channels, channels, 3, padding=1)
        self.modulate, self.last = nn.Linear(vector, 2 * channels), nn.Conv2d(channels, 3, 3, padding=1)
        for parameter in (*self.modulate.parameters(), *self.last.parameters()):
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        scale, shift = self.modulate(vector)[:, :, None, None].chunk(2, dim=1)
        x = F.silu(self.first(x.contiguous(memory_format=torch.channels_last)))
        return self.last(F.silu(self.second(x * (1 + scale) + shift)))


class SelfAttention(nn.Module):
    """Every pixel of a small map looks at every other."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.norm, self.heads = ChannelNorm(channels), heads
        self.qkv, self.out = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        nn.init.zeros_(self.out.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        q, k, v = self.qkv(tokens).view(b, h * w, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        return x + self.out(mixed).transpose(1, 2).view(b, c, h, w)


class ToyUNet(StoredModule):
    """Predicts the clean 64 x 64 picture ("sample" in diffusers' words) from a noisy one and all that is known."""

    def __init__(
        self,
        sample_size: int = 64,
        text_width: int = 128,
        sketch_width: int = 768,
        width: int = 128,
        wide: int = 256,
        vector: int = 512,
    ):
        super().__init__({name: value for name, value in locals().items() if name not in ("self", "__class__")})
        self.sketch = Sketch(text_width, GROUPS, sketch_width)
        self.merge = merge((text_width, *GROUPS, TIME_FEATURES), vector)
        self.stem = nn.Conv2d(3 * PATCH**2 + 4 * (SKETCH * PATCH // sample_size) ** 2, width, 3, padding=1)
        self.down = nn.ModuleList([Block(width, vector)])
        self.shrink = nn.Conv2d(width, wide, 2, stride=2)
        self.middle = nn.ModuleList([Block(wide, vector) for _ in range(4)])
        self.attention = SelfAttention(wide, heads=4)
        self.grow = nn.Linear(wide, 4 * width)
        self.join = nn.Conv2d(2 * width, width, 1)
        self.up = nn.ModuleList([Block(width, vector) for _ in range(2)])
        last = nn.Conv2d(width, 3 * PATCH**2, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.head = nn.Sequential(ChannelNorm(width), nn.SiLU(), last)
        self.fine = Fine(10, FINE, vector)

    def forward(
        self,
        sample: Float[Tensor, "b 3 h w"],
        timestep: Int[Tensor, " b"],
        encoder_hidden_states: Float[Tensor, "b l d"],
        **known: Any,
    ) -> Float[Tensor, "b 3 h w"]:
        """The clean picture in [-1, 1]; called as diffusers calls its U-Nets, plus what is known by name."""
        return self.denoise(sample, timestep, encoder_hidden_states, known_features(sample, **known))

    def denoise(
        self,
        sample: Float[Tensor, "b 3 h w"],
        timestep: Int[Tensor, " b"],
        text: Float[Tensor, "b l d"],
        known: Float[Tensor, "b f"],
    ) -> Float[Tensor, "b 3 h w"]:
        """The same, with what is known as numbers (`known_features`), of which training hides some."""
        words = pooled(text)
        vector = self.merge(torch.cat([words, known, time_features(timestep).to(text)], dim=-1))
        sketch = torch.cat(self.sketch(words, known), dim=1).detach()  # it learns from its own loss
        zoom = SKETCH * PATCH // sample.shape[-1]
        drawn, spread = F.interpolate(sketch, sample.shape[-2:], mode="bilinear").split((3, 1), dim=1)
        share = signal_share(timestep)
        alpha, sigma = share.sqrt().to(sample), (1 - share).sqrt().to(sample)
        size = torch.hypot(alpha * spread, sigma)
        missed = (sample - alpha * drawn) / size
        x = torch.cat([F.pixel_unshuffle(missed, PATCH), F.pixel_unshuffle(sketch, zoom)], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self.stem(x)
        for block in self.down:
            x = block(x, vector)
        skip, x = x, self.shrink(x)
        for index, block in enumerate(self.middle):
            x = block(x, vector)
            if index == len(self.middle) // 2:
                x = self.attention(x)
        x = F.pixel_shuffle(self.grow(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), 2)
        x = self.join(torch.cat([x, skip], dim=1))
        for block in self.up:
            x = block(x, vector)
        correction = F.pixel_shuffle(self.head(x), PATCH)
        correction = correction + self.fine(torch.cat([missed, correction, drawn, spread], dim=1), vector)
        # What each pixel says by itself (Wiener), then what only its neighbours and the words can say: the scaling of
        # Karras et al. 2022 (arXiv 2206.00364, table 1), about the sketch instead of zero.
        guess = drawn + spread.square() * alpha / size * missed
        return guess + (spread * sigma / size * correction).contiguous()


def known_features(
    like: Float[Tensor, "b c h w"],
    pose: Float[Tensor, "b 4 4"] | None = None,
    background: Float[Tensor, "b 3"] | None = None,
    light: Light | None = None,
    variety: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, "b f"]:
    """The numbers of what is known: four groups of sizes `GROUPS`, all zero (flag included) where something is not.

    A light needs a pose to have a direction. Device and dtype are those of `like`.
    """
    groups = [
        None if pose is None else pose_features(pose),
        None if background is None else background_features(background),
        None if light is None or pose is None else light_features(light, pose),
        None if variety is None else variety_features(variety),
    ]
    zeros = [like.new_zeros(len(like), size) for size in GROUPS]
    told = [zero if group is None else group.to(like) for group, zero in zip(groups, zeros, strict=True)]
    return torch.cat(told, dim=-1)
