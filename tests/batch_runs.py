"""Runs of nothing for tests of batches, also in other processes: counted steps, a checkpoint every fourth, a result."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

from dreamfusion.batch.watch import Watch
from dreamfusion.batch.worker import Work
from dreamfusion.config import Config
from dreamfusion.errors import DiskFull, NoSurface, UserError
from dreamfusion.files import write_json, write_text
from dreamfusion.json_text import read
from dreamfusion.runs import RunFolder

EVERY = 4
"""steps between checkpoints"""


@dataclass(frozen=True)
class Counted:
    """Makes the `Work`. What a prompt says happens: see `befall`."""

    log: Path
    """file that gets a line for each step that was done"""
    seconds: float = 0.0
    """of each step"""

    def __call__(self) -> Work:
        return self.work

    def work(self, config: Config, path: Path, watch: Watch) -> bool:
        """Sums of the steps' numbers, which only all steps in their order make right."""
        folder = RunFolder(path)
        head = folder.checkpoint / "checkpoint.json"
        state = read(head) if head.exists() else {"step": 0, "sum": config.seed}
        if not folder.config.exists():
            write_json(folder.config, {"prompt": config.prompt})
            folder.checkpoint.mkdir(exist_ok=True)
        while state["step"] < config.steps:
            if watch.stopped():
                write_json(head, state)
                return False
            befall(config.prompt, state["step"], path)
            time.sleep(self.seconds)
            with self.log.open("a") as log:
                log.write(f"{path.name} {state['step']}\n")
            state = {"step": state["step"] + 1, "sum": (state["sum"] * 31 + state["step"]) % 1_000_003}
            watch.stepped(SimpleNamespace(step=state["step"]))
            if state["step"] % EVERY == 0:
                write_json(head, state)
        write_json(head, state)
        if "empty" in config.prompt:
            raise NoSurface("there is nothing")
        write_text(folder.index, f"{config.prompt} {state['sum']}")
        return True


def befell(path: Path) -> Path:
    """The file that says that it happened to the run in a folder."""
    return path.parent / f"{path.name}-befell"


def befall(prompt: str, step: int, path: Path) -> None:
    """What happens to a run at a step: it is refused, raises, dies, hangs, meets a full disk, now or only at first."""
    before = path.parent / f"{path.name}-befell"
    if ("once" in prompt and before.exists()) or step < 5:
        return
    before.touch()
    if "refused" in prompt:
        raise UserError("no")
    if "raises" in prompt:
        raise ZeroDivisionError("oh")
    if "full" in prompt:
        raise DiskFull("the disk is full")
    if "dies" in prompt:
        os._exit(7)
    if "hangs" in prompt:
        time.sleep(1000)


def done_steps(log: Path) -> dict[str, list[int]]:
    """The steps that were done of each item, in order."""
    found: dict[str, list[int]] = {}
    for line in log.read_text().splitlines() if log.exists() else []:
        name, step = line.split()
        found.setdefault(name, []).append(int(step))
    return found
