"""One run after the other in one process: the prior is opened once, and nothing of one run reaches the next."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dreamfusion import generate, stepping
from dreamfusion.batch import work
from dreamfusion.batch.watch import Watch
from dreamfusion.batch.work import KeptPrior, open_job, work_off
from dreamfusion.config import Config
from dreamfusion.config.distill import VsdLaw
from dreamfusion.diffusion.priors import text_encoders
from dreamfusion.errors import UserError
from dreamfusion.runs import RunFolder


@pytest.fixture
def config(tiny_config, tiny_prior) -> Config:
    return replace(tiny_config, prompt="a red chair", prior=str(tiny_prior))


UNWATCHED = Watch()


def made(config: Config, path: Path, kept: KeptPrior, watch: Watch = UNWATCHED) -> bool:
    return work_off(open_job(config, path, kept), watch, files=False)


def contents(folder: Path) -> dict[str, bytes]:
    """What all files hold, by their names in the folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("texts", [True, False])
def test_a_prior_is_kept_and_changes_nothing(config, tmp_path, monkeypatch, texts):
    """The second run of a process is, to the byte, that of a process of its own; laws that learn included."""
    opened: list[str] = []
    open_prior = work.open_prior
    monkeypatch.setattr(work, "open_prior", lambda name, options: [open_prior(name, options), opened.append(name)][0])
    kept = KeptPrior(texts)
    other = replace(config, seed=3, distill=replace(config.distill, law=VsdLaw()))
    assert made(other, tmp_path / "other", kept)
    assert made(config, tmp_path / "second", kept)
    assert len(opened) == 1
    assert made(config, tmp_path / "alone", KeptPrior(texts))
    assert contents(tmp_path / "second") == contents(tmp_path / "alone")
    made(replace(config, half=True, seed=5, steps=1), tmp_path / "half", kept)  # another prior takes its place
    assert len(opened) == 3


def test_it_is_opened_as_a_run_of_its_own_opens_it(config, tmp_path):
    assert made(config, tmp_path / "kept", KeptPrior())
    job = generate.create_run(config, tmp_path / "own")
    for _ in stepping.train(job, print):
        pass
    assert contents(tmp_path / "kept") == contents(tmp_path / "own")


def test_a_run_that_was_stopped_goes_on(config, tmp_path):
    told: list[int] = []
    watch = Watch(stepped=lambda metrics: told.append(metrics.step), stopped=lambda: len(told) == 5)
    assert not made(config, tmp_path / "run", KeptPrior(), watch)
    assert made(config, tmp_path / "run", KeptPrior(), Watch(stepped=lambda metrics: told.append(metrics.step)))
    assert told == list(range(1, config.steps + 1))
    made(config, tmp_path / "unbroken", KeptPrior())
    assert contents(tmp_path / "run") == contents(tmp_path / "unbroken")


def test_a_run_ends_with_its_page_or_says_why_not(config, tmp_path, monkeypatch):
    job = open_job(replace(config, steps=1), tmp_path / "run", KeptPrior())
    assert not work_off(job, Watch(stopped=lambda: True))  # after the last step, before the first product
    monkeypatch.setattr(generate, "finish", lambda run, folder, *_: [folder.index])
    assert work_off(job, UNWATCHED)


def test_weights_that_a_run_insists_on_are_compared(config, tmp_path):
    with pytest.raises(UserError, match="other weights"):
        open_job(replace(config, prior_sha256="0" * 64), tmp_path / "run", KeptPrior())
    assert not RunFolder(tmp_path / "run").config.exists()


def test_text_encoders_are_loaded_once_only_where_they_are_kept(config, monkeypatch):
    loaded: list[str] = []
    load = text_encoders.load_network
    monkeypatch.setattr(
        text_encoders, "load_network", lambda folder, name, *_: [load(folder, name, *_), loaded.append(name)][0]
    )
    for keep, count in ((True, 1), (False, 2)):
        kept = KeptPrior(keep)
        loaded.clear()
        for prompt in ("a red chair", "a blue chair"):
            kept(replace(config, prompt=prompt), torch.device("cpu"))
        assert len(loaded) == count
