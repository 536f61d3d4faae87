"""The training of the embedded contrastive model: its loss in closed form, truth of its captions, exact resuming."""

import math
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import trimesh
from torch import Generator

from dreamfusion import runtime
from dreamfusion.contrastive import open_contrastive
from dreamfusion.contrastive.toybox import WEIGHTS, ToyboxClip
from dreamfusion.embedded.world import COLOURS
from dreamfusion.errors import UserError
from training import __main__ as cli
from training.clip import train
from training.clip.accuracy import KINDS, accuracies, retrieval
from training.clip.backgrounds import backgrounds, blurred, squares, waves
from training.clip.captions import NONE, Facts, Words, wrong
from training.clip.loss import info_nce, symmetric
from training.clip.pictures import ALPHA, NORMAL, PAINT, PALETTE, SIMPLE, TRAINING, draw, eased
from training.clip.train import TrainOptions, advance, loss_of, new_training
from training.clip.views import SIDES, SIZE, Counts, cameras, open_views
from training.mesh_views import Views
from training.nouns import Noun, nouns
from training.prior.data import COLOURED

TABLE = [
    Noun("chair", "a.glb", 0.0, True, "wooden"),
    Noun("chair", "b.glb", 0.0, True, ""),
    Noun("pine tree", "c.glb", 0.0, False, "autumn"),
]


def generator(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def squares_seen(count: int) -> Views:
    """Grey squares that face the camera on +z, in the middle half of the view, of the meshes of `TABLE` in turn."""
    buffers = torch.zeros(count, 10, SIZE, SIZE, dtype=torch.uint8)
    inside = buffers[..., SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4]
    inside[:, PAINT], inside[:, ALPHA] = 128, 255
    buffers[:, NORMAL] = torch.tensor([127, 127, 254], dtype=torch.uint8)[:, None, None]
    mesh = torch.arange(count) % len(TABLE)
    return Views(
        mesh=mesh,
        noun=torch.tensor([0, 0, 1])[mesh],
        side=torch.where(mesh < 2, torch.arange(count) % len(SIDES), NONE),
        eye=torch.tensor([[0.0, 0.0, 1.0]]).expand(count, 3),
        place=torch.arange(count),
        files=[buffers.numpy()] * len(TABLE),
    )


def facts(*rows: tuple[int, int, int, int, int]) -> Facts:
    return Facts(*torch.tensor(rows).unbind(1))


# The loss


def test_without_a_difference_the_loss_is_the_logarithm_of_the_number_of_captions():
    one = torch.eye(5, dtype=torch.bool)
    assert float(info_nce(torch.full((5, 5), 3.0), one, torch.zeros_like(one))) == pytest.approx(math.log(5))
    assert float(symmetric(torch.zeros(5, 5), one, ~one)) == pytest.approx(math.log(5))


def test_two_pairs_have_a_closed_form():
    """-log sigmoid of how much nearer the right one is, in both directions."""
    logits = torch.tensor([[2.0, 0.5], [-1.0, 1.0]])
    one = torch.eye(2, dtype=torch.bool)
    expected = -sum(math.log(1 / (1 + math.exp(-gap))) for gap in (1.5, 2.0, 3.0, 0.5)) / 4
    assert float(symmetric(logits, one, ~one)) == pytest.approx(expected, rel=1e-5)


def test_captions_that_may_be_true_are_as_if_they_were_not_there():
    logits = torch.randn(3, 4, generator=generator())
    right, ignored = torch.eye(3, 4, dtype=torch.bool), torch.zeros(3, 4, dtype=torch.bool)
    ignored[:, 3] = True
    expected = info_nce(logits[:, :3], right[:, :3], ignored[:, :3])
    assert float(info_nce(logits, right, ignored)) == pytest.approx(float(expected), rel=1e-6)
    changed = logits.clone()
    changed[:, 3] = 99
    assert float(info_nce(changed, right, ignored)) == pytest.approx(float(expected), rel=1e-6)


def test_a_caption_that_stands_twice_in_a_batch_is_right_twice():
    """Two pictures with one caption: none is pushed from the other's; the least loss is log 2 in both directions."""
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    loss = symmetric(50.0 * same.float(), same, ~same)
    assert float(loss) == pytest.approx(2 / 3 * math.log(2), rel=1e-5)


def test_the_first_captions_meet_pictures_in_both_directions_and_the_others_in_one():
    logits = torch.randn(3, 5, generator=generator())
    same = torch.eye(3, 5, dtype=torch.bool)
    rows, columns = logits.log_softmax(1).diagonal().mean(), logits[:, :3].log_softmax(0).diagonal().mean()
    assert float(symmetric(logits, same, ~same)) == pytest.approx(float(-(rows + columns) / 2), rel=1e-5)


# Captions


def test_numbers_are_read_as_the_words_that_they_stand_for():
    words = Words(TABLE)
    red, left = list(COLOURS).index("red"), SIDES.index("left")
    said = facts((0, red, words.adjectives.index("wooden"), left, 0), (1, NONE, NONE, NONE, 1))
    expected = [words.of("a red wooden chair, left side view"), words.of("an untextured pine tree")]
    assert torch.equal(words.read(said), torch.stack(expected))
    assert words.read(words.plain()).sum(1).tolist() == [1, 2]


def test_captions_are_true_of_their_pictures_and_contrary_ones_are_wrong_where_they_can_be():
    words = Words(nouns())
    many = 4000
    pictures = Facts(
        noun=torch.randint(239, (many,), generator=generator(1)),
        colour=torch.randint(-1, 11, (many,), generator=generator(2)),
        adjective=torch.randint(-1, len(words.adjectives), (many,), generator=generator(3)),
        side=torch.randint(-1, len(SIDES), (many,), generator=generator(4)),
        untextured=torch.zeros(many, dtype=torch.long),
    )
    for start in range(0, many, 500):
        some = pictures.rows(slice(start, start + 500))
        assert not wrong(some, words.caption(some, generator(start))).diagonal().any()
        contrary = wrong(some, words.contrary(some, generator(start))).diagonal()
        assert torch.equal(contrary, (some.colour != NONE) | (some.side != NONE))
    said = words.caption(pictures, generator())
    painted = pictures.colour != NONE
    assert ((said.colour != NONE)[painted]).float().mean() == pytest.approx(0.85, abs=0.03)
    clash = torch.tensor([one in COLOURED for one in words.adjectives])[said.adjective] & (said.adjective != NONE)
    assert clash.any()
    assert not (clash & (said.colour != NONE)).any()


def test_what_is_not_known_of_a_picture_is_not_held_against_a_caption():
    unpainted, painted, grey = (0, NONE, 0, 2, 0), (0, 3, NONE, NONE, 0), (0, NONE, NONE, NONE, 1)
    captions = facts((0, 5, NONE, NONE, 0), (0, NONE, NONE, 1, 0), (0, NONE, NONE, NONE, 1), (1, NONE, NONE, NONE, 0))
    expected = [[False, True, True, True], [True, False, True, True], [False, False, False, True]]
    assert wrong(facts(unpainted, painted, grey), captions).tolist() == expected


# Pictures


def test_cameras_are_all_around_and_see_the_whole_ball():
    seen = cameras(400, generator())
    sectors = ((seen.azimuth + 2 * math.pi) % (2 * math.pi) / (2 * math.pi) * 400).floor()
    assert len(sectors.unique()) > 396  # one each, but for rounding at their borders
    elevation = seen.elevation.rad2deg()
    assert -10.1 < elevation.min() < -5
    assert 65 < elevation.max() < 80.1
    fills = seen.position.norm(dim=1) * (0.5 * seen.fov_y).sin()
    assert torch.allclose(fills, torch.full_like(fills, 0.95 * 1.03), atol=1e-4)


def test_pictures_are_in_range_and_repeat_with_the_seed():
    words, views = Words(TABLE), squares_seen(60)
    first, again = (draw(views, words.adjective_of, TRAINING, generator(5)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1].table(), again[1].table())
    assert first[0].shape == (60, 3, SIZE, SIZE)
    assert 0 <= first[0].min() < first[0].max() <= 1
    assert not torch.equal(first[0], draw(views, words.adjective_of, TRAINING, generator(6))[0])


def test_paint_is_near_the_named_colour():
    """In the middle, where the square is, without light."""
    count = 22 * 8
    colour = torch.arange(count) % len(PALETTE)
    look = replace(SIMPLE, textureless=0.0, flat=1.0, zoom=(1.0, 1.0), shift=0.0)
    image, known = draw(squares_seen(count), Words(TABLE).adjective_of, look, generator(), colour)
    assert torch.equal(known.colour, colour)
    middle = image[:, :, SIZE // 2, SIZE // 2]
    assert (torch.cdist(middle, PALETTE).argmin(1) == colour).float().mean() > 0.75
    means = torch.stack([middle[colour == number].mean(0) for number in range(len(PALETTE))])
    assert torch.allclose(means, PALETTE, atol=0.08)


def test_textureless_pictures_show_no_paint_and_no_colour_is_known():
    look = replace(SIMPLE, textureless=1.0, zoom=(1.0, 1.0), shift=0.0)
    image, known = draw(squares_seen(30), Words(TABLE).adjective_of, look, generator(), torch.zeros(30).long())
    assert (known.colour == NONE).all()
    assert (known.untextured == 1).all()
    middle = image[:, :, SIZE // 2, SIZE // 2]
    assert torch.allclose(middle, middle[:, :1].expand(-1, 3), atol=1e-5)


def test_a_mirror_swaps_left_and_right():
    views = squares_seen(300)
    _, known = draw(views, Words(TABLE).adjective_of, TRAINING, generator())
    left, right = SIDES.index("left"), SIDES.index("right")
    for side in (NONE, *range(len(SIDES))):
        expected = {left, right} if side in (left, right) else {side}
        assert set(known.side[views.side == side].tolist()) == expected


@pytest.mark.parametrize("turned", [False, True])
def test_things_are_moved_and_scaled_as_a_whole(turned):
    """Half as large a square has a quarter of the pixels, tilted or not."""
    look = replace(SIMPLE, textureless=0.0, flat=1.0, shift=0.0, roll_deg=30.0 * turned)
    black = torch.full((40,), list(COLOURS).index("black"))
    covered = []
    for zoom in (1.0, 2.0):
        near = replace(look, zoom=(zoom, zoom))
        image, _ = draw(squares_seen(40), Words(TABLE).adjective_of, near, generator(1), black)
        behind = image[:, :, 0, 0]
        differs = (image - behind[:, :, None, None]).abs().amax(1)
        covered.append((differs / differs.amax((1, 2), keepdim=True)).mean())
    assert covered[0] == pytest.approx(0.25, abs=0.02)
    assert covered[1] == pytest.approx(0.0625, abs=0.01)


def test_pictures_get_harder_from_simple_ones_on():
    assert eased(TRAINING, 0.0) == replace(TRAINING, **{
        name: getattr(SIMPLE, name) for name in ("soft", "toned", "zoom", "shift", "roll_deg", "plain")
    })  # fmt: skip
    assert eased(TRAINING, 1.0) == TRAINING
    assert eased(TRAINING, 0.5).plain == pytest.approx((1 + TRAINING.plain) / 2)
    assert eased(TRAINING, 0.5).painted == TRAINING.painted


def test_blur_keeps_what_is_constant_and_has_its_spread():
    assert torch.allclose(blurred(torch.full((2, 3, 32, 32), 0.7), torch.tensor([0.0, 4.0])), torch.tensor(0.7))
    point = torch.zeros(1, 1, 65, 65)
    point[..., 32, 32] = 1
    spread = blurred(point, torch.tensor([3.0]))[0, 0]
    place = torch.arange(65.0) - 32
    assert float(spread.sum()) == pytest.approx(1, abs=1e-4)
    assert float((spread.sum(0) * place.square()).sum()) == pytest.approx(9, rel=0.01)
    assert torch.allclose(blurred(point, torch.tensor([0.0])), point, atol=1e-5)


def test_backgrounds_are_plain_as_often_as_said():
    image = backgrounds(600, 0.5, 16, generator())
    plain = (image - image[:, :, :1, :1]).abs().amax((1, 2, 3)) < 1e-6
    assert plain.float().mean() == pytest.approx(0.5, abs=0.06)
    assert 0 <= image.min() < image.max() <= 1 + 1e-5
    assert len(squares(1, 16, generator())[0].flatten(1).unique(dim=1)[0]) == 2
    wavy = waves(3, 16, generator())
    assert torch.allclose(wavy.amax((1, 2, 3)), torch.ones(3))
    assert torch.allclose(wavy.amin((1, 2, 3)), torch.zeros(3))


# Training


def test_training_resumed_is_training_uninterrupted(tmp_path):
    options, views, words = TrainOptions(steps=6, batch=8), squares_seen(12), Words(TABLE)
    whole = new_training(words, options)
    losses = [advance(whole, views, options) for _ in range(4)]
    first = new_training(words, options)
    assert [advance(first, views, options) for _ in range(2)] == losses[:2]
    first.state.save(tmp_path)
    second = new_training(words, options)
    second.state.restore(tmp_path)
    assert second.state.step == 2
    assert [advance(second, views, options) for _ in range(2)] == losses[2:]
    tensors = second.state.tensors()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in whole.state.tensors().items())


def test_it_learns_what_pictures_show():
    """One batch of two nouns, a square and a tall strip, over and over: told apart in the end."""
    words, views = Words(TABLE), squares_seen(12)
    training = new_training(words, TrainOptions())
    tall = torch.zeros(12, 10, SIZE, SIZE, dtype=torch.uint8)
    tall[:, ALPHA, :, 28:36] = 255
    views = replace(views, files=[views.files[0], views.files[1], tall.numpy()])
    image, known = draw(views, words.adjective_of, replace(SIMPLE, textureless=1.0), generator())
    for _ in range(15):
        loss_of(training.network, words, image, known, generator()).backward()
        training.state.optimiser.step()
        training.state.optimiser.zero_grad()
    seen = training.network.embed_images(image) @ training.network.embed_words(words.read(words.plain())).T
    assert (seen.argmax(1) == known.noun).float().mean() > 0.9


def test_the_learning_rate_warms_up_stays_and_ends_at_zero():
    options = TrainOptions(steps=1000, warm_up=100, cool_down=0.4, learning_rate=1.0)
    rates = [train.learning_rate(step, options) for step in (0, 49, 100, 600, 800, 1000)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 1.0, 0.5, 0.0])


def test_an_untrained_model_is_right_by_chance():
    table, count = nouns(), 239
    words = Words(table)
    views = squares_seen(count)
    views = replace(views, mesh=torch.zeros(count).long(), noun=torch.arange(count) % 239, files=views.files[:1])
    model = ToyboxClip(
        train.new_network(len(words.words), 0), {"name": "x", "words": words.words, "nouns": words.nouns}
    )
    guessed = accuracies(model, words, views)
    assert set(guessed) == set(KINDS)
    assert all(found["noun"] < 0.05 for found in guessed.values())
    assert all(("colour" in found) == ("textureless" not in kind) for kind, found in guessed.items())
    found = retrieval(model, words, views)
    assert found["colour"]["captions"] == 80
    assert found["textureless"]["captions"] == 60
    assert found["colour"]["right"] < 0.2


def in_this_process(mp_context):
    """In place of processes, each of which would import torch for seconds."""
    return ThreadPoolExecutor(1)


def test_clip_training_goes_from_an_empty_folder_to_a_model_that_opens_and_can_be_stopped(
    tmp_path, monkeypatch, capsys
):
    """The whole command on three meshes; Ctrl-C after the second step, then the same command again."""
    (tmp_path / "meshes").mkdir()
    shapes = {"ball": trimesh.creation.icosphere(subdivisions=2), "box": trimesh.creation.box()}
    shapes["long"] = trimesh.creation.box((1, 1, 3))
    for name, shape in shapes.items():
        shape.export(tmp_path / "meshes" / f"{name}.glb")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("noun,file,yaw_deg,front\napple,ball.glb,0,no\nrock,box.glb,90,yes\nrock,long.glb,0,yes\n")
    monkeypatch.setattr(runtime, "configure_torch", lambda *_, **__: None)  # it would change torch for all other tests
    monkeypatch.setattr("training.views.ProcessPoolExecutor", in_this_process)
    counts = Counts(learned=3, unseen=2)
    monkeypatch.setattr(train, "TrainOptions", partial(TrainOptions, views=counts, batch=4))
    real_advance, steps = train.advance, []

    def advance_and_interrupt(*args):
        steps.append(real_advance(*args))
        if len(steps) == 2:
            signal.raise_signal(signal.SIGINT)
        return steps[-1]

    monkeypatch.setattr(train, "advance", advance_and_interrupt)
    work, out = tmp_path / "work", tmp_path / "clip"
    command = ["clip", "--assets", str(tmp_path), "--manifest", str(manifest), "--licence", "Of nobody."]
    command += ["--work", str(work), "--out", str(out), "--steps", "3"]
    assert cli.run(command) == cli.INTERRUPTED
    assert not out.exists()
    assert cli.run(command) == 0
    assert len(steps) == 3
    assert "going on at step 2" in capsys.readouterr().out
    learned, unseen = open_views(work / "views-7", nouns(manifest), counts, 7)
    assert (len(learned), len(unseen)) == (9, 6)
    assert (learned.buffers()[:, ALPHA] > 0).any()
    model = open_contrastive(str(out))
    assert model.card["nouns"] == ["apple", "rock"]
    assert set(model.card["accuracy"]) == set(KINDS)
    assert model.card["training"] | {"hours": 0} == {
        "steps": 3, "pictures": 12, "views": 9, "meshes": 3, "hours": 0, "seed": 7,
    }  # fmt: skip
    assert model.card["licence"] == "Of nobody."
    assert (out / WEIGHTS).stat().st_size < 8 * 2**20
    assert model.embed_text(["a red apple"]).isfinite().all()


def test_views_of_other_counts_are_refused(tmp_path):
    np.save(tmp_path / "000.npy", np.zeros((3, 10, SIZE, SIZE), np.uint8))
    with pytest.raises(UserError, match="rendered again"):
        open_views(tmp_path, nouns()[:1], Counts(), 7)
