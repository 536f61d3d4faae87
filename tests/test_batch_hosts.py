"""Two machines contest one run, on disks whose locks hold for both, for neither, or for each machine alone.

The other machine is a process that gives itself another name. A disk of the last kind gives its lock to both: sshfs
does so, and NFS mounted with `local_lock`.
"""

import errno
import os
import platform
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from batch_runs import EVERY, Counted, done_steps
from dreamfusion import claims
from dreamfusion.batch import worker
from dreamfusion.batch.folder import BatchFolder
from dreamfusion.batch.state import State, States
from dreamfusion.batch.watch import Watch
from dreamfusion.batch.worker import Order, Record, carry_out
from dreamfusion.config import Config
from test_batch_processes import STEPS, item, results, run_here, until

HALT = 6
"""steps that the other machine has done when it stops"""
NO_LOCKS = OSError(errno.ENOLCK, "no locks here")


def not_known(file: object) -> None:
    raise NO_LOCKS


def given_to_all(file: object) -> None:
    """The lock of a disk that asks no other machine."""


LOCKS = {"of both": claims._lock, "of neither": not_known, "of each": given_to_all}


def be_another_machine(out: Path, locks: str) -> None:
    """Begin the run as a machine with another name, which stops after `HALT` steps, until it is told to go on."""
    platform.node = lambda: "far"
    claims._lock = LOCKS[locks]
    worker.BEAT_SECONDS = 0.0

    def work(config: Config, path: Path, watch: Watch) -> bool:
        def stepped(metrics: Any) -> None:
            watch.stepped(metrics)
            if metrics.step == HALT:
                os.kill(os.getpid(), signal.SIGSTOP)

        return Counted(out / "log").work(config, path, replace(watch, stepped=stepped))

    carry_out(order(out), work)


def order(out: Path, lease: float = 600.0) -> Order:
    return Order(item(BatchFolder(out), "a ball"), out, out / "go", lease)


@pytest.fixture
def out(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "go").touch()
    return tmp_path / "out"


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
@pytest.mark.parametrize("locks", LOCKS)
def test_a_run_is_left_to_another_machine_until_nothing_is_seen_of_it(out, tmp_path, monkeypatch, locks):
    monkeypatch.setattr(claims, "_lock", LOCKS[locks])
    script = f"import test_batch_hosts as t; t.be_another_machine(t.Path({str(out)!r}), {locks!r})"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    far = subprocess.Popen([sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": path})
    states, name = States(BatchFolder(out)), order(out).item.name
    try:
        until(lambda: states.read(name).step == HALT)
        here = Counted(out / "log").work
        assert carry_out(order(out), here).outcome == "taken"
        until(lambda: states.age(name) > 1.0)
        assert carry_out(order(out, lease=1.0), here) == Record("done")
        far.send_signal(signal.SIGCONT)
        assert far.wait(60) == 1
    finally:
        far.kill()
        far.wait()
    assert (states.read(name).host, states.read(name).attempt) == (platform.node(), 2)
    run_here(tmp_path / "undisturbed", "a ball")
    assert results(out) == results(tmp_path / "undisturbed")
    since = HALT // EVERY * EVERY  # the checkpoint
    assert done_steps(out / "log")[name] == [*range(HALT), *range(since, STEPS), HALT]  # the last: what it was at


def test_what_another_machine_gave_back_is_taken_at_once(out, monkeypatch):
    with monkeypatch.context() as there:
        there.setattr(platform, "node", lambda: "far")
        States(BatchFolder(out)).write(order(out).item.name, State().taken().ended("stopped"))
    assert carry_out(order(out), Counted(out / "log").work) == Record("done")


def test_of_two_that_began_at_once_the_first_one_leaves():
    """What was written last stands; `host` and `process` say whose it is."""
    mine, other = State().taken(), State(host="far", process=7, status="running", attempt=1)
    assert other.is_taken_from(mine)
    assert not mine.beating(3).is_taken_from(mine)
    assert State(attempt=2, host=mine.host, process=mine.process).is_taken_from(mine)
    assert not State().is_taken_from(mine)  # it was lost: nobody else's
