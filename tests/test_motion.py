"""Procedural motion in scenes: keys against closed forms, seams, what players make of the keys, and the files."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float
from scipy.spatial.transform import Rotation, Slerp

from dreamfusion import compose
from dreamfusion.cli import main as cli
from dreamfusion.compose.glb import Glb
from dreamfusion.compose.motion import KEYS, Bob, Spin, Swing, Track, motion_from, track_of
from dreamfusion.errors import UserError
from test_compose import gem, scene_file, shelf
from test_mesh_files import require_valid

__all__ = ["shelf"]
FRONT = np.array([0.0, 0.0, 1.0])
HERE = (0.0, 0.0, 0.0)
UP = np.array([0.0, 1.0, 0.0])


def at(track: Track, time: float) -> Float[np.ndarray, " w"]:
    """What a player shows at a time: keys joined linearly, rotations along the great arc."""
    if track.path == "translation":
        return np.array([np.interp(time, track.times, column) for column in track.values.T])
    return Slerp(track.times, Rotation.from_quat(track.values))(time).as_quat()


@pytest.mark.parametrize("motion", [Spin(3.0), Swing(1.5, 25.0), Bob(2.5, 0.2)])
def test_a_motion_closes_without_a_seam(motion):
    track = track_of(motion, (1.0, 2.0, 3.0))
    assert (track.times[0], track.times[-1]) == (0.0, motion.period_s)
    assert np.diff(track.times) == pytest.approx(motion.period_s / KEYS)
    if track.path == "translation":
        assert track.values[-1] == pytest.approx(track.values[0], abs=1e-12)
        first, last = track.values[1] - track.values[0], track.values[-1] - track.values[-2]
        assert first == pytest.approx(-last, abs=1e-12)  # it is at rest there, at its lowest
        return
    assert np.linalg.norm(track.values, axis=1) == pytest.approx(1)
    turns = Rotation.from_quat(track.values)
    assert (turns[-1] * turns[0].inv()).magnitude() == pytest.approx(0, abs=1e-6)
    assert (turns[1] * turns[0].inv()).as_rotvec() == pytest.approx((turns[-1] * turns[-2].inv()).as_rotvec())
    assert (track.values[1:] * track.values[:-1]).sum(1).min() > 0.9  # no player takes the longer way


@pytest.mark.parametrize("quarter", [0, 1, 2, 3, 4])
def test_a_spin_is_even_and_goes_as_the_turntable(quarter):
    """The camera of a turntable goes from the front (+z) to +x: a thing in front of a still one turns the other way."""
    track = track_of(Spin(8.0), HERE)
    turn = Rotation.from_quat(at(track, 2.0 * quarter))
    angle = quarter * math.pi / 2
    assert turn.apply(UP) == pytest.approx(UP)
    assert turn.apply([math.sin(angle), 0, math.cos(angle)]) == pytest.approx(FRONT, abs=1e-9)


def test_a_spin_is_even_between_its_keys_too():
    track = track_of(Spin(1.0), HERE)
    for time in np.linspace(0, 1, 97):
        angle = 2 * math.pi * time
        shown = Rotation.from_quat(at(track, time)).apply([math.sin(angle), 0, math.cos(angle)])
        assert shown == pytest.approx(FRONT, abs=1e-9)


def test_a_swing_is_a_sine_about_the_axis_to_the_front():
    track = track_of(Swing(2.0, 30.0), HERE)
    for share, degrees in ((0, 0.0), (0.25, 30.0), (0.5, 0.0), (0.75, -30.0), (1 / 12, 15.0)):
        turn = Rotation.from_quat(at(track, 2.0 * share))
        lean = math.degrees(math.atan2(turn.apply(UP)[0], turn.apply(UP)[1]))
        assert lean == pytest.approx(degrees, abs=30 * (1 - math.cos(math.pi / KEYS)))
        assert turn.apply(FRONT) == pytest.approx(FRONT)


def test_a_bob_rises_from_its_place_and_never_below():
    track = track_of(Bob(4.0, 0.3), (1.0, 0.5, -2.0))
    for time in np.linspace(0, 4, 101):
        shown, height = at(track, time), 0.3 * math.sin(math.pi * time / 4) ** 2
        assert shown[[0, 2]] == pytest.approx([1.0, -2.0])
        assert shown[1] - 0.5 == pytest.approx(height, abs=0.15 * (1 - math.cos(math.pi / KEYS)))
        assert shown[1] >= 0.5
    assert at(track, 2.0)[1] == pytest.approx(0.8)


def floats(scene: Glb, number: int) -> Float[np.ndarray, "n w"]:
    accessor = scene.tree["accessors"][number]
    view = scene.tree["bufferViews"][accessor["bufferView"]]
    assert view["byteOffset"] % 4 == 0
    content = scene.block[view["byteOffset"] : view["byteOffset"] + view["byteLength"]]
    return np.frombuffer(content, "<f4").reshape(accessor["count"], -1)


def moved(shelf: Path, *assets: dict[str, Any], **more: Any) -> Glb:
    return compose.compose(compose.read(scene_file(shelf, *assets, **more)))


def test_a_file_holds_an_animation_for_each_period(shelf):
    scene = moved(
        shelf,
        {"file": "gem.glb", "name": "still", "rotation": [0, 30, 0], "scale": 2},
        {"file": "gem.glb", "name": "spins", "motion": {"kind": "spin", "period_s": 4}},
        {"file": "gem.glb", "name": "bobs", "position": [1, 0, 2], "motion": {"kind": "bob", "height_m": 0.1}},
        {"file": "poster.glb", "name": "swings", "motion": {"kind": "swing", "angle_deg": 5}},
    )
    nodes, animations = scene.tree["nodes"], scene.tree["animations"]
    found = {
        (animation["name"], nodes[channel["target"]["node"]]["name"], channel["target"]["path"])
        for animation in animations
        for channel in animation["channels"]
    }
    assert found == {
        ("every 4 s", "spins", "rotation"),
        ("every 2 s", "bobs", "translation"),
        ("every 2 s", "swings", "rotation"),
    }
    told = [each for animation in animations for each in animation["extras"]["procedural"]]
    assert told[1] == {"name": "bobs", "kind": "bob", "period_s": 2.0, "height_m": 0.1}
    bob = animations[1]["samplers"][0]
    assert floats(scene, bob["output"]) == pytest.approx(track_of(Bob(2.0, 0.1), (1.0, 0.0, 2.0)).values, abs=1e-6)
    times = floats(scene, bob["input"])[:, 0]
    bounds = scene.tree["accessors"][bob["input"]]
    assert (bounds["min"], bounds["max"]) == ([times[0]], [times[-1]])


def test_what_moves_stands_at_rest_where_the_file_says(shelf):
    """The first key is the pose without an animation, for viewers that play none."""
    place = {"file": "gem.glb", "position": [1, 0, 2], "rotation": [10, 20, 30], "scale": 3}
    for kind in ("spin", "bob", "swing"):
        still, scene = moved(shelf, place), moved(shelf, {**place, "motion": {"kind": kind}})
        [animation] = scene.tree["animations"]
        node = scene.tree["nodes"][animation["channels"][0]["target"]["node"]]
        [inner] = node["children"]
        rest = still.tree["nodes"][still.roots[0]]
        assert node["translation"] == rest["translation"]
        assert {name: scene.tree["nodes"][inner][name] for name in ("rotation", "scale")} == {
            name: rest[name] for name in ("rotation", "scale")
        }
        first = floats(scene, animation["samplers"][0]["output"])[0]
        assert first == pytest.approx(rest["translation"] if kind == "bob" else [0, 0, 0, 1])


def test_everything_turns_on_a_turntable(shelf):
    scene = moved(shelf, {"file": "gem.glb"}, {"file": "poster.glb"}, motion={"kind": "spin", "period_s": 6})
    [root] = scene.roots
    assert [scene.tree["nodes"][child]["name"] for child in scene.tree["nodes"][root]["children"]] == [
        "a gem",
        "poster",
    ]
    [animation] = scene.tree["animations"]
    assert animation["channels"][0]["target"] == {"node": root, "path": "rotation"}


def test_the_khronos_validator_finds_nothing(shelf):
    motions = [{"kind": "spin"}, {"kind": "bob", "period_s": 3}, {"kind": "swing"}, {"kind": "spin", "period_s": 3}]
    assets = [{"file": "gem.glb", "position": [n, 0, 0], "motion": motion} for n, motion in enumerate(motions)]
    path = scene_file(shelf, *assets, motion={"kind": "spin", "period_s": 12.5})
    require_valid(compose.write(compose.read(path), shelf / "out")[0])


def test_a_scene_without_motion_has_no_animations(shelf):
    assert "animations" not in moved(shelf, {"file": "gem.glb"}).tree


@pytest.mark.parametrize(
    ("motion", "wrong"),
    [
        ("spin", "kind spin, bob, swing"),
        ({"kind": "walk"}, "kind spin, bob, swing"),
        ({"kind": ["spin"]}, "kind spin, bob, swing"),
        ({"kind": "spin", "period_s": 0}, "above 0"),
        ({"kind": "spin", "period_s": math.nan}, "above 0"),
        ({"kind": "swing", "angle_deg": 1e9}, "at most 3600"),
        ({"kind": "spin", "height_m": 1}, "unknown setting"),
        ({"kind": "bob", "height_m": "much"}, "height_m"),
    ],
)
def test_what_is_no_motion_is_refused(motion, wrong):
    with pytest.raises(UserError, match=wrong):
        motion_from(motion, "assets[0].motion")


def test_an_animated_scene_cannot_be_composed_again(shelf):
    path = compose.write(compose.read(scene_file(shelf, {"file": "gem.glb", "motion": {"kind": "spin"}})), shelf / "o")[
        0
    ]
    with pytest.raises(UserError, match="animations"):
        compose.alone(path)


@pytest.mark.parametrize("what", ["runs/a-gem-0", "gem.glb"])
def test_one_object_on_a_turntable_from_the_command_line(shelf, what, monkeypatch, capsys):
    monkeypatch.chdir(shelf)
    assert cli.run(["compose", what, "--turntable", "12"]) == 0
    name = "a-gem-0-scene" if "runs" in what else "gem-scene"
    require_valid(shelf / "runs" / name / "scene.glb")
    assert "a gem" in (shelf / "runs" / name / "index.html").read_text()
    assert (shelf / "runs" / "a-gem-0" / "mesh.glb").read_bytes() == gem()  # as it was


def test_a_turntable_takes_some_time(shelf):
    with pytest.raises(UserError):
        cli.run(["compose", str(shelf / "gem.glb"), "--turntable", "0"])


def test_scene_files_are_json_alone(shelf):
    path = scene_file(shelf, {"file": "gem.glb", "motion": None})
    assert json.loads(path.read_text())["assets"][0]["motion"] is None
    assert "animations" not in compose.compose(compose.read(path)).tree
