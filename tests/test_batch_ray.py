"""Batches on a Ray cluster of this machine; skipped without Ray (extra `ray`)."""

import os
import signal
from pathlib import Path

import pytest

from batch_runs import EVERY, Counted, done_steps
from dreamfusion.batch.drive import Drive, Rules, Tally, driving
from dreamfusion.batch.folder import BatchFolder
from dreamfusion.batch.state import States
from dreamfusion.errors import UserError
from test_batch_processes import STEPS, item, results, run_here

pytest.importorskip("ray", reason="needs Ray")


def driven(out: Path, prompts: list[str], lease: float = 600.0, say=print) -> Tally:
    """The prompts' runs, made by two actors."""
    from dreamfusion.batch.on_ray import RayWorkers, Share

    folder = BatchFolder(out)
    items = [item(folder, prompt) for prompt in prompts]
    with driving(folder, "1-of-1") as go, RayWorkers("", 2, Share(1, 1.0), Counted(out / "log", 0.02)) as hired:
        return Drive(folder, hired, Rules(lease=lease), say)(iter(items), len(items), go, lambda: False)


@pytest.mark.timeout(300)
def test_actors_that_die_or_hang_or_fail_give_their_runs_back(tmp_path, ray_actors):
    """One is killed by a signal, one by itself, one hangs until it is killed; all runs end as undisturbed ones."""
    out, undisturbed = tmp_path / "out", tmp_path / "undisturbed"
    out.mkdir()
    prompts = ["a ball", "dies once", "raises once", "hangs once", "a car"]
    killed: list[int] = []

    def kill(said: str) -> None:
        if not killed and "a ball" in said:
            killed.append(States(BatchFolder(out)).read("a-ball-0").process)
            assert killed[0] > 0, said  # 0 is this process' own group
            os.kill(killed[0], signal.SIGKILL)

    assert driven(out, prompts, 8.0, kill) == Tally(5, made=5)
    assert killed
    for prompt in prompts:
        run_here(undisturbed, prompt)
    assert results(out) == results(undisturbed)
    assert done_steps(out / "log")["dies-once-0"] == [*range(5), *range(EVERY, STEPS)]
    assert driven(out, prompts) == Tally(5, there=5)


def no_prior():
    raise ValueError("no prior on this node")


@pytest.mark.timeout(300)
def test_an_actor_that_cannot_begin_says_why_and_ends_the_batch(tmp_path, monkeypatch, ray_actors):
    from dreamfusion.batch.on_ray import RayWorkers, Share

    monkeypatch.setattr("dreamfusion.batch.drive.ROW", 2)
    folder = BatchFolder(tmp_path / "out")
    with (
        driving(folder, "1-of-1") as go,
        RayWorkers("", 1, Share(1, 1.0), no_prior) as hired,
        pytest.raises(
            UserError, match=r"2 failures in a row.*the worker could not begin: ValueError: no prior on this node"
        ),
    ):
        Drive(folder, hired, Rules(), print)(iter([item(folder, "a ball")]), 1, go, lambda: False)
