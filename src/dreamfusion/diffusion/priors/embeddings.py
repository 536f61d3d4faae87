"""Text embeddings as a file: captions are read once, perhaps on another machine, and no text encoder is needed again.

A safetensors file with one tensor, "embeddings" of shape (captions, rows, width), and metadata: the captions, the class
of the pipeline and a fingerprint of its denoiser's configuration, which tell whether the file fits a prior.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from dreamfusion import json_text
from dreamfusion.diffusion.priors.card import Card, Described
from dreamfusion.diffusion.priors.folder import PipelineFolder
from dreamfusion.diffusion.priors.kinds import kind_of
from dreamfusion.errors import UserError
from dreamfusion.files import permitted, read_json


@dataclass(frozen=True, eq=False)
class SavedReader(Described):
    """A `PromptEncoder` that looks captions up instead of reading them."""

    path: Path
    table: dict[str, Float[Tensor, "l d"]]

    def embed(self, prompts: Sequence[str]) -> Float[Tensor, "p l d"]:
        """The saved embeddings. Raises UserError for a caption that the file does not have."""
        absent = [prompt for prompt in prompts if prompt not in self.table]
        if absent:
            raise UserError(
                f"{self.path} has no embedding of {absent[0]!r}: use the prompt, the negative prompt and the view words"
                " with which it was saved, or save it again with --save-embeddings"
            )
        return torch.stack([self.table[prompt] for prompt in prompts])


def save(captions: Sequence[str], embeddings: Float[Tensor, "p l d"], folder: PipelineFolder, path: Path) -> None:
    """Write what a prior's `embed` made of captions. The caller sees to it that `path` is replaced whole."""
    about = {"captions": json.dumps(list(captions)), "pipeline": folder.pipeline, "denoiser": fingerprint(folder)}
    save_file({"embeddings": embeddings.cpu().contiguous()}, path, metadata=about)


@permitted()
def read(path: Path, folder: PipelineFolder, card: Card, device: torch.device) -> SavedReader:
    """Open a file of `save` for the prior in `folder`. Raises UserError if it is damaged or of another prior."""
    try:
        with path.open("rb"), safe_open(path, framework="pt", device=str(device)) as file:
            about, embeddings = file.metadata() or {}, file.get_tensor("embeddings")
        captions = json_text.parse(about["captions"].encode())
        if (
            embeddings.dim() != 3
            or not embeddings.is_floating_point()
            or not all(type(each) is str for each in captions)
        ):
            raise ValueError("not a table for each caption")
        table = dict(zip(captions, embeddings, strict=True))
    except PermissionError:
        raise  # which safetensors alone would take for a missing file
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds no text embeddings ({error}): make it with --save-embeddings") from error
    if (about.get("pipeline"), about.get("denoiser")) != (folder.pipeline, fingerprint(folder)):
        raise UserError(
            f"{path} was made for another prior ({about.get('pipeline')}) than {folder.path} ({folder.pipeline}):"
            " save the embeddings again with this one"
        )
    return SavedReader(card, path, table)


def fingerprint(folder: PipelineFolder) -> str:
    """A hash of the denoiser's configuration: the same for copies of a model, wherever they are."""
    config = read_json(folder.path / kind_of(folder).network / "config.json")
    told = {key: value for key, value in config.items() if key not in ("_name_or_path", "_diffusers_version")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
