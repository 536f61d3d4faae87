"""The judge: its pictures tell the truth, its training resumes exactly, what ships knows what its card says."""

import json
import math
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
from dreamfusion.evaluate.judge.judge import WEIGHTS, Judge, considered, open_judge
from dreamfusion.evaluate.judge.network import CUT, OWN, REACH, SIZE, Opinion, before, cut_out, new_network
from dreamfusion.evaluate.judge.sides import SIDES
from dreamfusion.evaluate.judge.summary import describe
from training import __main__ as cli
from training.judge import real, train, views
from training.judge.accuracy import accuracy
from training.judge.pictures import (
    ALPHA,
    CLEAN,
    NORMAL,
    PAINT,
    TRAINING,
    UNSEEN,
    balanced,
    draw,
    lit,
    mixtures,
    repaint,
)
from training.judge.train import TrainOptions, advance, new_training
from training.judge.views import Counts, Views, random_cameras, random_stretches, seen_side
from training.meshes import ColouredMesh, MeshRenderer
from training.nouns import Assets, nouns

GOLDEN = Path(__file__).parent / "golden"
FOLDER = Path(str(resources.files("dreamfusion.evaluate.judge").joinpath("weights")))


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def flat_views(count: int, paint: float = 0.5, nouns: int = 3, size: int = CUT) -> Views:
    """Squares that face the camera on +z, painted grey, in the middle half of pictures of so many pixels."""
    buffers = torch.zeros(count, 10, size, size, dtype=torch.uint8)
    inside = buffers[..., size // 4 : -size // 4, size // 4 : -size // 4]
    inside[:, PAINT], inside[:, ALPHA] = int(255 * paint), 255
    buffers[:, NORMAL] = torch.tensor([127, 127, 254], dtype=torch.uint8)[:, None, None]
    return Views(
        mesh=torch.zeros(count, dtype=torch.long),
        noun=torch.arange(count) % nouns,
        side=torch.arange(count) % len(SIDES),
        eye=torch.tensor([[0.0, 0.0, 3.0]]).expand(count, 3),
        place=torch.arange(count),
        files=[buffers.numpy()],
    )


# Its pictures


def test_cameras_keep_to_the_judges_world_and_see_the_whole_object():
    cameras = random_cameras(2000, generator())
    elevation = cameras.elevation.rad2deg()
    assert -15.1 < elevation.min() < -10
    assert 75 < elevation.max() < 80.1
    assert ((elevation - 30).abs() < 15).float().mean() > 0.5
    fov = cameras.fov_y.rad2deg()
    assert 32 <= fov.min() < 33
    assert 51 < fov.max() <= 52
    fills = cameras.position.norm(dim=1) * (0.5 * cameras.fov_y).sin()
    assert 0.99 < fills.min() < 1.01
    assert 1.24 < fills.max() < 1.26


def test_views_show_what_the_eye_would_cut_out():
    """A long box seen from the side, whole and far off in the picture: the same is seen, of the same size."""
    box = trimesh.creation.box((1.2, 0.2, 0.2))
    renderer, far, still = renderer_of(box), random_cameras(4, generator(1)), torch.ones(4, 3)
    near = views.aimed(far, renderer, still, torch.zeros(4, 3))
    whole = torch.from_numpy(views.seen_by(far.resized(SIZE), renderer, still)["alpha"]).float() / 255
    cut = cut_out((1 - whole).expand(-1, 3, -1, -1))[:, 3:]  # black before white
    aimed = torch.from_numpy(views.seen_by(near, renderer, still)["alpha"]).float() / 255
    assert (cut - aimed).abs().mean() < 0.03
    assert aimed[..., 0, :].max() == 0
    wide = views.aimed(far, renderer, still, torch.tensor([0.0, 0.0, 0.5]).expand(4, 3))
    smaller = torch.from_numpy(views.seen_by(wide, renderer, still)["alpha"]).float().mean() / 255
    assert smaller / aimed.mean() == pytest.approx(math.exp(-1), rel=0.05)


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
    paint = torch.full((1, 3, CUT, CUT), 0.4)
    paint[..., : CUT // 2] = 0.2
    colours = torch.arange(len(COLOURS))
    every = paint.expand(len(COLOURS), -1, -1, -1)
    new = (repaint(every, colours, generator()) @ every.flatten(2)).view_as(every)
    dark, light = new[..., 0, 0], new[..., 0, -1]
    named = torch.tensor(list(COLOURS.values()))
    assert torch.allclose((dark + light) / 2, named, atol=0.3)
    distance = torch.cdist((dark + light) / 2, named)
    assert (distance.argmin(1) == colours).float().mean() > 0.8
    assert torch.allclose(2 * dark, light, atol=1e-5)


def test_what_is_not_painted_has_colours_of_its_own_and_textureless_pictures_have_none():
    one = draw(flat_views(64), replace(CLEAN, painted=0.0, textureless=0.0), generator())
    assert (one.colour == OWN).all()
    other = draw(flat_views(64), replace(CLEAN, painted=1.0, textureless=0.0), generator())
    assert set(other.colour.tolist()) == set(range(OWN))


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
    assert ratio.std() == pytest.approx(0.08 * 2**0.5, rel=0.05)


def test_tinted_pictures_keep_their_shape_and_other_colours_change():
    mixture = mixtures(torch.tensor([True] * 500 + [False] * 500), generator())
    assert torch.equal(mixture[500:], torch.eye(3).expand(500, -1, -1))
    assert (mixture[:500] - torch.eye(3)).std() == pytest.approx(0.12, rel=0.05)
    one, other = (
        draw(flat_views(64), replace(CLEAN, painted=0.0, textureless=0.0, flat=1.0, tinted=tinted), generator(2)).cut
        for tinted in (0.0, 1.0)
    )
    middle = slice(CUT // 3, -CUT // 3)
    assert (one - other)[:, :3, middle, middle].abs().amax((1, 2, 3)).min() > 0
    assert torch.equal(one[..., : CUT // 5], other[..., : CUT // 5])


def test_textureless_pictures_show_no_paint():
    look = replace(CLEAN, textureless=1.0)
    one, other = (draw(flat_views(8, paint), look, generator(3)) for paint in (0.2, 0.9))
    assert torch.allclose(one.cut, other.cut, atol=1e-6)
    assert (one.colour == UNSEEN).all()


def test_a_flat_picture_shows_the_albedo():
    batch = draw(flat_views(64, 0.1), replace(CLEAN, flat=1.0, painted=0.0, textureless=0.0), generator())
    middle = batch.cut[:, :, CUT // 2, CUT // 2]
    clear = middle[:, 3] == 1  # the others stand before a background of nearly their own colour
    assert clear.sum() > 40
    assert torch.allclose(middle[clear, :3], torch.tensor(2 * 25 / 255 - 1), atol=1e-5)


def test_lamps_light_what_faces_them():
    """A surface that faces the camera gets more than one that is turned away from it, which gets the ambient part."""
    eye, dark = torch.tensor([[0.0, 0.0, 3.0]]).expand(400, 3), torch.zeros(400, dtype=torch.bool)
    toward, away = (torch.tensor([127, 127, z])[None, :, None, None].expand(400, 3, 1, 1) / 255 for z in (254.0, 0.0))
    bright, ambient = (lit(eye, normal, dark, generator(4)).flatten() for normal in (toward, away))
    assert (bright >= ambient).float().mean() > 0.9
    assert bright.max() <= 1.1 + 1e-5
    assert 0.1 <= ambient.median() <= 0.6
    assert (lit(eye, toward, ~dark, generator(4)) == 1).all()


def test_a_noun_of_more_meshes_is_drawn_more_often_but_not_by_as_much():
    noun = torch.tensor([0] * 64 + [1] * 16 + [2] * 4)
    counts = torch.bincount(noun[balanced(noun, 30_000, generator())]) / 30_000
    assert torch.allclose(counts, torch.tensor([4, 2, 1]) / 7, atol=0.02)


def test_pictures_are_in_range_and_repeat_with_the_seed():
    one, other = (draw(flat_views(32), TRAINING, generator(5)) for _ in range(2))
    assert torch.equal(one.cut, other.cut)
    assert one.cut.abs().max() <= 1
    assert one.cut[:, 3].min() == 0
    assert {True, False} == set((one.colour == UNSEEN).tolist())


def test_soft_pictures_are_others_of_the_same_thing():
    clear, soft = (draw(flat_views(64), replace(CLEAN, soft=soft), generator(6)).cut for soft in (0.0, 1.0))
    assert (clear - soft).abs().amax((1, 2, 3)).min() > 0.01
    assert (clear[:, 3] - soft[:, 3]).abs().mean() < 0.1


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
    assert new_network(5, 0).eval()(cut_out(grey)).noun.isfinite().all()


def test_what_is_there_is_a_mean_over_pixels_and_their_neighbours():
    differs = torch.rand(2, 3, 9, 9, generator=generator()) * 0.1
    smooth = torch.nn.functional.avg_pool2d(differs.amax(1, keepdim=True), 3, stride=1, padding=1)
    there = before(torch.zeros(2, 3, 1, 1), differs)[:, 3:]
    assert torch.allclose(there, ((smooth - 0.03) / 0.09).clamp(0, 1), atol=1e-6)


def test_it_says_of_a_mirror_image_the_same_with_left_and_right_swapped():
    network = new_network(5, 0).eval()
    pictures = torch.rand(3, 4, CUT, CUT, generator=generator())
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
    whole = new_training(3, 1, options)
    losses = [advance(whole, pictures_, options) for _ in range(4)]
    first = new_training(3, 1, options)
    assert [advance(first, pictures_, options) for _ in range(2)] == losses[:2]
    first.state.save(tmp_path)
    second = new_training(3, 1, options)
    second.state.restore(tmp_path)
    assert second.state.step == 2
    assert [advance(second, pictures_, options) for _ in range(2)] == losses[2:]
    tensors = second.state.tensors()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in whole.state.tensors().items())


def test_colours_of_its_own_weigh_as_much_as_those_of_one_word():
    """Half of the painted and unpainted pictures are of either kind: without weights it would expect no paint."""
    truth = draw(flat_views(10_000, size=8), replace(CLEAN, textureless=0.0), generator())
    weight = train.COLOUR_WEIGHTS[truth.colour]
    share = torch.zeros(OWN + 1).index_add(0, truth.colour, weight) / weight.sum()
    assert torch.allclose(share, torch.full((OWN + 1,), 1 / (OWN + 1)), atol=0.012)


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
    manifest.write_text("noun,file,yaw_deg,front\napple,ball.glb,0,no\nchest,box.glb,90,yes\nchest,long.glb,0,yes\n")
    table = nouns(manifest)
    monkeypatch.setattr(runtime, "configure_torch", lambda *_, **__: None)  # it would change torch for all other tests
    counts = Counts(of_noun=4, at_least=1, kept=2)
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
    split = views.open_views(work / "views-11", table, counts, 11)
    assert [len(part.noun) for part in (split.learn, split.new_views, split.new_meshes)] == [8, 6, 0]
    judge = open_judge(folder=out)
    assert judge.nouns == ["apple", "chest"]
    assert judge.with_front == ["chest"]
    real_meshes = judge.card["real meshes"]
    assert set(real_meshes["fronts"]) == {"chest"}
    assert all(set(real_meshes[kind]) == {"apple", "chest"} for kind in ("albedo", "shaded", "textureless"))
    assert judge.card["training"] | {"hours": 0} == {
        "steps": 3, "pictures": 12, "views": 8, "meshes": 3, "hours": 0, "seed": 11,
    }  # fmt: skip
    assert set(judge.card["accuracy"]) == {"new views, colour", "new views, textureless"}
    assert "new views, textureless (6 pictures)" in describe(out)
    fold, halves = tmp_path / "fold", [views.left_out(table, fold) for fold in (0, 1)]
    (fold).mkdir()
    (work / "views-11").rename(fold / "views-11")
    assert cli.run([*shown, "--work", str(fold), "--out", str(out), "--steps", "1", "--fold", "0"]) == 0
    halved = open_judge(folder=out)
    assert halved.card["accuracy"]["new meshes, colour"]["pictures"] == 2
    assert halved.card["training"]["meshes"] == 2
    assert halves[0] | halves[1] == {"box.glb", "long.glb"}
    assert not halves[0] & halves[1]


def test_either_half_of_a_cross_validation_knows_every_noun():
    table = nouns()
    halves = [views.left_out(table, fold) for fold in (0, 1)]
    assert not halves[0] & halves[1]
    for half in halves:
        assert {row.noun for row in table if row.file not in half} == {row.noun for row in table}
        assert 150 < len(half) < 335


def test_views_of_other_counts_are_refused(tmp_path):
    table = nouns()[:1]
    np.save(tmp_path / "mesh-0000.npy", np.zeros((3, 10, CUT, CUT), np.uint8))
    with pytest.raises(UserError, match="rendered again"):
        views.open_views(tmp_path, table, Counts(), 11)


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
    assert (FOLDER / WEIGHTS).stat().st_size <= 8e6
    assert set(judge.nouns) == {row.noun for row in nouns()}
    assert judge.card["training"]["meshes"] == len(nouns())


def test_scores_are_log_probabilities_of_noun_and_colour(judge):
    images = torch.rand(2, 128, 128, 3, generator=generator())
    opinion = judge.opinion(images)
    frog, red = judge.nouns.index("frog"), list(COLOURS).index("red")
    scores = judge.score(images, ["a frog", "a red frog", "a photo of the untextured frog, front view"])
    assert torch.allclose(scores[:, 0], opinion.noun[:, frog] + opinion.colour[:, OWN])
    assert torch.allclose(scores[:, 1], opinion.noun[:, frog] + opinion.colour[:, red])
    assert torch.equal(scores[:, 0], scores[:, 2])
    assert torch.allclose(opinion.noun.exp().sum(1), torch.ones(2))
    with pytest.raises(UserError, match="knows no thing"):
        judge.score(images, ["a quasar"])


class Sees(Judge):
    """Is sure of the first noun, and of the colour that it is given."""

    def __init__(self, colour: int) -> None:
        super().__init__(new_network(2, 0), {"name": "sees", "nouns": ["cow", "frog"], "with front": []})
        self.colour = colour

    def opinion(self, images):
        noun = torch.tensor([[0.9, 0.1]]).log().expand(len(images), 2)
        colour = torch.full((OWN + 1,), 0.02).index_fill(0, torch.tensor(self.colour), 0.78).log()
        return Opinion(noun, colour.expand(len(images), OWN + 1), torch.zeros(len(images), len(SIDES)))


@pytest.mark.parametrize("place", range(3))
def test_captions_with_and_without_a_colour_word_compete_and_neither_wins_by_its_form(place):
    captions, purple, black = ["a cow", "a purple cow", "a black cow"], *map(list(COLOURS).index, ("purple", "black"))
    scores = Sees((OWN, purple, black)[place]).score(torch.zeros(3, SIZE, SIZE, 3), [*captions, "a frog"])
    assert (scores.argmax(1) == place).all()
    assert (scores[:, 3] < scores[:, 0]).all()


@pytest.mark.processor
def test_it_knows_real_things_when_it_sees_them(judge):
    """Twelve shaded evaluation views of meshes, in a file (`benchmarks/judge_golden.py`).

    Someone who guesses names one of 239.
    """
    truth = json.loads((GOLDEN / "judge.json").read_text())
    with Image.open(GOLDEN / "judge.png") as file:
        row = torch.from_numpy(np.asarray(file.convert("RGB")).copy()).float() / 255
    images = row.view(SIZE, len(truth), SIZE, 3).transpose(0, 1)
    seen = [judge.nouns[i] for i in judge.opinion(images).noun.argmax(1)]
    assert sum(noun == one for noun, one in zip(seen, truth, strict=True)) >= 10, dict(zip(truth, seen, strict=True))


@pytest.mark.skipif("DREAMFUSION_ASSETS" not in os.environ, reason="DREAMFUSION_ASSETS names no folder with meshes")
def test_it_knows_the_meshes_as_often_as_its_card_says(judge):
    rows = nouns()[::16]
    seen = torch.cat(
        [real.real_views(Path(os.environ["DREAMFUSION_ASSETS"]) / "meshes" / r.file, r.yaw_deg)[1] for r in rows]
    )
    truth = torch.tensor([judge.nouns.index(row.noun) for row in rows]).repeat_interleave(8)
    promised = judge.card["accuracy"]["new views, colour"]["noun"]
    assert (judge.opinion(seen).noun.argmax(1) == truth).float().mean() > promised - 0.1
