"""The tables of `training/`: their data, their pictures, their optimiser, and that a training goes on as it was."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh

from dreamfusion.diffusion.priors import NoiseSchedule, Prior, ViewCondition
from dreamfusion.errors import UserError
from dreamfusion.lights import albedo_only
from dreamfusion.nerf.rays import cast
from training.meshes import MeshRenderer, load
from training.nouns import Noun, learned, nouns
from training.tables.error import luma_of, unseen, whole
from training.tables.network import Angles, Shape, between, decoder, draw, look_up, new_things, told
from training.tables.prior import Bank, Spread, TablesPrior, bank, open_tables
from training.tables.train import Plan, Rows, Trainer, gathered
from training.tables.views import (
    CELLS,
    LEARNED,
    UNSEEN,
    MeshViews,
    cameras_of,
    order,
    premultiplied,
    rendered,
)

SMALL = Shape(nodes=4, azimuths=6, elevations=3, channels=2, embedding=4, width=16)


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


def test_every_noun_comes_once_before_any_comes_twice():
    table = learned(nouns())
    sequence = order(table)
    assert sorted(sequence) == list(range(len(table)))
    count = len({row.noun for row in table})
    assert len({table[mesh].noun for mesh in sequence[:count]}) == count


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
    things, decode = new_things(2, SMALL, generator), decoder(SMALL)
    pose = cameras_of(1).pose[:6].unflatten(0, (2, 3))
    with torch.no_grad():
        pictures = draw(things, decode, SMALL, pose)
        angles = Angles.of(pose)
        which, place = torch.tensor([4, 0, 5]), torch.tensor([35, 700, CELLS**2 - 1])
        cells = decode(told(look_up(things, SMALL, angles), angles, which, place))
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
        rows.step(torch.tensor([2 if step % 2 else 0, 1]), gradient, 0.01)
    assert torch.allclose(rows.value[1], mine, atol=1e-6)
    assert rows.count[:, 0].tolist() == [2, 4, 2]


def test_targets_are_the_cells_and_emptiness(views):
    random = np.random.default_rng(0)
    numbers = np.array([[1, 3]])
    thing_view, place, maps = gathered([views], numbers, random)
    picture = whole(views, numbers[0]).unflatten(2, (CELLS, 2)).unflatten(1, (CELLS, 2)).transpose(2, 3)
    cells = picture.flatten(3, 4).flatten(1, 2)
    assert torch.equal(maps, cells[thing_view, place])
    assert (maps == 0).all(-1).all(-1).any()


def test_an_exact_picture_has_no_error(views):
    test = unseen(0, Noun("box", "box.glb", 0.0), views, 2)
    half, full = test.errors(test.maps)
    assert (half, full) == (0, 0)
    wrong = test.errors(torch.zeros_like(test.maps))
    assert min(wrong) > 0.01
    assert 0.1 < luma_of(views) <= 1


def test_a_training_goes_on_as_if_it_had_not_stopped(views, tmp_path):
    plan, poses = Plan(seconds_a_thing=1e6, things=1, views=2), cameras_of(0).pose[None]

    class Few(Trainer):
        """Of views that were rendered here."""

        def drawn(self, plan: Plan) -> np.ndarray:
            return self.random.choice(4, plan.views, replace=False)

    def trained(trainer: Trainer, steps: int) -> list[float]:
        return [trainer.step({0: views}, poses, plan) for _ in range(steps)]

    once = Few(SMALL, [7])
    losses = trained(once, 60)
    again = Few(SMALL, [7])
    trained(again, 3)
    again.save(tmp_path)
    other = Few(SMALL, [7], seed=5)
    other.load(tmp_path)
    assert trained(other, 3) == pytest.approx(losses[3:6], rel=1e-3)
    assert losses[-1] < 0.5 * losses[0]
    with pytest.raises(UserError, match="other meshes"):
        Few(SMALL, [8]).load(tmp_path)


def test_the_last_weights_of_a_state_are_a_prior(tmp_path):
    trainer = Trainer(Shape(), [5, 7])
    trainer.save(tmp_path)
    prior = open_tables(tmp_path, 7, "weighted")
    assert torch.equal(prior.thing, trainer.rows.value[1])
    assert prior.conditions == {"background", "light"}
    with pytest.raises(UserError, match="not learned"):
        open_tables(tmp_path, 6, "told")


def test_no_cells_are_no_matter():
    assert premultiplied(torch.zeros(1, 40, dtype=torch.uint8)).abs().max() == 0


def plain_bank(*colours: float) -> Bank:
    """One view of each, a grey that fills the picture; the first is the front, all others the back."""
    maps = torch.zeros(len(colours), 64, 64, 10)
    maps[..., 3:6] = torch.tensor(colours)[:, None, None, None]
    maps[..., 9] = 1
    words = torch.zeros(len(colours), 5)
    words[0, 0], words[1:, 2] = 1, 1
    return Bank(torch.eye(4).expand(len(colours), 4, 4), words, maps)


def prior_of(seen: Bank, weighted: bool = True, spread: float = 0.1) -> TablesPrior:
    levels = torch.linspace(0.999, 0.001, 1000)
    return TablesPrior(
        new_things(1, SMALL, torch.Generator().manual_seed(0))[0], decoder(SMALL), SMALL,
        NoiseSchedule.variance_preserving(levels), seen, frozenset({"background", "light"}), weighted,
        Spread(spread, spread),
    )  # fmt: skip


def estimate(prior: TablesPrior, picture: float, t: int, caption: str) -> torch.Tensor:
    """Of x0, in [0, 1], from a plain picture with noise on it."""
    known = ViewCondition(background=torch.zeros(1, 3), light=albedo_only(1))
    eps = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    level = torch.tensor([t])
    noisy = prior.schedule.add_noise(torch.full_like(eps, 2 * picture - 1), eps, level)
    told = prior.predict_noise(noisy, level, prior.embed([caption]), known)
    return (prior.schedule.x0_from_eps(told, noisy, level) + 1) / 2


def test_a_prior_of_tables_is_one():
    assert isinstance(prior_of(plain_bank(0.2)), Prior)


def test_what_is_not_told_is_read_from_the_picture():
    prior = prior_of(plain_bank(0.2, 0.5, 0.8))
    assert estimate(prior, 0.8, 500, "a box").mean() == pytest.approx(0.8, abs=0.01)
    assert estimate(prior, 0.2, 500, "a box").mean() == pytest.approx(0.2, abs=0.01)
    assert estimate(prior, 0.2, 500, "a box, back view").mean() == pytest.approx(0.5, abs=0.05)  # what the word allows
    assert estimate(prior_of(plain_bank(0.2, 0.5, 0.8), weighted=False), 0.8, 500, "a box").mean() == pytest.approx(0.5)


def test_the_estimate_is_the_posterior_mean():
    """Two plain greys and a spread in every pixel by itself: against the formula of Bayes, written out."""
    spread, t, means = 0.3, 990, torch.tensor([-0.2, 0.0])
    prior = prior_of(plain_bank(0.4, 0.5), spread=spread)
    alpha, sigma = float(prior.schedule.alphas[t]), float(prior.schedule.sigmas[t])
    eps = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    noisy = alpha * (2 * 0.45 - 1) + sigma * eps
    variance = sigma**2 + (alpha * spread) ** 2
    weight = torch.distributions.Normal(alpha * means, math.sqrt(variance))
    likely = weight.log_prob(noisy.flatten()[:, None]).double().sum(0).softmax(0).float()
    each = means + alpha * spread**2 / variance * (noisy[..., None] - alpha * means)
    expected = ((each * likely).sum(-1) + 1) / 2
    assert 0.02 < likely[0] < 0.98
    assert torch.allclose(estimate(prior, 0.45, t, "a box"), expected, atol=2e-3)


def test_at_low_noise_the_error_is_below_the_spread():
    found = estimate(prior_of(plain_bank(0.5), spread=0.2), 0.6, 0, "a box")  # the truth is one spread away
    assert (found - 0.6).square().mean().sqrt() < 0.03


def test_a_bank_has_every_quarter():
    decode = decoder(SMALL)
    seen = bank(new_things(1, SMALL, torch.Generator().manual_seed(0))[0], decode, SMALL)
    share = seen.words.mean(0)
    assert share.sum() == pytest.approx(1)
    assert (share[:4] > 0.2).all()  # front, left, back, right alike
    assert share[:4].max() - share[:4].min() < 0.02
    assert share[4] > 0.02
