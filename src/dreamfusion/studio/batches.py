"""The batches under a root, followed in their directories (`dreamfusion batch`), whoever works on them and wherever.

A first look reads the manifest and every state; each later one costs what has changed: of the folders of states only
those are opened that were written to, and in them only the newest files are read.
"""

import os
import platform
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from dreamfusion.batch.drive import Rules
from dreamfusion.batch.folder import BatchFolder
from dreamfusion.batch.folder import Item as Wanted
from dreamfusion.batch.manifest import Manifest
from dreamfusion.batch.state import State as Standing
from dreamfusion.batch.state import States
from dreamfusion.claims import in_use

STATUSES = ("aside", "failed", "running", "stopped", "done", "waiting")
"""What a run of a batch may be, in the order in which people look at them. "aside" are those that failed so often that
the same command leaves them; "stopped" are also those whose process is gone without a word"""
RULES = Rules()
CHUNK = 2000
"""items that are handed on at once"""
_NEWEST = 60 * 10**9
"""nanoseconds before the last change of a folder within which its files are read again"""
_INSTANT = 2 * 10**9
"""nanoseconds that the clocks of all disks tell apart"""
_NAME = re.compile(r"[0-9a-f]{8,64}")
_STATE = re.compile(rf"{_NAME.pattern}\.json")


@dataclass(frozen=True)
class Item:
    """A run of a batch: what the manifest says of it, and how it stands."""

    name: str
    number: int
    """in the manifest, from 0"""
    line: int
    prompt: str
    negative: str
    seed: int
    steps: int
    status: str
    """one of STATUSES"""
    state: Standing


@dataclass(frozen=True)
class Change:
    """An item that stands otherwise now."""

    name: str
    status: str
    state: Standing


@dataclass(frozen=True)
class Summary:
    """How all runs of a batch stand."""

    counts: dict[str, int] = field(default_factory=dict)
    """runs by status, those of STATUSES that occur"""
    seconds: float = 0.0
    """that a run took, on average; 0 if none is done"""
    cover: tuple[tuple[str, str], ...] = ()
    """ids and names of some that are done"""


def run_place(batch: str, name: str) -> str:
    """The run folder of an item, as seen from the root."""
    return (PurePosixPath(batch) / BatchFolder(Path()).run(name).as_posix()).as_posix()


class Followed:
    """One batch, as far as it was read."""

    def __init__(self, path: Path) -> None:
        self._folder = BatchFolder(path)
        self._states = States(self._folder)
        self._manifest = self._stamp()
        self._written: dict[str, tuple[int, bool]] = {}
        """Of each folder of states, when it was written to last, and whether it was read once more after that"""

    def items(self) -> Iterator[list[Item]]:
        """All items, some at a time. Raises UserError for a directory that holds no batch."""
        self._written = {name: (written, False) for name, written in self._folders()}
        with Manifest(self._folder) as manifest:
            for first in range(0, len(manifest), CHUNK):
                wanted = (manifest[number] for number in range(first, min(first + CHUNK, len(manifest))))
                yield [
                    self._item(number, item) for number, item in enumerate(wanted, first) if _NAME.fullmatch(item.name)
                ]

    def _item(self, number: int, item: Wanted) -> Item:
        state, config = self._states.read(item.name), item.config
        told = (item.name, number, item.line, config.prompt, config.negative, config.seed, config.steps)
        return Item(*told, status_of(state), state)

    def replaced(self) -> bool:
        """Whether another batch lies there now."""
        return self._manifest != self._stamp()

    def _stamp(self) -> tuple[int, int]:
        try:
            found = self._folder.manifest.stat()
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino

    def at_work(self) -> bool:
        """Whether a process hands out the work of this batch now."""
        try:
            shards = list((self._folder.path / "drivers").iterdir())
        except OSError:
            return False
        return any(in_use(shard) for shard in shards if shard.name != "report")

    def changes(self) -> list[Change]:
        """Items whose states were written since the last look, some of them perhaps once more than needed."""
        found = list[Change]()
        for name, written in self._folders():
            before, settled = self._written.get(name, (0, False))
            if written == before and settled:
                continue
            self._written[name] = (written, written == before)  # a second write in the same instant shows next time
            since = before - (_INSTANT if written == before else _NEWEST)
            found += [self._change(item) for item in self._newest(name, since)]
        return found

    def ended(self, running: Iterable[Change]) -> list[Change]:
        """Those of the `running` that nobody works at any more, although their states do not say so."""
        return [replace(each, status="stopped") for each in running if not self._lives(each)]

    def _lives(self, each: Change) -> bool:
        if each.state.host == platform.node():
            return in_use(self._folder.run(each.name))
        return time.time() - each.state.beat < RULES.lease

    def _change(self, name: str) -> Change:
        state = self._states.read(name)
        return Change(name, status_of(state), state)

    def _folders(self) -> list[tuple[str, int]]:
        """The folders of states and when they were written to. Links are not followed."""
        try:
            with os.scandir(self._folder.path / "state") as entries:
                there = [entry for entry in entries if entry.is_dir(follow_symlinks=False)]
                return [(entry.name, entry.stat().st_mtime_ns) for entry in there]
        except OSError:
            return []

    def _newest(self, name: str, since: int) -> list[str]:
        """Items of a folder of states whose files are newer."""
        try:
            with os.scandir(self._folder.path / "state" / name) as entries:
                files = [entry for entry in entries if _STATE.fullmatch(entry.name)]
                return [entry.name[:-5] for entry in files if entry.stat(follow_symlinks=False).st_mtime_ns > since]
        except OSError:
            return []


def status_of(state: Standing) -> str:
    """One of STATUSES."""
    return "aside" if state.status == "failed" and state.failures > RULES.retries else state.status
