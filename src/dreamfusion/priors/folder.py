"""Reading a diffusers pipeline folder, component by component, safely.

Weights come from safetensors only: pickle files can run code. Files are checked before a library sees them, so that
what is wrong with a folder is said in one line that names the file. Loading single components avoids the slow import of
all of diffusers' pipelines.
"""

import hashlib
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from dreamfusion import json_text
from dreamfusion.errors import UserError

LIBRARIES = ("diffusers", "transformers", "dreamfusion")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack")
LOADING_ERRORS = (Exception,)
"""what the libraries raise for files that are readable but do not fit together: anything (tokenizers: bare ones)"""


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline on disk: where it is, what it is, and the library and class of each component."""

    path: Path
    pipeline: str
    classes: dict[str, tuple[str, str]]


def read_pipeline(path: Path) -> PipelineFolder:
    """Read `model_index.json`. Raises UserError if the folder is no pipeline."""
    index_path = path / "model_index.json"
    if not index_path.is_file():
        raise UserError(
            f"{path} is no diffusers pipeline (it has no model_index.json): give the folder that holds that file"
        )
    index = read_json(index_path)
    if not isinstance(index, dict) or not isinstance(index.get("_class_name"), str):
        raise UserError(f"{index_path} names no pipeline class (_class_name): restore the file")
    classes = {}
    for component, value in index.items():
        match value:
            case [str(library), str(name)]:
                classes[component] = (library, name)
            case _:  # a setting, or a component that this pipeline does without: [null, null]
                continue
    return PipelineFolder(path, index["_class_name"], classes)


def read_json(path: Path) -> Any:
    """Raises UserError if the file cannot be read or is no JSON."""
    try:
        return json_text.read(path)
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as JSON ({error}): restore the file") from error


def digest(folder: PipelineFolder, component: str) -> str:
    """SHA-256 of a component: of the names and contents of its settings and weights."""
    whole, where = hashlib.sha256(), folder.path / component
    for path in sorted(path for path in where.iterdir() if path.suffix in (".json", ".safetensors")):
        whole.update(f"{path.name} {path.stat().st_size} ".encode())
        with path.open("rb") as file:
            while block := file.read(2**20):
                whole.update(block)
    return whole.hexdigest()


def load_network(folder: PipelineFolder, component: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A component with weights, frozen, for evaluation. Raises UserError if files are missing, damaged or pickled."""
    where = folder.path / component
    _check_weights(where)
    network, report = _load(folder, component, dtype=dtype, use_safetensors=True, output_loading_info=True)
    absent = sorted(report["missing_keys"])
    if absent:
        raise UserError(f"the weights in {where} lack {len(absent)} tensors (first: {absent[0]}): restore the folder")
    return network.to(device).requires_grad_(False).eval()


def load_component(folder: PipelineFolder, component: str) -> Any:
    """A component without weights (tokenizer, scheduler). Raises UserError if files are missing or damaged."""
    return _load(folder, component)


def _load(folder: PipelineFolder, component: str, **options: Any) -> Any:
    where = folder.path / component
    if not where.is_dir():
        raise UserError(f"the pipeline has no folder {where}: restore it")
    for path in sorted(where.glob("*.json")):
        read_json(path)
    loader = class_of(folder, component)
    if loader.__module__.startswith("transformers."):
        options["trust_remote_code"] = False
    try:
        with _without_progress_bar():
            return loader.from_pretrained(str(folder.path), subfolder=component, local_files_only=True, **options)
    except LOADING_ERRORS as error:
        raise UserError(f"{where} cannot be loaded as {loader.__name__}: {reason(error)}") from error


def reason(error: Exception) -> str:
    """What a library's error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


@contextmanager
def _without_progress_bar() -> Iterator[None]:
    # transformers draws one for every network, however small; whoever opens a prior has their own display.
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def class_of(folder: PipelineFolder, component: str) -> Any:
    """The class of a component, from one of the known libraries. Raises UserError if there is no such class."""
    index = folder.path / "model_index.json"
    if component not in folder.classes:
        raise UserError(f"{index} names no {component}, which this kind of pipeline needs: restore the file")
    module, name = folder.classes[component]
    # The names come from a file that anybody may have written: nothing is imported but three known libraries.
    if module.split(".")[0] not in LIBRARIES:
        raise UserError(f"{index} takes its {component} from {module!r}: only {', '.join(LIBRARIES)} are allowed")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(
            f"{module}.{name}, the {component} of {folder.path}, does not exist: update {module}"
        ) from error
    # Classes that choose another by the folder's files would also choose code of the folder, and ask whether to run it.
    if name.startswith("Auto") and not name.startswith("Autoencoder"):
        raise UserError(f"{index} leaves the class of its {component} open ({module}.{name}): name the class itself")
    if not hasattr(found, "from_pretrained"):
        raise UserError(f"{module}.{name}, the {component} of {folder.path}, cannot be loaded: restore {index.name}")
    return found


def _check_weights(where: Path) -> None:
    if not where.is_dir():
        raise UserError(f"the pipeline has no folder {where}: restore it")
    weights = sorted(where.glob("*.safetensors"))
    pickles = sorted(path for path in where.iterdir() if path.suffix in PICKLES)
    if not weights and pickles:
        raise UserError(f"{pickles[0]} is a pickle, which could run code: use a *.safetensors version of this model")
    if not weights:
        raise UserError(f"{where} has no *.safetensors weights: download or restore them")
    for path in weights:
        _check_safetensors(path)


def _check_safetensors(path: Path) -> None:
    # Opening reads the header and compares it with the length of the file.
    try:
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}): download or restore it") from error
