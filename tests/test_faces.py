"""Second faces: what the prior's own words say of the views from behind, and what is done about it."""

import json
from dataclasses import replace

import pytest
import torch

from dreamfusion import faces, health
from dreamfusion.cameras import turntable
from dreamfusion.diffusion.prompts import PromptOptions, PromptTable
from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.healing import acting, healing_of
from dreamfusion.health import SECOND_FRONT, Finding
from gaussian_prior import GaussianPrior, cosine_schedule
from test_healing import FAST, made

SIZE, STD = 16, 0.1


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def sided():
    """A prior that has one picture in mind for the front and another for every other side."""
    means = {name: 0.3 * random(3, SIZE, SIZE, seed=seed) for seed, name in enumerate(("", "front view", "view"))}
    return GaussianPrior(means, STD, cosine_schedule(dtype=torch.float32), SIZE)


@pytest.fixture
def disc_prior(disc_prior):
    """It means something else by the front."""
    return replace(disc_prior, means={**disc_prior.means, "front view": -disc_prior.means[""]})


def closed_form(prior: GaussianPrior, other: torch.Tensor) -> float:
    """Log of the error where the truth is off by `other`, over that where it is not."""
    errors = [0.0, 0.0]
    for level in faces.LEVELS:
        t = torch.tensor([round(level * 999)])
        alpha, sigma = prior.schedule.alpha(t).item(), prior.schedule.sigma(t).item()
        spread = alpha**2 * STD**2 + sigma**2
        noise = (1 - sigma**2 / spread) ** 2
        for index, off in enumerate((0.0, other.square().mean().item())):
            errors[index] += noise + (alpha * sigma / spread) ** 2 * off
    return float(torch.tensor(errors[1] / errors[0]).log())


@pytest.mark.parametrize("shows", ["front view", "view"])
def test_a_front_is_what_its_words_explain_better(sided, shows):
    prompts = PromptTable(sided, "a thing")
    ring = turntable(8, 0.5, 3.0, 0.7, SIZE)[2:7]
    x = sided.means[shows].expand(5, -1, -1, -1)
    got = faces.fronts(x, ring, None, sided, prompts, torch.Generator().manual_seed(0))
    wanted = closed_form(sided, sided.means["front view"] - sided.means["view"])
    wanted = wanted if shows == "front view" else -wanted
    assert abs(wanted) > 1
    torch.testing.assert_close(got, torch.full((5,), wanted), atol=0.15, rtol=0)


def test_from_the_front_there_is_nothing_to_compare(sided):
    ring = turntable(1, 0.0, 3.0, 0.7, SIZE)
    x = sided.means["view"][None]
    got = faces.fronts(x, ring, None, sided, PromptTable(sided, "a thing"), torch.Generator().manual_seed(0))
    assert got.tolist() == [0.0]


def test_a_run_is_looked_at_after_every_tenth_of_its_second_part():
    assert [step for step in range(1, 501) if faces.due(step, 500)] == [200, 250, 300, 350, 400, 450, 500]
    assert [step for step in range(1, 13) if faces.due(step, 12)] == [5, 6, 8, 9, 10, 11, 12]
    assert [step for step in range(1, 4) if faces.due(step, 3)] == [2, 3]


def test_only_words_that_tell_views_apart_are_asked(sided):
    assert faces.told_by_words(PromptTable(sided, "a thing"))
    assert not faces.told_by_words(PromptTable(sided, "a thing", PromptOptions(view_dependent=False)))
    posed = replace(sided, conditions=frozenset({"pose"}))
    assert not faces.told_by_words(PromptTable(posed, "a thing"))
    assert faces.told_by_words(PromptTable(posed, "a thing", PromptOptions(conditions="no-camera")))
    same = replace(sided, view_words=ViewWords("view", "view", "view", "view", "view"))
    assert not faces.told_by_words(PromptTable(same, "a thing"))


def test_the_same_run_is_seen_the_same_and_goes_on_as_if_nobody_had_looked(tiny_config, disc_prior, tmp_path):
    job, _ = made(tiny_config, tmp_path / "run", disc_prior, until=3)
    state = job.run.generator.get_state()
    one, other = (faces.seen(job.run, disc_prior, job.prompts) for _ in range(2))
    assert one.shape == (len(faces.AWAY_DEG),)
    assert torch.equal(one, other)
    assert torch.equal(job.run.generator.get_state(), state)


@pytest.fixture
def two_faced(monkeypatch):
    """Runs have a second face until they are steered away from it."""
    monkeypatch.setattr(health, "WINDOW", 2)
    monkeypatch.setattr(health, "RULES", {SECOND_FRONT: health.RULES[SECOND_FRONT]})
    asked = []

    def seen(run, prior, prompts):
        asked.append((run.step, prompts.options.perp_neg))
        return torch.tensor([-2.0, 1.0 if run.step > 5 and not prompts.options.perp_neg else -1.0])

    monkeypatch.setattr(faces, "seen", seen)
    return asked


def test_a_second_front_is_told(tiny_config, disc_prior, tmp_path, two_faced):
    job, told = made(tiny_config, tmp_path / "run", disc_prior)
    found = [metrics.step for metrics in told if metrics.findings]
    assert found == [6, 7, 8, 9, 10, 11, 12]
    fronts = {line["step"]: line["vitals"]["front"] for line in job.folder.read_metrics() if "front" in line["vitals"]}
    assert fronts == {5: -1.0, 6: 1.0, 8: 1.0, 9: 1.0, 10: 1.0, 11: 1.0, 12: 1.0}
    assert "second front: " in health.in_words(health.found_in(job.folder.read_metrics()[-1]))


def test_a_run_with_a_second_front_begins_anew_and_is_steered_away_from_it(
    tiny_config, disc_prior, tmp_path, two_faced
):
    config = replace(tiny_config, heal=2)
    job, told = made(config, tmp_path / "run", disc_prior)
    assert [(healing.step, healing.back_to, healing.changes) for healing in job.run.healings] == [
        (6, 0, {"perp_neg": 1.0})
    ]
    assert [metrics.step for metrics in told] == [*range(1, 6), *range(1, 13)]
    assert [steer for step, steer in two_faced] == [0.0] * 2 + [1.0] * 7
    alone, _ = made(replace(tiny_config, perp_neg=1.0), tmp_path / "alone", disc_prior)
    states = [job.run.scene.state_dict() for job in (job, alone)]
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert json.loads(job.folder.config.read_text())["perp_neg"] == 0.0


@pytest.mark.parametrize("left", [5, 7, 10])
def test_such_a_run_may_be_interrupted(tiny_config, disc_prior, tmp_path, two_faced, left):
    config = replace(tiny_config, heal=1)
    whole, _ = made(config, tmp_path / "whole", disc_prior)
    made(config, tmp_path / "parts", disc_prior, until=left)
    parts, _ = made(config, tmp_path / "parts", disc_prior)
    assert parts.folder.metrics.read_bytes() == whole.folder.metrics.read_bytes()


def test_what_has_no_remedy_left_is_only_told():
    finding = Finding(SECOND_FRONT, 1.0)
    healing = healing_of(finding, 300, 250, FAST, ())
    assert healing is not None
    assert healing.back_to == 0
    assert healing_of(finding, 300, 250, FAST, (healing,)) is None
    assert acting(FAST, [healing]) == replace(FAST, perp_neg=1.0)
    assert healing_of(finding, 300, 250, replace(FAST, view_words=False), ()) is None


def test_a_run_that_is_told_the_camera_is_not_looked_at(tiny_config, disc_prior, tmp_path, two_faced):
    posed = replace(disc_prior, conditions=frozenset({"pose"}))
    made(tiny_config, tmp_path / "posed", posed)
    made(replace(tiny_config, view_words=False), tmp_path / "wordless", disc_prior)
    made(replace(tiny_config, preset="sd"), tmp_path / "other", disc_prior)
    assert two_faced == []
    made(replace(tiny_config, conditions="no-camera"), tmp_path / "words", posed)
    assert two_faced != []
