"""Meshes as files that other programs open upright, at a sane size, in the right colours."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import trimesh
from jaxtyping import Float
from trimesh.exchange.gltf import export_glb

from dreamfusion.errors import UserError
from dreamfusion.mesh.colour import linear_from_srgb, vertex_normals
from dreamfusion.mesh.extract import Mesh
from dreamfusion.runs import write_bytes

_SUFFIXES = (".glb", ".obj", ".ply")
_MATTE = {
    "name": "matte",
    "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.95},
    "doubleSided": False,
}


def export(mesh: Mesh, path: Path, extras: Mapping[str, object]) -> None:
    """Write the mesh, standing on the ground (y = 0) over the origin, y up, its longest side 1 metre.

    The suffix says the format: `.glb` (linear colours, matte material, `extras` in `asset.extras`), or `.obj` and
    `.ply` (display colours, which is what their readers expect; `extras` are left out). Raises UserError for any other
    suffix.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise UserError(f"cannot write a mesh as {path.name}: use one of the suffixes {', '.join(_SUFFIXES)}")
    if suffix == ".glb":
        content = glb_bytes(mesh, extras)
    else:
        content = _standing(mesh, _display_bytes(mesh)).export(file_type=suffix[1:])
    write_bytes(path, content.encode() if isinstance(content, str) else bytes(content))


def glb_bytes(mesh: Mesh, extras: Mapping[str, object]) -> bytes:
    """The mesh as binary glTF, placed as in `export`; equal meshes and extras give equal bytes.

    Colours are stored as floats: eight bits of linear light would leave only a dozen steps for the dark third of the
    display range.
    """
    model = _standing(mesh, None)
    if mesh.colours is not None:
        model.vertex_attributes["_COLOR_0"] = linear_from_srgb(mesh.colours.astype(np.float32))

    def finish(tree: dict) -> None:
        tree["asset"] |= {"generator": "dreamfusion", "extras": dict(extras)}
        tree["materials"] = [_MATTE]
        for primitive in (part for each in tree["meshes"] for part in each["primitives"]):
            primitive["material"] = 0
            if mesh.colours is not None:
                primitive["attributes"]["COLOR_0"] = primitive["attributes"].pop("_COLOR_0")

    return export_glb(model, include_normals=True, tree_postprocessor=finish)


def _standing(mesh: Mesh, colours: np.ndarray | None) -> trimesh.Trimesh:
    """The placed mesh with smooth normals; `process=False` keeps the order of vertices."""
    return trimesh.Trimesh(
        _on_the_ground(mesh.vertices),
        mesh.faces,
        vertex_normals=vertex_normals(mesh),
        vertex_colors=colours,
        process=False,
    )


def _on_the_ground(vertices: Float[np.ndarray, "v 3"]) -> Float[np.ndarray, "v 3"]:
    low, high = vertices.min(0), vertices.max(0)
    middle = (low + high) / 2
    return (vertices - np.array([middle[0], low[1], middle[2]], vertices.dtype)) / (high - low).max()


def _display_bytes(mesh: Mesh) -> np.ndarray | None:
    return None if mesh.colours is None else np.round(mesh.colours * 255).astype(np.uint8)
