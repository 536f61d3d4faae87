"""The embedded prior's denoiser: its estimates are posterior means, and what is not told is marginalised."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from dreamfusion.cameras import orbit
from dreamfusion.diffusion.distill.adapter import Adapter
from dreamfusion.embedded.denoiser import LEAST_SPREAD, VIEWS, TablesDenoiser, cameras_meant, grid, laid
from dreamfusion.embedded.mixture import Guesses, log_evidence, posterior_mean
from dreamfusion.embedded.noise import cosine_alphas, signal_share
from dreamfusion.embedded.tables import MAPS, Angles
from dreamfusion.embedded.world import COLOURS
from dreamfusion.lights import Light, albedo_only
from miniatures import TABLES, tables
from training.nouns import Noun
from training.prior.data import vocabulary
from training.prior.ship import NO_WORDS

pytestmark = pytest.mark.processor

TABLE = [
    Noun("pumpkin", "a", 0.0),
    Noun("carved pumpkin", "b", 0.0),
    Noun("chair", "c", 0.0),
    Noun("chair", "d", 0.0, adjective="wooden"),
    Noun("chair", "e", 0.0),
]
WORDS = [*NO_WORDS, *vocabulary(TABLE)]
NOTHING = len(TABLE)
SIZE = TABLES.size


def text(*captions: str) -> Tensor:
    """Captions as the sum of their words, one token each."""
    rows = torch.zeros(len(captions), 8, len(WORDS))
    for row, caption in zip(rows, captions, strict=True):
        for place, word in enumerate(caption.split()):
            row[place, WORDS.index(word)] = 1
    return rows


@pytest.fixture
def network() -> TablesDenoiser:
    return tables(TABLE)


def plain(network: TablesDenoiser, *albedo: float, front: float = 0.0) -> TablesDenoiser:
    """Every thing fills the picture with a grey of its own, plus `front` in the views from the front."""
    greys = torch.tensor([*albedo, 0.5])

    def drawn(things: Tensor, pose: Tensor, adapted: bool = True) -> Tensor:
        maps = torch.zeros(*pose.shape[:2], SIZE, SIZE, sum(MAPS))
        facing = (Angles.of(pose).azimuth.abs() < math.pi / 4).float() * front
        maps[..., 3:6] = (greys[things][:, None] + facing)[..., None, None, None]
        maps[..., -1] = 1
        return maps

    network.drawn = drawn
    return network


POSE = orbit(torch.tensor([0.4]), torch.tensor([0.3]), torch.tensor([3.0]), torch.tensor([0.7]), SIZE).pose


def known(*names: str) -> dict[str, object]:
    """All that can be told, or these of it."""
    everything = {
        "pose": POSE,
        "background": torch.tensor([[0.2, 0.4, 0.6]]),
        "light": albedo_only(1),
        "variety": torch.tensor([0]),
    }
    return {name: everything[name] for name in names or everything}


def noisy(picture: Tensor, t: int, seed: int = 0) -> Tensor:
    share = signal_share(torch.tensor([t]))
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(seed))
    return share.sqrt() * picture + (1 - share).sqrt() * noise


@torch.no_grad()
def estimate(network: TablesDenoiser, picture: Tensor | float, t: int, caption: str, **told: object) -> Tensor:
    """Of the clean picture, in [0, 1]."""
    clean = picture if isinstance(picture, Tensor) else torch.full((1, 3, SIZE, SIZE), 2 * picture - 1)
    return (network(noisy(clean, t), torch.tensor([t]), text(caption), **told) + 1) / 2


def test_a_gaussian_about_a_picture_has_the_posterior_mean_of_wiener():
    """At any level, and against a sum over many draws: those that look like the noisy picture, by its likelihood."""
    generator = torch.Generator().manual_seed(0)
    mean, spread, alpha, sigma = 0.3, 0.5, 0.8, 0.6
    draws = mean + spread * torch.randn(200_000, generator=generator)
    seen = 0.9
    weight = torch.softmax(-((seen - alpha * draws) ** 2) / (2 * sigma**2), 0)
    guesses = Guesses(
        torch.full((1, 1, 1, 1, 1), mean), torch.full((1, 1, 1, 1), spread), torch.zeros(1, 1),
        torch.zeros(1, 1, 0, 1, 1, 1), torch.zeros(0),
    )  # fmt: skip
    found = posterior_mean(
        torch.full((1, 1, 1, 1), seen), torch.tensor([alpha]), torch.tensor([sigma]), guesses, torch.ones(1, 1)
    )
    assert float(found) == pytest.approx(float((weight * draws).sum()), abs=0.005)


def test_a_mixture_with_unknown_amounts_is_what_a_joint_gaussian_says():
    """Two guesses with two amounts each and a spread for each pixel, written as Gaussians of the whole picture."""
    generator = torch.Generator().manual_seed(1)
    mean, parts = torch.randn(1, 2, 2, 2, 3, generator=generator), torch.randn(1, 2, 2, 2, 2, 3, generator=generator)
    spread = 0.1 + torch.rand(1, 2, 2, 3, generator=generator)
    prior, width = torch.tensor([[0.3, 0.7]]), torch.tensor([0.5, 1.5])
    seen, alpha, sigma = torch.randn(1, 2, 2, 3, generator=generator), torch.tensor([0.7]), torch.tensor([0.5])
    guesses = Guesses(mean, spread, prior.log(), parts, width)
    evidence = log_evidence(seen, alpha, sigma, guesses)
    found = posterior_mean(seen, alpha, sigma, guesses, evidence.softmax(1))
    wanted, likely = [], []
    for k in range(2):
        design = parts[0, k].flatten(1).T
        own = design @ torch.diag(width**2) @ design.T + torch.diag(spread[0, k].flatten().repeat(2) ** 2)
        whole = alpha**2 * own + sigma**2 * torch.eye(12)
        centre = alpha * mean[0, k].flatten()
        wanted.append(mean[0, k].flatten() + alpha * own @ torch.linalg.solve(whole, seen.flatten() - centre))
        likely.append(torch.distributions.MultivariateNormal(centre, whole).log_prob(seen.flatten()))
    weight = (torch.stack(likely) + prior[0].log()).softmax(0)
    assert torch.allclose(evidence.softmax(1)[0], weight, atol=1e-4)
    assert torch.allclose(found.flatten(), (weight[:, None] * torch.stack(wanted)).sum(0), atol=1e-4)


def test_the_spread_lies_where_the_thing_is():
    alpha = torch.zeros(1, 1, 8, 8)
    alpha[..., 2, 2], alpha[..., 6, 6] = 1.0, 0.5
    variance = laid(torch.tensor([[0.3]]), alpha)[0, 0].square() - LEAST_SPREAD**2
    assert float(variance.mean()) == pytest.approx(0.3**2, rel=1e-4)
    assert float(variance[1, 3] / variance[5, 5]) == pytest.approx(2, rel=1e-3)  # beside the one, beside the other
    assert float(variance[4, 2].abs()) < 1e-8
    assert torch.allclose(laid(torch.tensor([[0.3]]), torch.zeros(1, 1, 8, 8)), torch.tensor(LEAST_SPREAD))


@torch.no_grad()
def test_samples_have_no_grain_where_nothing_is(network):
    """Half a picture of paint, half of background: DDIM with everything told, 20 steps."""
    maps = torch.zeros(SIZE, SIZE, sum(MAPS))
    maps[:, : SIZE // 2] = torch.tensor([0, 0, 0, 0.4, 0.4, 0.4, 0, 0, 1.0, 1])
    network.drawn = lambda things, pose, adapted=True: maps.expand(*pose.shape[:2], *maps.shape)
    x, levels = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0)), range(999, -1, -50)
    for t, lower in pairwise([*levels, 0]):
        clean = network(x, torch.tensor([t]), text("a chair"), **known())
        now, after = signal_share(torch.tensor([t])), signal_share(torch.tensor([lower]))
        x = after.sqrt() * clean + ((1 - after) / (1 - now)).sqrt() * (x - now.sqrt() * clean)
    behind = (2 * torch.tensor([0.2, 0.4, 0.6]) - 1)[None, :, None, None]
    assert (clean[..., SIZE // 2 + 1 :] - behind).square().mean().sqrt() < 0.01
    assert clean[..., : SIZE // 2].std() > 0.05


def test_captions_mean_things(network):
    said = network.read(text("a pumpkin", "a carved pumpkin", "a chair", "a wooden chair", "", "a red carved"))
    assert said.thing.sum(1).tolist() == pytest.approx([1] * 6)
    assert said.thing.argmax(1).tolist() == [0, 1, 2, 3, NOTHING, NOTHING]
    assert said.thing[2, 2:5].tolist() == pytest.approx([1 / 3] * 3, rel=0.01)
    assert said.thing[3, 3] > 0.99
    assert said.thing.amax(1)[[0, 1, 4, 5]].min() > 0.99


def test_captions_mean_colours_and_views(network):
    said = network.read(text("a red chair front view", "a chair left side view", "untextured chair", "chair"))
    assert said.colour[0, list(COLOURS).index("red")] == 1
    assert said.colour.sum(1).tolist() == [1, 0, 0, 0]
    assert said.view.argmax(1)[:2].tolist() == [VIEWS.words.index("front"), VIEWS.words.index("left")]
    assert said.view.sum(1).tolist() == [1, 1, 0, 0]
    assert said.textureless.tolist() == [0, 0, 1, 0]
    blend = network.read(0.3 * text("chair front view") + 0.7 * text("chair back view"))
    assert blend.view[0].tolist() == pytest.approx([0.3, 0, 0.7, 0, 0])


def test_the_variety_says_which_thing(network):
    greys = plain(network, 0.1, 0.2, 0.3, 0.5, 0.7)
    for variety, grey in ((0, 0.3), (1, 0.5), (2, 0.7), (3, 0.3), (13, 0.5)):  # 13 counts as 1 of twelve
        told = known() | {"variety": torch.tensor([variety])}
        assert estimate(greys, 0.5, 990, "a chair", **told).mean() == pytest.approx(grey, abs=0.02)
    told = known() | {"variety": torch.tensor([5])}
    assert estimate(greys, 0.5, 990, "a wooden chair", **told).mean() == pytest.approx(0.5, abs=0.02)


def test_a_hidden_variety_is_read_from_the_picture_and_not_averaged(network):
    greys = plain(network, 0.1, 0.2, 0.3, 0.5, 0.7)
    told = known("pose", "background", "light")
    for grey in (0.3, 0.5, 0.7):
        assert estimate(greys, grey, 600, "a chair", **told).mean() == pytest.approx(grey, abs=0.01)
    assert estimate(greys, 0.1, 600, "a chair", **told).mean() == pytest.approx(0.3, abs=0.02)  # what the noun allows


def test_a_hidden_camera_is_read_from_the_picture_within_what_the_word_allows(network):
    network = plain(network, 0.2, 0.2, 0.2, 0.2, 0.2, front=0.5)
    told = known("background", "light", "variety")
    assert estimate(network, 0.7, 600, "a chair", **told).mean() == pytest.approx(0.7, abs=0.01)
    assert estimate(network, 0.2, 600, "a chair", **told).mean() == pytest.approx(0.2, abs=0.01)
    assert estimate(network, 0.7, 600, "a chair back view", **told).mean() == pytest.approx(0.2, abs=0.05)


def test_a_hidden_background_takes_the_colour_of_the_picture(network):
    network.drawn = lambda things, pose: torch.zeros(*pose.shape[:2], SIZE, SIZE, sum(MAPS))
    wanted = torch.tensor([0.8, 0.3, 0.4])
    picture = (2 * wanted - 1)[None, :, None, None].expand(1, 3, SIZE, SIZE)
    found = estimate(network, picture, 200, "a chair", **known("pose", "light", "variety"))[0].mean((1, 2))
    assert torch.allclose(found, wanted, atol=0.05)


def test_a_hidden_light_is_found_among_those_that_shade_so(network):
    """A ball's normals: bright on the side of the light, which nobody told."""
    network.spread.fill_(0.01)
    generator = torch.Generator().manual_seed(0)
    normal = torch.nn.functional.normalize(torch.randn(SIZE, SIZE, 3, generator=generator), dim=-1)
    maps = torch.cat(
        [torch.zeros(SIZE, SIZE, 3), torch.full((SIZE, SIZE, 3), 0.8), normal, torch.ones(SIZE, SIZE, 1)], -1
    )
    network.drawn = lambda things, pose, adapted=True: maps.expand(*pose.shape[:2], *maps.shape)
    shade = 0.8 * (0.5 + normal @ torch.tensor([0.3, 0.1, -0.1]))
    picture = (2 * shade - 1).expand(1, 3, SIZE, SIZE)
    found = estimate(network, picture, 100, "a chair", **known("pose", "background", "variety"))
    assert (found[0] - shade).square().mean().sqrt() < 0.02


def test_what_is_told_is_seen(network):
    """Background where nothing is, Lambert's law on what is covered, white where the light is textureless."""
    maps = torch.zeros(SIZE, SIZE, sum(MAPS))
    maps[:, : SIZE // 2] = torch.tensor([0, 0, 0, 0.4, 0.4, 0.4, 0, 1.0, 0, 1])
    network.drawn = lambda things, pose, adapted=True: maps.expand(*pose.shape[:2], *maps.shape)
    for white in (False, True):
        above = torch.tensor([[0.0, 4.0, 3.0]])
        light = Light(above, torch.tensor([0.3]), torch.tensor([0.7]), torch.tensor([white]))
        found = estimate(network, 0.5, 999, "a chair", **(known() | {"light": light}))[0].movedim(0, -1)
        shade = (1.0 if white else 0.4) * (0.3 + 0.7 * 0.8)
        assert torch.allclose(found[:, : SIZE // 2], torch.tensor(shade), atol=0.03)
        assert torch.allclose(found[:, SIZE // 2 :], torch.tensor([0.2, 0.4, 0.6]), atol=0.03)


def test_paint_takes_the_colour_and_keeps_its_light_and_dark_places(network):
    maps = torch.zeros(SIZE, SIZE, sum(MAPS))
    maps[..., :3], maps[..., -1] = 0.5, 1
    maps[: SIZE // 2, :, :3] = 0.25
    network.drawn = lambda things, pose, adapted=True: maps.expand(*pose.shape[:2], *maps.shape)
    found = estimate(network, 0.5, 999, "a blue chair", **known())[0].movedim(0, -1)
    blue = torch.tensor(COLOURS["blue"])  # of paint as bright as the mean: luma is 0.5
    assert torch.allclose(found[SIZE // 2 :], blue, atol=0.03)
    assert torch.allclose(found[: SIZE // 2], blue / 2, atol=0.03)
    own = estimate(network, 0.5, 999, "a chair", **known())[0].movedim(0, -1)
    assert torch.allclose(own[: SIZE // 2], torch.tensor(0.25), atol=0.03)


def test_at_low_noise_the_picture_decides(network):
    """The error is then far below the spread, whatever was guessed."""
    greys = plain(network, *[0.5] * 5)
    clean = torch.rand(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3)) * 0.2 + 0.4
    for told in (known(), known("background"), {}):
        found = estimate(greys, 2 * clean - 1, 5, "a chair", **told)
        assert (found - clean).square().mean().sqrt() < 0.2 * float(greys.spread[0, 0]) / 2


def test_rows_of_a_batch_do_not_mix(network):
    x = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    t, captions = torch.tensor([900, 300, 500]), text("a red chair", "", "a pumpkin back view")
    light = Light(torch.randn(3, 3), torch.rand(3), torch.rand(3), torch.tensor([True, False, False]))
    pose = orbit(torch.tensor([0.1, 2.0, 4.0]), torch.tensor([0.1, 0.5, 1.2]), *torch.full((2, 3), 3.0), SIZE).pose
    everything = {"pose": pose, "background": torch.rand(3, 3), "light": light, "variety": torch.tensor([0, 4, 7])}
    for told in (everything, {"light": light}, {"pose": pose, "variety": everything["variety"]}, {}):
        with torch.no_grad():
            whole = network(x, t, captions, **told)
            for i in range(3):
                own = slice(i, i + 1)
                alone = network(x[own], t[own], captions[own], **{name: part[own] for name, part in told.items()})
                assert torch.allclose(alone, whole[own], atol=1e-4)


def test_half_precision_says_about_the_same(network):
    x = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    t, captions = torch.tensor([700]), text("a red chair")
    for told in (known(), {}):
        with torch.no_grad():
            exact = network(x, t, captions, **told)
            coarse = tables(TABLE).bfloat16()(x.bfloat16(), t, captions.bfloat16(), **told)
        assert coarse.dtype == torch.bfloat16
        assert (coarse.float() - exact).norm() < 0.05 * exact.norm()


def test_the_closed_form_of_the_noise_is_the_schedule():
    assert torch.allclose(signal_share(torch.arange(1000)), cosine_alphas(1000), atol=1e-5)


def test_the_grid_has_every_quarter():
    shares = torch.stack([cameras_meant(torch.eye(5)[word])[1] > 0 for word in range(5)]).float().mean(1)
    assert shares.sum() == pytest.approx(1)
    assert shares[:4].min() > 0.2  # front, left, back, right alike
    assert shares[:4].max() - shares[:4].min() < 0.02
    assert shares[4] > 0.02
    pose, weight = cameras_meant(torch.zeros(5))
    assert torch.equal(pose, grid())
    assert weight.tolist() == pytest.approx([1 / len(pose)] * len(pose))


def test_an_adapter_is_seen_where_the_camera_is_hidden_and_forgotten_after(network):
    """By hidden cameras, whose pictures are remembered: fresh adapters change nothing, trained ones do, for a while."""
    adapter, told = Adapter(), known("background", "light", "variety")
    adapter.grow(network, 2, torch.Generator().manual_seed(0))
    plainly = estimate(network, 0.6, 600, "a chair", **told)
    with adapter.on(network):
        torch.testing.assert_close(estimate(network, 0.6, 600, "a chair", **told), plainly, atol=2e-3, rtol=0)
        picture = noisy(torch.full((1, 3, SIZE, SIZE), 0.2), 600)
        network(picture, torch.tensor([600]), text("a chair"), **told).square().sum().backward()
    assert all(up.grad is not None and bool((up.grad != 0).any()) for up in adapter.up.values())
    for up in adapter.up.values():
        torch.nn.init.normal_(up, generator=torch.Generator().manual_seed(1))
    with adapter.on(network):
        assert not torch.allclose(estimate(network, 0.6, 600, "a chair", **told), plainly, atol=0.02)
    assert torch.equal(estimate(network, 0.6, 600, "a chair", **told), plainly)
