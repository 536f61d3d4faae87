"""Reading a diffusers pipeline folder, component by component, safely.

Weights come from safetensors only: pickle files can run code. Files are checked before a library sees them, so that
what is wrong with a folder is said in one line that names the file. Loading single components avoids the slow import of
all of diffusers' pipelines.
"""

import codecs
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dreamfusion.diffusion.priors import weights
from dreamfusion.diffusion.priors.single_file import describe
from dreamfusion.diffusion.priors.weights import PLAIN, Weights
from dreamfusion.errors import UserError
from dreamfusion.files import permitted, read_json, visible
from dreamfusion.places import read_settings, require_vocabulary
from dreamfusion.quiet import quiet

LIBRARIES = ("diffusers", "transformers", "dreamfusion")
LOADING_ERRORS = (Exception,)
"""what the libraries raise for files that are readable but do not fit together: anything (tokenizers: bare ones)"""


@dataclass(frozen=True)
class PipelineFolder:
    """A pipeline on disk: where it is, what it is, and the library and class of each component."""

    path: Path
    pipeline: str
    classes: dict[str, tuple[str, str]]
    variant: str = PLAIN
    """of the weights, taken where it is there"""


def read_pipeline(path: Path) -> PipelineFolder:
    """Read `model_index.json`. Raises UserError if the folder is no pipeline."""
    index_path = path / "model_index.json"
    if not index_path.is_file():
        raise _no_pipeline(path)
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


def _no_pipeline(path: Path) -> UserError:
    if (path.parent / "model_index.json").is_file():
        return UserError(f"{path} is one part of a pipeline: give its folder, --prior {path.parent}")
    single = [file for file in visible(path) if file.suffix in (".safetensors", ".ckpt")]
    if single:
        return UserError(describe(single[0]))
    return UserError(
        f"{path} is no diffusers pipeline (it has no model_index.json): give the folder that holds that file"
    )


def weights_of(folder: PipelineFolder, component: str) -> Weights:
    """The files of a component's weights. Raises UserError if there are none, or one is damaged or missing."""
    stem = "model" if component.startswith("text_encoder") else "diffusion_pytorch_model"  # of transformers, diffusers
    return weights.find_weights(folder.path / component, stem, folder.variant)


@permitted()
def digest(folder: PipelineFolder, component: str) -> str:
    """SHA-256 of a component's settings and of the weights that are loaded (`weights.digest`). Raises UserError."""
    settings = folder.path / component / "config.json"
    read_json(settings)
    return weights.digest(settings, weights_of(folder, component).files)


def load_network(folder: PipelineFolder, component: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A component with weights, frozen, for evaluation. Raises UserError if files are missing, damaged or pickled."""
    variant = weights_of(folder, component).variant or None
    network, report = _load(
        folder, component, dtype=dtype, use_safetensors=True, variant=variant, output_loading_info=True
    )
    absent = sorted(report["missing_keys"])
    if absent:
        where = folder.path / component
        raise UserError(f"the weights in {where} lack {len(absent)} tensors (first: {absent[0]}): restore the folder")
    return network.to(device).requires_grad_(False).eval()


def load_component(folder: PipelineFolder, component: str) -> Any:
    """A component without weights (tokenizer, scheduler). Raises UserError if files are missing or damaged."""
    return _load(folder, component)


@permitted()
def _load(folder: PipelineFolder, component: str, **options: Any) -> Any:
    where = folder.path / component
    if not where.is_dir():
        raise UserError(f"the pipeline has no folder {where}: restore it")
    for path in visible(where):
        _check_readable(path)
    loader = class_of(folder, component)
    if loader.__module__.startswith("transformers."):
        options["trust_remote_code"] = False
        require_vocabulary(where, loader)
    try:
        with quiet():
            return loader.from_pretrained(str(folder.path), subfolder=component, local_files_only=True, **options)
    except LOADING_ERRORS as error:
        raise UserError(f"{where} cannot be loaded as {loader.__name__}: {reason(error)}") from error


def _check_readable(path: Path) -> None:
    """Raises UserError for what the libraries would stumble over; PermissionError for a file of somebody else's."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        marked = file.read(3) == codecs.BOM_UTF8
    if path.suffix == ".json":
        read_settings(path)
        if marked:
            raise UserError(f"{path} begins with a byte order mark, which its library does not read: save it without")


def reason(error: Exception) -> str:
    """What a library's error says, in one line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


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
        with quiet():
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
