"""What users ask of the studio: tasks to be made, ended, taken up again, removed; files and scenes of finished ones."""

import asyncio
import shutil
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamfusion.claims import owned
from dreamfusion.config import Config
from dreamfusion.config.serialise import to_json
from dreamfusion.errors import UserError
from dreamfusion.files import explain_unwritable, numbered
from dreamfusion.runs import folder_name
from dreamfusion.studio import scan
from dreamfusion.studio.catalogue import Catalogue
from dreamfusion.studio.foreman import Foreman
from dreamfusion.studio.index import Index
from dreamfusion.studio.priors import EMBEDDED, Offer, require_offered
from dreamfusion.studio.settings import again, config_from, refined_as
from dreamfusion.studio.task import ACTIVE, State, Task
from dreamfusion.vocabulary import require_sentences

HOME = ".studio"
"""Folder below the root with the index and what is being deleted"""
_DELETED = "deleted-"
SCAN_SECONDS = 5.0
"""between looks at the folders, more where there are many"""
LOOKING = 0.05
"""share of the time for those looks; first ones at batches come on top"""
LONGEST_SECONDS = 60.0
"""between looks that take long"""
FORMATS = ("obj", "ply", "stl", "usdz")


class Refused(Exception):
    """What cannot be done with a task, in words, and the status code of HTTP that says so."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What one studio takes."""

    waiting: int = 50
    """tasks of one token that wait"""
    queue: int = 500
    """tasks of all that wait"""


class Studio:
    """Everything behind the API. All methods belong to one event loop; slow ones are coroutines."""

    def __init__(
        self,
        root: Path,
        index: Index,
        offered: Mapping[str, Offer],
        devices: Sequence[str] = ("auto",),
        limits: Limits = Limits(),
    ) -> None:
        self.root, self.offered = root, offered
        self.catalogue = Catalogue(root, index)
        self.foreman = Foreman(self.catalogue, devices)
        self._limits = limits
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the folders and begin to work."""
        for left in (self.root / HOME).glob(f"{_DELETED}*"):  # by a kill
            await asyncio.to_thread(shutil.rmtree, left, ignore_errors=True)
        await self.catalogue.rescan()
        self.foreman.start()
        self._watching = asyncio.create_task(self._watch())

    async def close(self) -> None:
        """Save what runs, and end."""
        self.catalogue.hub.end()
        await self.foreman.close()
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def _watch(self) -> None:
        while True:
            began = time.monotonic()
            try:
                batches = await self.catalogue.rescan(self.foreman.running)
                for folder in batches:
                    first, before = self.catalogue.is_new(folder), time.monotonic()
                    batch = await self.catalogue.follow(folder, self.foreman.running)
                    if batch and batch.state is State.PENDING:
                        self.foreman.look()
                    if first:
                        began += time.monotonic() - before
            except Exception:  # the next look may see more
                traceback.print_exc()
            pause = min(LONGEST_SECONDS, (time.monotonic() - began) / LOOKING)
            await asyncio.sleep(max(SCAN_SECONDS, pause))

    def task(self, identity: str) -> Task:
        """The task with this id. Raises Refused."""
        if (task := self.catalogue.index.get(identity)) is not None:
            return task
        if (row := self.catalogue.index.items.get(identity)) is not None:
            task = self.catalogue.item(row)
            if (path := self.root / task.folder).resolve() == path:  # no link on the way
                return task
        raise Refused(404, "there is no such task: it may have been deleted")

    def submit(self, owner: str, wanted: Mapping[str, Any]) -> Task:
        """A new task at the end of the queue. Raises UserError for a bad configuration, Refused for a full queue."""
        offer = self.offered.get(str(wanted.get("prior", EMBEDDED)))
        return self._submit(owner, config_from({"preset": offer.preset, **wanted} if offer else wanted))

    def retry(self, owner: str, task: Task, changes: Mapping[str, Any]) -> Task:
        """A new task with the settings of another one and some changes, from the start. Raises as `submit`."""
        _require_run(task)
        return self._submit(owner, again(scan.wanted(self.root / task.folder), changes))

    def _submit(self, owner: str, config: Config) -> Task:
        require_offered(self.offered, config.prior, config.prompt, config.negative)
        self._require_room(owner)
        now = time.time()
        place = self._new_folder(folder_name(config.prompt, config.seed))
        task = Task(scan.identity(place, now), place, made=now, created=now, queued=now, owner=owner)
        told = {name: getattr(config, name) for name in ("prompt", "negative", "seed", "preset", "prior", "steps")}
        task = replace(task, **told)
        try:
            scan.note(self.root, task, to_json(config))
        except UserError:
            (self.root / place).rmdir()
            raise
        self.catalogue.put(task)
        self.foreman.look()
        return task

    async def sentence(self, owner: str, sentence: str, seed: int, prior: str, joint: int) -> Task:
        """A scene of a sentence (`dreamfusion scene`) at the end of the queue; `joint`: steps of a joint stage, or 0.

        Raises UserError for one that is not understood, and for a joint stage with a prior that cannot do it, Refused
        for a full queue.
        """
        if prior not in self.offered:
            raise UserError(f"prior must be one of {', '.join(self.offered)}, not {prior!r}")
        if joint:
            require_sentences(self.offered[prior].lexicon)
        self._require_room(owner)
        config = {"sentence": sentence, "seed": seed, "prior": prior, "joint": joint}
        await self.foreman.produce({"do": "plan", "config": config})
        now, place = time.time(), self._new_folder(folder_name(sentence, seed))
        own = {"kind": "scene", "prompt": sentence, "seed": seed, "prior": prior, "owner": owner}
        task = Task(scan.identity(place, now), place, made=now, created=now, queued=now, **own)
        scan.note(self.root, task, config)
        self.catalogue.put(task)
        self.foreman.look()
        return task

    def _require_room(self, owner: str) -> None:
        waiting = self.catalogue.index.of_states(State.PENDING)
        own = sum(task.owner == owner for task in waiting)
        if own >= self._limits.waiting or len(waiting) >= self._limits.queue:
            limit = min(self._limits.waiting, self._limits.queue)
            raise Refused(429, f"{max(own, limit)} tasks are waiting, which is the limit: wait, or cancel one")

    def _new_folder(self, name: str) -> str:
        for path in numbered(self.root / name):
            with explain_unwritable(path), suppress(FileExistsError):
                path.mkdir()
                return path.name
        raise AssertionError("names never end")

    def cancel(self, task: Task) -> Task:
        """End a task: a waiting one at once, a running one once its worker has saved. Raises Refused."""
        _refuse_item(task)
        if task.state is State.PENDING:
            task = self.catalogue.put(replace(task, state=State.CANCELED, finished=time.time(), doing=""), noted=True)
            self.foreman.look()
            return task
        if self.foreman.stop(task):
            return self.catalogue.put(replace(task, doing="stopping"))
        other = "another process works on it: stop it there" if task.state is State.IN_PROGRESS else "it has ended"
        raise Refused(409, f"this task cannot be canceled: {other}")

    def resume(self, owner: str, task: Task, set_aside: bool = False) -> Task:
        """Queue a task again that was canceled or failed, from its last checkpoint on. Raises Refused.

        `set_aside`: of a batch also the runs that it tries no more, once.
        """
        _refuse_item(task)
        if task.state not in (State.CANCELED, State.FAILED):
            raise Refused(409, "this task needs no resuming: it is done, or on its way")
        retries = self.catalogue.index.items.most_failures(task.folder) if set_aside else 0
        return self._queued(owner, replace(task, retries=retries))

    def refine(self, owner: str, task: Task, wanted: Mapping[str, Any]) -> Task:
        """Queue the second stage of a finished task, or of one whose second stage ended early.

        `wanted`: its `stability`, or nothing for what it was told before. Raises Refused, and UserError for bad ones.
        """
        _refuse_item(task)
        _require_run(task)
        if task.state is not State.SUCCEEDED and (task.state in ACTIVE or not task.refining):
            raise Refused(409, "this task is not finished: only then its mesh can be refined")
        return self._queued(owner, replace(task, refining=True, told=refined_as(wanted)))

    def _queued(self, owner: str, task: Task) -> Task:
        self._require_room(owner)
        queued = replace(task, state=State.PENDING, queued=time.time(), attempts=0, error="", owner=task.owner or owner)
        self.catalogue.put(queued, noted=True)
        self.foreman.look()
        return queued

    async def delete(self, task: Task) -> None:
        """Remove a task and its folder. Raises Refused if it is in use, UserError if the system does not let it go."""
        _refuse_item(task)
        if task.kind == "batch":
            raise Refused(409, "a batch is not deleted here: remove its folder")
        if task.state in ACTIVE:
            raise Refused(409, "this task has not ended: cancel it first")
        path, bin = self.root / task.folder, self.root / HOME / f"{_DELETED}{task.id}"
        with owned(path):
            path.rename(bin)
        self.catalogue.forget(task.id)
        await asyncio.to_thread(shutil.rmtree, bin, ignore_errors=True)

    async def export(self, task: Task, suffix: str) -> Task:
        """Make the mesh in another format beside it. Raises UserError, and Refused where there is none."""
        _require_run(task)
        if suffix not in FORMATS:
            raise UserError(f"there is no format {suffix!r}: choose one of {', '.join(FORMATS)}")
        if "mesh.glb" not in task.files:
            raise Refused(409, "this task has no mesh yet")
        await self.foreman.produce({"do": "export", "folder": str(self.root / task.folder), "format": suffix})
        return self.task(task.id) if task.batch else self.catalogue.put(self.task(task.id))

    async def compose(self, owner: str, title: str, assets: list[dict[str, Any]]) -> Task:
        """A scene of finished objects in a new folder. `assets` name each `file` as seen from the root. UserError."""
        out = self.root / f"{folder_name(title, 0)[:-2]}"
        job = {"do": "compose", "scene": {"title": title, "assets": assets}, "home": str(self.root), "out": str(out)}
        place = Path(str((await self.foreman.produce(job))["out"])).relative_to(self.root).as_posix()
        task = scan.read(self.root, place)
        assert task is not None  # its folder was made just now
        task = replace(task, owner=owner, created=time.time())
        scan.note(self.root, task)
        return self.catalogue.put(task)


def _require_run(task: Task) -> None:
    if task.kind != "run":
        raise Refused(409, f"this is a {task.kind} of several objects, and no run")


def _refuse_item(task: Task) -> None:
    """What becomes of a run of a batch is written in the batch's states, by whoever drives it."""
    if task.batch:
        raise Refused(409, "this run belongs to a batch: go on with that one")
