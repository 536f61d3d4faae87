"""Workers on a Ray cluster: actors, each with its share of processors and GPUs for as long as it lives.

Tasks would do for processors; on GPUs a task may find itself on another GPU than the one that its process has opened,
so Ray gives each such task a new process, and every prompt would load the prior again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dreamfusion.batch.drive import Ending
from dreamfusion.batch.worker import Order, Record, Work, carry_out
from dreamfusion.errors import UserError

try:
    import ray  # type: ignore[import-not-found]  # optional
    from ray.exceptions import RayActorError, RayError  # type: ignore[import-not-found]
except ImportError as error:
    raise UserError("--executor ray needs Ray: pip install 'dreamfusion[ray]'") from error


@dataclass(frozen=True)
class Share:
    """Of a machine, for each run."""

    processors: int
    gpus: float
    """of one; none is taken where the cluster has none"""


class _Worker:
    def __init__(self, make_work: Callable[[], Work]) -> None:
        self._work = make_work()

    def carry_out(self, order: Order) -> Record:
        return carry_out(order, self._work)


class RayWorkers:
    """`drive.Workers`: actors that are made as they are needed, spread over the nodes. A context manager."""

    def __init__(self, address: str, count: int, share: Share, make_work: Callable[[], Work]) -> None:
        """`address` of a cluster, or none for one of its own; `count` of workers, 0 for as many as it has room for.

        Raises UserError if there is no such cluster, or if it has no GPUs that could be divided.
        """
        options: dict[str, Any] = {"address": address} if address else {"include_dashboard": False}
        try:
            ray.init(**options, log_to_driver=False, logging_level="warning")
        except Exception as error:  # Ray itself raises no more special one where a node does not start in time
            if address:
                raise UserError(
                    f"no Ray cluster at {address!r} ({error}): start one, or leave --address out"
                ) from error
            raise UserError(f"Ray did not start: {error}") from error
        there = ray.cluster_resources()
        if 0 < share.gpus < 1 and not there.get("GPU"):
            ray.shutdown()
            raise UserError("--per-gpu divides GPUs, and the cluster has none: leave it out, or start nodes that have")
        gpus = share.gpus if there.get("GPU") else 0.0
        room = there["GPU"] / gpus if gpus else there.get("CPU", 1) / share.processors
        self._count = count or max(1, int(room))
        needs = {"num_cpus": share.processors, "num_gpus": gpus, "scheduling_strategy": "SPREAD"}
        self._actor = ray.remote(**needs, max_restarts=0)(_Worker)
        self._make_work = make_work
        self._idle: list[Any] = []
        self._busy: dict[Any, tuple[Order, Any]] = {}

    def __enter__(self) -> "RayWorkers":
        return self

    def __exit__(self, *error: object) -> None:
        ray.shutdown()

    @property
    def free(self) -> int:
        return self._count - len(self._busy)

    def start(self, order: Order) -> None:
        """See `Workers.start`."""
        actor = self._idle.pop() if self._idle else self._actor.remote(self._make_work)
        self._busy[actor.carry_out.remote(order)] = order, actor

    def wait(self, seconds: float) -> list[Ending]:
        """See `Workers.wait`."""
        ready, _ = ray.wait(list(self._busy), num_returns=1, timeout=seconds) if self._busy else ([], [])
        return [self._ending(reference) for reference in ready]

    def _ending(self, reference: Any) -> Ending:
        order, actor = self._busy.pop(reference)
        try:
            record = ray.get(reference)
        except RayError as error:
            return Ending(order, how=_told(error))
        if record.again:
            ray.kill(actor)  # the next order gets a process that is as new
        else:
            self._idle.append(actor)
        return Ending(order, record)

    def kill(self, order: Order) -> None:
        """See `Workers.kill`."""
        for running, actor in self._busy.values():
            if running.item.name == order.item.name:
                ray.kill(actor)


def _told(error: RayError) -> str:
    """In one line. Of a worker that could not begin, the last line of its traceback says why."""
    lines = str(error).strip().splitlines()
    if not isinstance(error, RayActorError):
        return lines[0]
    if error.actor_init_failed:
        return f"the worker could not begin: {lines[-1].strip()}"
    return "the worker or its node died"
