"""Batches in real processes, which die, are told to end, or lose the one that drives them. Runs of nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer

import pytest

from batch_runs import EVERY, Counted, befell, done_steps
from dreamfusion.batch.drive import Drive, Rules, Tally, driving
from dreamfusion.batch.folder import BatchFolder, Item
from dreamfusion.batch.local import LocalWorkers
from dreamfusion.batch.state import States
from dreamfusion.batch.worker import Order, Record, carry_out
from dreamfusion.config import Config

STEPS = 40


def item(folder: BatchFolder, prompt: str, seed: int = 0) -> Item:
    name = f"{prompt.replace(' ', '-')}-{seed}"
    return Item(name, Config(prompt=prompt, steps=STEPS, seed=seed), folder.run(name))


def driven(out: Path, prompts: list[str], seconds: float = 0.0, workers: int = 1, say=print) -> Tally:
    """The prompts' runs, made by processes."""
    folder = BatchFolder(out)
    items = [item(folder, prompt) for prompt in prompts]
    work = Counted(out / "log", seconds)
    with driving(folder, "1-of-1") as go, LocalWorkers(workers, work) as hired:
        return Drive(folder, hired, Rules(), say)(iter(items), len(items), go, lambda: False)


def results(out: Path) -> dict[str, str]:
    return {path.parent.name: path.read_text() for path in out.rglob("index.html")}


@pytest.fixture
def out(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def test_a_worker_that_dies_is_replaced_and_its_run_goes_on(out, tmp_path):
    assert driven(out, ["a ball", "dies once"]) == Tally(2, made=2)
    done = done_steps(out / "log")
    assert done["a-ball-0"] == list(range(STEPS))
    assert done["dies-once-0"] == [*range(5), *range(EVERY, STEPS)]
    states = States(BatchFolder(out))
    assert (states.read("dies-once-0").attempt, states.read("a-ball-0").attempt) == (2, 1)
    undisturbed = tmp_path / "undisturbed"
    for prompt in ("a ball", "dies once"):
        run_here(undisturbed, prompt)
    assert results(out) == results(undisturbed)


def run_here(out: Path, prompt: str) -> None:
    """The same run without anything that befalls it."""
    made = item(BatchFolder(out), prompt)
    made.folder.mkdir(parents=True)
    befell(made.folder).touch()
    (out / "go").touch()
    assert carry_out(Order(made, out, out / "go", 600.0), Counted(out / "log").work) == Record("done")


DRIVER = """
import sys
from pathlib import Path
from test_batch_processes import driven

if __name__ == "__main__":
    driven(Path(sys.argv[1]), ["a ball"], seconds=0.2)
"""


def test_workers_of_a_driver_that_was_killed_save_and_leave(out, tmp_path):
    (tmp_path / "drive.py").write_text(DRIVER)
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    driver = subprocess.Popen(
        [sys.executable, str(tmp_path / "drive.py"), str(out)], env={**os.environ, "PYTHONPATH": path}
    )
    try:
        until(lambda: len(done_steps(out / "log").get("a-ball-0", [])) > EVERY)
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    states = States(BatchFolder(out))
    until(lambda: states.read("a-ball-0").status == "stopped")
    assert driven(out, ["a ball"]) == Tally(1, made=1)
    assert done_steps(out / "log")["a-ball-0"] == list(range(STEPS))  # not one step was done twice
    assert not [path for path in out.rglob("*") if "part" in path.name or path.suffix == ".go"]


def test_a_worker_that_is_told_to_end_gives_its_run_back(out):
    def end_it(said: str) -> None:
        """After the first run, in the midst of the second."""
        if said.startswith("1/2"):
            process = States(BatchFolder(out)).read("a-ball-0").process
            Timer(1.0, os.kill, (process, signal.SIGTERM)).start()

    assert driven(out, ["a ball", "a car"], seconds=0.1, say=end_it) == Tally(2, made=2)
    assert done_steps(out / "log")["a-car-0"] == list(range(STEPS))
    state = States(BatchFolder(out)).read("a-car-0")
    assert (state.attempt, state.failures) == (2, 0)


def until(true) -> None:
    """Wait for something that other processes do."""
    end = time.monotonic() + 90
    while not true():
        assert time.monotonic() < end
        time.sleep(0.1)
