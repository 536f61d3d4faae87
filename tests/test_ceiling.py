"""The perfect prior (`benchmarks/oracle.py`) and the measures of fidelity, on a ball, which is known."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

import ceiling
from dreamfusion.config import LearnedBackground
from dreamfusion.config.presets import FAST, PAPER
from dreamfusion.diffusion.priors import Prior, ViewCondition
from dreamfusion.embedded.world import COLOURS
from dreamfusion.errors import UserError
from dreamfusion.evaluate import evaluation_views as views
from dreamfusion.evaluate.evaluation_views import evaluation_views
from dreamfusion.evaluate.fidelity import compared, nothing_like
from dreamfusion.evaluate.suites import suite
from dreamfusion.evaluate.truth import open_truths
from dreamfusion.lights import Light
from dreamfusion.loop import optimise, prompt_table, start
from dreamfusion.mesh import Mesh
from dreamfusion.nerf.rays import cast
from dreamfusion.nerf.render import RenderOptions
from mesh_scenes import scene_of
from oracle import Thing, meant_row, oracle, thing_of, understood
from training.meshes import MeshRenderer, load
from training.nouns import learned, nouns
from training.prior.views import random_cameras

RADIUS = 0.95
COLOUR = (0.8, 0.3, 0.2)
LOOK = RenderOptions(samples=64)


@pytest.fixture(scope="module")
def renderer(tmp_path_factory) -> MeshRenderer:
    ball = trimesh.creation.icosphere(subdivisions=4)
    paint = trimesh.visual.material.PBRMaterial(baseColorFactor=(*(linear(c) for c in COLOUR), 1.0))
    ball.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(ball.vertices), 2)), material=paint)
    path = tmp_path_factory.mktemp("ball") / "ball.glb"
    path.write_bytes(trimesh.Scene(ball).export(file_type="glb"))
    return MeshRenderer(load(path))


def true_views(renderer: MeshRenderer, size: int = views.SIZE):
    return Thing(renderer).views(views.cameras(1.0, size))


def linear(srgb: float) -> float:
    return ((srgb + 0.055) / 1.055) ** 2.4


def ball_scene(radius: float, albedo=COLOUR, sharpness: float = 150.0):
    """Nearly opaque; a soft flank is one that normals can be taken of, a sharp one is where it should be."""
    return scene_of(
        lambda x: 60 * torch.sigmoid(sharpness * (radius - x.norm(dim=-1))), lambda x: torch.tensor(albedo).expand_as(x)
    )


def closed_form(cameras, light: Light, background) -> tuple[torch.Tensor, torch.Tensor]:
    """The ball's picture at pixel centres, and the pixels that are far from its outline."""
    rays = cast(cameras)
    middle = -(rays.origin * rays.direction).sum(-1)
    miss = (rays.origin + middle[:, None] * rays.direction).norm(dim=-1)
    half = (RADIUS**2 - miss.square()).clamp(min=0).sqrt()
    normal = (rays.origin + (middle - half)[:, None] * rays.direction) / RADIUS
    view = torch.arange(len(cameras)).repeat_interleave(cameras.height * cameras.width)
    toward = torch.nn.functional.normalize(light.position, dim=-1)[view]
    amount = light.ambient[view] + light.diffuse[view] * (normal * toward).sum(-1).clamp(min=0)
    albedo = torch.where(light.textureless[view, None], torch.ones(3), torch.tensor(COLOUR))
    picture = torch.where((miss < RADIUS)[:, None], albedo * amount[:, None], background[view])
    shape = (len(cameras), cameras.height, cameras.width)
    return picture.view(*shape, 3), ((miss - RADIUS).abs() > 0.08).view(shape)


def test_what_the_oracle_sees_in_noise_is_the_rendering(renderer):
    config = replace(FAST, size=48)
    prior = oracle(Thing(renderer), config)
    generator = torch.Generator().manual_seed(0)
    cameras = random_cameras(3, generator).resized(48)
    light = Light(
        2 * cameras.position + torch.tensor([1.0, 2.0, 0.0]), torch.full((3,), 0.3), torch.full((3,), 0.7),
        torch.tensor([False, True, False]),
    )  # fmt: skip
    background = torch.rand(3, 3, generator=generator)
    expected, inside = closed_form(cameras, light, background)
    noisy, t = torch.randn(6, 3, 48, 48, generator=generator), torch.tensor([20, 500, 980] * 2)
    known = ViewCondition(cameras.pose, background, light).repeated(2)  # as guidance asks
    eps = prior.predict_noise(noisy, t, prior.embed([""] * 6), known)
    x0 = prior.schedule.x0_from_eps(eps, noisy, t)
    picture = (x0.permute(0, 2, 3, 1) + 1) / 2
    assert torch.allclose(picture[:3], picture[3:], atol=2e-3)  # float32 at t = 980
    error = (picture[:3] - expected).abs().amax(-1)
    assert error[inside].max() < 0.03  # bytes, facets
    assert error[inside].mean() < 0.006


def test_it_is_a_prior(renderer):
    assert isinstance(oracle(Thing(renderer), FAST), Prior)


def test_another_colour_is_the_words(renderer):
    maps = Thing(renderer, "blue").maps(random_cameras(2, torch.Generator().manual_seed(0)))
    middle = maps.albedo[:, 32, 32]
    assert torch.allclose(middle, torch.tensor(COLOURS["blue"]).expand_as(middle), atol=0.03)


@pytest.mark.parametrize("radius", [0.95, 0.6])
def test_outline_and_colour_errors_of_a_smaller_ball(renderer, radius):
    """Discs about one middle: the overlap is the ratio of their areas, the error that of colour and backdrop."""
    albedo = (0.6, 0.3, 0.4)
    scene = ball_scene(radius, albedo, sharpness=2000.0)
    found = compared(evaluation_views(scene, LOOK, size=64), true_views(renderer, 64))
    distance = 1 / math.sin(views.FOV_Y / 2)
    area = [r**2 / (distance**2 - r**2) for r in (radius, RADIUS)]
    share = area[0] / area[1]
    assert found.silhouette_iou == pytest.approx(share, abs=0.02)
    within = np.square(np.subtract(albedo, COLOUR)).mean()
    beside = np.square(np.subtract(views.BACKDROP, COLOUR)).mean()
    assert found.object_psnr_db == pytest.approx(-10 * math.log10(share * within + (1 - share) * beside), abs=0.3)


def test_normals_of_a_ball_agree(renderer):
    seen = evaluation_views(ball_scene(RADIUS), LOOK, size=64)
    assert compared(seen, true_views(renderer, 64)).normal_error_deg < 5


def test_a_finished_mesh_is_seen_as_it_is(renderer):
    """Its colours by its texture: the upper half of a ball is blue, though the triangles are in any order."""
    ball = trimesh.creation.icosphere(subdivisions=4, radius=RADIUS)
    height = ball.vertices[ball.faces][..., 1]
    uv = np.stack([np.full_like(height, 0.5), np.clip(0.5 + height, 0.01, 0.99)], axis=-1).astype(np.float32)
    texture = np.zeros((64, 64, 3), dtype=np.uint8)
    texture[:32], texture[32:] = (0, 0, 255), np.round(np.multiply(COLOUR, 255))
    mesh = Mesh(ball.vertices.astype(np.float32), ball.faces, uv=uv, texture=texture)
    seen = thing_of(mesh).views(views.cameras(1.0))
    found = compared(seen, true_views(renderer))
    assert found.silhouette_iou > 0.99
    assert found.normal_error_deg < 1
    assert torch.allclose(seen.pictures[0, :, 20, 64], torch.tensor([0.0, 0.0, 1.0]), atol=0.01)
    assert torch.allclose(seen.pictures[0, :, 110, 64], torch.tensor(COLOUR), atol=0.01)


def test_the_same_is_perfect_and_tilted_normals_are_counted():
    true = evaluation_views(ball_scene(0.8), LOOK, size=32)
    same = compared(true, true)
    assert (same.object_psnr_db, same.silhouette_iou) == (100.0, 1.0)
    assert same.normal_error_deg < 0.1  # acos near 1 in float32
    flat = torch.tensor([0.0, 0.0, 1.0]).expand_as(true.normal)
    tilted = torch.tensor([0.0, 0.5, math.sqrt(0.75)]).expand_as(true.normal)
    one, other = (replace(true, normal=normal) for normal in (flat, tilted))
    assert compared(one, other).normal_error_deg == pytest.approx(30, abs=0.01)
    nothing = compared(nothing_like(true), true)
    assert (nothing.silhouette_iou, nothing.normal_error_deg) == (0, 90)
    inside = (true.opacity > 0.5)[..., None]
    error = ((true.pictures[0] - views.BACKDROP).square() * inside).sum((1, 2, 3)) / (3 * inside.sum((1, 2, 3)))
    assert nothing.object_psnr_db == pytest.approx(float(-10 * error.log10().mean()), abs=1e-3)


def test_a_run_that_cannot_tell_it_all_is_refused(renderer):
    thing = Thing(renderer)
    with pytest.raises(UserError, match="fov-deg"):
        oracle(thing, replace(PAPER, conditions="all"))
    with pytest.raises(UserError, match="conditions all"):
        oracle(thing, replace(FAST, conditions="no-camera"))
    with pytest.raises(UserError, match="background random"):
        oracle(thing, replace(FAST, scene=replace(FAST.scene, background=LearnedBackground())))


def test_a_noun_and_a_number_mean_a_mesh_that_was_learned():
    table = learned(nouns())
    chairs = [row.file for row in table if row.noun == "chair"]
    assert len(chairs) > 1
    found = [table[meant_row(table, "chair", number)].file for number in range(24)]
    assert set(found) == set(chairs[:12])
    assert found[:12] == found[12:]
    with pytest.raises(UserError, match="no mesh"):
        meant_row(table, "cathedral of glass", 0)
    assert understood("a red chair", 3) == ("red", meant_row(table, "chair", 3))
    assert understood("an apple", 0) == (None, meant_row(table, "apple", 0))


def test_a_short_run_under_it_grows_towards_the_ball(renderer):
    config = replace(FAST, prompt="a ball", steps=40)
    thing, run = Thing(renderer), start(config, torch.device("cpu"))
    prior, true = oracle(thing, config), true_views(renderer, 32)
    before = compared(evaluation_views(run.scene, run.recipe.train_render, size=32), true)
    for _ in optimise(run, prior, prompt_table(config, prior), config.steps):
        pass
    after = compared(evaluation_views(run.scene, run.recipe.train_render, size=32), true)
    assert before.silhouette_iou < 0.1
    assert after.silhouette_iou > before.silhouette_iou + 0.05
    assert after.object_psnr_db > before.object_psnr_db + 0.5


def test_a_suite_is_measured_once_into_a_folder(renderer, tmp_path, monkeypatch):
    """The command, short: what is in the folder is what `dreamfusion evaluate --truth` takes, and is not done again."""
    monkeypatch.setattr(ceiling, "meant", lambda prompt, seed, assets: Thing(renderer))
    monkeypatch.setattr(ceiling, "configure_torch", lambda *_, **__: None)
    options = ["--suite", "plain", "--first", "1", "--folder", str(tmp_path), "--", "--steps", "2", "--size", "16"]
    monkeypatch.setattr(sys, "argv", ["ceiling.py", "--assets", "nowhere", *options])
    ceiling.main()
    truths = open_truths(tmp_path)
    prompt = suite("plain")[0]
    assert float(truths.true(prompt).opacity.mean() - true_views(renderer).opacity.mean()) == pytest.approx(0, abs=0.01)
    assert truths.made(prompt).shape == (3, views.VIEWS, views.SIZE, views.SIZE, 3)
    assert truths.reached[prompt].silhouette_iou < 0.5
    monkeypatch.setattr(ceiling, "meant", lambda *_: pytest.fail("it is there"))
    ceiling.main()
    monkeypatch.setattr(sys, "argv", [*sys.argv[:-3], "3", *sys.argv[-2:]])
    with pytest.raises(SystemExit, match="other OPTIONS"):
        ceiling.main()
