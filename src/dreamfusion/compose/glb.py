"""Binary glTF 2.0 files as they are: a tree of JSON and a block of bytes, taken apart and joined without loss.

Meshes, colours and textures are carried over byte for byte; only the numbers by which parts of the tree name one
another move. (Readers that decode a file into meshes and encode it again round colours and drop what they do not know.)
"""

import json
import operator
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dreamfusion import json_text
from dreamfusion.compose.motion import Motion, animated, kind_of
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
Spans = Mapping[str, range]
"""Where each list of a file lies in the joined one"""


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
    motion: Motion | None = None


def read_glb(path: Path) -> Glb:
    """A file that can be joined with others. Raises UserError for any that is damaged or holds what would be lost."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): give a .glb file or the folder of a run") from error
    try:
        glb = Glb(*_chunks(content))
        _require_whole(glb)
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


def join(
    files: Sequence[Glb], placed: Sequence[Placed], extras: Mapping[str, Any], motion: Motion | None = None
) -> Glb:
    """One scene of the files, each wherever it is placed; what is placed several times is stored once.

    `motion` is that of everything, about the origin of the scene.
    """
    tree: dict[str, Any] = {name: [] for name in _LISTS}
    spans, block = list[Spans](), b""
    for file in files:
        spans.append(_spans(file.tree, _LISTS, tree))
        for name in _LISTS:
            tree[name] += [_moved(each, "", spans[-1]) for each in file.tree.get(name, [])]
        for view in tree["bufferViews"][spans[-1]["bufferViews"].start :]:
            view["byteOffset"] = view.get("byteOffset", 0) + len(block)
        block += file.block + bytes(-len(file.block) % 4)
    nodes, tops, moving = list[dict[str, Any]](), list[int](), list[tuple[int, str, Motion]]()
    for each in placed:
        file = files[each.file]
        span = {**spans[each.file], **_spans(file.tree, ("nodes",), {"nodes": nodes})}
        nodes += [_moved(node, "", span) for node in file.tree["nodes"]]
        children = [_number(root, span["nodes"]) for root in file.roots]
        if each.motion is not None:  # moves in the axes of the scene, whatever way the object is turned inside
            nodes.append({"rotation": list(each.rotation), "scale": [each.scale] * 3, "children": children})
            children = [len(nodes) - 1]
            moving.append((len(nodes), each.name, each.motion))
        tops.append(len(nodes))
        nodes.append(_top(each, children))
    if motion is not None:
        moving.append((len(nodes), "everything", motion))
        nodes.append({"name": kind_of(motion), "children": tops})
        tops = [len(nodes) - 1]
    named = {name: _union(name, files) for name in ("extensionsUsed", "extensionsRequired")}
    tree |= named | {"nodes": nodes, "scenes": [{"nodes": tops}], "buffers": [{"byteLength": len(block)}]}
    tree = {name: part for name, part in tree.items() if part}  # empty lists are not allowed
    asset = {"version": "2.0", "generator": "dreamfusion", "extras": dict(extras)}
    tree = {"asset": asset, "scene": 0, **tree}
    return Glb(*animated(tree, block, moving)) if moving else Glb(tree, block)


def _top(placed: Placed, children: list[int]) -> dict[str, Any]:
    there: dict[str, Any] = {"translation": list(placed.translation)}
    if placed.motion is None:
        there |= {"rotation": list(placed.rotation), "scale": [placed.scale] * 3}
    return {"name": placed.name, **there, "children": children, "extras": dict(placed.extras)}


def _spans(tree: Mapping[str, Any], names: Sequence[str], joined: Mapping[str, Sequence[Any]]) -> Spans:
    """Where a file's lists come to lie behind those that are joined already."""
    return {name: range(len(joined[name]), len(joined[name]) + len(tree.get(name, []))) for name in names}


def _moved(value: Any, key: str, spans: Spans) -> Any:
    """A part of a tree, found under `key`, with all numbers that point into lists moved to where these are now.

    Raises IndexError or TypeError for what points nowhere.
    """
    match value:
        case dict() if key == "extras":
            return value
        case dict() if key in ("attributes", "targets"):
            return {name: _number(number, spans["accessors"]) for name, number in value.items()}
        case dict():
            index = "texture" if key.endswith("Texture") else "index"
            return {name: _moved(each, index if name == "index" else name, spans) for name, each in value.items()}
        case list():
            return [_moved(each, key, spans) for each in value]
        case _ if key in _TARGET:
            return _number(value, spans[_TARGET[key]])
        case _:
            return value


def _number(number: int, span: range) -> int:
    """Where the part of this number in its file is now. Raises IndexError or TypeError if there is none."""
    if number < 0:
        raise IndexError(f"{number} points nowhere")
    return span[number]


def _union(name: str, files: Sequence[Glb]) -> list[str]:
    return sorted({each for file in files for each in file.tree.get(name, [])})


def _chunks(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The tree and the block. Raises ValueError or struct.error."""
    magic, version, length = struct.unpack_from("<3I", content)
    size, kind = struct.unpack_from("<2I", content, 12)
    if (magic, version, kind) != (_MAGIC, _VERSION, _JSON) or len(content) < length:
        raise ValueError("not binary glTF")
    tree, after = json_text.parse(content[20 : 20 + size], _refuse_constant), 20 + size
    if after == length:
        return tree, b""
    count, kind = struct.unpack_from("<2I", content, after)
    if kind != _BINARY or after + 8 + count > length:
        raise ValueError("no block of bytes")
    return tree, content[after + 8 : after + 8 + count]


def _require_whole(glb: Glb) -> None:
    """Raise ValueError, TypeError, LookupError or AttributeError for a tree that is not as the specification has it.

    Only what joining and showing it rest upon is looked at, not every value.
    """
    tree = glb.tree
    if (
        not tree["meshes"]
        or not glb.roots
        or not tree["asset"]["version"].startswith("2.")
        or len(tree["buffers"]) != 1
    ):
        raise ValueError("nothing to see")
    lists = {name: tree.get(name, []) for name in (*_LISTS, "buffers", "nodes", "scenes")}
    named = [*tree.get("extensionsUsed", []), *tree.get("extensionsRequired", [])]
    if not all(isinstance(each, dict) for parts in lists.values() for each in parts) or {*map(type, named)} - {str}:
        raise TypeError("other types than the specification's")
    spans = _spans(lists, tuple(lists), dict.fromkeys(lists, ()))
    for name in (*_LISTS, "nodes"):
        _moved(lists[name], "", spans)
    children = [*glb.roots, *(child for node in lists["nodes"] for child in node.get("children", []))]
    if len(children) != len({_number(child, spans["nodes"]) for child in children}):
        raise ValueError("nodes that are no trees")
    _require_inside(lists, len(glb.block))
    json.dumps(tree, allow_nan=False)  # a number such as 1e999 is read as infinity


def _require_inside(lists: Mapping[str, Sequence[Any]], size: int) -> None:
    """Raise ValueError, TypeError or LookupError unless all data lie in a block of `size` bytes."""
    for view in lists["bufferViews"]:
        begin, length = operator.index(view.get("byteOffset", 0)), operator.index(view["byteLength"])
        if view["buffer"] != 0 or not 0 <= begin <= begin + length <= size:
            raise ValueError("data outside of the block")
    if not all(0 < operator.index(accessor["count"]) <= size for accessor in lists["accessors"]):
        raise ValueError("more numbers than bytes")


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
