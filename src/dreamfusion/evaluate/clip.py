"""CLIP and SigLIP as scorers, through `transformers`: the paper's B/32, B/16 and L/14, or any other of their kind."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from dreamfusion.diffusion.priors.locate import HubId, find
from dreamfusion.diffusion.priors.quiet import quiet
from dreamfusion.errors import UserError
from dreamfusion.files import permitted
from dreamfusion.video import to_bytes

CHUNK = 64
"""pictures at a time; bounds memory"""


class Clip:
    """Cosine similarity of the two encoders' features."""

    def __init__(self, name: str, model: Any, tokenizer: Any, pictures: Any):
        """`model` is a CLIPModel or SiglipModel, `pictures` its image processor."""
        self.name, self.model, self.tokenizer, self.pictures = name, model.eval(), tokenizer, pictures

    @torch.no_grad()
    def score(self, images: Float[Tensor, "b h w 3"], captions: Sequence[str]) -> Float[Tensor, "b c"]:
        """Cosine similarities in [-1, 1]; captions are cut to the length that the model takes."""
        seen = torch.cat([self._images(chunk) for chunk in images.split(CHUNK)])
        return (seen @ self._texts(captions).T).float().cpu()

    def _images(self, images: Float[Tensor, "b h w 3"]) -> Float[Tensor, "b d"]:
        files = [Image.fromarray(picture) for picture in to_bytes(images)]
        pixels = self.pictures(images=files, return_tensors="pt")["pixel_values"].to(self.model.device)
        return _unit(self.model.get_image_features(pixel_values=pixels))

    def _texts(self, captions: Sequence[str]) -> Float[Tensor, "c d"]:
        # SigLIP learnt from captions padded to full length and has no mask; CLIP has one.
        longest = self.model.config.text_config.max_position_embeddings
        tokens = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        )
        names = ("input_ids", "attention_mask") if self.model.config.model_type == "clip" else ("input_ids",)
        return _unit(self.model.get_text_features(**{name: tokens[name].to(self.model.device) for name in names}))


@permitted()
def open_clip(name: str, device: torch.device | str = "cpu") -> Clip:
    """A folder that `transformers` wrote, or a hub id such as openai/clip-vit-large-patch14, which is then fetched.

    Raises UserError if it is neither, or no model of the two kinds.
    """
    from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

    match find(name):
        case None:
            raise UserError(
                f'there is no scorer {name!r}: give "judge", a CLIP or SigLIP folder, or a hub id (owner/name)'
            )
        case HubId(name=repository, revision=revision):
            where: dict[str, Any] = {"pretrained_model_name_or_path": repository, "revision": revision or "main"}
        case path:
            where = {"pretrained_model_name_or_path": str(path), "local_files_only": True}
    where["trust_remote_code"] = False
    try:
        with quiet():
            model = AutoModel.from_pretrained(**where)
            tokenizer, pictures = AutoTokenizer.from_pretrained(**where), AutoImageProcessor.from_pretrained(**where)
    except PermissionError:
        raise
    except Exception as error:  # damaged files raise anything there
        raise UserError(f"{name} is no scorer that opens ({type(error).__name__}): check the name or folder") from error
    if not hasattr(model, "get_image_features") or not hasattr(model, "get_text_features"):
        raise UserError(f"{name} is a {type(model).__name__}, no CLIP or SigLIP: it cannot score pictures")
    return Clip(name, model.to(device), tokenizer, pictures)


def _unit(features: Any) -> Float[Tensor, "b d"]:
    """Features of length 1; transformers 5 may hand out a record instead of a tensor."""
    return F.normalize(getattr(features, "pooler_output", features), dim=-1)
