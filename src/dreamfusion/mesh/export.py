"""Meshes as files that other programs open upright, at a sane size, in the right colours."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float

from dreamfusion.errors import UserError
from dreamfusion.files import replacing, write_bytes
from dreamfusion.mesh.gltf import glb_bytes, png_bytes
from dreamfusion.mesh.triangles import Mesh, split, standing, vertex_normals
from dreamfusion.mesh.usdz import require_usd, write_usdz

_SUFFIXES = (".glb", ".obj", ".ply", ".stl", ".usdz")


def require_formats(paths: Iterable[Path]) -> None:
    """Raise UserError for a suffix that is no format's, and where the library of a format is missing."""
    for path in paths:
        if path.suffix.lower() not in _SUFFIXES:
            raise UserError(f"cannot write a mesh as {path.name}: use one of the suffixes {', '.join(_SUFFIXES)}")
        if path.suffix.lower() == ".usdz":
            require_usd()


def export(mesh: Mesh, path: Path, extras: Mapping[str, object], height_mm: float = 100.0) -> list[Path]:
    """Write a baked and painted mesh in the format that the suffix of `path` says; returns the files, `path` first.

    All but `.stl` stand on the ground (y = 0) over the origin, y up, the longest side 1 metre: `.glb` with the texture
    inside and `extras` in `asset.extras`; `.obj` with `.mtl` and `.png` beside it; `.ply` with vertex colours;
    `.usdz` with the texture inside. `.stl` is the bare shape for a printer: z up, `height_mm` high, the unit is the
    millimetre. Raises UserError for any other suffix and where a library is missing, and then nothing was written.
    """
    require_formats([path])
    match path.suffix.lower():
        case ".glb":
            write_bytes(path, glb_bytes(mesh, extras))
        case ".obj":
            return _write_obj(mesh, path)
        case ".ply":
            colours = None if mesh.colours is None else np.round(mesh.colours * 255).astype(np.uint8)
            write_bytes(path, _plain(mesh, standing(mesh), colours, "ply"))
        case ".stl":
            write_bytes(path, _plain(mesh, printable(mesh, height_mm), None, "stl"))
        case ".usdz":
            with replacing(path) as part:
                write_usdz(mesh, part, extras)
    return [path]


def printable(mesh: Mesh, height_mm: float) -> Float[np.ndarray, "v 3"]:
    """The vertices as printers want them: standing on z = 0, z up, the front towards -y, so many millimetres high."""
    x, y, z = standing(mesh).T
    return (np.stack([x, -z, y], axis=1) * (height_mm / y.max())).astype(np.float32)


def _plain(mesh: Mesh, place: Float[np.ndarray, "v 3"], colours: np.ndarray | None, kind: str) -> bytes:
    """A file with smooth normals; `process=False` keeps the order of vertices."""
    from trimesh import Trimesh  # here, as it takes longer to import than all else of a mesh
    from trimesh.exchange.ply import export_ply
    from trimesh.exchange.stl import export_stl

    model = Trimesh(place, mesh.faces, vertex_normals=vertex_normals(mesh), vertex_colors=colours, process=False)
    return bytes(export_ply(model) if kind == "ply" else export_stl(model))


def beside_obj(path: Path) -> tuple[Path, Path]:
    """Material and picture of an `.obj` file. Blanks become `-`: readers end names there."""
    plain = path.with_name("-".join(path.name.split()))
    return plain.with_suffix(".mtl"), plain.with_suffix(".png")


def _write_obj(mesh: Mesh, path: Path) -> list[Path]:
    """Wavefront: text with indices from 1, in the order place / texture / normal."""
    assert mesh.texture is not None
    cut = split(mesh)
    material, picture = beside_obj(path)
    corners = zip((mesh.faces + 1).tolist(), (cut.faces + 1).tolist(), strict=True)
    lines = [
        f"mtllib {material.name}",
        *(f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in standing(mesh).tolist()),
        *(f"vt {u:.6f} {v:.6f}" for u, v in cut.uv.tolist()),
        *(f"vn {x:.4f} {y:.4f} {z:.4f}" for x, y, z in vertex_normals(mesh).tolist()),
        "usemtl matte",
        *("f " + " ".join(f"{v}/{t}/{v}" for v, t in zip(*face, strict=True)) for face in corners),
    ]
    illum = 0 if mesh.lit else 1  # 0: the texture's colour, without any light
    write_bytes(picture, png_bytes(mesh.texture))
    write_bytes(material, f"newmtl matte\nKd 1 1 1\nKs 0 0 0\nillum {illum}\nmap_Kd {picture.name}\n".encode())
    write_bytes(path, ("\n".join(lines) + "\n").encode())
    return [path, material, picture]
