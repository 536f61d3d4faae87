"""The live line of the command line: step, speed, time left, opacity, what is wrong, and what is being done."""

import time
from collections import deque

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from dreamfusion.loop import Metrics

QUIET_SECONDS = 15.0
"""between lines where the output is no terminal"""

RECENT = 30
"""steps by which the speed is told: they take longer where views or cells have become finer"""


class ProgressLine:
    """Redrawn in place on a terminal, a plain line now and then elsewhere. A context manager."""

    def __init__(self, done: int, total: int) -> None:
        self._console = Console(stderr=True)
        self._total, self._shown, self._times = total, 0, deque([(time.monotonic(), 0)], maxlen=RECENT + 1)
        self._spoke = time.monotonic()
        columns = MofNCompleteColumn(), BarColumn(bar_width=20), TextColumn("{task.description}")
        quiet = not self._console.is_terminal
        self._progress = Progress(*columns, console=self._console, transient=True, disable=quiet)
        self._task = self._progress.add_task("starting", total=total, completed=done)
        self._told, self._doing = "", "starting"
        self._found = frozenset[str]()

    def __enter__(self) -> "ProgressLine":
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def say(self, doing: str) -> None:
        """What is being done now; elsewhere than on a terminal, a line each once all steps are done."""
        if doing != self._doing:
            self._doing = doing
            self._progress.update(self._task, description=f"{self._told}  {doing}")
            if not self._console.is_terminal and self._progress.finished:
                self._console.print(f"{doing} ...", highlight=False)

    def show(self, metrics: Metrics) -> None:
        """A step was done."""
        self._shown += 1  # a run that is healed counts its steps again
        now, (began, first) = time.monotonic(), self._times[0]
        self._times.append((now, self._shown))
        rate = (self._shown - first) / max(now - began, 1e-9)
        left = (self._total - metrics.step) / rate
        wrong = "".join(f"  {finding.name}" for finding in metrics.findings)
        self._told = f"{rate:.1f} steps/s  {clock(left)} left  opacity {metrics.opacity:.2f}{wrong}"
        self._progress.update(self._task, completed=metrics.step, description=f"{self._told}  {self._doing}")
        self._explain(metrics)
        if not self._console.is_terminal and (now - self._spoke > QUIET_SECONDS or metrics.step == self._total):
            self._spoke = now
            self._console.print(f"step {metrics.step}/{self._total}  {self._told}", highlight=False)

    def _explain(self, metrics: Metrics) -> None:
        """A line for what was done about the run's health, and one for each new finding."""
        if metrics.healing is not None:
            self._console.print(f"healed: {metrics.healing}", highlight=False)
        for finding in metrics.findings:
            if finding.name not in self._found:
                self._console.print(f"step {metrics.step}: {finding.advice}", highlight=False)
        self._found |= {finding.name for finding in metrics.findings}


def clock(seconds: float) -> str:
    """1:02:03, or 2:03 under an hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
