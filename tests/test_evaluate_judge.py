"""The judge: its pictures tell the truth, its training resumes exactly, what ships knows what its card says."""

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from torch import Generator

from dreamfusion import runtime
from dreamfusion.embedded.world import COLOURS
from dreamfusion.errors import UserError
from dreamfusion.evaluate.judge.judge import WEIGHTS, considered, open_judge
from dreamfusion.evaluate.judge.network import CUT, REACH, SIZE, cut_out, new_network
from dreamfusion.evaluate.judge.sides import SIDES
from dreamfusion.evaluate.judge.summary import describe
from training import __main__ as cli
from training import views as rendering
from training.judge import real, train, views
from training.judge.accuracy import accuracy
from training.judge.pictures import CLEAN, TRAINING, UNPAINTED, balanced, draw, mixed, mixtures, repaint
from training.judge.train import TrainOptions, advance, new_training
from training.judge.views import Counts, Views, random_cameras, random_stretches, seen_side
from training.meshes import ColouredMesh, MeshRenderer
from training.nouns import Assets, nouns

GOLDEN = Path(__file__).parent / "golden"
FOLDER = Path(str(resources.files("dreamfusion.evaluate.judge").joinpath("weights")))


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def flat_views(count: int, paint: float = 0.5, nouns: int = 3) -> Views:
    """Squares that face the camera on +z, painted grey, in the middle half of the picture."""
    inside = torch.zeros(count, 1, SIZE, SIZE)
    inside[:, :, 16:48, 16:48] = 1
    normal = torch.tensor([127, 127, 254], dtype=torch.uint8)[:, None, None].expand(count, 3, SIZE, SIZE)
    grey = (inside.expand(-1, 3, -1, -1) * 255 * paint).byte()
    return Views(
        noun=torch.arange(count) % nouns,
        side=torch.arange(count) % len(SIDES),
        eye=torch.tensor([[0.0, 0.0, 3.0]]).expand(count, 3),
        paint=grey,
        rest=torch.zeros_like(grey),
        normal=normal,
        alpha=(inside * 255).byte(),
    )


# Its pictures


def test_cameras_keep_to_the_judges_world_and_see_the_whole_object():
    cameras = random_cameras(2000, generator())
    assert -15.1 < cameras.elevation.rad2deg().min() < -13
    assert 78 < cameras.elevation.rad2deg().max() < 80.1
    fov = cameras.fov_y.rad2deg()
    assert 30 <= fov.min() < 31
    assert 59 < fov.max() <= 60
    fills = cameras.position.norm(dim=1) * (0.5 * cameras.fov_y).sin()
    assert 0.94 < fills.min() < 0.96
    assert 1.39 < fills.max() < 1.41


def test_sides_are_named_as_in_the_priors_captions_and_only_where_there_is_a_front():
    eyes = {"front": (0, 0, 3), "left": (3, 0, 0), "back": (0, 0, -3), "right": (-3, 0, 0), "none": (0, 3, 0.1)}
    for side, eye in eyes.items():
        assert seen_side(torch.tensor(eye).float(), front=True) == side
        assert seen_side(torch.tensor(eye).float(), front=False) == "none"


def test_a_mirror_swaps_left_and_right():
    batch = draw(flat_views(150), CLEAN, generator())
    truth = torch.arange(150) % len(SIDES)
    left, right = SIDES.index("left"), SIDES.index("right")
    for side in range(len(SIDES)):
        found = set(batch.side[truth == side].tolist())
        assert found == ({left, right} if side in (left, right) else {side})


def test_paint_takes_the_named_colour_and_keeps_light_and_dark():
    paint = torch.full((1, 3, SIZE, SIZE), 0.4)
    paint[..., : SIZE // 2] = 0.2
    colours = torch.arange(len(COLOURS))
    new = repaint(paint.expand(len(COLOURS), -1, -1, -1), colours, generator())
    dark, light = new[..., 0, 0], new[..., 0, -1]
    named = torch.tensor(list(COLOURS.values()))
    assert torch.allclose((dark + light) / 2, named, atol=0.3)
    distance = torch.cdist((dark + light) / 2, named)
    assert (distance.argmin(1) == colours).float().mean() > 0.8
    assert (dark <= light + 1e-6).all()
    same = repaint(paint, torch.tensor([UNPAINTED]), generator())
    assert torch.equal(same, paint)


def test_stretched_objects_have_the_outline_and_the_normals_of_stretched_meshes():
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.9)
    stretched = ball.copy()
    factor = torch.tensor([[1.0, 0.5, 0.7]])
    stretched.apply_scale(factor[0].tolist())
    cameras = random_cameras(3, generator())
    seen = views.seen_by(cameras, renderer_of(ball), factor.expand(3, -1))
    wanted = views.seen_by(cameras, renderer_of(stretched), torch.ones(3, 3))
    assert np.abs(seen["alpha"].astype(int) - wanted["alpha"]).mean() < 1
    inside = (seen["alpha"] == 255) & (wanted["alpha"] == 255)
    assert inside.mean() > 0.05
    off = np.abs(seen["normal"].astype(int) - wanted["normal"]).max(1, keepdims=True)
    assert off[inside].max() < 16  # flat triangles, four rays a pixel
    plain = views.seen_by(cameras, renderer_of(ball), torch.ones(3, 3))
    assert np.abs(plain["alpha"].astype(int) - wanted["alpha"]).mean() > 5


def renderer_of(mesh):
    count = len(mesh.faces)
    grey = ColouredMesh(mesh.triangles, np.zeros((count, 3, 2)), np.zeros(count, int), (np.full((1, 1, 3), 0.5),))
    return MeshRenderer(grey)


def test_stretches_stay_within_the_ball_and_have_their_spread():
    stretch = random_stretches(4000, generator())
    assert stretch.max() == 1.0
    ratio = (stretch[:, 0] / stretch[:, 1]).log()
    assert ratio.std() == pytest.approx(0.15 * 2**0.5, rel=0.05)


def test_tinted_pictures_keep_their_shape_and_other_colours_change():
    mixture = mixtures(torch.tensor([True] * 500 + [False] * 500), generator())
    assert torch.equal(mixture[500:], torch.eye(3).expand(500, -1, -1))
    assert (mixture[:500] - torch.eye(3)).std() == pytest.approx(0.2, rel=0.05)
    assert mixed(torch.zeros(1, 3, 2, 2), mixture[:1]).abs().max() == 0  # nothing shines where nothing is
    views_ = flat_views(64)
    one, other = (
        draw(views_, replace(CLEAN, painted=0.0, textureless=0.0, flat=1.0, tinted=tinted), generator(2))
        for tinted in (0.0, 1.0)
    )
    assert (one.image[:, :, 16:48, 16:48] - other.image[:, :, 16:48, 16:48]).abs().amax((1, 2, 3)).min() > 0
    assert torch.equal(one.image[..., :16], other.image[..., :16])


def test_textureless_pictures_show_no_paint():
    """Two objects of different paint look the same, except for the rounding of their buffers."""
    look = replace(CLEAN, textureless=1.0)
    one, other = (draw(flat_views(8, paint), look, generator(3)) for paint in (0.2, 0.9))
    assert torch.allclose(one.image, other.image, atol=1e-6)
    assert (one.colour == UNPAINTED).all()


def test_a_flat_picture_shows_the_albedo():
    batch = draw(flat_views(16, 0.5), replace(CLEAN, flat=1.0, painted=0.0, textureless=0.0), generator())
    assert torch.allclose(batch.image[:, :, 32, 32], torch.full((16, 3), 127 / 255), atol=1e-6)


def test_every_noun_is_drawn_as_often_as_every_other():
    noun = torch.tensor([0] * 90 + [1] * 9 + [2])
    counts = torch.bincount(noun[balanced(noun, 30_000, generator())]) / 30_000
    assert torch.allclose(counts, torch.full((3,), 1 / 3), atol=0.02)


def test_pictures_are_in_range_and_repeat_with_the_seed():
    one, other = (draw(flat_views(32), TRAINING, generator(5)) for _ in range(2))
    assert torch.equal(one.image, other.image)
    assert one.image.min() >= 0
    assert one.image.max() <= 1
    assert {True, False} == set((one.colour == UNPAINTED).tolist())


# Its eye


def disc(x: float, y: float, radius: float, behind: float) -> torch.Tensor:
    """A picture of an orange disc, its left half darker; places and sizes as shares of the picture."""
    place = (torch.arange(SIZE * 4) + 0.5) / (SIZE * 4)
    inside = ((place[None] - x).square() + (place[:, None] - y).square()).sqrt() < radius
    shade_ = torch.where(place[None] < x, 0.5, 1.0)
    colour = torch.tensor([0.9, 0.5, 0.1])[:, None, None] * shade_
    return torch.nn.functional.avg_pool2d(torch.where(inside, colour, torch.tensor(behind)), 4)


def test_it_sees_the_same_wherever_and_however_large_a_thing_is_and_whatever_is_behind():
    pictures = [
        disc(0.5, 0.5, 0.3, 0.75),
        disc(0.62, 0.4, 0.3, 0.75),
        disc(0.5, 0.5, 0.2, 0.75),
        disc(0.5, 0.5, 0.3, 0.0),
    ]
    seen = cut_out(torch.stack(pictures))
    assert seen.shape == (4, 4, CUT, CUT)
    for other in seen[1:]:
        assert (seen[0] - other).abs().mean() < 0.06  # edges, in pixels of other sizes
    there = seen[0, 3]
    assert there.mean() == pytest.approx(torch.pi / 4 / (REACH * 0.5**0.5) ** 2, rel=0.1)  # of a disc in its square
    assert there[0].max() == 0
    middle = seen[0, :3, CUT // 2, CUT // 2 + 8]
    assert torch.allclose(middle, torch.tensor([0.9, 0.5, 0.1]) * 2 - 1, atol=0.02)


def test_a_picture_of_nothing_has_an_opinion_too():
    grey = torch.full((3, 3, SIZE, SIZE), 0.7)
    assert not cut_out(grey).any()
    assert new_network(5, 0).eval()(grey).noun.isfinite().all()


def test_it_says_of_a_mirror_image_the_same_with_left_and_right_swapped():
    network = new_network(5, 0).eval()
    pictures = torch.rand(3, 3, SIZE, SIZE, generator=generator())
    with torch.no_grad():
        plain, mirrored = considered(network, pictures), considered(network, pictures.flip(-1))
    left, right = SIDES.index("left"), SIDES.index("right")
    assert torch.allclose(plain.noun, mirrored.noun)
    assert torch.allclose(plain.side[:, [left, right]], mirrored.side[:, [right, left]])
    assert not torch.allclose(plain.side[:, left], plain.side[:, right])


def test_measuring_leaves_a_judge_as_it_was():
    network = new_network(3, 0).eval()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    accuracy(network, flat_views(6), 0.0, seed=1)
    assert not network.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in network.state_dict().items())
    assert accuracy(network.train(), flat_views(6), 0.0, seed=1).pictures == 6
    assert network.training


# Its training


def test_training_resumed_is_training_uninterrupted(tmp_path):
    options, pictures_ = TrainOptions(steps=6, batch=8), flat_views(12)
    with ThreadPoolExecutor(2) as threads:
        whole = new_training(3, options)
        losses = [advance(whole, pictures_, options, threads) for _ in range(4)]
        first = new_training(3, options)
        assert [advance(first, pictures_, options, threads) for _ in range(2)] == losses[:2]
        first.state.save(tmp_path)
        second = new_training(3, options)
        second.state.restore(tmp_path)
        assert second.state.step == 2
        assert [advance(second, pictures_, options, threads) for _ in range(2)] == losses[2:]
    tensors = second.state.tensors()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in whole.state.tensors().items())


def test_lanes_learn_what_one_network_would_from_all_pictures():
    """Same pictures in both lanes: the mean of the gradients is either's, and the copies stay equal."""
    options, data = TrainOptions(steps=6, batch=8), flat_views(12)
    one, two = new_training(3, replace(options, lanes=1, batch=4)), new_training(3, options)
    two.lanes[1].generator.manual_seed(options.seed)
    with ThreadPoolExecutor(2) as threads:
        for _ in range(3):
            advance(one, data, replace(options, lanes=1, batch=4), threads)
            advance(two, data, options, threads)
    for lane in two.lanes:
        for mine, other in zip(one.network.parameters(), lane.network.parameters(), strict=True):
            assert torch.allclose(mine, other, atol=1e-5)


def test_the_learning_rate_warms_up_and_ends_at_zero():
    options = TrainOptions(steps=1000, warm_up=0.1, learning_rate=1.0)
    rates = [train.learning_rate(step, options) for step in (0, 49, 100, 550, 1000)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.5, 0.0])


def in_this_process(mp_context):
    """In place of processes, each of which would import torch for seconds."""
    return ThreadPoolExecutor(1)


def test_judge_train_goes_from_an_empty_folder_to_a_judge_that_opens_and_can_be_stopped(tmp_path, monkeypatch, capsys):
    """The whole command on three meshes; Ctrl-C after the second step, then the same command again."""
    (tmp_path / "meshes").mkdir()
    shapes = {"ball": trimesh.creation.icosphere(subdivisions=2), "box": trimesh.creation.box()}
    shapes["long"] = trimesh.creation.box((1, 1, 3))
    for name, shape in shapes.items():
        shape.export(tmp_path / "meshes" / f"{name}.glb")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "noun,file,yaw_deg,front,kept_from\napple,ball.glb,0,no,\nchest,box.glb,90,yes,\nchest,long.glb,0,yes,judge\n"
    )
    table = nouns(manifest)
    monkeypatch.setattr(runtime, "configure_torch", lambda *_, **__: None)  # it would change torch for all other tests
    counts = Counts(of_noun=4, at_least=1, kept=2, kept_mesh=2)
    monkeypatch.setattr(train, "TrainOptions", partial(TrainOptions, views=counts, batch=4))
    real_advance, steps = train.advance, []

    def advance_and_interrupt(*args):
        steps.append(real_advance(*args))
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return steps[-1]

    monkeypatch.setattr(train, "advance", advance_and_interrupt)
    work, out = tmp_path / "work", tmp_path / "judge"
    shown = ["judge", "--assets", str(tmp_path), "--manifest", str(manifest), "--licence", "Of nobody."]
    command = [*shown, "--work", str(work), "--out", str(out), "--steps", "3"]
    assert cli.run(command) == cli.INTERRUPTED
    assert not out.exists()
    assert cli.run(command) == 0
    assert len(steps) == 3
    assert "going on at step 2" in capsys.readouterr().out
    split = views.open_views(work / "views-7", table)
    assert [len(part.noun) for part in (split.learn, split.new_views, split.new_meshes)] == [8, 4, 2]
    judge = open_judge(folder=out)
    assert judge.nouns == ["apple", "chest"]
    assert judge.with_front == ["chest"]
    real_meshes = judge.card["real meshes"]
    assert set(real_meshes["fronts"]) == {"chest"}
    assert all(set(real_meshes[kind]) == {"apple", "chest"} for kind in ("albedo", "shaded", "textureless"))
    assert judge.card["data"]["kept meshes"] == ["long.glb"]
    assert set(judge.card["accuracy"]) == {
        f"{kind}, {look}" for kind in ("new meshes", "new views") for look in ("colour", "textureless")
    }
    assert "new meshes, textureless (2 pictures)" in describe(out)
    other = tmp_path / "other"
    monkeypatch.setattr(rendering, "ProcessPoolExecutor", in_this_process)
    begin = ["--start", str(out), "--seed", "8", "--learning-rate", "0"]
    assert cli.run([*shown, "--work", str(tmp_path / "new"), "--out", str(other), "--steps", "1", *begin]) == 0
    begun = open_judge(folder=other)
    assert begun.card["training"] == {"steps": 4, "pictures": 16}
    for one, same in zip(judge.network.parameters(), begun.network.parameters(), strict=True):
        assert torch.equal(one, same)  # a learning rate of zero teaches nothing
    first, second = (
        views.open_views(folder, table).learn for folder in (work / "views-7", tmp_path / "new" / "views-8")
    )
    assert not torch.equal(first.alpha, second.alpha)  # another seed, other views
    with pytest.raises(UserError, match="there is no judge in"):
        cli.run([*shown, "--work", str(work), "--start", str(tmp_path)])
    with pytest.raises(UserError, match="must stay"):
        cli.run([*shown, "--work", str(work), "--out", str(out), "--start", str(out)])
    manifest.write_text("noun,file\napple,ball.glb\n")
    with pytest.raises(UserError, match="knows other nouns"):
        cli.run([*shown, "--work", str(work), "--start", str(out)])


def test_meshes_kept_from_the_judge_are_not_learned_from():
    table = nouns()
    for row in table:
        learn, kept = views._counted(row, table, Counts())
        assert (learn == 0) == (row.kept_from == "judge")
        assert kept > 0


def test_missing_meshes_are_said_before_anything_is_rendered(tmp_path):
    with pytest.raises(UserError, match="--assets"):
        views.render_all(Assets(tmp_path, nouns()), tmp_path / "views", Counts(), 0, print)


# What ships


@pytest.fixture(scope="module")
def judge():
    return open_judge()


def test_the_weights_are_small_safe_and_fit_the_table(judge):
    files = list(FOLDER.iterdir())
    assert {path.suffix for path in files} == {".safetensors", ".json"}
    assert (FOLDER / WEIGHTS).stat().st_size <= 10e6
    assert set(judge.nouns) == {row.noun for row in nouns()}
    assert judge.card["data"]["kept meshes"] == [row.file for row in nouns() if row.kept_from == "judge"]


def test_scores_are_log_probabilities_of_noun_and_colour(judge):
    images = torch.rand(2, 128, 128, 3, generator=generator())
    opinion = judge.opinion(images)
    frog, red = judge.nouns.index("frog"), list(COLOURS).index("red")
    scores = judge.score(images, ["a frog", "a red frog", "a photo of the untextured frog, front view"])
    assert torch.allclose(scores[:, 0], opinion.noun[:, frog])
    assert torch.allclose(scores[:, 1], opinion.noun[:, frog] + opinion.colour[:, red])
    assert torch.equal(scores[:, 0], scores[:, 2])
    assert torch.allclose(opinion.noun.exp().sum(1), torch.ones(2))
    with pytest.raises(UserError, match="knows no thing"):
        judge.score(images, ["a quasar"])


@pytest.mark.processor
def test_it_knows_real_things_when_it_sees_them(judge):
    """Twelve shaded evaluation views of meshes that it never learned from, in a file (`benchmarks/judge_golden.py`).

    It named seven of them when it was made; someone who guesses names one of 239.
    """
    truth = json.loads((GOLDEN / "judge.json").read_text())
    with Image.open(GOLDEN / "judge.png") as file:
        row = torch.from_numpy(np.asarray(file.convert("RGB")).copy()).float() / 255
    images = row.view(SIZE, len(truth), SIZE, 3).transpose(0, 1)
    seen = [judge.nouns[i] for i in judge.opinion(images).noun.argmax(1)]
    assert sum(noun == one for noun, one in zip(seen, truth, strict=True)) >= 6, dict(zip(truth, seen, strict=True))


@pytest.mark.skipif("DREAMFUSION_ASSETS" not in os.environ, reason="DREAMFUSION_ASSETS names no folder with meshes")
def test_it_knows_the_meshes_that_were_kept_from_it(judge):
    rows = [row for row in nouns() if row.kept_from == "judge"][::8]
    seen = torch.cat(
        [real.real_views(Path(os.environ["DREAMFUSION_ASSETS"]) / "meshes" / r.file, r.yaw_deg)[1] for r in rows]
    )
    truth = torch.tensor([judge.nouns.index(row.noun) for row in rows]).repeat_interleave(8)
    promised = judge.card["accuracy"]["new meshes, colour"]["noun"]
    assert (judge.opinion(seen).noun.argmax(1) == truth).float().mean() > promised - 0.15
