"""The joint stage of scenes: fields of several things as one, which learn together, and go back to their places."""

import json
import math
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from manifold3d import Manifold
from scipy.spatial.transform import Rotation
from torch import Generator, Tensor, nn

from dreamfusion import checkpoint, compose, generate, stepping
from dreamfusion.cameras import Cameras, turntable
from dreamfusion.cli import main as cli
from dreamfusion.cli.interrupt import INTERRUPTED
from dreamfusion.cli.progress_line import ProgressLine
from dreamfusion.compose.glb import read_glb
from dreamfusion.config import Config, JointFieldConfig, PlaceConfig
from dreamfusion.config.check import validate
from dreamfusion.config.serialise import from_json, to_json
from dreamfusion.diffusion.priors import Prior, ViewCondition
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.errors import UserError
from dreamfusion.geometry import rotation_xyz
from dreamfusion.lights import albedo_only, key_light
from dreamfusion.loop import Metrics, optimise, prompt_table, start
from dreamfusion.mesh import MeshOptions, TextureOptions, glb_bytes
from dreamfusion.mesh.extract import mesh_of
from dreamfusion.nerf.fields import FieldOutput, Gaussians, surface
from dreamfusion.nerf.fields.encoding import isotropic
from dreamfusion.nerf.fields.grid import GridField
from dreamfusion.nerf.fields.joint import JointField
from dreamfusion.nerf.render import RenderOptions, render, render_views
from dreamfusion.nerf.scene import Scene
from dreamfusion.runs import RunFolder
from dreamfusion.scenes import joint, make
from dreamfusion.studio import scan, worker
from dreamfusion.studio.task import Task
from gaussian_prior import cosine_schedule

CPU = torch.device("cpu")
LOOK = RenderOptions(samples=24)
PLACES = (
    PlaceConfig(0, (-0.4, 0.1, 0.0), (10.0, 20.0, 30.0), 0.5),
    PlaceConfig(1, (0.5, 0.0, 0.1), (0.0, 90.0, 0.0), 0.25),
    PlaceConfig(0, (0.0, 0.6, -0.3), (0.0, -45.0, 0.0), 0.3),
)


COARSE = MeshOptions(12, 16, level=3.0, faces=200, texture=TextureOptions(64), fit=False)


class Ball(nn.Module):
    """A ball in one colour, which it learns."""

    uses_covariance = False

    def __init__(self, radius: float, colour: tuple[float, float, float], density: float = 40.0) -> None:
        super().__init__()
        self.radius, self.strength = radius, density
        self.logit = nn.Parameter(torch.tensor(colour).logit())

    def density(self, at: Gaussians) -> Tensor:
        return self.strength * torch.sigmoid(30 * (self.radius - at.mean.norm(dim=-1)))

    def evaluate(self, at: Gaussians) -> FieldOutput:
        return FieldOutput(self.density(at), self.logit.sigmoid().expand_as(at.mean))

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        return {"grid": [self.logit]}


def apple_and_plum() -> JointField:
    return JointField([Ball(0.6, (0.8, 0.2, 0.1)), Ball(0.4, (0.2, 0.1, 0.7))], PLACES, 1.0)


def around(count: int = 2000) -> Gaussians:
    return isotropic(2 * torch.rand(count, 3, generator=Generator().manual_seed(1)) - 1, 0.0)


def test_a_rotation_is_that_of_scene_files():
    angles = torch.tensor([[10.0, 20.0, 30.0], [0.0, 90.0, 0.0], [-70.0, 5.0, 170.0]])
    expected = Rotation.from_euler("xyz", angles.numpy(), degrees=True).as_matrix()
    assert np.allclose(rotation_xyz(angles.deg2rad()).numpy(), expected, atol=1e-6)


def test_matter_adds_up_and_colours_and_normals_are_means_by_density():
    field, at = apple_and_plum(), around()
    found = surface(field, at, create_graph=False)
    total, colour, normal = torch.zeros(2000), torch.zeros(2000, 3), torch.zeros(2000, 3)
    for place in PLACES:
        thing = field.fields()[place.thing]
        middle, radius = torch.tensor(place.position), (0.6, 0.4)[place.thing] * place.scale
        away = (at.mean - middle).norm(dim=-1)
        density = 40 / place.scale * torch.sigmoid(30 / place.scale * (radius - away))
        density = density * (away <= place.scale)  # beyond its ball a thing is not
        total += density
        colour += density[:, None] * thing.evaluate(at).albedo
        normal += density[:, None] * (at.mean - middle) / away[:, None]
    seen = total > 1e-3
    assert seen.sum() > 30
    assert torch.allclose(found.density, total, rtol=1e-3, atol=1e-5)
    assert torch.equal(found.density, field.density(at))
    assert torch.allclose(found.albedo[seen], (colour / total[:, None])[seen], rtol=1e-3)
    assert found.normal is not None
    assert torch.allclose(found.normal[seen], nn.functional.normalize(normal, dim=-1)[seen], atol=2e-3)


def test_turned_things_show_their_turned_sides(tiny_config):
    """A grid field of nothing but a slope, seen from where its own front has come to be."""
    thing = start(tiny_config, CPU).scene.field
    assert isinstance(thing, GridField)
    with torch.no_grad():
        for level in (*thing.logits, *thing.features):
            level.copy_(torch.randn(level.shape, generator=Generator().manual_seed(3)))
    field = JointField([thing], [PlaceConfig(0, (0.1, -0.2, 0.0), (0.0, 90.0, 0.0), 0.5)], 1.0)
    own = isotropic(around().mean * 0.5, 0.0)
    there = torch.stack([own.mean[:, 2], own.mean[:, 1], -own.mean[:, 0]], -1)  # +z has come to +x
    found = field.surface(isotropic(0.5 * there + torch.tensor([0.1, -0.2, 0.0]), 0.0))
    expected = thing.surface(own)
    assert torch.allclose(found.density, 2 * expected.density, rtol=1e-4)
    assert torch.allclose(found.albedo, expected.albedo, atol=1e-5)
    assert expected.normal is not None
    assert found.normal is not None
    turned = torch.stack([expected.normal[:, 2], expected.normal[:, 1], -expected.normal[:, 0]], -1)
    assert torch.allclose(found.normal, turned, atol=1e-4)


def test_one_thing_at_its_own_place_is_itself(tiny_config):
    plain = start(tiny_config, CPU).scene
    alone = replace(tiny_config.scene, field=JointFieldConfig(tiny_config.scene.field, 1))  # pyright: ignore
    run = joint.joint_run(replace(tiny_config, scene=alone), [plain])
    cameras = turntable(2, 0.3, 3.0, 0.7, 24)
    for light in (albedo_only(2), key_light(cameras, textureless=False)):
        pictures = [render(scene, cameras, light, LOOK, background=torch.ones(2, 3)) for scene in (plain, run.scene)]
        assert torch.allclose(pictures[0].rgb, pictures[1].rgb, atol=2e-3)
    assert pictures[0].opacity.max() > 0.5


def test_a_thing_that_is_there_twice_learns_from_both():
    field, at = apple_and_plum(), around()
    ways = list[Tensor]()
    for chosen in ((0,), (2,), (0, 2)):
        part = JointField(field.fields(), [PLACES[place] for place in chosen], 1.0)
        matter = part.evaluate(at)
        (way,) = torch.autograd.grad((matter.density[:, None] * matter.albedo).sum(), [part.fields()[0].logit])  # pyright: ignore
        ways.append(way)
    assert torch.allclose(ways[0] + ways[1], ways[2], rtol=1e-4)
    assert {name: len(group) for name, group in field.parameter_groups().items()} == {"grid": 2}


@pytest.fixture(scope="module")
def kept(tmp_path_factory) -> Path:
    """A scene of two finished runs, the first of them there twice."""
    from conftest import small

    home = tmp_path_factory.mktemp("scene")
    for name, strength in (("apple", 0.9), ("plum", 1.1)):
        config = replace(small(), prompt=f"{name}s", output=replace(small().output, samples=12))
        run = start(config, CPU)
        run.step = config.steps
        with torch.no_grad():
            for parameter in run.scene.field.parameters():  # pyright: ignore
                parameter.mul_(strength)
        folder = RunFolder.create(home / "runs" / name, to_json(run.config))
        checkpoint.save(run, folder.checkpoint)
        generate.export_mesh(run, [folder.mesh], COARSE)
    assets = [
        {"file": "runs/apple", "name": "an apple", "position": [-0.6, 0, 0], "rotation": [0, 30, 0], "scale": 0.8},
        {"file": "runs/plum", "name": "a plum", "position": [0.3, 0, 0.1], "scale": 0.5, "motion": {"kind": "spin"}},
        {"file": "runs/apple", "name": "an apple", "position": [0.9, 0.1, 0], "height": 0.4},
    ]
    (home / "scene.json").write_text(json.dumps({"title": "a plum between two apples", "assets": assets}))
    return home


@pytest.fixture
def home(kept: Path, tmp_path: Path) -> Path:
    return shutil.copytree(kept, tmp_path / "scene")


def with_(prior: Prior) -> generate.OpenParts:
    """Parts of runs with this prior."""
    return lambda config, device: (prior, prompt_table(config, prior))


def steps_of(job: generate.Job, until: int) -> list[dict[str, object]]:
    found = list[dict[str, object]]()
    with closing(stepping.train(job, lambda doing: None)) as steps:
        for metrics in steps:
            found.append(metrics.record())
            if metrics.step == until:
                break
    return found


def test_it_begins_as_the_scene_that_was_laid_out(home, disc_prior):
    job = joint.open_stage(home, 6, "cpu", with_(disc_prior))
    assert job.run.config.prompt == "a plum between two apples"
    field, first = job.run.scene.field, generate.open_run(home / "runs" / "plum", "cpu")[1].scene.field
    assert isinstance(field, JointField)
    assert isinstance(first, GridField)
    assert field.thing_of == (0, 1, 0)
    assert all(torch.equal(tensor, first.state_dict()[name]) for name, tensor in field.things[1].state_dict().items())
    # The density of a place is the sum of what each run has where that place is in its mesh's file.
    low, high = trimesh.load_scene(compose.write(compose.read(home / "scene.json"), home / "laid")[0]).bounds
    unit = 2 * joint.FILL / np.linalg.norm(high - low)
    place = low + (high - low) * np.random.default_rng(0).random((2000, 3))
    laid, expected = joint.read(home / "scene.json"), torch.zeros(2000)
    for placed in laid.placed:
        ball = np.array(laid.files[placed.file].tree["asset"]["extras"]["ball"])
        in_file = Rotation.from_quat(placed.rotation).inv().apply(place - placed.translation) / placed.scale
        own = tensor((in_file - ball[:3]) / ball[3])
        thing = generate.open_run(laid.runs[placed.file], "cpu")[1].scene.field
        density = thing.density(isotropic(own, 0.0)) / (unit * placed.scale * ball[3])
        expected += torch.where(own.norm(dim=-1) <= 1, density, 0.0)
    found = field.density(isotropic(tensor((place - (low + high) / 2) * unit), 0.0))
    assert torch.isclose(found, expected, rtol=0.01, atol=1e-3).float().mean() > 0.995  # but at the rims of balls
    assert expected.max() > 50 * expected.median()


def tensor(values: np.ndarray) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def test_it_learns_and_goes_on_bit_for_bit(home, disc_prior):
    whole = joint.open_stage(home, 6, "cpu", with_(disc_prior))
    told = steps_of(whole, 6)
    after = {name: tensor.clone() for name, tensor in whole.run.scene.state_dict().items()}
    shutil.rmtree(joint.folder_of(home).path)
    first = steps_of(joint.open_stage(home, 6, "cpu", with_(disc_prior)), 3)
    resumed = joint.open_stage(home, 6, "cpu", with_(disc_prior))
    assert resumed.run.step == 3
    assert first + steps_of(resumed, 6) == told
    assert [name for name, old in after.items() if not torch.equal(old, resumed.run.scene.state_dict()[name])] == []
    with pytest.raises(UserError, match="holds a joint stage of 6 steps of this scene as it was then"):
        joint.open_stage(home, 7, "cpu", with_(disc_prior))
    content = json.loads((home / "scene.json").read_text())
    content["assets"][0]["position"] = [-0.7, 0, 0]
    (home / "scene.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="delete it to begin anew"):
        joint.open_stage(home, 6, "cpu", with_(disc_prior))


def test_things_go_back_to_where_they_were(home, disc_prior, monkeypatch):
    monkeypatch.setattr(generate, "own_mesh_options", lambda config: replace(COARSE, resolution=16))
    monkeypatch.setattr(generate, "write_video", lambda *_: [])
    job = joint.open_stage(home, 2, "cpu", with_(disc_prior))
    steps_of(job, 2)
    runs = {path: path.read_bytes() for path in (home / "runs").rglob("*") if path.is_file()}
    files = joint.write(job, home)
    assert {path: path.read_bytes() for path in runs} == runs
    assert [path.name for path in files[-2:]] == ["scene.glb", "index.html"]
    assert "a plum between two apples" in files[-1].read_text(encoding="utf-8")
    assert "{'steps': 2, 'prompt': 'a plum between two apples'}" in str(read_glb(files[-4]).tree)
    assert "then 2 of all together" in files[-1].read_text(encoding="utf-8")
    before, after = (compose.read(place / "scene.json") for place in (home, joint.folder_of(home).path))
    assert [asset.motion for asset in after.assets] == [asset.motion for asset in before.assets]
    # The meshes are others, but the balls of their fields are where they were.
    assert np.allclose(balls(before), balls(after), atol=2e-5)
    assert after.assets[0].scale != before.assets[0].scale


def test_the_command_stops_when_it_is_asked_to_and_goes_on(home, disc_prior, monkeypatch, capsys):
    monkeypatch.setattr(joint, "write", lambda job, home, say: [home / "scene.json"])
    monkeypatch.setattr(generate, "open_parts", lambda config, device, *more: with_(disc_prior)(config, device))
    monkeypatch.setattr(make, "require_sentences", lambda reader: None)  # of the prior that made the things
    show = ProgressLine.show

    def interrupted(line: ProgressLine, metrics: Metrics) -> None:
        show(line, metrics)
        if metrics.step == 1:
            signal.raise_signal(signal.SIGINT)

    given = ["scene", "a frog beside two apples", "--out", str(home), "--joint", "2"]
    with monkeypatch.context() as patch:
        patch.setattr(ProgressLine, "show", interrupted)
        assert cli.run(given) == INTERRUPTED
    assert checkpoint.step_of(joint.folder_of(home).checkpoint) == 1
    assert "the same command goes on" in capsys.readouterr().err
    assert cli.run(given) == 0
    assert str(home / "scene.json") in capsys.readouterr().out
    assert checkpoint.step_of(joint.folder_of(home).checkpoint) == 2


def test_the_studio_s_worker_stops_when_it_is_asked_to_and_goes_on(home, disc_prior, monkeypatch):
    monkeypatch.setattr(joint, "write", lambda job, home, say: say("meshes"))
    monkeypatch.setattr(worker, "_kept_prior", lambda: with_(disc_prior))
    job = {"do": "scene", "folder": str(home), "device": "cpu", "share": 1, "config": {"joint": 3}}

    def done(stopped: Callable[[], bool]) -> tuple[dict[str, object], list[dict[str, object]]]:
        with (home / "said").open("wb") as lines:
            end = worker.JOBS["scene"](job, worker.Voice(lines), stopped)
        return end, [json.loads(line) for line in (home / "said").read_bytes().splitlines()]

    end, said = done(lambda: True)
    assert (end, checkpoint.step_of(joint.folder_of(home).checkpoint)) == ({"end": "stopped"}, 1)
    assert {"step": 0, "steps": 3} in said
    assert {"doing": "meshes"} not in said
    end, said = done(lambda: False)
    assert (end, said[-1]) == ({"end": "done"}, {"doing": "meshes"})
    assert [line["step"] for line in said if "steps" in line or "rate" in line] == [1, 2, 3]
    scene = Task("1", home.name, kind="scene")
    assert [each["step"] for each in scan.log_of(home.parent, scene).read_metrics()] == [1, 2, 3]


def balls(composition: compose.Composition) -> list[np.ndarray]:
    _, files, placed = compose.parts_of(composition)
    found = [np.array(files[each.file].tree["asset"]["extras"]["ball"]) for each in placed]
    return [
        np.append(
            each.translation + Rotation.from_quat(each.rotation).apply(each.scale * ball[:3]), each.scale * ball[3]
        )
        for each, ball in zip(placed, found, strict=True)
    ]


@dataclass(frozen=True, eq=False)
class Truth:
    """A perfect prior: in any noisy picture it sees the rendering of a scene, from the camera that it is told."""

    scene: Scene
    image_size: int = 16
    schedule = cosine_schedule(dtype=torch.float32)
    name = "truth"
    view_words = ViewWords()
    conditions = frozenset({"pose", "background"})
    vocabulary = None

    def embed(self, prompts: Sequence[str]) -> Tensor:
        return torch.zeros(len(prompts), 1, 1)

    def encode(self, image: Tensor) -> Tensor:
        return 2 * image.permute(0, 3, 1, 2) - 1

    def predict_noise(self, noisy: Tensor, t: Tensor, text: Tensor, known: ViewCondition) -> Tensor:
        assert known.pose is not None
        fov = torch.full((len(noisy),), math.radians(40))
        cameras = Cameras(known.pose, fov, self.image_size, self.image_size)
        seen = render_views(self.scene, cameras, albedo_only(len(noisy)), LOOK, known.background).rgb
        return self.schedule.eps_from_x0(self.encode(seen), noisy, t)


def test_a_perfect_prior_brings_the_whole_scene_nearer_to_the_truth(home):
    """Grey things of one size become red and blue ones of others; only whole pictures tell them apart."""
    cameras = turntable(6, 0.4, 3.0, math.radians(40), 16)
    laid = joint.read(home / "scene.json")
    told = generate.config_of(laid.runs[0])
    told = replace(told, light=replace(told.light, shaded=0.0), optimise=replace(told.optimise, grid=0.2))
    config = joint.stage_config(told, laid, 15)
    field = config.scene.field
    assert isinstance(field, JointFieldConfig)
    things = JointField([Ball(0.35, (0.9, 0.1, 0.1)), Ball(0.5, (0.1, 0.2, 0.9))], field.places, 1.0)
    empty = start(told, CPU).scene
    truth = Scene(things, empty.background, empty.occupancy, 1.0)
    truth.occupancy.density.fill_(torch.inf)
    truth.occupancy.update(things, Generator().manual_seed(0))
    prior = Truth(truth)
    run = joint.joint_run(config, [generate.open_run(path, "cpu")[1].scene for path in laid.runs])

    def error() -> float:
        ours, true = (
            render_views(each, cameras, albedo_only(6), LOOK, torch.ones(6, 3)) for each in (run.scene, truth)
        )
        return (ours.rgb - true.rgb).square().mean().item()

    before = error()
    for _ in optimise(run, prior, prompt_table(config, prior), 15):
        pass
    assert error() < 0.6 * before


def test_the_embedded_prior_knows_no_sentences(tmp_path, capsys):
    given = ["scene", "a frog on a table", "--joint", "5", "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit) as left:
        cli.main(given)
    assert left.value.code == 2
    assert "knows single things, no sentences" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        (lambda home: by_file(home), "is no run's: a joint stage needs the runs"),
        (lambda home: (home / "runs" / "plum" / "mesh.glb").write_bytes(plain_mesh()), "does not say where it was"),
        (lambda home: unlike(home / "runs" / "plum"), "have unlike fields or priors"),
        (lambda home: unfinished(home / "runs" / "plum"), "is not finished"),
    ],
)
def test_what_does_not_go_together_is_refused(home, disc_prior, change: Callable[[Path], object], wrong: str):
    change(home)
    with pytest.raises(UserError, match=wrong):
        joint.open_stage(home, 6, "cpu", with_(disc_prior))
    assert not joint.folder_of(home).path.exists()


def plain_mesh() -> bytes:
    return glb_bytes(mesh_of(Manifold.cube((1, 1, 1))), {})


def by_file(home: Path) -> None:
    (home / "a.glb").write_bytes(plain_mesh())
    (home / "scene.json").write_text(json.dumps({"assets": [{"file": "a.glb"}]}))


def resaved(path: Path, change: Callable[[Config], Config], step: int) -> None:
    config = change(generate.config_of(path))
    run = start(config, CPU)
    run.step = step
    checkpoint.save(run, RunFolder(path).checkpoint)
    RunFolder(path).config.write_text(json.dumps(to_json(config)))


def unlike(path: Path) -> None:
    resaved(path, lambda told: replace(told, scene=replace(told.scene, radius=1.2)), 12)


def unfinished(path: Path) -> None:
    resaved(path, lambda told: told, 7)


def test_its_configuration_is_a_file_but_no_run_begins_with_it(home, tmp_path):
    laid = joint.read(home / "scene.json")
    config = joint.stage_config(generate.config_of(laid.runs[0]), laid, 6)
    validate(config)
    assert from_json(Config, json.loads(json.dumps(to_json(config)))) == config
    with pytest.raises(UserError, match="begins with the things of a scene"):
        generate.create_run(config, tmp_path / "new")
    field = config.scene.field
    assert isinstance(field, JointFieldConfig)
    with pytest.raises(UserError, match="must name every one of its things"):
        validate(replace(config, scene=replace(config.scene, field=replace(field, things=3))))
