"""Making some runs on this machine, each in a folder of its own choice, with what a batch makes its own with."""

from collections.abc import Callable, Sequence
from pathlib import Path

from dreamfusion.batch.drive import Drive, Rules, driving
from dreamfusion.batch.folder import BatchFolder, Item
from dreamfusion.batch.local import LocalWorkers
from dreamfusion.batch.state import State, States
from dreamfusion.batch.worker import Work
from dreamfusion.progress import ProgressCallback


def make_here(
    items: Sequence[Item],
    out: Path,
    jobs: int,
    make_work: Callable[[], Work],
    say: ProgressCallback,
    stopped: Callable[[], bool],
) -> dict[Path, str]:
    """Make runs, or the rest of them, `jobs` at a time; returns what was wrong, by folder.

    When `stopped` says yes, all of them save and leave. The states of runs lie under `out`.
    """
    folder = BatchFolder(out)
    states = States(folder)
    for item in items:
        states.write(item.name, State())  # whatever an earlier command made of it
    with driving(folder, "1-of-1") as go, LocalWorkers(jobs, make_work) as workers:
        Drive(folder, workers, Rules(), say)(iter(items), len(items), go, stopped)
    found = {item.folder: states.read(item.name).error for item in items}
    return {place: error for place, error in found.items() if error}
