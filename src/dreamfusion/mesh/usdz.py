"""Meshes as USDZ, the format of Apple's viewers. Needs `usd-core` (the `usd` extra), which is large."""

# pyright: reportAttributeAccessIssue=false
# The library brings no types.

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dreamfusion.errors import UserError
from dreamfusion.mesh.gltf import png_bytes
from dreamfusion.mesh.triangles import Mesh, split, standing, vertex_normals


def require_usd() -> None:
    """Raise UserError if the library is missing."""
    try:
        import pxr  # noqa: F401
    except ImportError as error:
        raise UserError("USDZ files need the package usd-core: pip install 'dreamfusion[usd]'") from error


def write_usdz(mesh: Mesh, path: Path, extras: Mapping[str, object]) -> None:
    """A textured mesh as a package of one USD layer and its texture. y is up, the unit is the metre.

    Raises UserError if the library cannot write it.
    """
    from pxr import Tf

    refused = f"the USD library could not write {path}: check the folder, its permissions and the free space"
    try:
        if not _write_package(mesh, path, extras):
            raise UserError(refused)
    except Tf.ErrorException as error:
        raise UserError(refused) from error


def _write_package(mesh: Mesh, path: Path, extras: Mapping[str, object]) -> bool:
    from pxr import Sdf, Usd, UsdGeom, UsdUtils

    assert mesh.texture is not None
    with tempfile.TemporaryDirectory(prefix=".usdz-", dir=path.parent) as folder:  # where there is room for the file
        layer = Path(folder) / "mesh.usdc"
        (Path(folder) / "texture.png").write_bytes(png_bytes(mesh.texture))
        stage = Usd.Stage.CreateNew(str(layer))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        root = UsdGeom.Xform.Define(stage, "/object")
        root.GetPrim().SetCustomDataByKey("provenance", {key: str(value) for key, value in extras.items()})
        stage.SetDefaultPrim(root.GetPrim())
        _bind_material(stage, _define_mesh(stage, mesh), mesh.lit)
        stage.GetRootLayer().Save()
        return bool(UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(layer)), str(path)))


def _define_mesh(stage: Any, mesh: Mesh) -> Any:
    """The geometry. USD keeps texture coordinates per corner, so the surface stays closed."""
    from pxr import Sdf, UsdGeom, Vt

    assert mesh.uv is not None
    shape = UsdGeom.Mesh.Define(stage, "/object/mesh")
    place = standing(mesh)
    shape.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(place, np.float32)))
    shape.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(mesh.faces), 3, np.int32)))
    shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(mesh.faces.astype(np.int32).ravel()))
    shape.CreateExtentAttr(Vt.Vec3fArray.FromNumpy(np.stack([place.min(0), place.max(0)]).astype(np.float32)))
    shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    shape.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(vertex_normals(mesh)))
    shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    cut = split(mesh)
    places = UsdGeom.PrimvarsAPI(shape).CreatePrimvar(
        "st", Sdf.ValueTypeNames.TexCoord2fArray, UsdGeom.Tokens.faceVarying
    )
    places.Set(Vt.Vec2fArray.FromNumpy(cut.uv))
    places.SetIndices(Vt.IntArray.FromNumpy(cut.faces.astype(np.int32).ravel()))
    return shape


def _bind_material(stage: Any, shape: Any, lit: bool) -> None:
    """A matte surface with the texture; with baked light, one that glows with it instead."""
    from pxr import Sdf, UsdShade

    material = UsdShade.Material.Define(stage, "/object/matte")
    reader = UsdShade.Shader.Define(stage, "/object/matte/st")
    reader.CreateIdAttr("UsdPrimvarReader_float2")
    reader.CreateInput("varname", Sdf.ValueTypeNames.String).Set("st")
    texture = UsdShade.Shader.Define(stage, "/object/matte/texture")
    texture.CreateIdAttr("UsdUVTexture")
    texture.CreateInput("file", Sdf.ValueTypeNames.Asset).Set("texture.png")
    texture.CreateInput("sourceColorSpace", Sdf.ValueTypeNames.Token).Set("sRGB")
    texture.CreateInput("st", Sdf.ValueTypeNames.Float2).ConnectToSource(
        reader.CreateOutput("result", Sdf.ValueTypeNames.Float2)
    )
    surface = UsdShade.Shader.Define(stage, "/object/matte/surface")
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("metallic", Sdf.ValueTypeNames.Float).Set(0.0)
    surface.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(0.95)
    if lit:
        surface.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).Set((0.0, 0.0, 0.0))
    surface.CreateInput("emissiveColor" if lit else "diffuseColor", Sdf.ValueTypeNames.Color3f).ConnectToSource(
        texture.CreateOutput("rgb", Sdf.ValueTypeNames.Float3)
    )
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", Sdf.ValueTypeNames.Token))
    UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)
