"""From the name that a user gives to an open prior."""

import re
from importlib.resources import files
from pathlib import Path

import torch

from dreamfusion.errors import UserError
from dreamfusion.priors.folder import PipelineFolder, read_pipeline
from dreamfusion.priors.pixel import open_pixel
from dreamfusion.priors.protocol import Prior

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
LATENT = (
    "StableDiffusionPipeline",
    "StableDiffusionXLPipeline",
    "StableDiffusion3Pipeline",
    "FluxPipeline",
    "PixArtSigmaPipeline",
)
# What is read of a hub repository: no pickles, no half-precision duplicates, no components without a use here.
HUB_FILES = [
    "model_index.json",
    "card.json",
    *(f"{part}/*" for part in ("unet", "text_encoder", "tokenizer", "scheduler")),
]
HUB_LEFT_OUT = ["*.bin", "*.msgpack", "*.onnx*", "*.fp16*"]


def open_pipeline(name: str, device: torch.device, dtype: torch.dtype) -> Prior:
    """See `dreamfusion.priors.open_prior`."""
    if name == "embedded":
        return _open_folder(Path(str(files("dreamfusion"))) / "embedded" / "weights", device, dtype)
    path = Path(name).expanduser()
    if path.is_dir():
        return _open_folder(path, device, dtype)
    if path.exists() or not HUB_ID.fullmatch(name):
        raise UserError(
            f'there is no prior {name!r}: give "embedded", a diffusers pipeline folder, or a hub id such as owner/model'
        )
    return _open_folder(_download(name), device, dtype)


def _open_folder(path: Path, device: torch.device, dtype: torch.dtype) -> Prior:
    folder = read_pipeline(path)
    _require_supported(folder)
    return open_pixel(folder, device, dtype)


def _require_supported(folder: PipelineFolder) -> None:
    kind = folder.pipeline
    if kind in LATENT:
        raise UserError(
            f"{folder.path} is a latent model ({kind}); those come later: use a pixel-space one (IFPipeline)"
        )
    if kind != "IFPipeline":
        raise UserError(f"{folder.path} is a {kind}, which is not supported: use a pixel-space pipeline (IFPipeline)")


def _download(name: str) -> Path:
    """A hub repository's folder in the cache, fetched if need be; its kind is checked before gigabytes come."""
    from huggingface_hub import hf_hub_download, snapshot_download

    try:
        index = hf_hub_download(name, "model_index.json")
        _require_supported(read_pipeline(Path(index).parent))
        return Path(snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=HUB_LEFT_OUT))
    except (OSError, ValueError) as error:
        raise UserError(
            f"there is no folder {name!r}, and the model hub did not give it ({type(error).__name__}):"
            " check the name, the network and your access rights, or give the folder of a downloaded copy"
        ) from error
