"""How an item of a batch stands: a small file, replaced as a whole by whoever works on it.

Only the process that owns the run's folder writes it, and, once that one is dead, the one that hands out the work. A
file that is lost or damaged costs no more than a look into the run's folder, so none is forced to the disk.
"""

import json
import os
import platform
import time
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from dreamfusion import json_text
from dreamfusion.batch.folder import BatchFolder
from dreamfusion.files import explain_unwritable

Status = Literal["waiting", "running", "stopped", "done", "failed"]
"""not begun; being made; given back, with all saved; made; gone wrong, perhaps to be tried again"""


@dataclass(frozen=True)
class State:
    """What is known of an item. Times are seconds since 1970."""

    status: Status = "waiting"
    attempt: int = 0
    """how often it was taken up"""
    failures: int = 0
    """in a row, none of which got farther than the one before"""
    step: int = 0
    """steps done when this was written"""
    failed_at: int = -1
    """step at which it failed last; -1 for never"""
    error: str = ""
    """what went wrong last; of a run that is done, what it lacks"""
    host: str = ""
    process: int = 0
    began: float = 0.0
    """when the attempt began"""
    beat: float = 0.0
    """when it was last seen to get on"""
    seconds: float = 0.0
    """of work in all attempts that ended"""

    def taken(self) -> "State":
        """The state when this process takes the item up."""
        now = time.time()
        own = {"host": platform.node(), "process": os.getpid(), "began": now, "beat": now}
        return replace(self, status="running", attempt=self.attempt + 1, **own)

    def beating(self, step: int) -> "State":
        """The state while it gets on."""
        return replace(self, step=step, beat=time.time())

    def is_taken_from(self, other: "State") -> bool:
        """Whether this is the state of a later attempt than another one, or of one that began at the same time."""
        same = (self.host, self.process) == (other.host, other.process)
        return self.attempt > other.attempt or (self.attempt == other.attempt and not same)

    def ended(self, status: Status, error: str = "") -> "State":
        """The state when the attempt is over. A failure is one more of a row, unless the run got farther than ever."""
        now = time.time()
        over = replace(self, status=status, error=error, beat=now, seconds=self.seconds + now - self.began)
        if status != "failed":
            return over if status == "stopped" else replace(over, failures=0)
        failures = 1 if self.step > self.failed_at >= 0 else self.failures + 1
        return replace(over, failures=failures, failed_at=max(self.step, self.failed_at))


_MOST = 2**53
"""more than anything that is counted here, and still exact wherever it is read"""


class States:
    """The states of a batch, on its disk."""

    def __init__(self, folder: BatchFolder) -> None:
        self._folder = folder

    def read(self, name: str) -> State:
        """An item's state; that of one that was never begun if there is none, or none that can be read."""
        try:
            state = State(**json_text.read(self._folder.state(name)))
        except (OSError, ValueError, TypeError):
            return State()
        return state if _sound(state) else State()

    def write(self, name: str, state: State) -> None:
        """Replace an item's state. Raises UserError where nothing can be written."""
        path = self._folder.state(name)
        part = path.with_name(f".{name}.part")  # the next one to write takes what a killed one left
        with explain_unwritable(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(asdict(state)) + "\n", encoding="utf-8")
            part.replace(path)

    def age(self, name: str) -> float:
        """Seconds since an item was last seen to get on, by this machine's clock."""
        return time.time() - self.read(name).beat


def _sound(state: State) -> bool:
    """Whether a state from a file holds what it should: a status, and numbers that can still be counted on."""
    pairs = zip(asdict(state).values(), asdict(State()).values(), strict=True)
    return state.status in get_args(Status) and all(
        json_text.alike(value, usual) and (isinstance(usual, str) or usual <= value < _MOST) for value, usual in pairs
    )
