"""Draws to choose from (`--candidates`)."""

import json
from contextlib import closing
from dataclasses import replace

import pytest

from dreamfusion import candidates, facts, generate, stepping
from dreamfusion.evaluate.session import facts_of, new_session
from test_healing import Breaks, made


def chosen(job):
    return json.loads(job.folder.candidates.read_text())


@pytest.fixture
def by_number(monkeypatch):
    """The last candidate is the best one."""
    errors = iter([3.0, 2.0, 1.0] * 9)
    monkeypatch.setattr(candidates, "denoising_error", lambda *run: next(errors))


@pytest.fixture
def few_views(monkeypatch):
    """Where it does not matter how good the choice is."""
    monkeypatch.setattr(candidates, "VIEWS", 2)


def test_the_best_goes_on_as_if_it_had_been_alone(tiny_config, disc_prior, tmp_path, by_number):
    config = replace(tiny_config, candidates=3)
    job, told = made(config, tmp_path / "chosen", disc_prior)
    assert [metrics.step for metrics in told] == [1, 2] * 3 + list(range(3, 13))
    record = chosen(job)
    assert record["chosen"] == 2
    assert [(one["seed"], one["error"]) for one in record["candidates"]] == [(0, 3.0), (1, 2.0), (2, 1.0)]
    alone, _ = made(replace(tiny_config, seed=2), tmp_path / "alone", disc_prior)
    assert job.folder.metrics.read_bytes() == alone.folder.metrics.read_bytes()
    assert json.loads(job.folder.config.read_text())["seed"] == 0
    assert facts.facts_of(job.run, job.folder)["chosen"].startswith("the draws of seed 2, of 3 candidates")


def test_an_interrupted_choice_is_made_again(tiny_config, disc_prior, tmp_path, few_views):
    config = replace(tiny_config, candidates=3)
    whole, _ = made(config, tmp_path / "whole", disc_prior)
    for left in (1, 3, 6, 8):
        made(config, tmp_path / f"left at {left}", disc_prior, until=left)
        parts, _ = made(config, tmp_path / f"left at {left}", disc_prior)
        assert parts.folder.metrics.read_bytes() == whole.folder.metrics.read_bytes()
        assert chosen(parts) == chosen(whole)


def test_one_that_diverges_is_not_chosen(tiny_config, disc_prior, tmp_path, by_number):
    job, _ = made(replace(tiny_config, candidates=2), tmp_path / "run", Breaks(disc_prior, 1))
    assert chosen(job)["candidates"][0] == {"seed": 0, "error": None, "findings": []}
    assert chosen(job)["chosen"] == 1


def test_the_error_is_less_for_what_the_prior_wants_to_see(long_config, disc_prior, tmp_path):
    job = generate.create_run(replace(long_config, steps=60), tmp_path / "run", prior=disc_prior)
    before = candidates.denoising_error(job.run, disc_prior, job.prompts)
    assert before == candidates.denoising_error(job.run, disc_prior, job.prompts)
    with closing(stepping.train(job, lambda doing: None)) as steps:
        list(steps)
    assert candidates.denoising_error(job.run, disc_prior, job.prompts) < before


def test_an_evaluation_says_that_runs_were_chosen(tmp_path, tiny_config, disc_prior, few_views):
    job, _ = made(replace(tiny_config, candidates=2), tmp_path / "run", disc_prior)
    session = new_session(tmp_path, "judge", {}, 1)
    assert session.config.candidates == 1
    assert facts_of(session, [job.folder.path])["candidates"] == 2
    plain, _ = made(tiny_config, tmp_path / "plain", disc_prior)
    assert "candidates" not in facts_of(session, [plain.folder.path])
