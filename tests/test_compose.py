"""Composition: everything is where the file says, nothing is lost on the way, and mistakes are named."""

import base64
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from jaxtyping import Float
from PIL import Image
from trimesh.exchange.gltf import export_glb
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial

from dreamfusion import compose
from dreamfusion.cli import main as cli
from dreamfusion.compose.glb import Placed, glb_content, join, read_glb
from dreamfusion.errors import UserError
from dreamfusion.mesh import Mesh, glb_bytes
from dreamfusion.runs import RunFolder

PICTURE = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3) * 5


def gem(seed: int = 0) -> bytes:
    """A tetrahedron with a colour of its own at every corner, 0.5 m high."""
    generator = np.random.default_rng(seed)
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 0.5, 0], [0, 0, 1]], np.float32)
    faces = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
    colours = generator.random((4, 3), dtype=np.float32)
    return glb_bytes(Mesh(corners, faces, colours), {"prompt": "a gem", "seed": seed, "steps": 500})


def poster() -> bytes:
    """A square with a picture on it, whose node has a place of its own."""
    corners = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]])
    visual = TextureVisuals(
        uv=corners[:, :2] / 2 + 0.5,
        material=PBRMaterial(baseColorTexture=Image.fromarray(PICTURE), emissiveTexture=Image.fromarray(PICTURE[::-1])),
    )
    scene = trimesh.Scene()
    place = trimesh.transformations.translation_matrix([0, 0, 3])
    form = trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False)
    scene.add_geometry(form, node_name="hook", transform=place)
    return export_glb(scene, tree_postprocessor=lambda tree: tree["asset"].update(copyright="somebody", extras=[1]))


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder with a run, a file of ours and a file of somebody else."""
    run = RunFolder.create(tmp_path / "runs" / "a-gem-0", {})
    run.mesh.write_bytes(gem())
    (tmp_path / "gem.glb").write_bytes(gem(1))
    (tmp_path / "poster.glb").write_bytes(poster())
    return tmp_path


def scene_file(folder: Path, *assets: dict[str, Any], **more: Any) -> Path:
    path = folder / "scene.json"
    path.write_text(json.dumps({"assets": list(assets), **more}), encoding="utf-8")
    return path


def composed(shelf: Path, *assets: dict[str, Any]) -> tuple[dict[str, Any], bytes, trimesh.Scene]:
    """The tree and the block of the scene, taken apart here by hand, and the scene as an independent reader sees it."""
    glb, _ = compose.write(compose.read(scene_file(shelf, *assets)), shelf / "out")
    tree, block = taken_apart(glb.read_bytes())
    return tree, block, trimesh.load_scene(glb)


def taken_apart(content: bytes) -> tuple[dict[str, Any], bytes]:
    size = struct.unpack("<I", content[12:16])[0]
    return json.loads(content[20 : 20 + size]), content[28 + size :]


def stored(tree: dict[str, Any], block: bytes, accessor: int) -> bytes:
    """The bytes of the view behind an accessor."""
    view = tree["bufferViews"][tree["accessors"][accessor]["bufferView"]]
    return block[view.get("byteOffset", 0) :][: view["byteLength"]]


def corners_of(scene: trimesh.Scene) -> list[Float[np.ndarray, "v 3"]]:
    """Of every object that is seen, in the world."""
    placed = []
    for node in sorted(scene.graph.nodes_geometry):
        transform, geometry = scene.graph[node]
        placed.append(trimesh.transform_points(scene.geometry[geometry].vertices, transform))
    return placed


def turned(degrees: tuple[float, float, float]) -> Float[np.ndarray, "3 3"]:
    """About the fixed axes: x first, z last."""
    x, y, z = (np.radians(each) for each in degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


def test_everything_is_where_the_file_says(shelf):
    angles, place, scale = (20.0, -50.0, 110.0), np.array([1.0, 2.0, -3.0]), 0.25
    _, _, scene = composed(
        shelf, {"file": "gem.glb", "position": place.tolist(), "rotation": list(angles), "scale": scale}
    )
    (corners,) = corners_of(scene)
    (own,) = corners_of(trimesh.load_scene(shelf / "gem.glb"))
    np.testing.assert_allclose(corners, place + scale * own @ turned(angles).T, atol=1e-6)


def test_a_quarter_turn_about_y_brings_the_front_to_the_left(shelf):
    _, _, scene = composed(shelf, {"file": "poster.glb", "rotation": [0, 90, 0]})
    (corners,) = corners_of(scene)
    np.testing.assert_allclose(corners.mean(0), [3, 0, 0], atol=1e-6)  # was at z = 3; +x is the object's left


def test_a_height_says_the_scale(shelf):
    _, _, scene = composed(shelf, {"file": "runs/a-gem-0", "height": 0.2}, {"file": "poster.glb", "height": 3})
    heights = sorted(float(np.ptp(corners[:, 1])) for corners in corners_of(scene))
    assert heights == pytest.approx([0.2, 3.0])


def test_meshes_colours_and_textures_are_carried_over_byte_for_byte(shelf):
    tree, block, scene = composed(shelf, {"file": "gem.glb"}, {"file": "poster.glb"}, {"file": "runs/a-gem-0"})
    assert [len(tree[name]) for name in ("meshes", "materials", "images", "textures")] == [3, 3, 2, 2]
    sources = (shelf / "gem.glb", shelf / "poster.glb", shelf / "runs" / "a-gem-0" / "mesh.glb")
    for source, mesh in zip(sources, tree["meshes"], strict=True):
        own_tree, own_block = taken_apart(source.read_bytes())
        (primitive,), (own,) = mesh["primitives"], own_tree["meshes"][0]["primitives"]
        assert set(primitive["attributes"]) == set(own["attributes"])
        pairs = [(primitive["attributes"][name], own["attributes"][name]) for name in own["attributes"]]
        for accessor, before in [(primitive["indices"], own["indices"]), *pairs]:
            assert stored(tree, block, accessor) == stored(own_tree, own_block, before)
        name = own_tree["materials"][own["material"]].get("name")
        assert tree["materials"][primitive["material"]].get("name") == name
    pictured = [mesh for mesh in scene.geometry.values() if isinstance(mesh.visual, TextureVisuals)]
    (material,) = (mesh.visual.material for mesh in pictured if mesh.visual.material.baseColorTexture is not None)
    np.testing.assert_array_equal(np.asarray(material.baseColorTexture), PICTURE)
    np.testing.assert_array_equal(np.asarray(material.emissiveTexture), PICTURE[::-1])


def test_what_stands_twice_is_stored_once(shelf):
    once, _, _ = composed(shelf, {"file": "gem.glb"})
    (shelf / "out").rename(shelf / "before")
    again = [{"file": "gem.glb", "position": [x, 0, 0]} for x in (0, 1)]
    twice, _, scene = composed(shelf, *again, {"file": "./runs/../gem.glb", "position": [2, 0, 0]})
    assert twice["buffers"] == once["buffers"]
    assert len(twice["meshes"]) == 1
    assert sorted(corners[:, 0].min() for corners in corners_of(scene)) == pytest.approx([-0.5, 0.5, 1.5])


def test_every_object_tells_where_it_comes_from(shelf):
    tree, _, _ = composed(
        shelf, {"file": "runs/a-gem-0"}, {"file": "poster.glb"}, {"file": "gem.glb", "name": "Großes Juwel"}
    )
    first, second, third = (tree["nodes"][top] for top in tree["scenes"][tree["scene"]]["nodes"])
    assert [each["name"] for each in (first, second, third)] == ["a gem", "poster", "Großes Juwel"]
    assert first["extras"]["asset"]["extras"] == {"prompt": "a gem", "seed": 0, "steps": 500}
    assert second["extras"]["asset"]["copyright"] == "somebody"
    assert [each["extras"]["file"] for each in (first, second, third)] == ["runs/a-gem-0", "poster.glb", "gem.glb"]
    assert tree["asset"]["extras"] == {"title": "scene"}


def test_a_joined_file_joins_again(shelf, tmp_path):
    one = read_glb(shelf / "poster.glb")
    joined = join([one], [Placed(0, "poster")], {})
    (tmp_path / "joined.glb").write_bytes(glb_content(joined))
    again = join([read_glb(tmp_path / "joined.glb")], [Placed(0, "poster")], {})
    for name in ("accessors", "bufferViews", "images", "textures", "materials", "meshes", "buffers"):
        assert joined.tree[name] == again.tree[name]
    assert again.block == joined.block
    assert len(again.tree["nodes"]) == len(joined.tree["nodes"]) + 1


def test_the_page_shows_the_scene(shelf):
    glb, index = compose.write(
        compose.read(scene_file(shelf, {"file": "runs/a-gem-0"}, {"file": "poster.glb"}, title="<shelf>")),
        shelf / "out",
    )
    page = index.read_text(encoding="utf-8")
    assert base64.b64encode(glb.read_bytes()).decode() in page
    assert "<h1>&lt;shelf&gt;</h1>" in page
    assert "<dt>1. a gem</dt><dd>seed 0, steps 500</dd>" in page
    assert "<dt>2. poster</dt><dd>poster.glb</dd>" in page
    assert {path.name for path in (shelf / "out").iterdir()} == {"scene.glb", "index.html"}


# Mistakes

MISTAKES = {
    "no list": ('{"assets": {}}', "names no assets"),
    "no assets": ('{"assets": []}', "names no assets"),
    "no object": ("[]", "must hold an object"),
    "no JSON": ('{"assets": [', "cannot be read"),
    "unknown key": ('{"assets": [{"file": "gem.glb"}], "camera": 1}', "unknown setting camera"),
    "unknown key of an asset": ('{"assets": [{"file": "gem.glb", "postion": [0, 0, 0]}]}', "assets[0].postion"),
    "no file": ('{"assets": [{"file": "gem.glb"}, {"scale": 1}]}', "assets[1] must be an object with a file"),
    "title": ('{"title": 3, "assets": [{"file": "gem.glb"}]}', "title must be a text"),
    "text for a number": ('{"assets": [{"file": "gem.glb", "scale": "big"}]}', "assets[0].scale must be float"),
    "two numbers": ('{"assets": [{"file": "gem.glb", "position": [0, 1]}]}', "assets[0].position must be a list of 3"),
    "no number": ('{"assets": [{"file": "gem.glb", "position": [0, NaN, 0]}]}', "finite numbers"),
    "two sizes": ('{"assets": [{"file": "gem.glb", "scale": 1, "height": 1}]}', "one of the two"),
    "no scale": ('{"assets": [{"file": "gem.glb", "scale": 0}]}', "assets[0].scale must be above 0"),
    "no height": ('{"assets": [{"file": "gem.glb", "height": -1}]}', "assets[0].height must be above 0"),
    "no such file": ('{"assets": [{"file": "jam.glb"}]}', "jam.glb cannot be read"),
    "other format": ('{"assets": [{"file": "gem.obj"}]}', "neither a .glb file nor the folder"),
    "no run": ('{"assets": [{"file": "runs"}]}', "runs is no run folder"),
    "flat": ('{"assets": [{"file": "carpet.glb", "height": 1}]}', "has no height"),
    "no points": ('{"assets": [{"file": "pointless.glb"}]}', "no whole binary glTF"),
    "odd points": ('{"assets": [{"file": "odd.glb", "height": 1}]}', "the height of odd.glb cannot be read"),
    "a child of two": ('{"assets": [{"file": "knot.glb"}]}', "no whole binary glTF"),
    "more than there is": ('{"assets": [{"file": "long.glb"}]}', "no whole binary glTF"),
    "cut short": ('{"assets": [{"file": "short.glb"}]}', "no whole binary glTF"),
    "text": ('{"assets": [{"file": "text.glb"}]}', "no whole binary glTF"),
    "no number inside": ('{"assets": [{"file": "nan.glb"}]}', "no whole binary glTF"),
    "nothing to see": ('{"assets": [{"file": "empty.glb"}]}', "no whole binary glTF"),
    "extension": ('{"assets": [{"file": "draco.glb"}]}', "KHR_draco_mesh_compression, which cannot be composed"),
    "animation": ('{"assets": [{"file": "moving.glb"}]}', "animations, which cannot be composed"),
    "parts elsewhere": ('{"assets": [{"file": "linked.glb"}]}', "parts of itself elsewhere"),
}


@pytest.fixture
def bad_files(shelf: Path) -> None:
    carpet = trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 0, 1]], [[0, 2, 1]], process=False)
    (shelf / "carpet.glb").write_bytes(export_glb(carpet))
    (shelf / "short.glb").write_bytes(gem()[:-5])
    (shelf / "text.glb").write_text("a gem")
    changes = {
        "draco": {"extensionsUsed": ["KHR_draco_mesh_compression"]},
        "moving": {"animations": [{"channels": [], "samplers": []}]},
        "linked": {"images": [{"uri": "wood.png"}]},
        "nan": {"extras": {"size": float("nan")}},
        "empty": {"meshes": []},
        "pointless": {"accessors": []},
        "odd": {"accessors": [{"componentType": 1, "count": 1, "type": "VEC3", "bufferView": 0}] * 3},
        "knot": {"nodes": [{"mesh": 0, "children": [1]}, {"children": [0]}]},
        "long": {"bufferViews": [{"buffer": 0, "byteLength": 10**9}] * 3},
    }
    for name, change in changes.items():
        altered = export_glb(carpet, tree_postprocessor=lambda tree, change=change: tree.update(change))
        (shelf / f"{name}.glb").write_bytes(altered)


def call(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exit_:
        cli.main(arguments)
    return exit_.value.code


@pytest.mark.parametrize("case", MISTAKES)
@pytest.mark.usefixtures("bad_files")
def test_mistakes_get_one_line_and_leave_nothing(shelf, capsys, case):
    content, message = MISTAKES[case]
    (shelf / "scene.json").write_text(content)
    assert call("compose", str(shelf / "scene.json"), "--out", str(shelf / "out")) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert not (shelf / "out").exists()


def test_a_run_without_its_mesh_is_named(shelf):
    (shelf / "runs" / "a-gem-0" / "mesh.glb").unlink()
    with pytest.raises(UserError, match="dreamfusion mesh"):
        compose.compose(compose.read(scene_file(shelf, {"file": "runs/a-gem-0"})))


def test_the_command_makes_a_new_folder_and_overwrites_nothing(shelf, capsys, monkeypatch):
    path = scene_file(shelf, {"file": "runs/a-gem-0"})
    out = shelf / "out"
    assert call("compose", str(path), "--out", str(out)) == 0
    assert capsys.readouterr().out.splitlines()[0].startswith(f"{out / 'scene.glb'}  (")
    before = (out / "scene.glb").read_bytes()
    assert call("compose", str(path), "--out", str(out)) == 2
    assert "exists and is not empty: choose another --out" in capsys.readouterr().err
    assert (out / "scene.glb").read_bytes() == before
    assert call("compose", str(path), "--out", str(path)) == 2
    assert "is a file" in capsys.readouterr().err
    monkeypatch.chdir(shelf)
    for name in ("scene", "scene-1"):
        assert call("compose", "scene.json") == 0
        assert (shelf / "runs" / name / "scene.glb").read_bytes() == before
    assert call("compose", str(shelf / "nowhere.json")) == 2
    assert "nowhere.json cannot be read" in capsys.readouterr().err
