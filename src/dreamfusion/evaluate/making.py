"""Making the runs of a suite: several at once, each in a process and a folder of its own, stopped and resumed."""

import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol, runtime_checkable

from dreamfusion import generate
from dreamfusion.config import Config
from dreamfusion.errors import UserError
from dreamfusion.evaluate.views import evaluation_views, save_views
from dreamfusion.runs import RunFolder

Say = Callable[[str], None]


@runtime_checkable
class Stop(Protocol):
    """An event that may live in another process."""

    def is_set(self) -> bool: ...
    def set(self) -> None: ...


@dataclass(frozen=True)
class Task:
    """One run to make."""

    config: Config
    folder: Path
    files: bool = True
    """write the turntable, mesh and page of the run too, not only its checkpoint and what is judged"""


def pictures_of(folder: Path) -> Path:
    """Where the evaluation pictures of a run are; they are written last."""
    return RunFolder(folder).media / "evaluation.png"


def make_all(tasks: Sequence[Task], jobs: int, say: Say, stopped: Callable[[], bool]) -> dict[Path, str]:
    """Make the runs that are not there yet, `jobs` at a time; returns what was wrong, by folder.

    Runs that were begun go on from their last checkpoint. When `stopped` says yes, all of them save and leave. Raises
    UserError, before anything is made, for a folder that holds another run.
    """
    for task in tasks:
        _require_same(task)
    left = [task for task in tasks if not pictures_of(task.folder).exists()]
    if not left:
        return {}
    context = get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(jobs, context, initializer=_deaf) as workers:
        stop = manager.Event()
        waiting = {workers.submit(make, task, stop): task for task in left}
        problems = _gather(waiting, say, lambda: _pass_on(stopped, stop))
    return problems


def make(task: Task, stop: Stop) -> str:
    """Make or finish one run and its evaluation pictures; returns what was wrong with it, "" if nothing was.

    If it is stopped, its state is saved.
    """
    try:
        job = _opened(task)
        with closing(generate.work(job, lambda _: None)) as steps:
            for _ in steps:
                if stop.is_set():
                    return "stopped"
        problem = _finished(job, stop) if task.files else ""
        if stop.is_set():
            return "stopped"
        save_views(evaluation_views(job.run.scene, job.run.recipe.show), pictures_of(task.folder))
    except UserError as error:
        return str(error)
    return problem


def _opened(task: Task) -> generate.Job:
    config = task.config
    generate.settle(config)
    if RunFolder(task.folder).config.exists():
        return generate.reopen(task.folder, config.device)
    return generate.begin(config, task.folder)


def _finished(job: generate.Job, stop: Stop) -> str:
    """Write the run's own files. A scene without matter has no mesh: that is a result, not an end."""
    try:
        generate.finish(job.run, job.folder, lambda _: None, stop.is_set)
    except UserError as error:
        return str(error)
    return ""


def _require_same(task: Task) -> None:
    if not RunFolder(task.folder).config.exists():
        return
    there = generate.config_of(task.folder)
    asked = replace(task.config, prior_sha256=task.config.prior_sha256 or there.prior_sha256)
    if replace(there, threads=asked.threads, device=asked.device, version=asked.version) != asked:
        raise UserError(f"{task.folder} holds a run with other settings: choose another --out, or move it away")


def _deaf() -> None:
    """Ctrl-C reaches all processes of a terminal; only the first one decides what it means."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _pass_on(stopped: Callable[[], bool], stop: Stop) -> bool:
    if stopped():
        stop.set()
    return stop.is_set()


def _gather(waiting: dict[Future[str], Task], say: Say, stopped: Callable[[], bool]) -> dict[Path, str]:
    problems, total, since = dict[Path, str](), len(waiting), time.monotonic()
    open_futures = set(waiting)
    while open_futures:
        done, open_futures = wait(open_futures, timeout=0.2)
        for future in done:
            task = waiting[future]
            problem = "stopped" if future.cancelled() else future.result()
            if problem:
                problems[task.folder] = problem
            if problem != "stopped":
                minutes = (time.monotonic() - since) / 60
                say(
                    f"{total - len(open_futures)}/{total}  {task.config.prompt}  {problem or 'made'}  {minutes:.1f} min"
                )
        if stopped():
            for future in open_futures:
                future.cancel()
    return problems
