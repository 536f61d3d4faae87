"""Every supported pipeline in miniature: random weights, the real classes, kilobytes instead of gigabytes.

`save(kind, folder)` writes what diffusers itself would write; nothing is downloaded.
"""

import json
import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from dreamfusion.embedded.denoiser import TablesDenoiser
from dreamfusion.embedded.tables import Shape, decoder
from training.nouns import Noun
from training.prior.ship import END, PAD, UNKNOWN, denoiser, word_tokenizer

CELLS = 8
"""latents (or pixels) per side"""
FACTOR = 2
"""pixels per latent"""
TEXT, T5_WIDTH = 16, 32


def save(kind: str, folder: Path) -> Path:
    """Write the miniature of a pipeline class into a new folder and return it."""
    torch.manual_seed(0)
    parts = BUILDERS[kind]()
    index: dict[str, Any] = {"_class_name": kind, "_diffusers_version": "0.42.1"}
    for name, part in parts.items():
        if not isinstance(part, (bool, type(None))):
            part.save_pretrained(folder / name)
            index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
        else:
            index[name] = [None, None] if part is None else part
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


TABLES = Shape(
    size=16,
    nodes=4,
    azimuths=6,
    elevations=3,
    channels=2,
    coarse_nodes=3,
    coarse_azimuths=4,
    coarse_channels=2,
    width=16,
    rank=2,
)


def tables(table: Sequence[Noun], shape: Shape = TABLES) -> TablesDenoiser:
    """The embedded prior's network with random numbers, for the meshes of a table."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    things = torch.randn(len(table) + 1, shape.numbers, generator=generator)
    corrections = 0.1 * torch.randn(len(table) + 1, shape.corrected, generator=generator)
    network = denoiser(table, shape, things, corrections, decoder(shape))
    network.luma.fill_(0.5)
    network.spread.fill_(0.1)
    return network


def clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    letters = [letter + end for end in ("", "</w>") for letter in string.ascii_lowercase + string.digits + ",.-"]
    words = ["<|startoftext|>", "<|endoftext|>", *letters]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77)


def t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    letters = [(letter, -3.0) for letter in string.ascii_lowercase + string.digits + ",.-"]
    return T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *letters], extra_ids=0)


def clip(projected: bool = False) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    config = CLIPTextConfig(
        vocab_size=80, hidden_size=TEXT, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
        projection_dim=TEXT, max_position_embeddings=77, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    return (CLIPTextModelWithProjection if projected else CLIPTextModel)(config).eval()


def t5() -> Any:
    from transformers import T5Config, T5EncoderModel

    config = T5Config(vocab_size=50, d_model=T5_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    return T5EncoderModel(config).eval()


def vae(**changes: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(4, 8), norm_num_groups=2, latent_channels=4, layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        sample_size=FACTOR * CELLS, **changes,
    )  # fmt: skip


CLIP_WORDS, CLIP_TEXT, CLIP_SIZE = [PAD, END, UNKNOWN, "a", "red", "chair", "frog"], 8, 32
"""of the contrastive miniatures: words, length of captions, pixels per side"""


def save_contrastive(kind: str, folder: Path) -> None:
    """A "clip" or "siglip" with its processors, as transformers writes it; the real ones differ in size only."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, SiglipConfig, SiglipImageProcessor, SiglipModel

    small = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = small | {"image_size": CLIP_SIZE, "patch_size": 8}
    text = small | {
        "vocab_size": len(CLIP_WORDS), "max_position_embeddings": CLIP_TEXT, "eos_token_id": 1, "bos_token_id": 3,
        "pad_token_id": 0, "projection_size": 16,
    }  # fmt: skip
    size = {"height": CLIP_SIZE, "width": CLIP_SIZE}
    torch.manual_seed(0)
    if kind == "clip":
        CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)).save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": CLIP_SIZE}, crop_size=size).save_pretrained(folder)
    else:
        SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(folder)
        SiglipImageProcessor(size=size).save_pretrained(folder)
    word_tokenizer(CLIP_WORDS).save_pretrained(folder)


def unet(**changes: Any) -> Any:
    from diffusers import UNet2DConditionModel

    settings: dict[str, Any] = {
        "sample_size": CELLS, "in_channels": 4, "out_channels": 4, "cross_attention_dim": TEXT,
        "attention_head_dim": 4, "layers_per_block": 1, "block_out_channels": (8, 8), "norm_num_groups": 4,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    }  # fmt: skip
    return UNet2DConditionModel(**{**settings, **changes}).eval()


def scaled_linear(kind: str = "DDIMScheduler", **changes: Any) -> Any:
    import diffusers

    return getattr(diffusers, kind)(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, **changes
    )


def flow_scheduler(**changes: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(**changes)


def stable_diffusion() -> dict[str, Any]:
    return {
        "unet": unet(),
        "vae": vae(),
        "text_encoder": clip(),
        "tokenizer": clip_tokenizer(),
        "scheduler": scaled_linear(clip_sample=False, set_alpha_to_one=False),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def stable_diffusion_xl() -> dict[str, Any]:
    return {
        "unet": unet(
            cross_attention_dim=2 * TEXT,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + TEXT,
        ),
        "vae": vae(scaling_factor=0.13025),
        "text_encoder": clip(),
        "text_encoder_2": clip(projected=True),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "scheduler": scaled_linear("EulerDiscreteScheduler", timestep_spacing="leading"),
        "force_zeros_for_empty_prompt": True,
    }


def deepfloyd_if() -> dict[str, Any]:
    from diffusers import DDPMScheduler

    return {
        "unet": unet(in_channels=3, out_channels=6, cross_attention_dim=T5_WIDTH),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range", clip_sample=False),
        "safety_checker": None,
        "feature_extractor": None,
        "watermarker": None,
        "requires_safety_checker": False,
    }


def stable_diffusion_3() -> dict[str, Any]:
    from diffusers import SD3Transformer2DModel

    return {
        "transformer": SD3Transformer2DModel(
            sample_size=CELLS, patch_size=2, in_channels=4, out_channels=4, num_layers=2, attention_head_dim=8,
            num_attention_heads=4, joint_attention_dim=2 * TEXT, caption_projection_dim=32,
            pooled_projection_dim=2 * TEXT, pos_embed_max_size=CELLS,
        ).eval(),
        "vae": vae(shift_factor=0.0609, scaling_factor=1.5035),
        "text_encoder": clip(projected=True),
        "text_encoder_2": clip(projected=True),
        "text_encoder_3": t5(),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": clip_tokenizer(),
        "tokenizer_3": t5_tokenizer(),
        "scheduler": flow_scheduler(shift=3.0),
    }  # fmt: skip


def flux() -> dict[str, Any]:
    from diffusers import FluxTransformer2DModel

    return {
        "transformer": FluxTransformer2DModel(
            patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16,
            num_attention_heads=2, joint_attention_dim=T5_WIDTH, pooled_projection_dim=TEXT,
            axes_dims_rope=(4, 4, 8), guidance_embeds=True,
        ).eval(),
        "vae": vae(shift_factor=0.1159, scaling_factor=0.3611),
        "text_encoder": clip(),
        "text_encoder_2": t5(),
        "tokenizer": clip_tokenizer(),
        "tokenizer_2": t5_tokenizer(),
        "scheduler": flow_scheduler(
            use_dynamic_shifting=True, base_image_seq_len=4, max_image_seq_len=64, base_shift=0.5, max_shift=1.15
        ),
    }  # fmt: skip


def pixart(sample_size: int, told_size: bool) -> dict[str, Any]:
    from diffusers import PixArtTransformer2DModel

    return {
        "transformer": PixArtTransformer2DModel(
            sample_size=sample_size, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3,
            in_channels=4, out_channels=8, caption_channels=T5_WIDTH, cross_attention_dim=24,
            norm_type="ada_norm_single", use_additional_conditions=told_size,
        ).eval(),
        "vae": vae(),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "scheduler": scaled_linear(clip_sample=False, set_alpha_to_one=False),
    }  # fmt: skip


def pixart_alpha() -> dict[str, Any]:
    """As large as its 1024-pixel model, which alone is told the size of the picture: to be opened with a size."""
    return pixart(sample_size=128, told_size=True)


def pixart_sigma() -> dict[str, Any]:
    return pixart(sample_size=CELLS, told_size=False)


BUILDERS: dict[str, Callable[[], dict[str, Any]]] = {
    "StableDiffusionPipeline": stable_diffusion,
    "StableDiffusionXLPipeline": stable_diffusion_xl,
    "IFPipeline": deepfloyd_if,
    "StableDiffusion3Pipeline": stable_diffusion_3,
    "FluxPipeline": flux,
    "PixArtAlphaPipeline": pixart_alpha,
    "PixArtSigmaPipeline": pixart_sigma,
}
