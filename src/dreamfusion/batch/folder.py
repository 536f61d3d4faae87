"""The directory of a batch: the names in it. Whatever there is to know of a batch lies here; no process is the truth.

Runs and states are spread over 256 folders each, by the first two letters of their names: a million entries in one
folder are more than many file systems, and most people's tools, can take.
"""

from dataclasses import dataclass
from pathlib import Path

from dreamfusion.config import Config


@dataclass(frozen=True)
class Item:
    """One run to make."""

    name: str
    """hash of all that shapes it"""
    config: Config
    folder: Path
    line: int = 0
    """in the list that it comes from; 0 without one"""


@dataclass(frozen=True)
class BatchFolder:
    """Names of the files of one batch. Touches no disk."""

    path: Path

    @property
    def manifest(self) -> Path:
        """What is to be made, one line each; never changed once it is there (`manifest`)."""
        return self.path / "manifest.jsonl"

    @property
    def summary(self) -> Path:
        """How each run stands, for programs and spreadsheets (`report`)."""
        return self.path / "summary.csv"

    @property
    def index(self) -> Path:
        """The same for people, with pictures."""
        return self.path / "index.html"

    def run(self, name: str) -> Path:
        """The run folder of an item."""
        return self.path / "runs" / name[:2] / name

    def state(self, name: str) -> Path:
        """How an item stands (`state`)."""
        return self.path / "state" / name[:2] / f"{name}.json"

    def driver(self, shard: str) -> Path:
        """What belongs to the process that hands out a shard of the work: its lock, and its word to go on."""
        return self.path / "drivers" / shard
