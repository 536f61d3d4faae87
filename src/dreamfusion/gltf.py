"""Binary glTF 2.0 files as they are: a tree of JSON and a block of bytes, taken apart and joined without loss.

Meshes, colours and textures are carried over byte for byte; only the numbers by which parts of the tree name one
another move. (Readers that decode a file into meshes and encode it again round colours and drop what they do not know.)
"""

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamfusion.errors import UserError

_MAGIC, _VERSION, _JSON, _BINARY = 0x46546C67, 2, 0x4E4F534A, 0x004E4942
_LISTS = ("accessors", "bufferViews", "images", "samplers", "textures", "materials", "meshes")
_KNOWN = {*_LISTS, "asset", "buffers", "extensionsRequired", "extensionsUsed", "extras", "nodes", "scene", "scenes"}
# Where a number under such a key points to (glTF 2.0 specification, section 5).
_TARGET = {
    "bufferView": "bufferViews",
    "source": "images",
    "sampler": "samplers",
    "texture": "textures",
    "material": "materials",
    "mesh": "meshes",
    "indices": "accessors",
    "children": "nodes",
}


@dataclass(frozen=True)
class Glb:
    """One file."""

    tree: dict[str, Any]
    block: bytes = b""

    @property
    def roots(self) -> list[int]:
        """The nodes at the top of the scene that the file shows."""
        return self.tree["scenes"][self.tree.get("scene", 0)]["nodes"]


@dataclass(frozen=True)
class Placed:
    """A file in a scene."""

    file: int
    """its number among the files that are joined"""
    name: str
    translation: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    """unit quaternion x, y, z, w"""
    scale: float = 1.0
    extras: Mapping[str, Any] = field(default_factory=dict)


def read_glb(path: Path) -> Glb:
    """A file that can be joined with others. Raises UserError for any that is damaged or holds what would be lost."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a .glb file or the folder of a run") from error
    try:
        glb = Glb(*_chunks(content))
        shown = glb.tree["meshes"] and [glb.tree["nodes"][root] for root in glb.roots]
        if not shown or not glb.tree["asset"]["version"].startswith("2.") or len(glb.tree["buffers"]) != 1:
            raise ValueError("nothing to see")
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise UserError(f"{path} is no whole binary glTF 2.0 file with a scene: export it again") from error
    _refuse_what_would_be_lost(glb.tree, path)
    return glb


def glb_content(glb: Glb) -> bytes:
    """The file's bytes."""
    block = glb.block + bytes(-len(glb.block) % 4)
    text = json.dumps(glb.tree, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<3I", _MAGIC, _VERSION, 12 + 8 + len(text) + 8 + len(block))
    return b"".join([head, struct.pack("<2I", len(text), _JSON), text, struct.pack("<2I", len(block), _BINARY), block])


def join(files: Sequence[Glb], placed: Sequence[Placed], extras: Mapping[str, Any]) -> Glb:
    """One scene of the files, each wherever it is placed; what is placed several times is stored once."""
    tree: dict[str, Any] = {name: [] for name in _LISTS}
    shifts, block = list[dict[str, int]](), b""
    for file in files:
        shifts.append({name: len(tree[name]) for name in _LISTS})
        for name in _LISTS:
            tree[name] += [_shifted(each, "", shifts[-1]) for each in file.tree.get(name, [])]
        for view in tree["bufferViews"][shifts[-1]["bufferViews"] :]:
            view["byteOffset"] = view.get("byteOffset", 0) + len(block)
        block += file.block + bytes(-len(file.block) % 4)
    nodes, tops = list[dict[str, Any]](), list[int]()
    for each in placed:
        shift = shifts[each.file] | {"nodes": len(nodes)}
        nodes += [_shifted(node, "", shift) for node in files[each.file].tree["nodes"]]
        tops.append(len(nodes))
        nodes.append(_top(each, [root + shift["nodes"] for root in files[each.file].roots]))
    named = {name: _union(name, files) for name in ("extensionsUsed", "extensionsRequired")}
    tree |= named | {"nodes": nodes, "scenes": [{"nodes": tops}], "buffers": [{"byteLength": len(block)}]}
    tree = {name: part for name, part in tree.items() if part}  # empty lists are not allowed
    asset = {"version": "2.0", "generator": "dreamfusion", "extras": dict(extras)}
    return Glb({"asset": asset, "scene": 0, **tree}, block)


def _top(placed: Placed, children: list[int]) -> dict[str, Any]:
    turned = {"translation": list(placed.translation), "rotation": list(placed.rotation), "scale": [placed.scale] * 3}
    return {"name": placed.name, **turned, "children": children, "extras": dict(placed.extras)}


def _shifted(value: Any, key: str, shift: Mapping[str, int]) -> Any:
    """A part of a tree, found under `key`, with all numbers that point into lists moved by `shift`."""
    match value:
        case dict() if key == "extras":
            return value
        case dict() if key in ("attributes", "targets"):
            return {name: number + shift["accessors"] for name, number in value.items()}
        case dict():
            index = "texture" if key.endswith("Texture") else "index"
            return {name: _shifted(each, index if name == "index" else name, shift) for name, each in value.items()}
        case list():
            return [_shifted(each, key, shift) for each in value]
        case int() if key in _TARGET:
            return value + shift[_TARGET[key]]
        case _:
            return value


def _union(name: str, files: Sequence[Glb]) -> list[str]:
    return sorted({each for file in files for each in file.tree.get(name, [])})


def _chunks(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The tree and the block. Raises ValueError or struct.error."""
    magic, version, length = struct.unpack_from("<3I", content)
    size, kind = struct.unpack_from("<2I", content, 12)
    if (magic, version, kind) != (_MAGIC, _VERSION, _JSON) or len(content) < length:
        raise ValueError("not binary glTF")
    tree, after = json.loads(content[20 : 20 + size], parse_constant=_refuse_constant), 20 + size
    if after == length:
        return tree, b""
    count, kind = struct.unpack_from("<2I", content, after)
    if kind != _BINARY or after + 8 + count > length:
        raise ValueError("no block of bytes")
    return tree, content[after + 8 : after + 8 + count]


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _refuse_what_would_be_lost(tree: Mapping[str, Any], path: Path) -> None:
    """Raise UserError for parts whose meaning is not known here, and for those that lie in other files."""
    unknown = [name for name, part in tree.items() if part and name not in _KNOWN]
    unknown += [each for each in tree.get("extensionsUsed", []) if not _is_plain(each)]
    if unknown:
        raise UserError(f"{path} holds {', '.join(unknown)}, which cannot be composed: export it without")
    if any("uri" in each for name in ("buffers", "images") for each in tree.get(name, [])):
        raise UserError(f"{path} keeps parts of itself elsewhere: export it with everything inside")


def _is_plain(extension: str) -> bool:
    """Whether an extension names other parts only as the core does."""
    return extension.startswith("KHR_materials_") and extension != "KHR_materials_variants"
