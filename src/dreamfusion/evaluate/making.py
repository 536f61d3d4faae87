"""Making the runs of a suite, as a batch makes its own, with the pictures beside them that are judged."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from time import monotonic

from dreamfusion import generate
from dreamfusion.batch.folder import Item
from dreamfusion.batch.here import make_here
from dreamfusion.batch.resolve import digest_of, name_of
from dreamfusion.batch.watch import Watch
from dreamfusion.batch.work import KeptPrior, open_job, work_off
from dreamfusion.batch.worker import Work
from dreamfusion.config import Config
from dreamfusion.errors import NoSurface, UserError
from dreamfusion.evaluate.evaluation_views import evaluation_views, save_views
from dreamfusion.files import read_json, write_json
from dreamfusion.json_text import alike
from dreamfusion.memory import most_held
from dreamfusion.progress import ProgressCallback
from dreamfusion.runs import RunFolder


@dataclass(frozen=True)
class Task:
    """One run to make."""

    config: Config
    folder: Path

    @property
    def item(self) -> Item:
        """The same for a batch."""
        config = self.config
        name = name_of(config.prompt, config.negative, config.seed, digest_of(config))
        return Item(name, config, self.folder)


@dataclass(frozen=True)
class MakeJudged:
    """Makes the `Work` of an evaluation."""

    files: bool = True
    """write the turntable, mesh and page of the run too, not only its checkpoint and what is judged"""

    def __call__(self) -> Work:
        kept = KeptPrior()
        return lambda config, path, watch: make(config, path, watch, kept, self.files)


def pictures_of(folder: Path) -> Path:
    """Where the evaluation pictures of a run are; they are written last."""
    return RunFolder(folder).media / "evaluation.png"


@dataclass(frozen=True)
class Cost:
    """What it took to make a run."""

    seconds: float
    """wall time, all attempts together, its files included"""
    memory_mb: float | None
    """most main memory of the process that ended it, libraries and runs before it included; None where nobody says"""


def cost_of(folder: Path) -> Cost | None:
    """What a run took; None if it was not made here. Raises UserError for a damaged file."""
    path = _cost_path(folder)
    if not path.exists():
        return None
    found = read_json(path, "delete it")
    try:
        cost = Cost(found["seconds"], found["memory_mb"])
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged: delete it") from error
    if not all(alike(value, 0.0) for value in (cost.seconds, 0.0 if cost.memory_mb is None else cost.memory_mb)):
        raise UserError(f"{path} is damaged: delete it")
    return cost


def make_all(
    tasks: Sequence[Task], out: Path, jobs: int, say: ProgressCallback, stopped: Callable[[], bool], files: bool = True
) -> dict[Path, str]:
    """Make the runs that are not there yet, `jobs` at a time; returns what was wrong, by folder.

    Runs that were begun go on from their last checkpoint. When `stopped` says yes, all of them save and leave. The
    states of runs lie under `out`. Raises UserError, before anything is made, for a folder that holds another run.
    """
    for task in tasks:
        _require_same(task)
    left = [task.item for task in tasks if not pictures_of(task.folder).exists()]
    if not left:
        return {}
    say(f"{len(left)} of {len(tasks)} runs to make, {jobs} at a time")
    return make_here(left, out, jobs, MakeJudged(files), say, stopped)


def make(config: Config, path: Path, watch: Watch, kept: KeptPrior, files: bool) -> bool:
    """A `Work`: make or finish one run and its evaluation pictures.

    An empty scene has no mesh, and pictures all the same: that is a result.
    """
    begun, before = monotonic(), cost_of(path)
    job, empty = open_job(config, path, kept), None
    try:
        done = work_off(job, watch, files)
    except NoSurface as error:
        done, empty = True, error
    seconds = monotonic() - begun + (before.seconds if before else 0.0)
    held = most_held()
    write_json(_cost_path(path), asdict(Cost(seconds, None if held is None else held / 1e6)))
    if done:
        save_views(evaluation_views(job.run.scene, job.run.recipe.eval_render), pictures_of(path))
    if empty:
        raise empty
    return done


def _cost_path(folder: Path) -> Path:
    return RunFolder(folder).media / "cost.json"


def _require_same(task: Task) -> None:
    if not RunFolder(task.folder).config.exists():
        return
    there = generate.config_of(task.folder)
    asked = replace(task.config, prior_sha256=task.config.prior_sha256 or there.prior_sha256)
    same = {name: getattr(asked, name) for name in ("threads", "device", "version", "understood")}
    if replace(there, **same) != asked:
        raise UserError(f"{task.folder} holds a run with other settings: choose another --out, or move it away")
