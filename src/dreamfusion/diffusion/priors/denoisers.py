"""How each kind of network is called: the same question, in the words of its class in diffusers.

A denoiser takes noisy pictures or latents, the time as its network counts it, embeddings (see `text`) and what is known
besides; it returns what the network predicts, in the network's dtype, perhaps with further channels (a variance).
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dreamfusion.diffusion.priors.protocol import ViewCondition
from dreamfusion.diffusion.priors.text_encoders import (
    CLIP_LENGTH,
    FLUX_LENGTH,
    FLUX_SCHNELL_LENGTH,
    SD3_LENGTH,
    packed_shape,
    unpacked,
)

FLUX_GUIDANCE = 1.0
"""Guidance input of a guidance-distilled Flux: 1. Guidance is left to classifier-free guidance."""


@runtime_checkable
class Denoiser(Protocol):
    """A network and the way to call it."""

    @property
    def network(self) -> Any: ...

    @property
    def text_shape(self) -> tuple[int, int]:
        """Rows and width of the embedding of a caption."""
        ...

    def __call__(
        self, noisy: Float[Tensor, "b c u v"], time: Tensor, text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b k u v"]: ...


@dataclass(frozen=True, eq=False)
class TextUNet:
    """Text by cross-attention (Stable Diffusion 1 and 2, DeepFloyd IF), and conditions by name (the embedded prior)."""

    network: Any
    conditions: frozenset[str] = frozenset()

    @property
    def text_shape(self) -> tuple[int, int]:
        """See `Denoiser`."""
        return CLIP_LENGTH, text_width(self.network.config)

    def __call__(
        self, noisy: Float[Tensor, "b c u v"], time: Tensor, text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b k u v"]:
        """See the module's docstring."""
        told = {name: getattr(known, name) for name in self.conditions}
        said = self.network(noisy, time, encoder_hidden_states=text, **told)
        return getattr(said, "sample", said)  # diffusers' networks wrap their output in a record


@dataclass(frozen=True, eq=False)
class SdxlUNet:
    """Besides the tokens a pooled vector and six numbers: the size of the picture, where it was cropped, its size."""

    network: Any
    size: int

    @property
    def text_shape(self) -> tuple[int, int]:
        """See `Denoiser`."""
        return packed_shape(CLIP_LENGTH, self.network.config.cross_attention_dim, self._pooled)

    def __call__(
        self, noisy: Float[Tensor, "b c u v"], time: Tensor, text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b k u v"]:
        """See the module's docstring."""
        tokens, pooled = unpacked(text, self._pooled)
        sizes = (self.size, self.size, 0, 0, self.size, self.size)
        added = {"text_embeds": pooled, "time_ids": noisy.new_tensor(sizes).expand(len(noisy), -1)}
        return self.network(noisy, time, encoder_hidden_states=tokens, added_cond_kwargs=added).sample

    @property
    def _pooled(self) -> int:
        """Numbers in the pooled vector."""
        config = self.network.config
        return config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim


@dataclass(frozen=True, eq=False)
class PixArtTransformer:
    """Tokens with their mask; the largest models also take the size and the aspect ratio of the picture."""

    network: Any
    size: int
    length: int
    """tokens of a caption"""

    @property
    def text_shape(self) -> tuple[int, int]:
        """See `Denoiser`."""
        return packed_shape(self.length, self.network.config.caption_channels, self.length)

    def __call__(
        self, noisy: Float[Tensor, "b c u v"], time: Tensor, text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b k u v"]:
        """See the module's docstring."""
        tokens, mask = unpacked(text, self.length)
        added: dict[str, Tensor | None] = {"resolution": None, "aspect_ratio": None}
        if self.network.use_additional_conditions:
            added["resolution"] = noisy.new_full((len(noisy), 2), self.size)
            added["aspect_ratio"] = noisy.new_ones(len(noisy), 1)
        said = self.network(
            noisy,
            encoder_hidden_states=tokens,
            encoder_attention_mask=(mask > 0).to(noisy),  # of blended captions, every token counts
            timestep=time,
            added_cond_kwargs=added,
        )
        return said.sample


@dataclass(frozen=True, eq=False)
class Sd3Transformer:
    """Tokens and a pooled vector."""

    network: Any

    @property
    def text_shape(self) -> tuple[int, int]:
        """See `Denoiser`."""
        config = self.network.config
        return packed_shape(CLIP_LENGTH + SD3_LENGTH, config.joint_attention_dim, config.pooled_projection_dim)

    def __call__(
        self, noisy: Float[Tensor, "b c u v"], time: Tensor, text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b k u v"]:
        """See the module's docstring."""
        tokens, pooled = unpacked(text, self.network.config.pooled_projection_dim)
        return self.network(noisy, timestep=time, encoder_hidden_states=tokens, pooled_projections=pooled).sample


@dataclass(frozen=True, eq=False)
class FluxTransformer:
    """Tokens and a pooled vector; blocks of 2 x 2 latents are tokens, with positional embeddings."""

    network: Any

    @property
    def text_shape(self) -> tuple[int, int]:
        """See `Denoiser`."""
        config = self.network.config
        length = FLUX_LENGTH if config.guidance_embeds else FLUX_SCHNELL_LENGTH
        return packed_shape(length, config.joint_attention_dim, config.pooled_projection_dim)

    def __call__(
        self, noisy: Float[Tensor, "b c u v"], time: Tensor, text: Float[Tensor, "b l d"], known: ViewCondition
    ) -> Float[Tensor, "b c u v"]:
        """See the module's docstring. `time` is 1000 sigma, of which this network takes the thousandth part."""
        tokens, pooled = unpacked(text, self.network.config.pooled_projection_dim)
        rows, columns = noisy.shape[2] // 2, noisy.shape[3] // 2
        guidance = time.new_full((len(noisy),), FLUX_GUIDANCE) if self.network.config.guidance_embeds else None
        said = self.network(
            hidden_states=blocks(noisy),
            timestep=time.to(noisy) / 1000,
            guidance=guidance,
            pooled_projections=pooled,
            encoder_hidden_states=tokens,
            txt_ids=noisy.new_zeros(tokens.shape[1], 3),
            img_ids=places(rows, columns).to(noisy),
        )
        return unblocked(said.sample, rows, columns)


def text_width(config: Any) -> int:
    """Of the tokens that a U-Net takes."""
    widths = (config.get(name) for name in ("encoder_hid_dim", "cross_attention_dim", "text_width"))
    return next(width for width in widths if width)


def blocks(latents: Float[Tensor, "b c u v"]) -> Float[Tensor, "b n k"]:
    """One token per block of 2 x 2 latents, row by row; its numbers by channel, then row, then column."""
    b, c, u, v = latents.shape
    return latents.view(b, c, u // 2, 2, v // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, u * v // 4, 4 * c)


def unblocked(tokens: Float[Tensor, "b n k"], rows: int, columns: int) -> Float[Tensor, "b c u v"]:
    """The inverse of `blocks`."""
    b, _, k = tokens.shape
    grid = tokens.view(b, rows, columns, k // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return grid.reshape(b, k // 4, 2 * rows, 2 * columns)


def places(rows: int, columns: int) -> Float[Tensor, "n 3"]:
    """(0, row, column) of each block."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], dim=-1).flatten(0, 1).float()
