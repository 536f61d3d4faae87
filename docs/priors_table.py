"""Writes the table of docs/reference/priors.md from the code: `python docs/priors_table.py`.

Memory is estimated for one well-known model of each kind. Its sizes are stated here, as far as they differ from what
diffusers and transformers take for granted; no weights are needed.
"""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dreamfusion.config.presets import preset
from dreamfusion.diffusion.priors.folder import PipelineFolder, read_pipeline
from dreamfusion.diffusion.priors.kinds import KINDS, Kind
from dreamfusion.diffusion.priors.memory_plan import plan
from dreamfusion.diffusion.priors.opening import image_size
from dreamfusion.diffusion.priors.options import PriorOptions

PAGE = Path(__file__).parent / "reference" / "priors.md"
BEGIN, END = "<!-- table: python docs/priors_table.py -->", "<!-- end of table -->"

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20,
          "projection_dim": 1280}  # fmt: skip
T5_XXL = {"d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
          "feed_forward_proj": "gated-gelu"}  # fmt: skip
UNET, VAE = ("diffusers", "UNet2DConditionModel"), ("diffusers", "AutoencoderKL")
CLIP = ("transformers", "CLIPTextModel")
CLIP_PROJECTED = ("transformers", "CLIPTextModelWithProjection")
T5 = ("transformers", "T5EncoderModel")


def vae(**changes: Any) -> dict[str, Any]:
    """Stable Diffusion's auto-encoder, with changes."""
    return {
        "block_out_channels": [128, 256, 512, 512],
        "layers_per_block": 2,
        "latent_channels": 4,
        "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4,
        **changes,
    }


@dataclass(frozen=True)
class Example:
    """A published model of a kind."""

    name: str
    parts: dict[str, tuple[tuple[str, str], dict[str, Any]]]
    """by folder: the class and its configuration"""
    prediction: str
    tested: str = "text, a guided step and latents equal the pipeline's"
    """in miniature, besides what holds for all kinds"""

    def write(self, kind: str, folder: Path) -> PipelineFolder:
        """The configuration files alone."""
        index: dict[str, Any] = {"_class_name": kind}
        for name, (made, config) in self.parts.items():
            index[name] = list(made)
            (folder / name).mkdir(parents=True)
            (folder / name / "config.json").write_text(json.dumps(config))
        (folder / "model_index.json").write_text(json.dumps(index))
        return read_pipeline(folder)


SDXL_UNET = {
    "sample_size": 128, "cross_attention_dim": 2048, "block_out_channels": [320, 640, 1280],
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20], "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
IF_UNET = {
    "sample_size": 64, "in_channels": 3, "out_channels": 6, "block_out_channels": [704, 1408, 2112, 2816],
    "layers_per_block": 3, "attention_head_dim": 64, "cross_attention_dim": 2816, "encoder_hid_dim": 4096,
    "encoder_hid_dim_type": "text_proj", "addition_embed_type": "text", "addition_embed_type_num_heads": 64,
    "down_block_types": ["ResnetDownsampleBlock2D", *["SimpleCrossAttnDownBlock2D"] * 3],
    "up_block_types": [*["SimpleCrossAttnUpBlock2D"] * 3, "ResnetUpsampleBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "resnet_time_scale_shift": "scale_shift", "act_fn": "gelu",
    "cross_attention_norm": "group_norm",
}  # fmt: skip
PIXART = {
    "sample_size": 128, "num_layers": 28, "num_attention_heads": 16, "attention_head_dim": 72, "in_channels": 4,
    "out_channels": 8, "caption_channels": 4096, "cross_attention_dim": 1152, "norm_type": "ada_norm_single",
}  # fmt: skip
SD3 = {
    "sample_size": 128, "in_channels": 16, "out_channels": 16, "num_layers": 24, "num_attention_heads": 24,
    "attention_head_dim": 64, "joint_attention_dim": 4096, "caption_projection_dim": 1536,
    "pooled_projection_dim": 2048, "pos_embed_max_size": 192, "patch_size": 2,
}  # fmt: skip

EXAMPLES: dict[str, Example] = {
    "StableDiffusionPipeline": Example(
        "Stable Diffusion 1.5",
        {
            "unet": (UNET, {"sample_size": 64, "cross_attention_dim": 768}),
            "vae": (VAE, vae()),
            "text_encoder": (CLIP, CLIP_L),
        },
        "epsilon; v in 2.x",
    ),
    "StableDiffusionXLPipeline": Example(
        "Stable Diffusion XL",
        {
            "unet": (UNET, SDXL_UNET),
            "vae": (VAE, vae(scaling_factor=0.13025)),
            "text_encoder": (CLIP, CLIP_L),
            "text_encoder_2": (CLIP_PROJECTED, CLIP_G),
        },
        "epsilon",
    ),
    "IFPipeline": Example(
        "DeepFloyd IF-I-XL",
        {"unet": (UNET, IF_UNET), "text_encoder": (T5, T5_XXL)},
        "epsilon; learned variance dropped",
        "text, a guided step and the estimate of the picture equal the pipeline's",
    ),
    "StableDiffusion3Pipeline": Example(
        "Stable Diffusion 3 medium",
        {
            "transformer": (("diffusers", "SD3Transformer2DModel"), SD3),
            "vae": (VAE, vae(latent_channels=16, shift_factor=0.0609, scaling_factor=1.5305)),
            "text_encoder": (CLIP_PROJECTED, CLIP_L),
            "text_encoder_2": (CLIP_PROJECTED, CLIP_G),
            "text_encoder_3": (T5, T5_XXL),
        },
        "flow",
    ),
    "FluxPipeline": Example(
        "Flux.1-dev",
        {
            "transformer": (("diffusers", "FluxTransformer2DModel"), {"guidance_embeds": True}),
            "vae": (VAE, vae(latent_channels=16, shift_factor=0.1159, scaling_factor=0.3611)),
            "text_encoder": (CLIP, CLIP_L),
            "text_encoder_2": (T5, T5_XXL),
        },
        "flow; told guidance 1",
    ),
    "PixArtAlphaPipeline": Example(
        "PixArt-alpha XL/2 1024",
        {
            "transformer": (("diffusers", "PixArtTransformer2DModel"), PIXART),
            "vae": (VAE, vae()),
            "text_encoder": (T5, T5_XXL),
        },
        "epsilon; learned variance dropped",
    ),
    "PixArtSigmaPipeline": Example(
        "PixArt-sigma XL/2 1024",
        {
            "transformer": (("diffusers", "PixArtTransformer2DModel"), {**PIXART, "use_additional_conditions": False}),
            "vae": (VAE, vae(scaling_factor=0.13025)),
            "text_encoder": (T5, T5_XXL),
        },
        "epsilon; learned variance dropped",
    ),
}


HEADS = ("class", "prediction", "space", "pixels", "preset", "tested in miniature",
         "example, 10^9 parameters", "a step of the preset",
         "text, GB", "then weights + encoding + denoising, GB")  # fmt: skip


def facts(name: str, kind: Kind) -> list[str]:
    """The first cells of a kind's row: what it is."""
    with tempfile.TemporaryDirectory() as place:
        size = image_size(EXAMPLES[name].write(name, Path(place) / "model"), kind)
    space = "latents" if kind.latent else "pixels"
    return [f"`{name}`", EXAMPLES[name].prediction, space, f"{size}", f"`{kind.preset}`", EXAMPLES[name].tested]


def memory(name: str, kind: Kind) -> list[str]:
    """The last cells: what its example needs."""
    example, config = EXAMPLES[name], preset(kind.preset)
    options = PriorOptions(dtype=None, size=config.memory.size, vae_slicing=config.memory.vae_slicing)
    with tempfile.TemporaryDirectory() as place:
        folder = example.write(name, Path(place) / "model")
        needs, size = plan(folder, options, config.views), options.size or image_size(folder, kind)
    return [
        f"{example.name}, {needs.parameters / 1e9:.2f}",
        f"{config.views} x {size}, {str(kind.half).removeprefix('torch.')}",
        f"{needs.text / 1e9:.1f}",
        f"{needs.weights / 1e9:.1f} + {needs.encode / 1e9:.1f} + {needs.denoise / 1e9:.1f}",
    ]


def line(cells: Sequence[str]) -> str:
    """A row of the table."""
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """All lines."""
    rows = [line([*facts(name, kind), *memory(name, kind)]) for name, kind in KINDS.items()]
    return "\n".join([line(HEADS), "|---" * len(HEADS) + "|", *rows])


def page(text: str) -> str:
    """The page with a new table."""
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    torch.set_num_threads(1)
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
