"""Who has the tasks done: takes the next one from the queue for each worker, follows it, and notes how it ended."""

import asyncio
import json
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from dreamfusion.errors import UserError
from dreamfusion.studio import scan
from dreamfusion.studio.catalogue import Catalogue
from dreamfusion.studio.lane import Lane
from dreamfusion.studio.order import in_order, places
from dreamfusion.studio.task import PRODUCTS, State, Task

ATTEMPTS = 3
"""workers that may die at a task"""
IDLE_SECONDS = 300.0
"""after which a worker without work ends, and gives its memory back"""
STOP_SECONDS = 60.0
"""that a worker has to save, before it is ended"""
AGAIN_SECONDS = 2.0
"""before a task is tried again: whoever holds its folder may let go, and what killed its worker be over"""
_SHOWN = ("doing", "step", "steps", "opacity", "losses", "rate", "health")


class Foreman:
    """The queue and the workers. Belongs to one event loop."""

    def __init__(self, catalogue: Catalogue, devices: Sequence[str]) -> None:
        self._catalogue = catalogue
        self._lanes = [Lane(device) for device in devices]
        self._products, self._product = Lane("cpu"), asyncio.Lock()
        self._running: dict[str, Lane] = {}
        self._canceled: set[str] = set()
        self._yielding: set[str] = set()
        self._work = asyncio.Event()
        self._loops = set[asyncio.Task[None]]()
        self._closing = False
        self._rate = 0.0

    @property
    def running(self) -> frozenset[str]:
        """Ids of the tasks that workers are at."""
        return frozenset(self._running)

    def start(self) -> None:
        """Take up what a worker was at when the studio ended, and begin to work."""
        for task in self._catalogue.index.of_states(State.IN_PROGRESS):
            if scan.noted(self._catalogue.root / task.folder) is State.IN_PROGRESS:
                interrupted = replace(task, state=State.PENDING, queued=0.0, doing="taken up again")
                self._catalogue.put(interrupted, noted=True)
        for lane in self._lanes:
            self._loops.add(asyncio.create_task(self._serve(lane)))

    async def close(self) -> None:
        """Save what runs, which stays in progress for the next start, and end the workers."""
        self._closing = True
        await asyncio.gather(*(lane.close(STOP_SECONDS) for lane in (*self._lanes, self._products)))
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)

    def waiting(self) -> list[Task]:
        """Tasks in the order in which they will be begun."""
        index = self._catalogue.index
        return in_order(index.of_states(State.PENDING), index.served())

    def queue(self) -> list[dict[str, object]]:
        """Places and times of all that wait."""
        running = [task for task in map(self._catalogue.index.get, self._running) if task]
        return places(self.waiting(), running, self._rate, len(self._lanes))

    def look(self) -> None:
        """The queue is another one: tell the pages, and the workers that have nothing to do.

        Where none is free, a batch is asked to save; it waits until everything else is done.
        """
        self._catalogue.hub.tell("queue", json.dumps(self.queue()))
        self._work.set()
        if len(self._running) < len(self._lanes) or not any(task.kind != "batch" for task in self.waiting()):
            return
        for task in filter(None, map(self._catalogue.index.get, self._running)):
            if task.kind == "batch" and task.id not in self._yielding:
                self._yielding.add(task.id)
                self._keep(asyncio.create_task(self._running[task.id].stop()))
                return

    def stop(self, task: Task) -> bool:
        """Ask for the end of a running task; False if no worker of the studio is at it."""
        lane = self._running.get(task.id)
        if lane is not None and task.id not in self._canceled:
            self._canceled.add(task.id)
            self._keep(asyncio.create_task(self._stop(task.id, lane)))
        return lane is not None

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._loops.add(task)
        task.add_done_callback(self._loops.discard)

    async def _stop(self, identity: str, lane: Lane) -> None:
        await lane.stop()
        await asyncio.sleep(STOP_SECONDS)
        if self._running.get(identity) is lane and identity in self._canceled:
            lane.kill()

    async def produce(self, job: Mapping[str, object]) -> dict[str, Any]:
        """Have something small made, beside the runs. Returns the worker's last message, raises UserError with it."""
        async with self._product:
            said = [message async for message in self._products.work(job)]
        if said[-1]["end"] != "done":
            raise UserError(said[-1].get("error") or "it was stopped")
        return said[-1]

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
                    failed = replace(task, state=State.FAILED, error=str(error), finished=time.time())
                    self._catalogue.put(failed, noted=True)
            finally:
                self._running.pop(task.id, None)
                self._canceled.discard(task.id)
                self._yielding.discard(task.id)
                self.look()

    async def _rest(self, lane: Lane) -> None:
        """Until there is work, perhaps."""
        self._work.clear()
        try:
            await asyncio.wait_for(self._work.wait(), IDLE_SECONDS)
        except asyncio.TimeoutError:
            await lane.close(STOP_SECONDS)
            if not self._running and not self._product.locked():
                await self._products.close(STOP_SECONDS)

    def _take(self) -> Task | None:
        """The next task, marked as begun."""
        waiting = self.waiting()
        if self._closing or not waiting:
            return None
        begun = replace(waiting[0], state=State.IN_PROGRESS, started=time.time(), doing="starting")
        return self._catalogue.put(replace(begun, error="", rate=0.0, stage=0), noted=True)

    async def _do(self, lane: Lane, task: Task) -> None:
        """Have a task done and follow it."""
        path = self._catalogue.root / task.folder
        self.look()
        kind, config = "refine" if task.refining else task.kind, scan.wanted(path)
        own = {"told": task.told, "retries": task.retries, "share": len(self._lanes)}
        job = {"do": kind, "folder": str(path), "config": config, **own}
        async for message in lane.work(job):
            if task.kind == "batch":  # its runs are counted in its directory
                if "end" in message:
                    await self._catalogue.follow(task.folder, self.running)  # not waiting for the next look
                task = self._catalogue.index.get(task.id) or task
            if "end" in message:
                task = self._ended(_as_run(task, config), message)
            else:
                task = replace(task, **{name: message[name] for name in _SHOWN if name in message})
                begun = "steps" in message  # whatever was made before
                task = replace(task, stage=0 if begun else PRODUCTS.get(message.get("doing", ""), task.stage))
                self._rate = task.rate or self._rate
            self._catalogue.put(task, noted="end" in message)
        if task.state is State.PENDING and not self._closing:
            await asyncio.sleep(AGAIN_SECONDS)

    def _ended(self, task: Task, message: Mapping[str, Any]) -> Task:
        error = str(message.get("error", ""))
        done = replace(task, finished=time.time(), doing="", error=error)
        match message["end"]:
            case "done":
                return replace(done, state=State.SUCCEEDED, step=task.steps, error="", refining=False, told={})
            case "failed":
                return replace(done, state=State.FAILED)
            case _ if task.id in self._canceled:
                return replace(done, state=State.CANCELED, error="")
            case _ if self._closing:
                return task
            case _ if task.id in self._yielding:
                return replace(task, state=State.PENDING, queued=time.time(), doing="", error="")
            case "died" if task.attempts + 1 >= ATTEMPTS:
                return replace(done, state=State.FAILED, error=f"{error} ({ATTEMPTS} times)")
            case "died":
                return replace(task, state=State.PENDING, queued=0.0, attempts=task.attempts + 1, doing="", error=error)
            case _:
                return replace(task, state=State.PENDING, doing="waiting for another process", error="")


def _as_run(task: Task, config: Mapping[str, Any]) -> Task:
    """With the steps of the run, where those of its second stage were shown."""
    steps = config.get("steps", task.steps)
    return replace(task, steps=steps, step=steps) if task.refining else task
