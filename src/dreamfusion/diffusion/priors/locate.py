"""Where a prior's folder is: in the package, on this machine, or on the model hub."""

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import torch

from dreamfusion.config.presets import suited
from dreamfusion.diffusion.priors.folder import PipelineFolder, read_pipeline
from dreamfusion.diffusion.priors.kinds import Kind, kind_of
from dreamfusion.diffusion.priors.single_file import describe
from dreamfusion.diffusion.priors.weights import PLAIN, preferred, variant_of
from dreamfusion.errors import UserError
from dreamfusion.files import expanded, kind_of_place, permitted
from dreamfusion.places import HUB_ID, HubId, find, folders_here
from dreamfusion.quiet import quiet

EMBEDDED = "embedded"
_ADDRESS = re.compile(r"https?://[^/]+/(?P<id>[\w.-]+/[\w.-]+).*")
# No pickles, nothing for other frameworks.
_LEFT_OUT = ["*.bin", "*.msgpack", "*.onnx*", "*openvino*", "*flax*"]
_HALVES = {torch.float16: "fp16", torch.bfloat16: "bf16"}


def locate(name: str, texts: bool = True, half: bool = False) -> PipelineFolder:
    """The folder that a name means; only a hub id that means nothing here makes the hub be asked.

    `texts`: whether the text encoders are needed too. `half`: whether weights in the kind's half precision are taken
    where there are some; others are converted when they are loaded. Raises UserError for a name that means nothing, and
    for a folder of an unsupported kind.
    """
    with permitted():
        place = _find_prior(name)
        if isinstance(place, HubId):
            place = _download(place, texts, half)
        folder = read_pipeline(place)
        return replace(folder, variant=_variant(kind_of(folder), half))


def index_of(name: str) -> PipelineFolder:
    """What `locate` finds, by its `model_index.json`: nothing else of a hub repository is fetched. Raises UserError."""
    with permitted():
        place = _find_prior(name)
        folder = _index(place) if isinstance(place, HubId) else read_pipeline(place)
        kind_of(folder)
        return folder


def preset_for(name: str) -> str:
    """The name of the preset for the prior that a name means. Raises UserError as `locate` does."""
    folder = index_of(name)
    return suited(folder.pipeline, (library for library, _ in folder.classes.values()))


def _find_prior(name: str) -> Path | HubId:
    if name == EMBEDDED:
        return Path(str(files("dreamfusion"))) / "embedded" / "weights"
    if place := find(name):
        return place
    if kind_of_place(path := expanded(name)) == "file":
        raise UserError(describe(path))
    raise UserError(f"there is no prior {name!r}: {_advice(name)}")


def rooted(name: str) -> str:
    """The same name for a run to write down: folders by their absolute paths, so that it means one place everywhere."""
    path = expanded(name)
    return os.path.abspath(path) if name != EMBEDDED and kind_of_place(path) == "folder" else name


def _advice(name: str) -> str:
    if address := _ADDRESS.fullmatch(name):
        return f"it is an address; give its hub id, {address['id']}"
    first = name.split("/")[0]
    if HUB_ID.fullmatch(name) and first in folders_here():
        return f"{first}/ is a folder here, without this in it; if a hub id is meant, start where there is no {first}/"
    return (
        'give "embedded", a diffusers pipeline folder, or a hub id such as owner/model or owner/model@revision; if the'
        " prior of a run has moved, use dreamfusion resume RUN --prior FOLDER"
    )


def _variant(kind: Kind, half: bool) -> str:
    return _HALVES.get(kind.half, PLAIN) if half else PLAIN


def _index(asked: HubId) -> PipelineFolder:
    """A hub repository by its index, in the cache."""
    from huggingface_hub import hf_hub_download

    with _asking(asked):
        return read_pipeline(Path(hf_hub_download(asked.name, "model_index.json", revision=asked.revision)).parent)


def _download(asked: HubId, texts: bool, half: bool) -> Path:
    """A hub repository's folder in the cache, fetched if need be; its kind is checked before gigabytes come."""
    from huggingface_hub import snapshot_download

    kind = kind_of(_index(asked))
    with _asking(asked):
        parts = kind.components(texts)
        wanted = ["model_index.json", "card.json", *(f"{part}/*" for part in parts)]
        left_out = [*_LEFT_OUT, *_other_variants(asked, parts, _variant(kind, half))]
        return Path(
            snapshot_download(asked.name, revision=asked.revision, allow_patterns=wanted, ignore_patterns=left_out)
        )


@contextmanager
def _asking(asked: HubId) -> Iterator[None]:
    """Within it the hub may be asked; raises UserError if it does not answer."""
    from huggingface_hub.errors import HTTPError

    name = asked.name
    try:
        with quiet(bars=True):
            yield
    except (OSError, ValueError, HTTPError) as error:
        pin = f" --revision {asked.revision}" if asked.revision else ""
        raise UserError(
            f"there is no folder {name!r}, and the model hub did not give it ({type(error).__name__}): check the name"
            f" and your access rights; without a network, run `hf download {name}{pin} --local-dir DIR` on a machine"
            " that has one, copy DIR here, and give --prior DIR"
        ) from error


def _other_variants(asked: HubId, parts: Iterable[str], wanted: str) -> list[str]:
    """The repository's weights that are not needed, as another variant of theirs is the preferred one."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    try:
        names = HfApi().list_repo_files(asked.name, revision=asked.revision)
    except (OSError, HTTPError):
        return []  # without a network the cache gives what it holds
    others = []
    for part in parts:
        there = {name: variant_of(Path(name).name) for name in names if name.startswith(f"{part}/")}
        best = preferred((variant for variant in there.values() if variant is not None), wanted)[:1]
        others += [name for name, variant in there.items() if variant is not None and variant not in best]
    return others
