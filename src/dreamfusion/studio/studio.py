"""What the studio does: takes tasks, has them done by its workers, and keeps the index true to the folders."""

import asyncio
import json
import shutil
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamfusion.claims import owned
from dreamfusion.config import Config
from dreamfusion.config.serialise import to_json
from dreamfusion.errors import UserError
from dreamfusion.files import numbered
from dreamfusion.runs import folder_name
from dreamfusion.studio import scan
from dreamfusion.studio.events import Hub
from dreamfusion.studio.index import Index
from dreamfusion.studio.lane import Lane
from dreamfusion.studio.order import in_order, places
from dreamfusion.studio.priors import Offer, require_offered
from dreamfusion.studio.settings import again, config_from
from dreamfusion.studio.task import ACTIVE, PRODUCTS, State, Task

HOME = ".studio"
"""Folder below the root with the index and what is being deleted"""
ATTEMPTS = 3
"""workers that may die at a task"""
SCAN_SECONDS = 5.0
IDLE_SECONDS = 300.0
"""after which a worker without work ends, and gives its memory back"""
STOP_SECONDS = 60.0
"""that a worker has to save, before it is ended"""
_SHOWN = ("doing", "step", "opacity", "losses", "rate")
FORMATS = ("glb", "obj", "ply", "stl", "usdz")


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
        self, root: Path, index: Index, offered: Mapping[str, Offer], devices: tuple[str, ...], limits: Limits
    ) -> None:
        self.root, self.index, self.offered = root, index, offered
        self.hub = Hub(index)
        self._limits = limits
        self._lanes = [Lane(device) for device in devices]
        self._products = Lane("cpu")
        self._product = asyncio.Lock()
        self._running: dict[str, Lane] = {}
        self._canceled: set[str] = set()
        self._work = asyncio.Event()
        self._loops: list[asyncio.Task[None]] = []
        self._stopping: set[asyncio.Task[None]] = set()
        self._closing = False
        self._rate = 0.0

    # Life

    async def start(self) -> None:
        """Read the folders, take up what was interrupted, and begin to work."""
        await self._rescan()
        for task in self.index.of_states(State.IN_PROGRESS):
            if scan.noted(self.root / task.folder) is State.IN_PROGRESS:
                self._put(replace(task, state=State.PENDING, queued=0.0, doing="taken up again"), noted=True)
        self._loops = [asyncio.create_task(self._serve(lane)) for lane in self._lanes]
        self._loops.append(asyncio.create_task(self._watch()))

    async def close(self) -> None:
        """Save what runs, which stays in progress for the next start, and end the workers."""
        self._closing = True
        self.hub.end()
        await asyncio.gather(*(lane.close(STOP_SECONDS) for lane in (*self._lanes, self._products)))
        left = [*self._loops, *self._stopping]
        for each in left:
            each.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    async def _serve(self, lane: Lane) -> None:
        while not self._closing:
            task = self._take()
            if task is None:
                await self._rest(lane)
                continue
            self._running[task.id] = lane
            try:
                await self._do(lane, task)
            except Exception as error:  # one task must not end the studio
                traceback.print_exc()
                with suppress(UserError):
                    self._put(replace(task, state=State.FAILED, error=str(error), finished=time.time()), noted=True)
            finally:
                self._running.pop(task.id, None)
                self._canceled.discard(task.id)
                self._tell_queue()

    async def _rest(self, lane: Lane) -> None:
        """Until there is work, perhaps."""
        self._work.clear()
        try:
            await asyncio.wait_for(self._work.wait(), IDLE_SECONDS)
        except asyncio.TimeoutError:
            await lane.close(STOP_SECONDS)

    async def _watch(self) -> None:
        while not self._closing:
            began = time.monotonic()
            try:
                await self._rescan()
            except Exception:  # the next look may see more
                traceback.print_exc()
            await asyncio.sleep(max(SCAN_SECONDS, 20 * (time.monotonic() - began)))

    async def _rescan(self) -> None:
        """Bring the index to what the folders say, except for tasks that are the studio's own at the moment."""
        known = self.index.known()
        kept = {folder for folder, (name, _, state) in known.items() if name in self._running or state is State.PENDING}
        gone, changed = await asyncio.to_thread(_differences, self.root, known, kept)
        now = self.index.known()
        same = {folder for folder in {*gone, *changed} if now.get(folder) == known.get(folder)}
        fresh = [task for folder, task in changed.items() if folder in same and known.get(folder) != _brief(task)]
        self.index.put(fresh)
        for task in fresh[:100]:  # a page that missed more reads the list again
            self._tell(task)
        for folder in gone & same:
            self._forget(now[folder][0])

    # The queue

    def _waiting(self) -> list[Task]:
        return in_order(self.index.of_states(State.PENDING), self.index.served())

    def queue(self) -> list[dict[str, object]]:
        """Places and times of all that wait."""
        running = [task for task in map(self.index.get, self._running) if task]
        return places(self._waiting(), running, self._rate, len(self._lanes))

    def _take(self) -> Task | None:
        """The next task, marked as begun."""
        waiting = self._waiting()
        if self._closing or not waiting:
            return None
        task = replace(waiting[0], state=State.IN_PROGRESS, started=time.time(), doing="starting", error="", rate=0.0)
        task = replace(task, stage=0)
        self._put(task, noted=True)
        return task

    async def _do(self, lane: Lane, task: Task) -> None:
        """Have a task done and follow it."""
        self._tell_queue()
        path = self.root / task.folder
        job = {"do": "run", "folder": str(path), "config": scan.wanted(path)}
        async for message in lane.work(job):
            if "end" in message:
                task = self._ended(task, message)
            else:
                task = replace(task, **{name: message[name] for name in _SHOWN if name in message})
                task = replace(task, stage=PRODUCTS.get(task.doing, task.stage))
                self._rate = task.rate or self._rate
            self._put(task, noted="end" in message)
        if task.state is State.PENDING and not self._closing:
            await asyncio.sleep(2.0)  # whoever holds the folder may let go, and what killed the worker be over

    def _ended(self, task: Task, message: Mapping[str, Any]) -> Task:
        error = str(message.get("error", ""))
        done = replace(task, finished=time.time(), doing="", error=error)
        match message["end"]:
            case "done":
                return replace(done, state=State.SUCCEEDED, step=task.steps, error="")
            case "failed":
                return replace(done, state=State.FAILED)
            case _ if task.id in self._canceled:
                return replace(done, state=State.CANCELED, error="")
            case _ if self._closing:
                return task
            case "died" if task.attempts + 1 >= ATTEMPTS:
                return replace(done, state=State.FAILED, error=f"{error} ({ATTEMPTS} times)")
            case "died":
                return replace(task, state=State.PENDING, queued=0.0, attempts=task.attempts + 1, doing="", error=error)
            case _:
                return replace(task, state=State.PENDING, doing="waiting for another process", error="")

    # What users ask for

    def task(self, identity: str) -> Task:
        """The task with this id. Raises Refused."""
        if (task := self.index.get(identity)) is None:
            raise Refused(404, "there is no such task: it may have been deleted")
        return task

    def submit(self, owner: str, wanted: Mapping[str, Any]) -> Task:
        """A new task at the end of the queue. Raises UserError for a bad configuration, Refused for a full queue."""
        return self._submit(owner, config_from(wanted))

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
        scan.note(self.root, task, to_json(config))
        self._put(task)
        self._wake()
        return task

    def _require_room(self, owner: str) -> None:
        waiting = self.index.of_states(State.PENDING)
        own = sum(task.owner == owner for task in waiting)
        if own >= self._limits.waiting or len(waiting) >= self._limits.queue:
            limit = min(self._limits.waiting, self._limits.queue)
            raise Refused(429, f"{max(own, limit)} tasks are waiting, which is the limit: wait, or cancel one")

    def _new_folder(self, name: str) -> str:
        for path in numbered(self.root / name):
            with suppress(FileExistsError):
                path.mkdir()
                return path.name
        raise AssertionError("names never end")

    def cancel(self, task: Task) -> Task:
        """End a task: a waiting one at once, a running one once its worker has saved. Raises Refused."""
        if task.state is State.PENDING:
            task = replace(task, state=State.CANCELED, finished=time.time(), doing="")
            self._put(task, noted=True)
            self._tell_queue()
            return task
        lane = self._running.get(task.id)
        if lane is None:
            other = "another process works on it: stop it there" if task.state is State.IN_PROGRESS else "it has ended"
            raise Refused(409, f"this task cannot be canceled: {other}")
        if task.id not in self._canceled:
            self._canceled.add(task.id)
            stopping = asyncio.create_task(self._stop(task.id, lane))
            self._stopping.add(stopping)
            stopping.add_done_callback(self._stopping.discard)
            self._put(replace(task, doing="stopping"))
        return task

    async def _stop(self, identity: str, lane: Lane) -> None:
        await lane.stop()
        await asyncio.sleep(STOP_SECONDS)
        if self._running.get(identity) is lane and identity in self._canceled:
            lane.kill()

    def resume(self, owner: str, task: Task) -> Task:
        """Queue a task again that was canceled or failed, from its last checkpoint on. Raises Refused."""
        _require_run(task)
        if task.state not in (State.CANCELED, State.FAILED):
            raise Refused(409, "this task needs no resuming: it is done, or on its way")
        self._require_room(owner)
        queued = replace(task, state=State.PENDING, queued=time.time(), attempts=0, error="", owner=task.owner or owner)
        self._put(queued, noted=True)
        self._wake()
        return queued

    async def delete(self, task: Task) -> None:
        """Remove a task and its folder. Raises Refused if it is in use, UserError if the system does not let it go."""
        if task.state in ACTIVE:
            raise Refused(409, "this task has not ended: cancel it first")
        path, bin = self.root / task.folder, self.root / HOME / f"deleted-{task.id}"
        with owned(path):
            path.rename(bin)
        self._forget(task.id)
        await asyncio.to_thread(shutil.rmtree, bin, ignore_errors=True)

    async def export(self, task: Task, suffix: str) -> Task:
        """Make the mesh in another format beside it. Raises UserError, and Refused where there is none."""
        _require_run(task)
        if suffix not in FORMATS:
            raise UserError(f"there is no format {suffix!r}: choose one of {', '.join(FORMATS)}")
        if "mesh.glb" not in task.files:
            raise Refused(409, "this task has no mesh yet")
        await self._produce({"do": "export", "folder": str(self.root / task.folder), "format": suffix})
        return self._put(self.task(task.id))

    async def compose(self, owner: str, title: str, assets: list[dict[str, Any]]) -> Task:
        """A scene of finished objects in a new folder. `assets` name each `file` as seen from the root. UserError."""
        out = self.root / f"{folder_name(title, 0)[:-2]}"
        job = {"do": "compose", "scene": {"title": title, "assets": assets}, "home": str(self.root), "out": str(out)}
        place = Path(str((await self._produce(job))["out"])).relative_to(self.root).as_posix()
        task = scan.read(self.root, place)
        assert task is not None  # its folder was made just now
        task = replace(task, owner=owner, created=time.time())
        scan.note(self.root, task)
        return self._put(task)

    async def _produce(self, job: Mapping[str, Any]) -> dict[str, Any]:
        """Have something small made, beside the runs. Raises UserError with what the worker says."""
        async with self._product:
            said = [message async for message in self._products.work(job)]
        if said[-1]["end"] != "done":
            raise UserError(said[-1].get("error") or "it was stopped")
        return said[-1]

    # The index and those who listen

    def _put(self, task: Task, noted: bool = False) -> Task:
        """Make a task known, as its folder is now; `noted`: also write it down there."""
        path = self.root / task.folder
        if noted:
            scan.note(self.root, task)
        task = replace(task, files=scan.present(path), stamp=scan.stamp_of(path))
        self.index.put([task])
        self._tell(task)
        return task

    def _forget(self, identity: str) -> None:
        self.index.drop(identity)
        self.hub.tell("removed", json.dumps({"id": identity}))

    def _tell(self, task: Task) -> None:
        self.hub.tell("task", json.dumps(task.public()))

    def _tell_queue(self) -> None:
        self.hub.tell("queue", json.dumps(self.queue()))

    def _wake(self) -> None:
        self._tell_queue()
        self._work.set()


def _require_run(task: Task) -> None:
    if task.kind != "run":
        raise Refused(409, "this is a scene of several objects, and no run")


def _brief(task: Task) -> tuple[str, int, State]:
    return task.id, task.stamp, task.state


def _differences(
    root: Path, known: Mapping[str, tuple[str, int, State]], kept: set[str]
) -> tuple[set[str], dict[str, Task]]:
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
