"""The index, the folders and the events as one: what is known of every task, and who is told when it changes."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from dreamfusion.studio import scan
from dreamfusion.studio.events import Hub
from dreamfusion.studio.index import Index
from dreamfusion.studio.task import State, Task

_TOLD = 100
"""changed tasks of one look at the folders that pages are told of singly"""
Known = Mapping[str, tuple[str, int, State]]
"""Of folders: id, stamp and state"""


class Catalogue:
    """All tasks. Belongs to one event loop."""

    def __init__(self, root: Path, index: Index) -> None:
        self.root, self.index, self.hub = root, index, Hub(index)

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

    async def rescan(self, running: frozenset[str] = frozenset()) -> None:
        """Bring the index to what the folders say, but for tasks that wait or that workers of the studio are at."""
        known = self.index.known()
        kept = {folder for folder, (name, _, state) in known.items() if name in running or state is State.PENDING}
        gone, changed = await asyncio.to_thread(_differences, self.root, known, kept)
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


def _differences(root: Path, known: Known, kept: set[str]) -> tuple[set[str], dict[str, Task]]:
    """Known folders that are gone, and as tasks those that are new, changed, or that another process works on."""
    there = set(scan.folders(root))
    changed: dict[str, Task] = {}
    for folder in there - kept:
        before = known.get(folder)
        moving = before is not None and before[2] is State.IN_PROGRESS
        if (before is None or moving or before[1] != scan.stamp_of(root / folder)) and (
            task := scan.read(root, folder)
        ):
            changed[folder] = task
    return set(known) - there, changed
