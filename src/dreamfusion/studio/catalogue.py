"""The index, the folders and the events as one: what is known of every task, and who is told when it changes."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dreamfusion.errors import UserError
from dreamfusion.studio import scan
from dreamfusion.studio.batches import Change, Followed, run_place
from dreamfusion.studio.events import Hub
from dreamfusion.studio.index import Index
from dreamfusion.studio.items import Row
from dreamfusion.studio.task import State, Task

_TOLD = 100
"""changed tasks of one look at the folders that pages are told of singly"""
Known = Mapping[str, tuple[str, int, State]]
"""Of folders: id, stamp and state"""


class Catalogue:
    """All tasks. Belongs to one event loop."""

    def __init__(self, root: Path, index: Index) -> None:
        self.root, self.index, self.hub = root, index, Hub(index)
        self._followed: dict[str, Followed] = {}
        self._following = asyncio.Lock()

    def put(self, task: Task, noted: bool = False) -> Task:
        """Make a task known, as its folder is now; `noted`: also write it down there. Raises UserError."""
        path = self.root / task.folder
        if noted:
            scan.note(self.root, task)
        task = replace(task, files=scan.present(path), stamp=scan.stamp_of(path))
        self.index.put([task])
        self.hub.tell("task", json.dumps(task.public()))
        return task

    def forget(self, identity: str) -> None:
        """A task is no more."""
        self.index.drop(identity)
        self.hub.tell("removed", json.dumps({"id": identity}))

    async def rescan(self, running: frozenset[str] = frozenset()) -> set[str]:
        """Bring the index to what the folders say, but for tasks that wait or that workers of the studio are at.

        Returns the folders of batches, which are then to be followed: the first look at a large one takes a while.
        """
        known = self.index.known()
        kept = {folder for folder, (name, _, state) in known.items() if name in running or state is State.PENDING}
        gone, changed, batches = await asyncio.to_thread(_differences, self.root, known, kept)
        now = self.index.known()
        fresh = [
            task
            for folder, task in changed.items()
            if now.get(folder) == known.get(folder) != (task.id, task.stamp, task.state)
        ]
        self.index.put(fresh)
        for task in fresh[:_TOLD]:
            self.hub.tell("task", json.dumps(task.public()))
        if len(fresh) > _TOLD:
            self.hub.tell("reset", "{}")
        for folder in gone:
            if folder in now and now[folder] == known[folder]:
                self.forget(now[folder][0])
        for folder in self._followed.keys() - batches:
            del self._followed[folder]
            self.index.items.drop(folder)
        return batches

    def is_new(self, batch: str) -> bool:
        """Whether a batch was never looked at."""
        return batch not in self._followed

    async def follow(self, folder: str, running: frozenset[str]) -> Task | None:
        """Bring what is known of a batch to what its directory says, but for its state if its id is in `running`.

        Returns it if it is another one than before.
        """
        async with self._following:
            return await self._follow(folder, running)

    async def _follow(self, folder: str, running: frozenset[str]) -> Task | None:
        path, items = self.root / folder, self.index.items
        followed, changes = self._followed.get(folder), list[Change]()
        if followed is None or await asyncio.to_thread(followed.replaced):
            followed = Followed(path)
            items.drop(folder)
            if not await self._read(folder, followed):
                return None
            self._followed[folder] = followed
        else:
            changes = await asyncio.to_thread(followed.changes)
        running_now = {each.name: each for each in [*items.running(folder), *changes]}.values()
        ended = await asyncio.to_thread(followed.ended, [each for each in running_now if each.status == "running"])
        items.change(folder, [*changes, *ended])
        at_work = await asyncio.to_thread(followed.at_work)
        before = self.index.get(scan.identity(folder, 0.0))
        task = await asyncio.to_thread(scan.read_batch, self.root, folder, items.summary(folder), at_work)
        if before and before.id in running:
            task = replace(task, state=before.state, doing=before.doing)
        if task == before:
            return None
        self.index.put([task])
        self.hub.tell("task", json.dumps(task.public()))
        return task

    async def _read(self, folder: str, followed: Followed) -> bool:
        """Take up all items of a batch; False if it holds none that can be read."""
        chunks = followed.items()
        try:
            while some := await asyncio.to_thread(next, chunks, None):
                self.index.items.put(
                    folder, [(scan.identity(run_place(folder, item.name), 0.0), item) for item in some]
                )
        except (UserError, OSError):
            self.index.items.drop(folder)
            return False
        return True

    def item(self, row: Row) -> Task:
        """A run of a batch as a task, which is not among the others."""
        return scan.read_item(
            self.root, row.id, scan.identity(row.batch, 0.0), run_place(row.batch, row.item.name), row.item
        )


def _differences(root: Path, known: Known, kept: set[str]) -> tuple[set[str], dict[str, Task], set[str]]:
    """Known folders that are gone; as tasks those that are new, changed, or that another process works on; batches."""
    found = dict(scan.folders(root))
    batches = {folder for folder, is_batch in found.items() if is_batch}
    changed: dict[str, Task] = {}
    for folder in found.keys() - batches - kept:
        before = known.get(folder)
        moving = before is not None and before[2] is State.IN_PROGRESS
        if (before is None or moving or before[1] != scan.stamp_of(root / folder)) and (
            task := scan.read(root, folder)
        ):
            changed[folder] = task
    return known.keys() - found.keys(), changed, batches
