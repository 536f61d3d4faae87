"""What the name of a model means: a folder on this machine, or a repository of the model hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from dreamfusion.files import expanded, kind_of_place

HUB_ID = re.compile(r"(?P<id>[\w.-]{1,96}/[\w.-]{1,96})(@(?P<revision>[\w./-]{1,255}))?")
PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")
SUFFIXES = (".safetensors", ".gguf", ".json", *PICKLES)
"""of files of models"""


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


def folders_here() -> set[str]:
    """The names of the folders in the working directory."""
    return {path.name for path in Path().iterdir() if path.is_dir()}


def _looks_local(name: str) -> bool:
    """Whether a name that could be a hub id was more likely meant as a path."""
    return name.startswith(".") or Path(name).suffix.lower() in SUFFIXES or Path(name).parts[0] in folders_here()
