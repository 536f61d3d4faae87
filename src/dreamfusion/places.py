"""What the name of a model means: a folder on this machine, or a repository of the model hub."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamfusion.errors import UserError
from dreamfusion.files import expanded, kind_of_place, read_json

HUB_ID = re.compile(r"(?P<id>[\w.-]{1,96}/[\w.-]{1,96})(@(?P<revision>[\w./-]{1,255}))?")
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
SUFFIXES = (".safetensors", ".gguf", ".json", *PICKLES)
"""of files of models"""
MOST = 2**24
"""more than any model has of anything that its settings count"""
_UNBOUNDED = ("model_max_length", "total_size")
"""names of settings that may be larger: some tokenizers have no limit, and files have many bytes"""


@dataclass(frozen=True)
class HubId:
    """A repository of the model hub, at a revision (None: the newest)."""

    name: str
    revision: str | None


def find(name: str) -> Path | HubId | None:
    """The folder here or the hub repository that a name means, without asking the hub; None if it means neither."""
    path, asked = expanded(name), HUB_ID.fullmatch(name)
    place = kind_of_place(path)
    if place == "folder":
        return path
    if asked is None or place == "file" or _looks_local(name):
        return None
    return HubId(asked["id"], asked["revision"])


def read_settings(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model's folder.

    Raises UserError for anything else, and for numbers above MOST: libraries make as many parts as they are told, until
    the memory is full.
    """
    found = read_json(path)
    if not isinstance(found, dict):  # a text would be taken for the name of a model, and the hub asked
        raise UserError(f"{path} holds no JSON object: restore the file")
    _require_sizes(path, "a value", found)
    return found


def require_vocabulary(where: Path, tokenizer: type) -> None:
    """Raises UserError for the folder of a tokenizer of this class of `transformers` without its words.

    Without them it would open, and take every word for an unknown one. For other classes nothing is asked.
    """
    names: Mapping[str, str] = getattr(tokenizer, "vocab_files_names", {})
    parts = [name for key, name in names.items() if key != "tokenizer_file"]  # which stand for the whole together
    whole = names.get("tokenizer_file", "tokenizer.json")
    if parts and not (where / whole).is_file() and not all((where / name).is_file() for name in parts):
        raise UserError(f"{where} has neither {whole} nor {' and '.join(parts)}: download or restore it")


def _require_sizes(path: Path, name: str, value: Any) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            _require_sizes(path, key, part)
    elif isinstance(value, list):
        for part in value:
            _require_sizes(path, name, part)
    elif isinstance(value, int) and abs(value) > MOST and name not in _UNBOUNDED:
        raise UserError(f"{path} has a {name} of {value}, more than any model: restore the file")


def folders_here() -> set[str]:
    """The names of the folders in the working directory."""
    return {path.name for path in Path().iterdir() if path.is_dir()}


def _looks_local(name: str) -> bool:
    """Whether a name that could be a hub id was more likely meant as a path."""
    return name.startswith(".") or Path(name).suffix.lower() in SUFFIXES or Path(name).parts[0] in folders_here()
