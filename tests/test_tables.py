"""The embedded prior's tables: their data, their pictures, their optimiser, and that a training goes on as it was."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from dreamfusion.embedded.corrections import StoredCorrections, decoded, matrices
from dreamfusion.embedded.tables import Angles, StoredThings, between, decoder, draw, look_up, told
from dreamfusion.nerf.rays import cast
from miniatures import TABLES
from training.loop import lighter
from training.meshes import MeshRenderer, load
from training.nouns import Noun
from training.prior import train
from training.prior.cells import gathered
from training.prior.error import luma_of, unseen, whole
from training.prior.nothing import mean_thing
from training.prior.rows import Rows
from training.prior.train import TrainOptions, advance, errors, falling, new_training, no_corrections, things_of
from training.prior.views import CELLS, LEARNED, UNSEEN, MeshViews, cameras_of, premultiplied, random_cameras, rendered

SMALL = replace(TABLES, size=64)


def new_things(count: int, generator: torch.Generator) -> torch.Tensor:
    return 0.3 * torch.randn(count, SMALL.numbers, generator=generator)


@pytest.fixture(scope="module")
def renderer(tmp_path_factory) -> MeshRenderer:
    path = tmp_path_factory.mktemp("box") / "box.glb"
    path.write_bytes(trimesh.Scene(trimesh.creation.box((1.0, 2.0, 0.5))).export(file_type="glb"))
    return MeshRenderer(load(path))


@pytest.fixture(scope="module")
def views(renderer) -> MeshViews:
    """Only views 0 to 3 and the first two unseen ones."""
    cameras, kept = cameras_of(0), [0, 1, 2, 3, LEARNED, LEARNED + 1]
    cells = rendered(renderer, replace(cameras[: len(kept)], pose=cameras.pose[kept]))
    cells["view"] = np.array(kept)[cells["view"]]
    return MeshViews(cells, np.searchsorted(cells["view"], np.arange(LEARNED + UNSEEN + 1)))


def test_cells_hold_the_whole_picture(renderer, views):
    """What is left out is empty, and what is kept is where it was."""
    maps = whole(views, np.array([2]))[0]
    rays = cast(cameras_of(0)[2:3].resized(128))
    seen = renderer.buffers(rays.origin.double().numpy(), rays.direction.double().numpy(), 64, 2)
    assert seen.alpha.any()
    alpha = torch.from_numpy(seen.alpha).float()[..., None] / 255
    normal = (torch.from_numpy(seen.normal).float() / 127 - 1) * alpha
    colours = [torch.from_numpy(colour).float() / 255 for colour in (seen.paint, seen.rest)]
    assert torch.equal(maps, torch.cat([*colours, normal, alpha], dim=-1))


def test_weights_between_nodes():
    position = torch.tensor([0.0, 1.25, 3.0, 9.0, -1.0])
    expected = torch.tensor([[1, 0, 0, 0], [0, 0.75, 0.25, 0], [0, 0, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]])
    assert torch.allclose(between(position, 4), expected)
    around = between(torch.tensor([3.5, -0.5, 4.0, 6.25]), 4, wraps=True)
    assert torch.allclose(around, torch.tensor([[0.5, 0, 0, 0.5], [0.5, 0, 0, 0.5], [1, 0, 0, 0], [0, 0, 0.75, 0.25]]))


def test_cells_alone_are_those_of_the_whole_picture():
    generator = torch.Generator().manual_seed(0)
    things, decode = new_things(2, generator), decoder(SMALL)
    pose = cameras_of(1).pose[:6].unflatten(0, (2, 3))
    with torch.no_grad():
        pictures = draw(things, decode, SMALL, pose)
        angles = Angles.of(pose)
        which, place = torch.tensor([4, 0, 5]), torch.tensor([35, 700, CELLS**2 - 1])
        cells = decode(told(look_up(things, SMALL, angles), angles, which, place, CELLS))
    for cell, thing_view, at in zip(cells, which, place, strict=True):
        row, column = 2 * (int(at) // CELLS), 2 * (int(at) % CELLS)
        window = pictures.flatten(0, 1)[thing_view, row : row + 2, column : column + 2]
        assert torch.allclose(window.flatten(), cell, atol=1e-5)


def test_angles_are_those_of_the_camera():
    angles = Angles.of(cameras_of(3).pose[None])
    cameras = cameras_of(3)
    apart = (angles.azimuth[0] - cameras.azimuth).remainder(2 * math.pi)
    assert torch.minimum(apart, 2 * math.pi - apart).max() < 1e-4
    assert torch.allclose(angles.elevation[0], cameras.elevation, atol=1e-5)


def test_rows_learn_as_adam_says_and_only_those_that_are_touched():
    generator = torch.Generator().manual_seed(0)
    value = torch.randn(3, 5, generator=generator)
    rows, mine = Rows(value.clone()), value[1].clone().requires_grad_()
    adam = torch.optim.Adam([mine], lr=0.01, betas=(0.9, 0.99), eps=1e-8)
    for step in range(4):
        gradient = torch.randn(2, 5, generator=generator)
        mine.grad = gradient[1]
        adam.step()
        rows.step(torch.tensor([2 if step % 2 else 0, 1]), gradient, 0.01, average=0.9)
    assert torch.allclose(rows.value[1], mine, atol=1e-6)
    assert rows.count[:, 0].tolist() == [2, 4, 2]


def test_targets_are_the_cells_and_emptiness(views):
    numbers = np.array([[1, 3]])
    thing_view, place, maps = gathered([views], numbers, 1.0, torch.Generator().manual_seed(0))
    picture = whole(views, numbers[0]).unflatten(2, (CELLS, 2)).unflatten(1, (CELLS, 2)).transpose(2, 3)
    cells = picture.flatten(3, 4).flatten(1, 2)
    assert torch.equal(maps, cells[thing_view, place])
    empty = (maps == 0).all(-1).all(-1)
    assert empty.any()
    fewer = gathered([views], numbers, 0.25, torch.Generator().manual_seed(0))[2]
    assert len(fewer) / len(maps) == pytest.approx(0.25, abs=0.04)


def test_an_exact_picture_has_no_error(views):
    test = unseen(0, Noun("box", "box.glb", 0.0), views, 2)
    half, full = test.errors(test.maps)
    assert (half, full) == (0, 0)
    wrong = test.errors(torch.zeros_like(test.maps))
    assert min(wrong) > 0.01
    assert 0.1 < luma_of(views) <= 1


@pytest.fixture
def four_views(monkeypatch):
    """Only those that were rendered here."""
    monkeypatch.setattr(train, "LEARNED", 4)


@pytest.mark.usefixtures("four_views")
def test_a_training_goes_on_as_if_it_had_not_stopped(views, tmp_path):
    options, poses = TrainOptions(steps=100, corrected=0.4, views=2, share=1.0), cameras_of(0).pose[None]
    whole = new_training(1, options, SMALL)
    losses = [advance(whole, [views], poses) for _ in range(60)]
    assert losses[-1] < 0.5 * losses[0]
    first = new_training(1, options, SMALL)
    assert [advance(first, [views], poses) for _ in range(3)] == losses[:3]
    first.state.save(tmp_path)
    second = new_training(1, replace(options, seed=5), SMALL)
    second.state.restore(tmp_path)
    assert [advance(second, [views], poses) for _ in range(3)] == losses[3:6]


@pytest.mark.usefixtures("four_views")
def test_corrections_learn_when_the_rest_has_settled(views, tmp_path):
    """At first they change nothing; then the loss falls, while tables and decoder stay where their averages were."""
    options, poses = TrainOptions(steps=140, corrected=4 / 7, views=2, share=1.0), cameras_of(0).pose[None]
    training = new_training(1, options, SMALL)
    for _ in range(60):
        advance(training, [views], poses)
    before, test = training.tables.rows.mean.clone(), [unseen(0, Noun("box", "box.glb", 0.0), views, 2)]
    bare = errors(training, test)
    losses = [advance(training, [views], poses) for _ in range(40)]
    training.state.save(tmp_path)
    losses += [advance(training, [views], poses) for _ in range(40)]
    assert losses[-1] < 0.8 * losses[0]
    assert (errors(training, test) < bare).all()
    assert torch.equal(training.tables.rows.value, before)
    decoders = [training.tables.decode.state_dict(), training.average.state_dict()]
    assert all(torch.equal(*pair) for pair in zip(*(each.values() for each in decoders), strict=True))
    again = new_training(1, replace(options, seed=5), SMALL)
    again.state.restore(tmp_path)
    assert [advance(again, [views], poses) for _ in range(40)] == losses[40:]


@pytest.mark.usefixtures("four_views")
def test_averages_settle_also_if_fewer_steps_are_asked_for_later(views, tmp_path):
    """Taken up again where corrections should have begun some steps ago."""
    options, poses = TrainOptions(steps=60, corrected=0.5, views=2, share=1.0), cameras_of(0).pose[None]
    begun = new_training(1, options, SMALL)
    for _ in range(20):
        advance(begun, [views], poses)
    begun.state.save(tmp_path)
    late = new_training(1, replace(options, steps=30), SMALL)
    late.state.restore(tmp_path)
    assert not late.settled
    advance(late, [views], poses)
    assert late.settled
    assert torch.equal(late.tables.rows.value, late.tables.rows.mean)


def test_a_corrected_decoder_is_one_with_other_weights():
    """Each thing adds the product of its two matrices to the weights of every layer."""
    torch.manual_seed(0)
    decode, numbers = decoder(SMALL), 0.2 * torch.randn(2, SMALL.corrected)
    cells, own = torch.randn(2, 5, SMALL.told), matrices(numbers, SMALL)
    together = decoded(decode, own, cells)
    for thing in range(2):
        other = copy.deepcopy(decode)
        with torch.no_grad():
            for layer, (thin, flat) in zip(list(other)[::2], own, strict=True):
                layer.weight += (thin[thing] @ flat[thing]).T
        assert torch.allclose(together[thing], other(cells[thing : thing + 1])[0], atol=1e-5)
    begin = matrices(no_corrections(2, SMALL, torch.Generator().manual_seed(0)), SMALL)
    assert torch.equal(decoded(decode, begin, cells), decode(cells))


def test_four_bits_keep_corrections_as_well_as_sixteen_levels_can():
    """Of normal numbers a hundredth of the variance is lost (0.01154: Max 1960, table of equally spaced levels)."""
    shape = replace(SMALL, width=400)
    numbers = torch.randn(8, shape.corrected, generator=torch.Generator().manual_seed(0))
    numbers[1] = 0.0
    stored = StoredCorrections(8, shape)
    stored.store(numbers)
    assert stored.number.shape == (8, shape.corrected // 2)
    order = torch.tensor([2, 0, 1, 7, 6, 5, 4, 3])
    pairs = zip(stored(order), matrices(numbers[order], shape), strict=True)
    off = [kept - given for pair in pairs for kept, given in zip(*pair, strict=True)]
    lost = sum(float(part.square().sum()) for part in off) / float(numbers.square().sum())
    assert lost == pytest.approx(0.01154, rel=0.05)
    assert all(part[2].abs().max() == 0 for part in off)


def test_all_things_have_their_turn_before_any_has_the_next_one():
    options = TrainOptions(things=3)
    rounds = [torch.cat([things_of(4 * turn + step, 12, options) for step in range(4)]).tolist() for turn in range(2)]
    assert [sorted(things) for things in rounds] == [list(range(12))] * 2
    assert rounds[0] != rounds[1]
    assert sorted(things_of(5, 2, options).tolist()) == [0, 1]


def test_learning_rates_fall_along_a_cosine():
    options = TrainOptions(last=0.1)
    assert [falling(share, options) for share in (0.0, 0.5, 1.0, 2.0)] == pytest.approx([1, 0.55, 0.1, 0.1])


def test_no_cells_are_no_matter():
    assert premultiplied(torch.zeros(1, 40, dtype=torch.uint8)).abs().max() == 0


def test_eight_bits_keep_a_thing_to_half_a_step():
    things = new_things(3, torch.Generator().manual_seed(0))
    things[1] = 0.25  # a channel without a range
    stored = StoredThings(3, SMALL)
    stored.store(things)
    off = (stored(torch.tensor([2, 0, 1])) - things[[2, 0, 1]]).abs()
    assert off.max() <= 0.501 * stored.step.max()
    assert off[2].max() < 1e-6
    ends = things[0, : 16 * 2].unflatten(0, (16, 2))[:, 1]  # of the second channel of the first table
    assert stored.least[0, 1] == ends.min()
    assert stored.step[0, 1] * 255 == pytest.approx(float(ends.max() - ends.min()), rel=1e-5)


def test_the_thing_like_no_other_is_the_mean_of_all():
    """Nearer to it than the pictures of the mean numbers are, from cameras that it never had."""
    torch.manual_seed(0)
    decode = decoder(SMALL).requires_grad_(False)
    things = new_things(4, torch.Generator().manual_seed(0))
    mean = mean_thing(things, decode, SMALL)
    pose = random_cameras(6, torch.Generator().manual_seed(9)).pose
    with torch.no_grad():
        wanted = draw(things, decode, SMALL, pose.expand(4, 6, 4, 4)).mean(0)
        made, first = (draw(some, decode, SMALL, pose[None])[0] for some in (mean, things.mean(0, keepdim=True)))
    assert (made - wanted).square().mean() < 0.8 * (first - wanted).square().mean()


@pytest.mark.parametrize(("name", "dtype"), [("avx2", torch.float32), ("avx512_bf16", torch.bfloat16)])
def test_halves_are_multiplied_where_the_processor_can(name, dtype, monkeypatch):
    able = {"avx2": True, "avx512_bf16": False} | {name: True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    square = torch.eye(3)
    with lighter():
        assert (square @ square).dtype == dtype
    assert (square @ square).dtype == torch.float32
