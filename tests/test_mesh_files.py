"""Files that come back as they went: read by other libraries, or by the definition of the format."""

import io
import json
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib
import pytest
import trimesh
from PIL import Image

from dreamfusion import compose
from dreamfusion.errors import UserError
from dreamfusion.mesh import (
    TextureOptions,
    bake,
    export,
    glb_bytes,
    linear_from_srgb,
    paint,
    simplified,
    surface,
)
from dreamfusion.mesh.triangles import vertex_normals
from mesh_scenes import FACE_COLOURS, density_grid, lopsided, scene_of, soft_ball

EXTRAS = {"prompt": "a thing", "seed": 4}
SIZE = np.array([0.6, 0.9, 0.3]) / 0.9  # of `lopsided`, its longest side 1
VALIDATOR = Path(sys.prefix) / "node_modules" / "gltf-validator"
VALIDATE = """
const fs = require("fs"), validator = require(process.argv[1]);
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[2])))
  .then(report => console.log(JSON.stringify(report.issues)));
"""


def standing_place() -> np.ndarray:
    """Where the vertices of `lopsided` are in a file, worked out by hand."""
    return (lopsided().vertices + 0.2 - [0.3, 0, 0.15]) / 0.9


def triangles(place: np.ndarray, faces: np.ndarray) -> np.ndarray:
    return place[faces.reshape(-1, 3)]


def colour_at(picture: np.ndarray, uv: np.ndarray, top_is_zero: bool) -> np.ndarray:
    """Nearest texels."""
    v = uv[:, 1] if top_is_zero else 1 - uv[:, 1]
    return picture[(v * len(picture)).astype(int), (uv[:, 0] * len(picture)).astype(int)]


class Glb:
    """The first primitive of a GLB, read by pygltflib and numpy."""

    def __init__(self, content: bytes) -> None:
        loaded = pygltflib.GLTF2.load_from_bytes(content)
        assert loaded is not None
        self.tree, self.binary = loaded, loaded.binary_blob()
        self.primitive = loaded.meshes[0].primitives[0]
        self.faces = self.read(self.primitive.indices).reshape(-1, 3)

    def read(self, number: int) -> np.ndarray:
        accessor = self.tree.accessors[number]
        view = self.tree.bufferViews[accessor.bufferView]
        kind = {5126: "<f4", 5125: "<u4", 5123: "<u2", 5121: "u1"}[accessor.componentType]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor.type]
        start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
        return np.frombuffer(self.binary, kind, accessor.count * width, start).reshape(accessor.count, width)

    def __getitem__(self, name: str) -> np.ndarray:
        return self.read(getattr(self.primitive.attributes, name))

    def picture(self, number: int) -> np.ndarray:
        view = self.tree.bufferViews[self.tree.images[self.tree.textures[number].source].bufferView]
        start = view.byteOffset or 0
        return np.asarray(Image.open(io.BytesIO(self.binary[start : start + view.byteLength])).convert("RGB"))


def test_glb_has_its_faces_places_and_normals() -> None:
    mesh = lopsided()
    read = Glb(glb_bytes(mesh, EXTRAS))
    assert triangles(read["POSITION"], read.faces) == pytest.approx(triangles(standing_place(), mesh.faces), abs=1e-6)
    assert triangles(read["NORMAL"], read.faces) == pytest.approx(triangles(vertex_normals(mesh), mesh.faces), abs=1e-6)
    assert read.tree.asset.extras == EXTRAS
    assert all(node.matrix in (None, list(np.eye(4).ravel())) for node in read.tree.nodes)
    assert not any(node.rotation or node.scale for node in read.tree.nodes)


def test_glb_shows_each_face_its_own_corner_of_the_texture() -> None:
    read = Glb(glb_bytes(lopsided(), EXTRAS))
    material = read.tree.materials[read.primitive.material]
    matte = material.pbrMetallicRoughness
    assert (matte.metallicFactor, matte.roughnessFactor, material.doubleSided) == (0, 0.95, False)
    picture = read.picture(matte.baseColorTexture.index)
    assert np.array_equal(picture, lopsided().texture)
    uv = read["TEXCOORD_0"][read.faces].mean(1)
    assert np.array_equal(colour_at(picture, uv, top_is_zero=True), FACE_COLOURS)
    assert read.primitive.attributes.COLOR_0 is None  # it would multiply the texture


def test_glb_has_a_normal_map_with_its_tangents_if_the_mesh_has_one() -> None:
    read = Glb(glb_bytes(lopsided(), {}))
    material = read.tree.materials[read.primitive.material]
    assert np.array_equal(read.picture(material.normalTexture.index), lopsided().normal_map)
    tangent = read["TANGENT"]
    assert np.linalg.norm(tangent[:, :3], axis=1) == pytest.approx(1, abs=1e-5)
    assert (tangent[:, :3] * read["NORMAL"]).sum(1) == pytest.approx(0, abs=1e-5)
    assert set(tangent[:, 3]) <= {-1, 1}
    without = Glb(glb_bytes(replace(lopsided(), normal_map=None), {}))
    assert without.primitive.attributes.TANGENT is None


def test_a_glb_without_texture_has_linear_vertex_colours() -> None:
    painted = replace(lopsided(), uv=None, texture=None, normal_map=None)
    read = Glb(glb_bytes(painted, {}))
    assert painted.colours is not None
    assert read["COLOR_0"] == pytest.approx(linear_from_srgb(painted.colours), abs=1e-6)
    assert read.faces.tolist() == painted.faces.tolist()
    assert Glb(glb_bytes(replace(painted, colours=None), {})).primitive.attributes.COLOR_0 is None


def test_baked_light_is_shown_unlit() -> None:
    read = Glb(glb_bytes(replace(lopsided(), lit=True), {}))
    assert "KHR_materials_unlit" in read.tree.materials[0].extensions
    assert read.tree.extensionsUsed == ["KHR_materials_unlit"]
    assert not Glb(glb_bytes(lopsided(), {})).tree.materials[0].extensions


def test_equal_meshes_give_equal_bytes() -> None:
    assert glb_bytes(lopsided(), EXTRAS) == glb_bytes(lopsided(), EXTRAS)


@pytest.mark.parametrize(
    "change",
    [{}, {"lit": True, "normal_map": None}, {"texture": None, "normal_map": None}],
    ids=["normal map", "unlit", "untextured"],
)
def test_glb_passes_the_khronos_validator(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "mesh.glb").write_bytes(glb_bytes(replace(lopsided(), **change), EXTRAS))
    require_valid(tmp_path / "mesh.glb")


def test_a_baked_mesh_and_a_composed_scene_pass_the_khronos_validator(tmp_path: Path) -> None:
    scene = scene_of(soft_ball(0.6))
    body = simplified(surface(density_grid(scene, 32), 50.0), 600)
    export(bake(paint(body, scene), scene, TextureOptions(64, normal_map=True)), tmp_path / "ball.glb", EXTRAS)
    export(lopsided(), tmp_path / "thing.glb", EXTRAS)
    assets = [{"file": "ball.glb"}, {"file": "thing.glb", "height": 2}, {"file": "ball.glb", "position": [1, 0, 0]}]
    (tmp_path / "both.json").write_text(json.dumps({"assets": assets}))
    require_valid(tmp_path / "ball.glb")
    require_valid(compose.write(compose.read(tmp_path / "both.json"), tmp_path / "out")[0])


def require_valid(path: Path) -> None:
    node = shutil.which("node")
    if node is None or not VALIDATOR.is_dir():
        pytest.skip(f"needs node and the npm package gltf-validator in {VALIDATOR.parent} (make test installs it)")
    words = [node, "-e", VALIDATE, str(VALIDATOR), str(path)]
    issues = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    told = [(message["code"], message["pointer"]) for message in issues["messages"] if message["severity"] < 3]
    assert told == []
    assert issues["numErrors"] == issues["numWarnings"] == 0


def test_obj_comes_back_with_its_material_and_texture(tmp_path: Path) -> None:
    files = export(lopsided(), tmp_path / "thing.obj", EXTRAS)
    assert {file.name for file in files} == {file.name for file in tmp_path.iterdir()}
    assert [file.name for file in files] == ["thing.obj", "thing.mtl", "thing.png"]
    body = trimesh.load_mesh(tmp_path / "thing.obj", process=False)
    assert triangles(body.vertices, body.faces) == pytest.approx(
        triangles(standing_place(), lopsided().faces), abs=1e-5
    )
    picture = np.asarray(body.visual.material.image.convert("RGB"))
    assert np.array_equal(picture, lopsided().texture)
    assert np.array_equal(colour_at(picture, body.visual.uv[body.faces].mean(1), top_is_zero=False), FACE_COLOURS)
    assert body.visual.material.diffuse[:3].tolist() == [255, 255, 255]
    lines = (tmp_path / "thing.obj").read_text().splitlines()
    normals = [line.split()[1:] for line in lines if line.startswith("vn ")]
    assert np.array(normals, float) == pytest.approx(vertex_normals(lopsided()), abs=1e-3)
    corners = [corner.split("/") for line in lines if line.startswith("f ") for corner in line.split()[1:]]
    assert all(place == normal for place, _, normal in corners)


def test_obj_with_light_in_its_texture_asks_for_none(tmp_path: Path) -> None:
    for lit, model in ((False, "illum 1"), (True, "illum 0")):
        _, material, _ = export(replace(lopsided(), lit=lit), tmp_path / "thing.obj", EXTRAS)
        assert model in material.read_text().splitlines()


def test_obj_with_blanks_in_its_name_finds_its_material(tmp_path: Path) -> None:
    files = export(lopsided(), tmp_path / "my  red thing.obj", EXTRAS)
    assert [file.name for file in files] == ["my  red thing.obj", "my-red-thing.mtl", "my-red-thing.png"]
    assert files[0].read_text().splitlines()[0] == "mtllib my-red-thing.mtl"
    assert "map_Kd my-red-thing.png" in files[1].read_text()


def test_ply_has_places_faces_and_display_colours(tmp_path: Path) -> None:
    """Read by the format's definition: a text header, then records of the types that it names."""
    mesh = lopsided()
    assert mesh.colours is not None
    export(mesh, tmp_path / "thing.ply", EXTRAS)
    header, body = (tmp_path / "thing.ply").read_bytes().split(b"end_header\n")
    lines = header.decode().splitlines()
    assert "format binary_little_endian 1.0" in lines
    assert {"element vertex 4", "element face 4"} <= set(lines)
    kinds = {"float": "<f4", "uchar": "u1", "int": "<i4"}
    of_vertex = [line.split() for line in lines[: lines.index("element face 4")] if line.startswith("property")]
    fields = [(name, kinds[kind]) for _, kind, name in of_vertex]
    points = np.frombuffer(body, np.dtype(fields), 4)
    assert np.stack([points[axis] for axis in "xyz"], 1) == pytest.approx(standing_place(), abs=1e-6)
    colours = np.stack([points[name] for name in ("red", "green", "blue")], 1)
    assert np.array_equal(colours, np.round(mesh.colours * 255))
    faces = np.frombuffer(body[points.nbytes :], np.dtype([("count", "u1"), ("corner", "<i4", 3)]), 4)
    assert np.array_equal(faces["corner"], mesh.faces)


def test_stl_is_upright_for_a_printer_in_millimetres(tmp_path: Path) -> None:
    """Read by the format's definition: 80 bytes, a count, and 50 bytes for each triangle."""
    export(lopsided(), tmp_path / "thing.stl", EXTRAS, height_mm=45.0)
    content = (tmp_path / "thing.stl").read_bytes()
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("spare", "<u2")])
    read = np.frombuffer(content, record, offset=84)
    assert int.from_bytes(content[80:84], "little") == len(read) == 4
    x, y, z = standing_place().T * 45.0  # the height, 0.9, was the longest side
    expected = triangles(np.stack([x, -z, y], 1), lopsided().faces)
    assert read["corners"] == pytest.approx(expected, abs=1e-4)
    assert read["corners"].reshape(-1, 3).min(0)[2] == pytest.approx(0, abs=1e-5)
    assert np.ptp(read["corners"].reshape(-1, 3), axis=0) == pytest.approx(45 * SIZE[[0, 2, 1]], rel=1e-5)
    body = trimesh.load_mesh(tmp_path / "thing.stl")
    assert body.is_watertight
    assert body.volume > 0


def test_usdz_comes_back_with_its_texture(tmp_path: Path) -> None:
    pytest.importorskip("pxr", reason="needs usd-core, the usd extra")
    from pxr import Usd, UsdGeom, UsdShade

    export(lopsided(), tmp_path / "thing.usdz", EXTRAS)
    assert [path.name for path in tmp_path.iterdir()] == ["thing.usdz"]
    stage = Usd.Stage.Open(str(tmp_path / "thing.usdz"))
    assert (UsdGeom.GetStageUpAxis(stage), UsdGeom.GetStageMetersPerUnit(stage)) == ("Y", 1.0)
    assert stage.GetDefaultPrim().GetCustomDataByKey("provenance")["prompt"] == "a thing"
    shape = UsdGeom.Mesh(next(prim for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)))
    faces = np.array(shape.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
    assert np.array_equal(faces, lopsided().faces)
    assert np.array(shape.GetPointsAttr().Get()) == pytest.approx(standing_place(), abs=1e-6)
    assert set(shape.GetFaceVertexCountsAttr().Get()) == {3}
    uv = np.array(UsdGeom.PrimvarsAPI(shape).GetPrimvar("st").ComputeFlattened()).reshape(-1, 3, 2)
    with zipfile.ZipFile(tmp_path / "thing.usdz") as package:
        (name,) = (name for name in package.namelist() if name.endswith(".png"))
        picture = np.asarray(Image.open(io.BytesIO(package.read(name))))
    assert np.array_equal(picture, lopsided().texture)
    assert np.array_equal(colour_at(picture, uv.mean(1), top_is_zero=False), FACE_COLOURS)
    material, _ = UsdShade.MaterialBindingAPI(shape.GetPrim()).ComputeBoundMaterial()
    source, _, _ = material.ComputeSurfaceSource("")
    assert source.GetIdAttr().Get() == "UsdPreviewSurface"
    assert source.GetInput("roughness").Get() == pytest.approx(0.95)


def test_usdz_without_its_library_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pxr", None)
    with pytest.raises(UserError, match=r"pip install 'dreamfusion\[usd\]'"):
        export(lopsided(), tmp_path / "thing.usdz", EXTRAS)
    assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\.glb, \.obj, \.ply, \.stl, \.usdz"):
        export(lopsided(), tmp_path / "mesh.docx", EXTRAS)
    assert not list(tmp_path.iterdir())
