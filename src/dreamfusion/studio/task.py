"""One task of the studio: a run folder, or a scene of several, as the index and the page know it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from enum import Enum
from typing import Any

PRODUCTS = {"turntable": 92, "mesh": 95, "page": 99}
"""progress in percent while these are made; the steps before take the first 92"""
SECONDS_OF_PRODUCTS = 20.0
"""a guess of what they take, for the time left"""


class State(str, Enum):
    """Where a task is in its life."""

    PENDING = "PENDING"
    IN_PROGRESS = "IN_PROGRESS"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELED = "CANCELED"


ACTIVE = (State.PENDING, State.IN_PROGRESS)


@dataclass(frozen=True)
class Task:
    """A task. Times are seconds since 1970 (UTC), 0 for what has not happened."""

    id: str
    folder: str
    """as seen from the root, with `/`"""
    kind: str = "run"
    """or "scene": several objects; or "batch": many runs of a list (`dreamfusion batch`)"""
    state: State = State.PENDING
    prompt: str = ""
    """of a scene, its title; of a batch, its folder's name"""
    negative: str = ""
    seed: int = 0
    preset: str = ""
    prior: str = ""
    steps: int = 0
    """of a batch, its runs; of a scene, those of its joint stage once that began"""
    step: int = 0
    """steps done, or runs"""
    created: float = 0.0
    queued: float = 0.0
    """when it began to wait; 0 for what a restart of the server interrupted, which goes first"""
    started: float = 0.0
    finished: float = 0.0
    owner: str = ""
    """whose token asked for it; nobody's where there is none"""
    made: float = 0.0
    """when the studio made the folder; 0 for one that it found"""
    attempts: int = 0
    """workers that died at it"""
    refining: bool = False
    """whether its second stage is wanted, and not done yet"""
    told: dict[str, float] = field(default_factory=dict)
    """what that is told (`RefineConfig`) beside what follows from the run"""
    error: str = ""
    doing: str = ""
    """what the worker is at, in a few words"""
    stage: int = 0
    """progress in percent that the product being made stands for"""
    rate: float = 0.0
    """steps a second, or runs"""
    opacity: float = 0.0
    losses: dict[str, float] = field(default_factory=dict)
    health: str = ""
    """what is wrong with the run and would help, or what was done about it, in words"""
    batch: str = ""
    """id of the batch that this run belongs to; empty for all others"""
    counts: dict[str, int] = field(default_factory=dict)
    """runs of a batch by status (`batches.STATUSES`)"""
    cover: tuple[str, ...] = ()
    """ids of runs of a batch that have a picture"""
    retries: int = 0
    """failures in a row that a run of a batch may have and still be tried again; 0 for what a batch does unasked"""
    files: tuple[str, ...] = ()
    """that can be asked for"""
    stamp: int = 0
    """grows when they change"""

    @property
    def progress(self) -> int:
        """0 to 100."""
        if self.state is State.SUCCEEDED:
            return 100
        if self.kind == "batch":
            return 100 * self.step // self.steps if self.steps else 0
        return max(self.stage, int(92 * self.step / self.steps) if self.steps else 0)

    @property
    def seconds_left(self) -> float | None:
        """Of a task in progress, from its speed so far; None if that is not known."""
        if self.state is not State.IN_PROGRESS or not self.rate:
            return None
        if self.kind == "batch":
            return (self.steps - self.step - self.counts.get("aside", 0)) / self.rate
        return (self.steps - self.step) / self.rate + SECONDS_OF_PRODUCTS * (100 - max(self.progress, 92)) / 8

    def record(self) -> dict[str, Any]:
        """For JSON; `task_from` reads it."""
        return asdict(self)

    def public(self) -> dict[str, Any]:
        """For the page: what everybody may know. Whose it is they learn by `owner`, which says nothing of the token."""
        hidden = ("made", "stage", "queued", "attempts", "retries")
        known = {name: value for name, value in self.record().items() if name not in hidden}
        return {**known, "progress": self.progress, "seconds_left": self.seconds_left}


def task_from(record: Mapping[str, Any]) -> Task:
    """The task of a `record`."""
    known = {item.name for item in fields(Task)}
    values = {name: value for name, value in record.items() if name in known}
    lists = {name: tuple(values[name]) for name in ("files", "cover")}
    return Task(**{**values, **lists, "state": State(values["state"])})
