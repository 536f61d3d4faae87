"""Making the runs of a suite: several at once, each in a process and a folder of its own, stopped and resumed."""

import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol, runtime_checkable

from dreamfusion import generate
from dreamfusion.claims import owned
from dreamfusion.config import Config
from dreamfusion.errors import UserError
from dreamfusion.evaluate.evaluation_views import evaluation_views, save_views
from dreamfusion.progress import ProgressCallback, silent
from dreamfusion.runs import RunFolder

MOMENT = 3.0
"""seconds"""


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


def make_all(tasks: Sequence[Task], jobs: int, say: ProgressCallback, stopped: Callable[[], bool]) -> dict[Path, str]:
    """Make the runs that are not there yet, `jobs` at a time; returns what was wrong, by folder.

    Runs that were begun go on from their last checkpoint. When `stopped` says yes, all of them save and leave. Raises
    UserError, before anything is made, for a folder that holds another run.
    """
    for task in tasks:
        _require_same(task)
    left = [task for task in tasks if not pictures_of(task.folder).exists()]
    if not left:
        return {}
    say(f"{len(left)} of {len(tasks)} runs to make, {jobs} at a time")
    context = get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(jobs, context, initializer=_listen, initargs=(stop,)) as workers:
        waiting = {workers.submit(_make, task): task for task in left}
        problems = _gather(waiting, say, lambda: _pass_on(stopped, stop))
    return problems


def make(task: Task, stop: Stop) -> str:
    """Make or finish one run and its evaluation pictures; returns what was wrong with it, "" if nothing was.

    If it is stopped, its state is saved.
    """
    try:
        with owned(task.folder):
            return _made(task, stop)
    except UserError as error:
        return str(error)


def _made(task: Task, stop: Stop) -> str:
    job = _opened(task)
    with closing(generate.train(job, silent)) as steps:
        for _ in steps:
            if stop.is_set():
                return "stopped"
    problem = _finished(job, stop) if task.files else ""
    if stop.is_set():
        return "stopped"
    save_views(evaluation_views(job.run.scene, job.run.recipe.eval_render), pictures_of(task.folder))
    return problem


def _opened(task: Task) -> generate.Job:
    config = task.config
    generate.prepare_process(config)
    if RunFolder(task.folder).config.exists():
        return generate.resume_run(task.folder, config.device)
    return generate.create_run(config, task.folder)


def _finished(job: generate.Job, stop: Stop) -> str:
    """Write the run's own files. An empty scene has no mesh: that is a result, not an error."""
    try:
        generate.finish(job.run, job.folder, silent, stop.is_set)
    except UserError as error:
        return str(error)
    return ""


def _require_same(task: Task) -> None:
    if not RunFolder(task.folder).config.exists():
        return
    there = generate.config_of(task.folder)
    asked = replace(task.config, prior_sha256=task.config.prior_sha256 or there.prior_sha256)
    same = {name: getattr(asked, name) for name in ("threads", "device", "version", "understood")}
    if replace(there, **same) != asked:
        raise UserError(f"{task.folder} holds a run with other settings: choose another --out, or move it away")


class _Worker:
    """A worker process, and whether it should stop: Ctrl-C is for the first process to hear, SIGTERM for each."""

    def __init__(self) -> None:
        self._told: Stop | None = None
        self._busy = self._ended = False

    def listen(self, told: Stop) -> None:
        """`told` is how the first process asks to stop."""
        self._told = told
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda number, frame: self._end())

    def make(self, task: Task) -> str:
        """As `make`. A process that was told to end meanwhile does, with its run saved, unless all are told to.

        One that dies takes the others with it, as the pool is broken then, and they may not have saved yet.
        """
        self._busy = True
        problem = make(task, self)
        self._busy = False
        if self._ended and not self._all_stop():
            self._end()
        return problem

    def _all_stop(self) -> bool:
        """Whether the first process stops too, which it tells within a moment where a signal is sent to all."""
        until = time.monotonic() + MOMENT
        while not (told := self._told is not None and self._told.is_set()) and time.monotonic() < until:
            time.sleep(0.05)
        return told

    def is_set(self) -> bool:
        """Whether to stop."""
        return self._ended or (self._told is not None and self._told.is_set())

    def set(self) -> None:
        """Ask to stop."""
        self._ended = True

    def _end(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        self.set()
        if not self._busy:
            signal.raise_signal(signal.SIGTERM)


_WORKER = _Worker()


def _listen(told: Stop) -> None:
    _WORKER.listen(told)


def _make(task: Task) -> str:
    return _WORKER.make(task)


def _pass_on(stopped: Callable[[], bool], stop: Stop) -> bool:
    if stopped():
        stop.set()
    return stop.is_set()


def _outcome(future: Future[str], stopped: Callable[[], bool]) -> str:
    if future.cancelled():
        return "stopped"
    try:
        return future.result()
    except BrokenProcessPool:
        return "stopped" if stopped() else "a process was killed (out of memory?): again, with fewer --jobs"


def _gather(waiting: dict[Future[str], Task], say: ProgressCallback, stopped: Callable[[], bool]) -> dict[Path, str]:
    problems, total, since = dict[Path, str](), len(waiting), time.monotonic()
    open_futures = set(waiting)
    while open_futures:
        done, open_futures = wait(open_futures, timeout=0.2)
        for future in done:
            task = waiting[future]
            problem = _outcome(future, stopped)
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
