"""Handing out the work of a batch until all of it is done: what is left, what comes back, what is set aside.

Nothing here is remembered that the directory does not tell: whoever drives may be killed at any moment, and the next
one goes on.
"""

import os
import platform
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from dreamfusion import json_text
from dreamfusion.batch.folder import BatchFolder, Item
from dreamfusion.batch.state import State, States
from dreamfusion.batch.worker import Order, Record
from dreamfusion.claims import owned
from dreamfusion.errors import DiskFull, UserError
from dreamfusion.files import explain_unwritable
from dreamfusion.progress import ProgressCallback
from dreamfusion.runs import RunFolder

WAIT_SECONDS = 0.2
TAKEN_SECONDS = 10.0
"""until an item that another process has is asked for again"""
LOOK_AT = 1000
"""items to look at before looking again at what runs"""
ROW = 50
"""failures without one success between them, after which it is not the prompts' fault"""


TOO_LONG = "it took longer than"
"""A failure that counts however far the run got"""


@dataclass(frozen=True)
class Ending:
    """An order that is over. Without a record its worker is no more, and `how` says what is known of that."""

    order: Order
    record: Record | None = None
    how: str = ""


@runtime_checkable
class Workers(Protocol):
    """Processes that carry out orders, here or elsewhere."""

    @property
    def free(self) -> int:
        """How many more orders can be started now."""
        ...

    def start(self, order: Order) -> None: ...

    def wait(self, seconds: float) -> list[Ending]:
        """What has ended, as soon as something has, or after so many seconds."""
        ...

    def kill(self, order: Order) -> None:
        """End the worker of an order without asking; `wait` returns it then."""
        ...


@dataclass(frozen=True)
class Rules:
    """How patient to be."""

    retries: int = 2
    """further attempts at an item that fails without getting farther than before"""
    timeout: float = 0.0
    """seconds that an attempt may take; 0: any time"""
    lease: float = 600.0
    """seconds without a sign of life after which an item is taken from its worker"""


@dataclass
class Tally:
    """What became of the items so far."""

    total: int = 0
    made: int = 0
    there: int = 0
    """made before"""
    failed: int = 0

    @property
    def left(self) -> int:
        return self.total - self.made - self.there - self.failed


@dataclass
class _Running:
    order: Order
    since: float
    attempt: int
    """number of this attempt, once it has begun"""
    beat: float = 0.0
    seen: float = 0.0
    """when `beat` was last seen to change, by the clock of this process"""


@contextmanager
def driving(folder: BatchFolder, shard: str) -> Iterator[Path]:
    """Be the only process that hands out a shard; yields the file that says so to workers, who stop without it.

    Raises UserError if another process is at it.
    """
    place = folder.driver(shard)
    with owned(place):
        go = place / f"{platform.node()}-{os.getpid()}-{time.time_ns()}.go"
        with explain_unwritable(place):
            for other in place.glob("*.go"):
                other.unlink()
            go.touch()
        try:
            yield go
        finally:
            go.unlink(missing_ok=True)


class Drive:
    """Hands out items to workers."""

    def __init__(
        self,
        folder: BatchFolder,
        workers: Workers,
        rules: Rules,
        say: ProgressCallback,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder, self._workers, self._rules, self._say, self._clock = folder, workers, rules, say, clock
        self._states = States(folder)
        self._tally, self._go = Tally(), Path()
        self._running: dict[str, _Running] = {}
        self._again = deque[Item]()
        self._later = deque[tuple[float, Item]]()
        self._doomed: dict[str, str] = {}
        self._row, self._checked = 0, 0.0
        self._full = self._error = ""
        self._seen_all = False

    def __call__(self, items: Iterator[Item], total: int, go: Path, stopped: Callable[[], bool]) -> Tally:
        """Until all items are made, or failed for good, or `stopped` says yes; then all that run are saved.

        `go` is the file of `driving`. Raises UserError when the disk is full, and when nothing succeeds any more; also
        then all are saved.
        """
        self._tally, self._go = Tally(total), go
        try:
            while self._running or (self._go.exists() and self._open):
                if stopped() or self._full or self._row >= ROW:
                    self._go.unlink(missing_ok=True)
                while self._go.exists() and self._workers.free and (item := self._next(items)) is not None:
                    self._start(item)
                for ending in self._workers.wait(0.0 if self._workers.free and not self._seen_all else WAIT_SECONDS):
                    self._ended(ending)
                self._look_after()
        finally:
            self._go.unlink(missing_ok=True)
        if self._full:
            raise DiskFull(f"{self._full}; {self._tally.left} of {total} are left, and the same command goes on")
        if self._row >= ROW:
            raise UserError(f"stopped after {ROW} failures in a row, the last one: {self._error}")
        return self._tally

    @property
    def _open(self) -> bool:
        """Whether there is something that nobody works at."""
        return bool(self._again or self._later) or not self._seen_all

    def _next(self, items: Iterator[Item]) -> Item | None:
        """What to start now; None also after many that are made, so that what runs is not forgotten for long."""
        if self._again:
            return self._again.popleft()
        if self._later and self._later[0][0] <= self._clock():
            return self._later.popleft()[1]
        for _ in range(LOOK_AT):
            if (item := next(items, None)) is None:
                self._seen_all = True
                break
            state = self._states.read(item.name)
            if state.status == "done":
                self._tally.there += 1
            elif state.status == "failed" and state.failures > self._rules.retries:
                self._tally.failed += 1
            else:
                return item
        return None

    def _start(self, item: Item) -> None:
        order = Order(item, self._folder.path, self._go, self._rules.lease)
        now = self._clock()
        self._running[item.name] = _Running(order, now, self._states.read(item.name).attempt + 1, seen=now)
        self._workers.start(order)

    def _ended(self, ending: Ending) -> None:
        item = ending.order.item
        running = self._running.pop(item.name)
        record = ending.record or self._died(running, self._doomed.pop(item.name, ending.how))
        self._doomed.pop(item.name, None)
        match record.outcome:
            case "taken":
                self._later.append((self._clock() + TAKEN_SECONDS, item))
            case "full":
                self._full = record.error
            case "stopped":  # by somebody else than this process, if that goes on
                self._again.append(item)
            case "done":
                self._tally.made += 1
                self._row = 0
                self._tell(item, record.error or "made", self._clock() - running.since)
            case "failed":
                self._failed(item, record)

    def _died(self, running: _Running, how: str) -> Record:
        """Write down what a worker could not write itself."""
        item = running.order.item
        state = self._states.read(item.name)
        if state.attempt != running.attempt:  # another process has taken it, or it was not even begun
            return Record("taken") if state.attempt > running.attempt else Record("failed", how, again=True)
        if state.status == "done":
            return Record("done")
        step = saved_step(item.folder)
        over = replace(state, step=step, failed_at=step if TOO_LONG in how else state.failed_at)
        stopping = not self._go.exists()
        self._states.write(item.name, over.ended("stopped" if stopping else "failed", how))
        return Record("stopped") if stopping else Record("failed", how, again=True)

    def _failed(self, item: Item, record: Record) -> None:
        failures = self._states.read(item.name).failures
        again = record.again and failures <= self._rules.retries
        self._row, self._error = self._row + 1, record.error
        if again:
            self._again.append(item)
        else:
            self._tally.failed += 1
        self._tell(item, f"{record.error}{' (to be tried again)' if again else ''}")

    def _tell(self, item: Item, what: str, seconds: float | None = None) -> None:
        over = self._tally.total - self._tally.left
        took = "" if seconds is None else f"  {seconds / 60:.1f} min"
        self._say(f"{over}/{self._tally.total}  {item.config.prompt}  seed {item.config.seed}  {what}{took}")

    def _look_after(self) -> None:
        """End the workers of items that take too long, or of which nothing was seen for longer than the lease."""
        now, rules = self._clock(), self._rules
        if now - self._checked < min(1.0, rules.lease / 10):
            return
        self._checked = now
        for name, running in self._running.items():
            if name in self._doomed:
                continue
            if rules.timeout and now - running.since > rules.timeout:
                self._doom(running, f"{TOO_LONG} {rules.timeout:g} s")
            elif now - running.seen > rules.lease / 4:
                self._look_at(running, self._states.read(name), now)

    def _look_at(self, running: _Running, state: State, now: float) -> None:
        if state.beat != running.beat or state.attempt != running.attempt:  # gets on, or waits for its turn
            running.beat, running.seen = state.beat, now
        elif now - running.seen > self._rules.lease:
            self._doom(running, f"nothing was seen of it for {self._rules.lease:g} s")

    def _doom(self, running: _Running, why: str) -> None:
        self._doomed[running.order.item.name] = why
        self._workers.kill(running.order)


def saved_step(path: Path) -> int:
    """Steps done in the last checkpoint of a run; 0 without one."""
    from dreamfusion import checkpoint

    try:
        return int(json_text.read(RunFolder(path).checkpoint / checkpoint.HEAD)["step"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        return 0
