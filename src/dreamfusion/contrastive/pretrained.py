"""CLIP and SigLIP through `transformers`: the paper's B/32, B/16 and L/14, or any other of their kind.

Pictures are resized and normalised as the model's own processor says, but in torch, with gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dreamfusion.errors import UserError
from dreamfusion.files import visible
from dreamfusion.places import HubId, read_settings, require_vocabulary
from dreamfusion.quiet import quiet

MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}
"""of PIL's numbers for ways to resample"""


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its pictures: resized, perhaps cropped to the middle, each channel shifted and scaled."""

    size: int
    """pixels per side of what the network sees"""
    shortest: int | None
    """pixels to which the shorter side is brought before the middle is cut out; None: the whole picture is squeezed"""
    mode: str
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def of(cls, processor: Any) -> "Preprocessing":
        """What an image processor of `transformers` would do. Raises ValueError for settings of another kind."""
        size, crop = dict(processor.size), dict(getattr(processor, "crop_size", None) or {})
        cropped = bool(getattr(processor, "do_center_crop", False)) and bool(crop)
        sides = crop if cropped else size
        side = sides.get("height", sides.get("shortest_edge"))
        mode = MODES.get(int(processor.resample))
        shortest = size.get("shortest_edge")
        if side is None or sides.get("width", side) != side or (shortest or side) < side or mode is None:
            raise ValueError(f"pictures of {size}, cropped to {crop}, resampled by {processor.resample}")
        return cls(side, shortest, mode, tuple(processor.image_mean), tuple(processor.image_std))

    def __call__(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b 3 s s"]:
        """Of pictures in [0, 1]; differentiable."""
        x = image.permute(0, 3, 1, 2).float()
        height, width = x.shape[2:]
        target = (self.size, self.size)
        if self.shortest is not None:
            short = min(height, width)
            target = (int(self.shortest * height / short), int(self.shortest * width / short))
        if (height, width) != target:
            smooth = {} if self.mode == "nearest-exact" else {"antialias": True}
            x = F.interpolate(x, target, mode=self.mode, **smooth).clamp(0, 1)
        top, left = ((side - self.size) // 2 for side in x.shape[2:])
        x = x[:, :, top : top + self.size, left : left + self.size]
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std


class Pretrained:
    """A CLIPModel or SiglipModel with its tokenizer; it implements `ContrastiveModel`."""

    def __init__(self, name: str, model: Any, tokenizer: Any, preprocessing: Preprocessing):
        self.name, self.model, self.tokenizer = name, model.eval().requires_grad_(False), tokenizer
        self.preprocessing, self.image_size = preprocessing, preprocessing.size
        self.logit_scale = float(model.logit_scale.float().exp())

    @property
    def device(self) -> torch.device:
        return self.model.device

    @torch.no_grad()
    def embed_text(self, captions: Sequence[str]) -> Float[Tensor, "n d"]:
        """Unit vectors of captions, which are cut to the length that the model takes."""
        # SigLIP learnt from captions padded to full length and has no mask; CLIP has one.
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        )
        names = ("input_ids", "attention_mask") if self.model.config.model_type == "clip" else ("input_ids",)
        return _unit(self.model.get_text_features(**{name: tokens[name].to(self.device) for name in names}))

    def embed_images(self, image: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        """Unit vectors of pictures in [0, 1]; differentiable with respect to them."""
        pixels = self.preprocessing(image).to(self.model.dtype)
        return _unit(self.model.get_image_features(pixel_values=pixels))


def open_pretrained(name: str, place: Path | HubId, device: torch.device | str = "cpu") -> Pretrained:
    """A folder that `transformers` wrote, or a hub repository, which is then fetched.

    Raises UserError if it does not open, or is no model of the two kinds.
    """
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    where: dict[str, Any] = {"trust_remote_code": False}
    if isinstance(place, HubId):
        where |= {"pretrained_model_name_or_path": place.name, "revision": place.revision or "main"}
    else:
        where |= {"pretrained_model_name_or_path": str(place), "local_files_only": True}
        for path in visible(place):
            if path.suffix == ".json":
                read_settings(path)
    try:
        with quiet():
            model = AutoModel.from_pretrained(**where)
            tokenizer, pictures = AutoTokenizer.from_pretrained(**where), AutoImageProcessor.from_pretrained(**where)
        preprocessing = Preprocessing.of(pictures)
        if not isinstance(place, HubId):
            require_vocabulary(place, type(tokenizer))
        if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
            kind = type(model).__name__
            raise UserError(f"{name} is a {kind}, no CLIP or SigLIP: it cannot compare pictures with text")
        opened = Pretrained(name, model, tokenizer, preprocessing)
        opened.embed_text(["a"])  # some files are damaged so that they open
        with torch.no_grad():
            opened.embed_images(torch.zeros(1, opened.image_size, opened.image_size, 3))
    except (PermissionError, UserError):
        raise
    except Exception as error:  # damaged files raise anything there
        raise UserError(
            f"{name} is no CLIP or SigLIP that opens ({type(error).__name__}): check the name or folder"
        ) from error
    opened.model.to(device)
    return opened


def _unit(features: Any) -> Float[Tensor, "b d"]:
    """Features of length 1; transformers 5 may hand out a record instead of a tensor."""
    return F.normalize(getattr(features, "pooler_output", features).float(), dim=-1)
