"""The embedded prior: its pictures tell the truth, its training resumes exactly, its folder opens as any other."""

import json
import math
import signal
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import trimesh
from torch import Generator

from dreamfusion import runtime
from dreamfusion.cameras import orbit
from dreamfusion.diffusion.ddim import caption_conditioning, ddim
from dreamfusion.diffusion.priors import ViewCondition, open_prior
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.embedded import world
from dreamfusion.errors import UserError
from dreamfusion.lights import Light
from dreamfusion.nerf.rays import cast
from gaussian_prior import GaussianPrior, cosine_schedule
from miniatures import TABLES
from training import __main__ as cli
from training import views
from training.meshes import BALL, MeshRenderer, barycentric, load, main_colour
from training.nouns import Assets, Noun, holdout_rule, names, nouns
from training.prior import data as dataset
from training.prior import error, nothing, train
from training.prior import views as prior_views
from training.prior.train import TrainOptions
from training.prior.views import random_cameras


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def ball(tmp_path_factory):
    """A smooth ball whose upper half is linear 0.5 red and lower half green, saved as a .glb, loaded by our reader."""
    sphere = trimesh.creation.icosphere(subdivisions=4)
    upper = sphere.triangles_center[:, 1] > 0
    scene = trimesh.Scene()
    for mask, factor in ((upper, (0.5, 0.0, 0.0, 1.0)), (~upper, (0.0, 0.5, 0.0, 1.0))):
        part = sphere.submesh([mask], append=True)
        part.visual = trimesh.visual.TextureVisuals(
            material=trimesh.visual.material.PBRMaterial(baseColorFactor=factor)
        )
        scene.add_geometry(part)
    path = tmp_path_factory.mktemp("meshes") / "ball.glb"
    scene.export(path)
    return load(path)


def test_barycentric_weights_give_the_point_back():
    rng = np.random.default_rng(0)
    corners, weights = rng.normal(size=(50, 3, 3)), rng.dirichlet((1, 1, 1), size=50)
    points = np.einsum("nk,nkd->nd", weights, corners)
    assert np.allclose(barycentric(corners, points), weights, atol=1e-9)


def test_a_ball_is_seen_as_a_disc_of_the_right_size_with_radial_normals(ball):
    camera = orbit(torch.tensor([0.7]), torch.tensor([0.3]), torch.tensor([3.0]), torch.tensor([math.radians(40)]), 128)
    rays = cast(camera)
    seen = MeshRenderer(ball).buffers(rays.origin.double().numpy(), rays.direction.double().numpy(), 64, 2)
    # A ball of radius r at distance d fills a disc of tangent radius r / sqrt(d^2 - r^2) of the picture's half height.
    radius = BALL / math.sqrt(9 - BALL**2) / math.tan(math.radians(20)) * 32
    assert seen.alpha.sum() / 255 == pytest.approx(math.pi * radius**2, rel=0.01)
    centre = seen.normal[31:33, 31:33].mean((0, 1)) / 127 - 1
    assert np.allclose(centre, camera.position[0].numpy() / 3, atol=0.05)


def test_linear_base_colours_become_srgb_and_sides_stay_where_they_are(ball):
    camera = orbit(torch.tensor([0.0]), torch.tensor([0.0]), torch.tensor([3.0]), torch.tensor([math.radians(40)]), 128)
    rays = cast(camera)
    seen = MeshRenderer(ball).buffers(rays.origin.double().numpy(), rays.direction.double().numpy(), 64, 2)
    albedo = (seen.paint.astype(int) + seen.rest)[:, 32]
    assert albedo[16].tolist() == pytest.approx([188, 0, 0], abs=2)  # linear 0.5 is 0.735 in sRGB
    assert albedo[48].tolist() == pytest.approx([0, 188, 0], abs=2)


def test_yaw_turns_the_object_about_the_vertical(tmp_path):
    trimesh.Trimesh([[0, 0, 0], [1, 0, 0], [0, 0.1, 0]], [[0, 1, 2]]).export(tmp_path / "t.glb")
    straight, turned = load(tmp_path / "t.glb").triangles[0], load(tmp_path / "t.glb", yaw_deg=90.0).triangles[0]
    assert np.allclose(turned[1] - turned[0], [0, 0, -(straight[1] - straight[0])[0]], atol=1e-9)


def test_the_main_colour_is_the_paint_not_the_wheels():
    colour = np.array([[0.8, 0.1, 0.1], [0.78, 0.12, 0.1], [0.3, 0.3, 0.3]])
    assert main_colour(colour, np.array([40.0, 10.0, 70.0])).tolist() == [True, True, False]


def test_three_lights_give_their_closed_forms():
    albedo, alpha = torch.tensor([0.2, 0.4, 0.6]).expand(3, 1, 1, 3), torch.ones(3, 1, 1, 1)
    normal = torch.tensor([0.0, 1.0, 0.0]).expand(3, 1, 1, 3)
    ambient, diffuse = torch.tensor([1.0, 0.3, 0.3]), torch.tensor([0.0, 0.7, 0.7])
    position = torch.tensor([[0.0, 5.0, 0.0], [0.0, 3.0, 4.0], [0.0, -1.0, 0.0]])
    image = dataset.shade(albedo, normal, alpha, Light(position, ambient, diffuse, torch.tensor([False, False, True])))
    expected = torch.stack([albedo[0, 0, 0], albedo[0, 0, 0] * (0.3 + 0.7 * 0.6), torch.full((3,), 0.3)])
    assert torch.allclose(image[:, 0, 0], expected, atol=1e-6)


def test_every_variety_of_a_noun_means_one_of_its_meshes_and_every_mesh_is_meant():
    rows = [Noun("apple", f"{i}.glb", 0.0) for i in range(3)] + [Noun("tree", f"t{i}.glb", 0.0) for i in range(6)]
    many = [Noun("car", f"c{i}.glb", 0.0) for i in range(14)]
    assert dataset.meant_by([Noun("box", "box.glb", 0.0)]) == [list(range(12))]
    assert dataset.meant_by(rows)[:3] == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    assert dataset.meant_by(rows)[3:] == [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]]
    assert dataset.meant_by(many) == [[i % 12] for i in range(14)]


def test_captions_name_the_side_that_the_prompt_table_would_name():
    poses = random_cameras(500, generator()).pose
    cameras = orbit(*(torch.zeros(1) for _ in range(2)), torch.ones(1), torch.ones(1), 8)
    words = ViewWords("front", "left", "back", "right", "overhead", math.radians(dataset.OVERHEAD_ABOVE_DEG))
    cameras = type(cameras)(poses, torch.ones(500), 8, 8)
    chosen = words.weights(cameras.azimuth, cameras.elevation).argmax(1)
    assert [words.words[i] for i in chosen] == [dataset.side(pose[:3, 3]) for pose in poses]


def test_held_out_pairs_are_a_seventh():
    table = nouns()
    pairs = [(colour, noun) for colour in world.COLOURS for noun in names(table)]
    assert 0.12 < sum(dataset.held_out(*pair) for pair in pairs) / len(pairs) < 0.18


def test_an_adjective_never_contradicts_a_colour():
    crown = Noun("crown", "crown.glb", 0.0, adjective="golden")
    chair = Noun("chair", "chair.glb", 0.0, adjective="wooden")
    assert dataset.described(crown, None, with_adjective=True) == "golden crown"
    assert dataset.described(crown, "blue", with_adjective=True) == "blue crown"
    assert dataset.described(chair, "blue", with_adjective=True) == "blue wooden chair"
    assert dataset.described(chair, None, with_adjective=False) == "chair"


def test_an_article_fits_its_noun():
    assert dataset.with_article("a photo of a {}", "orange pig") == "a photo of an orange pig"
    assert dataset.with_article("a {}", "pig") == "a pig"


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """Two meshes on disk; a third of the table below is not there."""
    folder = tmp_path_factory.mktemp("assets")
    (folder / "meshes").mkdir()
    for name, shape in (("ball", trimesh.creation.icosphere(subdivisions=2)), ("box", trimesh.creation.box())):
        shape.export(folder / "meshes" / f"{name}.glb")
    return Assets(folder, TABLE)


TABLE = [
    Noun("apple", "ball.glb", 0.0),
    Noun("apple", "kept.glb", 0.0, kept_from="prior"),
    Noun("chest", "box.glb", 90.0),
]
MANIFEST = """noun,file,yaw_deg,kept_from
apple,ball.glb,,
chest,box.glb,90,
apple,kept.glb,0,prior
"""


def test_the_table_is_clean_and_keeps_meshes_by_its_rule():
    table = nouns()
    assert len(names(table)) >= 200
    assert not set(names(table)) & {*world.COLOURS, *dataset.VIEW_WORDS.values()}
    assert len({row.file for row in table}) == len(table)
    assert {row.yaw_deg for row in table} <= {-90.0, 0.0, 90.0, 180.0}
    for noun in names(table):
        rows = [row for row in table if row.noun == noun]
        kept = {row.file: row.kept_from for row in rows if row.kept_from}
        assert kept == holdout_rule([row.file for row in rows])
    adjectives = Counter(row.adjective for row in table if row.adjective)
    assert min(adjectives.values()) >= 5
    assert set(dataset.COLOURED) <= set(adjectives)
    known = set(dataset.vocabulary(nouns()))
    assert all({*row.noun.split(), *row.adjective.split()} <= known for row in table)


def in_this_process(mp_context):
    """In place of processes, each of which would import torch for seconds."""
    return ThreadPoolExecutor(1)


@pytest.fixture
def few_views(monkeypatch):
    """Six views to learn from and two to measure by, rendered here."""
    for module in (prior_views, train, error):
        monkeypatch.setattr(module, "LEARNED", 6)
    for module in (prior_views, error):
        monkeypatch.setattr(module, "UNSEEN", 2)
    monkeypatch.setattr(views, "ProcessPoolExecutor", in_this_process)


@pytest.mark.usefixtures("few_views")
def test_a_rendering_goes_on_where_it_stopped_and_never_opens_what_is_kept_from_the_prior(assets, tmp_path):
    prior_views.build(assets, tmp_path / "whole", str)

    def leave(line: str):
        raise KeyboardInterrupt(line)

    with pytest.raises(KeyboardInterrupt, match="ball"):
        prior_views.build(assets, tmp_path, leave)
    prior_views.file_of(tmp_path, 1).unlink(missing_ok=True)  # it may have been finished
    rendered: list[str] = []
    prior_views.build(assets, tmp_path, rendered.append)
    assert rendered == ["rendered box.glb (2/2)"]
    for mesh in (0, 1):
        whole, again = (prior_views.open_mesh(work, mesh) for work in (tmp_path / "whole", tmp_path))
        assert np.array_equal(whole.cells, again.cells)
        assert len(again.first) == 9
    with pytest.raises(UserError, match="another manifest"):
        prior_views.build(replace(assets, table=TABLE[:1]), tmp_path, str)
    prior_views.file_of(tmp_path, 0).write_bytes(b"nothing")
    with pytest.raises(UserError, match="damaged"):
        prior_views.open_mesh(tmp_path, 0)


@pytest.mark.usefixtures("few_views")
def test_prior_train_goes_from_an_empty_folder_to_a_prior_that_opens_and_can_be_stopped(
    assets, tmp_path, monkeypatch, capsys
):
    """The whole command on two meshes; Ctrl-C after the third step, then the same command again."""
    (tmp_path / "manifest.csv").write_text(MANIFEST)
    monkeypatch.setattr(runtime, "configure_torch", lambda *_, **__: None)  # it would change torch for all other tests
    monkeypatch.setattr(train, "TrainOptions", partial(TrainOptions, measure_every=4, views=2, measured_views=1))
    monkeypatch.setattr(train, "new_training", partial(train.new_training, shape=replace(TABLES, size=64)))
    monkeypatch.setattr(nothing, "STEPS", 2)
    real, steps = train.advance, []

    def advance_and_interrupt(*args):
        steps.append(real(*args))
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        return steps[-1]

    monkeypatch.setattr(train, "advance", advance_and_interrupt)
    work, out = tmp_path / "work", tmp_path / "prior"
    command = ["prior", "--assets", str(assets.folder), "--work", str(work), "--out", str(out)]
    command += ["--steps", "5", "--threads", "1", "--manifest", str(tmp_path / "manifest.csv")]
    with pytest.raises(UserError, match="--licence"):
        cli.run(command)
    command += ["--licence", "Of nobody."]
    assert cli.run(command) == cli.INTERRUPTED
    assert "stopped after step 3" in capsys.readouterr().out
    assert not out.exists()
    assert cli.run(command) == 0
    assert len(steps) == 5
    assert "going on at step 3" in capsys.readouterr().out
    assert json.loads((work / "errors.jsonl").read_text())["step"] == 4
    prior = open_prior(str(out))
    assert {"apple", "chest"} <= prior.vocabulary
    assert "hamburger" not in prior.vocabulary
    assert prior.card.name == "toybox-4"
    assert json.loads((out / "card.json").read_text())["licence"] == "Of nobody."


def test_missing_meshes_are_said_before_anything_is_rendered(tmp_path):
    with pytest.raises(UserError, match="--assets"):
        prior_views.build(Assets(tmp_path, nouns()), tmp_path, print)


def test_ddim_carries_noise_to_the_gaussian_it_stands_for():
    """For data N(mean, s^2) the probability flow takes z to mean + s z, whatever the guidance of equal captions."""
    mean = torch.full((3, 4, 4), 0.1)
    prior = GaussianPrior({"": mean}, 0.05, cosine_schedule(dtype=torch.float32), image_size=4)
    given = caption_conditioning(prior, ["a"] * 2, ViewCondition())
    start = torch.randn((2, 3, 4, 4), generator=generator(5))
    end = ddim(prior, given, 200, 1.0, generator(5))
    assert torch.allclose(end, mean + 0.05 * start, atol=0.02)


def test_a_manifest_needs_two_columns_and_its_rows_are_sorted_by_noun(tmp_path):
    file = tmp_path / "manifest.csv"
    file.write_text(MANIFEST)
    assert nouns(file) == TABLE


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no columns"),
        ("noun,name\nchair,chair.glb\n", "no columns"),
        ("noun,file\n", "no mesh"),
        ("noun,file\nchair,\n", "line 2: noun or file is empty"),
        ("noun,file\nChair!,c.glb\n", "line 2: .*lower-case"),
        ("noun,file,yaw_deg\nchair,c.glb,0\nsofa,s.glb,nan\n", "line 3: yaw_deg"),
        ("noun,file,front\nchair,c.glb,maybe\n", "line 2: front"),
        ("noun,file,kept_from\nchair,c.glb,me\n", "line 2: kept_from"),
        ("noun,file,kept_from\nchair,c.glb,prior\n", "no mesh"),
    ],
)
def test_a_manifest_that_is_none_is_refused_by_line(tmp_path, content, message):
    (tmp_path / "manifest.csv").write_text(content)
    with pytest.raises(UserError, match=message):
        nouns(tmp_path / "manifest.csv")
