"""Workers on this machine: processes that are started as they are needed, and replaced when they die."""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from dreamfusion.batch.drive import Ending
from dreamfusion.batch.worker import Order, Record, Work, carry_out

_CONTEXT = get_context("spawn")
PATIENCE_SECONDS = 60.0
"""for a worker to save, and to leave"""


@dataclass
class _Worker:
    process: SpawnProcess
    line: Connection
    device: int
    order: Order | None = None


class LocalWorkers:
    """`drive.Workers`: so many processes, each with the prior in its memory. A context manager."""

    def __init__(self, count: int, make_work: Callable[[], Work], devices: Sequence[str] = ("",)) -> None:
        """`devices`: values of CUDA_VISIBLE_DEVICES, over which the processes spread; "" leaves it as it is."""
        self._count, self._make_work, self._devices = count, make_work, devices
        self._workers: list[_Worker] = []

    def __enter__(self) -> "LocalWorkers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let go of the workers. Those that still work have been told to stop, and save first, but for an interrupt."""
        for worker in self._workers:
            worker.line.close()
        for worker in self._workers:
            worker.process.join(0 if kind and issubclass(kind, KeyboardInterrupt) else PATIENCE_SECONDS)
            worker.process.kill()
            worker.process.join()

    @property
    def free(self) -> int:
        return self._count - sum(worker.order is not None for worker in self._workers)

    def start(self, order: Order) -> None:
        """Give an order to a worker that is idle, or to a new one."""
        for worker in [worker for worker in self._workers if worker.order is None]:
            try:
                worker.line.send(order)
            except OSError:  # it has left
                self._dismiss(worker)
                continue
            worker.order = order
            return
        worker = self._hired()
        worker.order = order
        with suppress(OSError):  # it is dead already, which `wait` tells
            worker.line.send(order)

    def wait(self, seconds: float) -> list[Ending]:
        """See `Workers.wait`."""
        ready = wait([worker.line for worker in self._workers], seconds)
        endings = []
        for worker in [worker for worker in self._workers if worker.line in ready]:
            try:
                record = worker.line.recv()
            except (EOFError, OSError):
                record = None
            how = self._dismiss(worker) if record is None or _is_last(record) else ""
            if worker.order is not None:
                endings.append(Ending(worker.order, record, how))
            worker.order = None
        return endings

    def kill(self, order: Order) -> None:
        """See `Workers.kill`."""
        for worker in self._workers:
            if worker.order is not None and worker.order.item.name == order.item.name:
                worker.process.kill()

    def _hired(self) -> _Worker:
        taken = [worker.device for worker in self._workers]
        device = min(range(len(self._devices)), key=taken.count)
        ours, theirs = _CONTEXT.Pipe()
        process = _CONTEXT.Process(target=_serve, args=(theirs, self._make_work, self._devices[device]), daemon=True)
        process.start()
        theirs.close()
        self._workers.append(_Worker(process, ours, device))
        return self._workers[-1]

    def _dismiss(self, worker: _Worker) -> str:
        """Forget a worker that is no more; returns how it ended."""
        self._workers.remove(worker)
        worker.line.close()
        worker.process.join(PATIENCE_SECONDS)
        code = worker.process.exitcode
        if code == -signal.SIGKILL:
            return "the process was killed (out of memory?)"
        return f"the process died of signal {-code}" if code and code < 0 else f"the process ended with code {code}"


def visible_gpus(device: str) -> list[str]:
    """What to put into CUDA_VISIBLE_DEVICES for each GPU that runs on `device` may use; none for the CPU.

    A device that is one GPU by its name (cuda:1, mps) has "", which leaves the variable as it is.
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        return [""]
    if device == "cpu" or not torch.cuda.is_available():
        return []
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    return told.split(",") if told else [str(number) for number in range(torch.cuda.device_count())]


def _is_last(record: Record) -> bool:
    """Whether a worker leaves after it: it was told to, or may be in any state."""
    return record.outcome == "stopped" or record.again


class _Ended:
    """Whether a worker was told to end itself. Ctrl-C is for the first process to hear, SIGTERM for each."""

    def __init__(self) -> None:
        self.busy = self._told = False
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, number: int, frame: FrameType | None) -> None:
        self._told = True
        if not self.busy:
            raise SystemExit(0)

    def __call__(self) -> bool:
        parent = parent_process()
        return self._told or parent is None or not parent.is_alive()


def _serve(line: Connection, make_work: Callable[[], Work], device: str) -> None:
    """A worker's life: orders come and records go until nobody is left to talk to."""
    ended = _Ended()
    if device:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    work = make_work()
    try:
        while not ended():
            order = line.recv()
            ended.busy = True
            record = carry_out(order, work, ended)
            line.send(record)
            ended.busy = False
            if _is_last(record):
                return
    except (EOFError, OSError):
        return
