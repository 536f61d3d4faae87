"""Meshes as binary glTF 2.0 (GLB): one file with the texture inside."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from dreamfusion.mesh.colour import linear_from_srgb
from dreamfusion.mesh.triangles import Mesh, split, standing, tangents, vertex_normals

_UNLIT = "KHR_materials_unlit"
_MATTE = {"metallicFactor": 0.0, "roughnessFactor": 0.95}


def glb_bytes(mesh: Mesh, extras: Mapping[str, object]) -> bytes:
    """The mesh, placed as `standing` says; equal meshes and extras give equal bytes.

    A textured mesh has its texture, and its normal map if there is one, as PNG inside. A mesh that was only painted has
    vertex colours: as floats, since eight bits of linear light would leave a dozen steps for the dark third of the
    display range. Baked light makes an unlit material. `extras` go into `asset.extras`.
    """
    from trimesh import Trimesh  # here, as it takes longer to import than all else of a mesh
    from trimesh.exchange.gltf import export_glb

    if mesh.texture is None:
        model = Trimesh(standing(mesh), mesh.faces, vertex_normals=vertex_normals(mesh), process=False)
        if mesh.colours is not None:
            model.vertex_attributes["_COLOR_0"] = linear_from_srgb(mesh.colours.astype(np.float32))
    else:
        model = _textured(mesh)

    def finish(tree: dict[str, Any]) -> None:
        tree["asset"] |= {"generator": "dreamfusion", "extras": dict(extras)}
        material = tree["materials"][0] if "materials" in tree else {"pbrMetallicRoughness": dict(_MATTE)}
        tree["materials"] = [material | {"name": "matte", "doubleSided": False}]
        if mesh.lit:
            tree["materials"][0]["extensions"] = {_UNLIT: {}}
            tree["extensionsUsed"] = [_UNLIT]
        for primitive in (part for each in tree["meshes"] for part in each["primitives"]):
            primitive["material"] = 0
            attributes = primitive["attributes"]
            # trimesh marks attributes that it does not know with an underscore.
            primitive["attributes"] = {
                name.removeprefix("_") if name in ("_COLOR_0", "_TANGENT") else name: place
                for name, place in attributes.items()
            }

    return export_glb(model, include_normals=True, tree_postprocessor=finish)


def _textured(mesh: Mesh) -> Any:
    """The mesh as a `trimesh.Trimesh`."""
    from trimesh import Trimesh
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    assert mesh.texture is not None
    cut = split(mesh)
    material = PBRMaterial(
        name="matte",
        baseColorTexture=_image(mesh.texture),
        normalTexture=None if mesh.normal_map is None else _image(mesh.normal_map),
        metallicFactor=_MATTE["metallicFactor"],
        roughnessFactor=_MATTE["roughnessFactor"],
    )
    model = Trimesh(
        standing(mesh)[cut.vertex],
        cut.faces,
        vertex_normals=vertex_normals(mesh)[cut.vertex],
        visual=TextureVisuals(uv=cut.uv, material=material),
        process=False,
    )
    if mesh.normal_map is not None:
        model.vertex_attributes["_TANGENT"] = tangents(mesh, cut)
    return model


def png_bytes(picture: UInt8[np.ndarray, "h w 3"]) -> bytes:
    """A picture as PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, format="PNG")
    return file.getvalue()


def _image(picture: UInt8[np.ndarray, "h w 3"]) -> Image.Image:
    """With its format, which trimesh writes it in."""
    return Image.open(io.BytesIO(png_bytes(picture)))
