"""From the name that a user gives to an open prior."""

from pathlib import Path
from typing import Any

import torch

from dreamfusion.diffusion.priors import embeddings
from dreamfusion.diffusion.priors.card import Card, read_card
from dreamfusion.diffusion.priors.folder import PipelineFolder, class_of, load_component, load_network, weights_of
from dreamfusion.diffusion.priors.kinds import Kind, kind_of
from dreamfusion.diffusion.priors.locate import locate
from dreamfusion.diffusion.priors.noise_schedule import NoiseSchedule, Prediction
from dreamfusion.diffusion.priors.options import PriorOptions
from dreamfusion.diffusion.priors.pipeline import PipelineEncoder, PipelinePrior
from dreamfusion.diffusion.priors.protocol import PromptEncoder
from dreamfusion.diffusion.priors.schedulers import prediction_of, rectified_flow_schedule, variance_preserving_schedule
from dreamfusion.diffusion.priors.spaces import LatentSpace, PixelSpace, pixels_per_latent
from dreamfusion.diffusion.priors.text_encoders import Embed, TextEncoders, zero_padded_text
from dreamfusion.errors import UserError
from dreamfusion.files import read_json


def open_captions(name: str, options: PriorOptions, saved: Path | None) -> PromptEncoder:
    """See `dreamfusion.diffusion.priors.open_prompt_encoder`."""
    folder = locate(name, texts=saved is None, half=options.dtype is None)
    kind = kind_of(folder)
    card = _card(folder, kind)
    if saved is not None:
        return embeddings.read(saved, folder, card, options.device)
    return PipelineEncoder(card, _encoders(folder, kind, options), _embed(kind, card))


def open_pipeline(name: str, options: PriorOptions) -> PipelinePrior:
    """See `dreamfusion.diffusion.priors.open_prior`."""
    folder = locate(name, options.texts, half=options.dtype is None)
    kind, scheduler = kind_of(folder), load_component(folder, "scheduler")
    network = _network(folder, kind, options)
    card = _card(folder, kind)
    space = _space(folder, kind, options, card)
    prediction, schedule = _noise(folder, kind, scheduler, space.size // space.factor)
    return PipelinePrior(
        card=card,
        encoders=_encoders(folder, kind, options),
        read=_embed(kind, card),
        space=space,
        denoiser=kind.denoiser(network, space.size, card.conditions),
        dtype=dtype_of(kind, options),
        prediction=prediction,
        schedule=schedule.to(options.device),
        side=options.side,
    )


def require_whole(name: str, options: PriorOptions) -> None:
    """Raises the UserError with which the prior would not open, in the same order, short of what its tensors say."""
    folder = locate(name, options.texts, half=options.dtype is None)
    kind = kind_of(folder)
    _card(folder, kind)
    words = [part for part in kind.components(options.texts) if part.startswith(("tokenizer", "text_encoder"))]
    for part in words:
        if part in folder.classes or not part.endswith("_3"):  # the third encoder may be left out
            _require_part(folder, part)
    _noise(folder, kind, load_component(folder, "scheduler"), cells=64)  # any number tells whether there is a schedule
    for part in (kind.network, *(["vae"] if kind.latent else [])):
        _require_part(folder, part)


def _require_part(folder: PipelineFolder, component: str) -> None:
    if component.startswith("tokenizer"):
        load_component(folder, component)
    else:
        weights_of(folder, component)
        class_of(folder, component)


def _noise(folder: PipelineFolder, kind: Kind, scheduler: Any, cells: int) -> tuple[Prediction, NoiseSchedule]:
    """What the network predicts, and its noise levels for `cells` x `cells` latents or pixels."""
    if kind.flow:
        return Prediction.FLOW, rectified_flow_schedule(folder, scheduler, cells)
    return prediction_of(folder, scheduler), variance_preserving_schedule(folder, scheduler)


def dtype_of(kind: Kind, options: PriorOptions) -> torch.dtype:
    """That of the kind's networks."""
    return options.dtype or kind.half


def _card(folder: PipelineFolder, kind: Kind) -> Card:
    """The folder's card, or a plain one."""
    return read_card(folder.path, image_size(folder, kind))


def image_size(folder: PipelineFolder, kind: Kind) -> int:
    """Pixels per side of the pictures with which the model was trained, by its configuration."""
    path = folder.path / kind.network / "config.json"
    try:
        settings = read_json(path)
        if settings.get("time_cond_proj_dim"):
            raise UserError(
                f"{path} has a time_cond_proj_dim: it is a consistency model, which jumps to the end of a trajectory"
                " and estimates no noise; use the model that it was distilled from"
            )
        cells = kind.cells or settings["sample_size"]
        if not isinstance(cells, int) or cells < 1:
            raise TypeError(f"sample_size is {cells!r}")
        if not kind.latent:
            return cells
        path = folder.path / "vae" / "config.json"
        return cells * pixels_per_latent(read_json(path)["block_out_channels"])
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} does not say how large pictures are ({error!r}): restore the file") from error


def vae_dtype_of(folder: PipelineFolder, dtype: torch.dtype) -> torch.dtype:
    """That of the auto-encoder, where the other networks have `dtype`: many overflow in half precision, and say so."""
    fragile = read_json(folder.path / "vae" / "config.json").get("force_upcast", True)
    return torch.float32 if fragile and dtype == torch.float16 else dtype


def _encoders(folder: PipelineFolder, kind: Kind, options: PriorOptions) -> TextEncoders:
    return TextEncoders(folder, options.device, dtype_of(kind, options), {} if options.keep_texts else None)


def _embed(kind: Kind, card: Card) -> Embed:
    return zero_padded_text if card.zero_padding else kind.embed


def _network(folder: PipelineFolder, kind: Kind, options: PriorOptions) -> Any:
    """The denoiser, where and as the options want it."""
    there = torch.device("cpu") if options.offload else options.device
    network = tuned(load_network(folder, kind.network, there, dtype_of(kind, options)), folder, options)
    if options.offload:
        network.enable_group_offload(onload_device=options.device, offload_type="leaf_level")
    return network


def tuned(network: Any, folder: PipelineFolder, options: PriorOptions) -> Any:
    """The same network, with attention as the options want it."""
    if options.attention_slicing:
        if not hasattr(network, "set_attention_slice"):
            raise UserError(f"attention slicing is for plain U-Nets, not for a {folder.pipeline}: leave it out")
        network.set_attention_slice("auto")
    return network


def divided(vae: Any, options: PriorOptions) -> Any:
    """The same auto-encoder, working on parts of a batch as the options want it."""
    if options.vae_slicing:
        vae.enable_slicing()
    if options.vae_tiling:
        vae.enable_tiling()
    if options.vae_slicing or options.vae_tiling:
        # Or all parts would be kept for the way back together. There each block of a part is computed again instead.
        vae.enable_gradient_checkpointing()
    return vae


def shown_size(folder: PipelineFolder, kind: Kind, options: PriorOptions, own: int) -> int:
    """Pixels per side of the pictures that the model is shown; `own` by default. UserError for what it cannot take."""
    size = options.size or own
    if not kind.latent:
        if size != own:
            raise UserError(f"{folder.path} works on pixels: its pictures have {own} pixels, not {size}")
        return size
    path = folder.path / "vae" / "config.json"
    try:
        least = 2 * pixels_per_latent(read_json(path)["block_out_channels"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} does not say how its blocks are ({error!r}): restore the file") from error
    if size % least:  # 2: the blocks of transformers, the first halving of U-Nets
        raise UserError(f"the prior's pictures must be a multiple of {least} pixels, not {size}")
    return size


def _space(folder: PipelineFolder, kind: Kind, options: PriorOptions, card: Card) -> PixelSpace | LatentSpace:
    size = shown_size(folder, kind, options, card.image_size)
    if not kind.latent:
        return PixelSpace(size)
    vae = load_network(folder, "vae", options.device, vae_dtype_of(folder, dtype_of(kind, options)))
    return LatentSpace(divided(vae, options), size, options.device)
