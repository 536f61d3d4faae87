"""The kinds of pipelines that can be priors: one line each. docs/reference/priors.md is made from this table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from dreamfusion.diffusion.priors import text_encoders as text
from dreamfusion.diffusion.priors.denoisers import (
    Denoiser,
    FluxTransformer,
    PixArtTransformer,
    Sd3Transformer,
    SdxlUNet,
    TextUNet,
)
from dreamfusion.diffusion.priors.folder import PipelineFolder
from dreamfusion.errors import UserError


@dataclass(frozen=True)
class Kind:
    """What distinguishes one class of pipelines from the others."""

    network: str
    """name of the denoiser's folder"""
    texts: int
    """text encoders"""
    embed: text.Embed
    denoiser: Callable[[Any, int, frozenset[str]], Denoiser]
    """from the network, the size of the pictures, and the names of its other inputs"""
    latent: bool = True
    flow: bool = False
    half: torch.dtype = torch.float16
    """the half precision that suits it"""
    cells: int | None = None
    """latents per side, where the network's configuration does not say"""

    def components(self, texts: bool = True) -> tuple[str, ...]:
        """The folders that are read, with those of the text or without."""
        suffixes = ("", *(f"_{number}" for number in range(2, self.texts + 1))) if texts else ()
        words = [f"{part}{suffix}" for suffix in suffixes for part in ("tokenizer", "text_encoder")]
        return (self.network, "scheduler", *(["vae"] if self.latent else []), *words)


KINDS: dict[str, Kind] = {
    "StableDiffusionPipeline": Kind("unet", 1, text.sd_text, lambda unet, _, told: TextUNet(unet, told)),
    "StableDiffusionXLPipeline": Kind("unet", 2, text.sdxl_text, lambda unet, size, _: SdxlUNet(unet, size)),
    "IFPipeline": Kind("unet", 1, text.if_text, lambda unet, _, told: TextUNet(unet, told), latent=False),
    "StableDiffusion3Pipeline": Kind(
        "transformer", 3, text.sd3_text, lambda net, size, told: Sd3Transformer(net), flow=True
    ),
    "FluxPipeline": Kind(
        "transformer",
        2,
        text.flux_text,
        lambda net, size, told: FluxTransformer(net),
        flow=True,
        half=torch.bfloat16,
        cells=128,  # as diffusers' pipeline has it
    ),
    "PixArtAlphaPipeline": Kind(
        "transformer",
        1,
        text.pixart_alpha_text,
        lambda net, size, told: PixArtTransformer(net, size, text.PIXART_ALPHA_LENGTH),
    ),
    "PixArtSigmaPipeline": Kind(
        "transformer",
        1,
        text.pixart_sigma_text,
        lambda net, size, told: PixArtTransformer(net, size, text.PIXART_SIGMA_LENGTH),
    ),
}


def kind_of(folder: PipelineFolder) -> Kind:
    """The folder's kind. Raises UserError, with the known ones, for one that is not supported."""
    if folder.pipeline not in KINDS:
        raise UserError(f"{folder.path} is a {folder.pipeline}, which is not supported: use one of {', '.join(KINDS)}")
    return KINDS[folder.pipeline]
