"""One attempt at one item of a batch: take it, keep saying that it gets on, give it back or say what became of it.

All that others need to know is in the batch's directory. A worker goes on as long as a file is there, the word of the
process that gave the order: taking it away stops it everywhere, also where no signal reaches, and on full disks.
"""

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from dreamfusion.batch.folder import BatchFolder, Item
from dreamfusion.batch.state import State, States, Status
from dreamfusion.batch.watch import Watch, never
from dreamfusion.claims import InUse, owned
from dreamfusion.config import Config
from dreamfusion.errors import DiskFull, NoSurface, UserError
from dreamfusion.files import remove_parts
from dreamfusion.runs import LOCK

BEAT_SECONDS = 5.0
"""between signs of life in an item's state"""
ASK_SECONDS = 0.5
"""between looks whether to go on"""

Work = Callable[[Config, Path, Watch], bool]
"""Makes a run, or the rest of it, in a folder that the caller owns; False if it was stopped, and saved. Raises
UserError for what another attempt would not mend, NoSurface for a run that is done and has nothing to show."""


@dataclass(frozen=True)
class Order:
    """What a worker is told."""

    item: Item
    batch: Path
    """directory of the batch"""
    go: Path
    """file without which to stop"""
    lease: float
    """seconds after which another's item is free for whoever asks, if nothing was seen of it"""


@dataclass(frozen=True)
class Record:
    """What became of an attempt."""

    outcome: Literal["done", "stopped", "failed", "taken", "full"]
    """taken: another process is at it; full: the disk is"""
    error: str = ""
    again: bool = False
    """it failed for a reason that another attempt, in another process, may not meet"""


@dataclass(frozen=True)
class MakeRuns:
    """Makes the `Work` of a batch. To be called in the process that works: it keeps the prior."""

    files: bool = True
    """turntable, mesh and page of each run, not only its checkpoint"""
    keep_texts: bool = True
    """text encoders stay in memory (`KeptPrior`)"""

    def __call__(self) -> Work:
        from dreamfusion.batch.work import KeptPrior, open_job, work_off

        kept = KeptPrior(self.keep_texts)
        return lambda config, path, watch: work_off(open_job(config, path, kept), watch, self.files)


def carry_out(order: Order, work: Work, ended: Callable[[], bool] = never) -> Record:
    """One attempt at an item; `ended` says whether this process itself is to end.

    What goes wrong is in the record, and in the item's state. A process that finds that its item was taken from it, as
    nothing was seen of it for too long, ends at once: not one more byte of it may reach the run's folder.
    """
    item, states = order.item, States(BatchFolder(order.batch))
    state = states.read(item.name)
    gets_on = state.status == "running" and states.age(item.name) < order.lease
    if gets_on and state.host != platform.node():  # also where the lock would be given: not every disk tells locks on
        return Record("taken", f"process {state.process} on {state.host} is at it")
    try:
        item.folder.parent.mkdir(parents=True, exist_ok=True)
        with owned(item.folder):
            return _attempt(item, states, work, _Heart(order, states, ended))
    except InUse as error:
        if state.status != "running" or gets_on:
            return Record("taken", str(error))
        (item.folder / LOCK).unlink(missing_ok=True)
        return carry_out(order, work, ended)
    except DiskFull as error:
        return Record("full", str(error))
    except (UserError, OSError) as error:
        return Record("failed", str(error))


def _attempt(item: Item, states: States, work: Work, heart: "_Heart") -> Record:
    if states.read(item.name).status == "done":
        return Record("done")  # another process was faster
    heart.begin()
    remove_parts(item.folder)
    watch = Watch(say=lambda _: heart.beat(), stepped=heart.stepped, stopped=heart.stopped)
    try:
        record = Record("done" if work(item.config, item.folder, watch) else "stopped")
    except DiskFull:
        raise
    except NoSurface as error:
        record = Record("done", str(error))
    except UserError as error:
        record = Record("failed", str(error))
    except Exception as error:
        record = Record("failed", f"{type(error).__name__}: {error}"[:1000], again=True)
    heart.end("failed" if record.outcome == "failed" else "done" if record.outcome == "done" else "stopped", record)
    return record


class _Heart:
    """Says in the item's state that it gets on, and hears whether to stop."""

    def __init__(self, order: Order, states: States, ended: Callable[[], bool]) -> None:
        self._name, self._go, self._states, self._ended = order.item.name, order.go, states, ended
        self._state = State()
        self._next_beat = self._next_ask = 0.0
        self._step, self._stop = 0, False

    def begin(self) -> None:
        self._state = self._states.read(self._name).taken()
        self._step = self._state.step
        self._states.write(self._name, self._state)
        self._next_beat = time.monotonic() + BEAT_SECONDS

    def stepped(self, metrics: Any) -> None:
        self._step = metrics.step
        self.beat()

    def beat(self) -> None:
        if time.monotonic() < self._next_beat:
            return
        self._next_beat = time.monotonic() + BEAT_SECONDS
        if self._states.read(self._name).is_taken_from(self._state):
            os._exit(1)
        self._state = self._state.beating(self._step)
        self._states.write(self._name, self._state)

    def stopped(self) -> bool:
        if not self._stop and time.monotonic() >= self._next_ask:
            self._next_ask = time.monotonic() + ASK_SECONDS
            self._stop = self._ended() or not self._go.exists()
        return self._stop

    def end(self, status: Status, record: Record) -> None:
        self._states.write(self._name, self._state.beating(self._step).ended(status, record.error))
