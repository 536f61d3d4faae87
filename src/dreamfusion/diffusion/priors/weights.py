"""Which files hold a component's weights: one variant of several precisions, whole or in parts, and what is in them.

Diffusers and transformers name them `STEM.safetensors`, or `STEM-00001-of-00002.safetensors` ... with an index
`STEM.safetensors.index.json`; a variant such as fp16 or bf16 puts its name before the last suffix. Older releases put
it elsewhere.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from dreamfusion.errors import UserError
from dreamfusion.files import kind_of_place, permitted, read_json, visible

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack")
PLAIN = ""
"""The variant without a name, mostly in single precision"""
_NAME = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model)(?:\.(?P<first>\w+))?(?P<part>-\d+-of-\d+)?(?:\.(?P<then>\w+))?"
    r"\.safetensors(?P<index>(?:\.(?P<before>\w+))?\.index(?:\.(?P<behind>\w+))?\.json)?"
)


@dataclass(frozen=True)
class Weights:
    """What is loaded: these files, all of one variant."""

    variant: str
    files: tuple[Path, ...]


def variant_of(name: str) -> str | None:
    """The variant of a file of weights or their index, by its name; None for what is neither."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    return next((match[key] for key in ("first", "then", "before", "behind") if match[key]), PLAIN)


def preferred(variants: Iterable[str], wanted: str) -> list[str]:
    """Variants in the order in which they are tried: the wanted one, the plain one, half precisions, others."""
    order = [wanted, PLAIN, "fp16", "bf16"]
    return sorted(set(variants), key=lambda name: (order.index(name) if name in order else len(order), name))


@permitted()
def find_weights(where: Path, stem: str, wanted: str) -> Weights:
    """The weights that a library loads from the folder `where`, under names that begin with `stem`.

    Of several variants it is the first of `preferred` that is whole. Every file is opened and its length checked.
    Raises UserError if there are none, or parts are missing or damaged.
    """
    if not where.is_dir():
        raise UserError(f"the pipeline has no folder {where}: restore it")
    heads = [path for path in visible(where) if _is_head(path.name, stem)]
    # Of one variant both whole and in parts, transformers takes the whole, diffusers the parts.
    heads.sort(key=lambda path: (path.suffix == ".json") == (stem == "model"))
    found = {
        variant: _parts(next(path for path in heads if variant_of(path.name) == variant))
        for variant in preferred((variant_of(path.name) or PLAIN for path in heads), wanted)
    }
    if not found:
        raise _nothing(where, stem)
    variant = next((name for name, files in found.items() if all(map(_is_file, files))), next(iter(found)))
    for path in found[variant]:
        _check(path)
    return Weights(variant, found[variant])


def digest(settings: Path, files: Iterable[Path]) -> str:
    """SHA-256 of a network's settings, and of its weights as if they were one file with its tensors by name.

    How weights are cut into files, what these are called, and what else is in the folder does not count. Of tensors of
    one type, that one file is the one that safetensors writes.
    """
    found = {name: (path, entry, start) for path in files for name, entry, start in _tensors(path)}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (_, entry, _) in sorted(found.items()):
        begin, end = end, end + _size(entry)
        header[name] = {"dtype": entry["dtype"], "shape": entry["shape"], "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    told = settings.read_bytes()
    whole = hashlib.sha256(f"{settings.name} {len(told)} ".encode() + told)
    whole.update(f"diffusion_pytorch_model.safetensors {8 + len(text) + end} ".encode())
    whole.update(len(text).to_bytes(8, "little") + text)
    for _, (path, entry, start) in sorted(found.items()):
        with path.open("rb") as file:
            file.seek(start + entry["data_offsets"][0])
            left = _size(entry)
            while block := file.read(min(left, 2**20)):
                whole.update(block)
                left -= len(block)
    return whole.hexdigest()


def _is_head(name: str, stem: str) -> bool:
    """Whether a library starts from this file: whole weights, or the index of parts."""
    match = _NAME.fullmatch(name)
    return match is not None and match["stem"] == stem and (match["part"] is None or match["index"] is not None)


def _parts(head: Path) -> tuple[Path, ...]:
    """The files that a head stands for: itself, or those that an index names."""
    if head.suffix != ".json":
        return (head,)
    content = read_json(head)
    table = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise UserError(f"{head} names no files of weights: restore it")
    names = sorted(set(table.values()))
    if elsewhere := [name for name in names if Path(name).name != name]:
        raise UserError(f"{head} names weights in another folder, {elsewhere[0]}: restore it")
    return tuple(head.parent / name for name in names)


def _nothing(where: Path, stem: str) -> UserError:
    """Why there is nothing to load."""
    files = visible(where)
    others = [path for path in files if path.suffix == ".safetensors"]
    pickles = [path for path in files if path.suffix in PICKLES]
    parts = [path for path in others if variant_of(path.name) is not None]
    if parts:
        return UserError(
            f"{parts[0]} is a part of weights whose index is missing: restore {stem}.safetensors.index.json"
        )
    if others:
        return UserError(f"{others[0]} has a name that is not looked for: weights are called {stem}.safetensors here")
    if pickles:
        return UserError(f"{pickles[0]} is a pickle, which could run code: use a *.safetensors version of this model")
    return UserError(f"{where} has no *.safetensors weights: download or restore them")


def _is_file(path: Path) -> bool:
    return kind_of_place(path) == "file"  # also of names that no file could have


def _check(path: Path) -> None:
    if not _is_file(path):
        raise UserError(f"{path} is missing, a part of the weights: download or restore it")
    # Opening reads the header and compares it with the length of the file.
    try:
        with path.open("rb"):
            pass  # safetensors does not tell a refused permission from a missing file
        with safe_open(path, framework="pt"):
            pass
    except PermissionError:
        raise
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged or cut short ({error}): download or restore it") from error


def _tensors(path: Path) -> list[tuple[str, dict[str, Any], int]]:
    """Name, entry of the header, and place of the first tensor's first byte; of a file that `_check` has passed."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    return [(name, entry, 8 + length) for name, entry in header.items() if name != "__metadata__"]


def _size(entry: dict[str, Any]) -> int:
    begin, end = entry["data_offsets"]
    return end - begin
