"""The run folder: what a run leaves on disk, under which names, and how files get there whole or not at all.

Users and scripts may rely on this layout; `docs/reference/run-folder.md` describes every file and field of it.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamfusion import json_text
from dreamfusion.errors import DiskFull, UserError
from dreamfusion.files import (
    DISK_FULL,
    explain_unwritable,
    permitted,
    read_json,
    require_reachable,
    visible,
    write_json,
    write_text,
)

LOCK = ".lock"
"""Name of the file that says which process writes into a folder (`claims`)"""
_NAME_LENGTH = 60  # characters of the prompt in a default folder name; file systems allow 255 bytes


@dataclass(frozen=True)
class RunFolder:
    """Names of the files of one run. `create` and `open` check the folder; the constructor alone touches no disk."""

    path: Path

    @property
    def config(self) -> Path:
        """The complete configuration, JSON; it is what makes a folder a run folder."""
        return self.path / "config.json"

    @property
    def metrics(self) -> Path:
        """One JSON object per logged step."""
        return self.path / "metrics.jsonl"

    @property
    def checkpoint(self) -> Path:
        """Folder of the last checkpoint."""
        return self.path / "checkpoint"

    @property
    def set_aside(self) -> Path:
        """The checkpoint before that of an interruption, while a run that may be healed goes on from there."""
        return self.path / "set-aside"

    @property
    def regular_checkpoint(self) -> Path:
        """Folder of the last checkpoint that no interruption made."""
        return self.set_aside if self.set_aside.exists() else self.checkpoint

    @property
    def media(self) -> Path:
        """Folder of pictures and videos."""
        return self.path / "media"

    @property
    def preview(self) -> Path:
        """What the object looks like now, renewed during the run."""
        return self.media / "preview.png"

    @property
    def turntable_mp4(self) -> Path:
        """One round about the object, H.264."""
        return self.media / "turntable.mp4"

    @property
    def turntable_webp(self) -> Path:
        """The same round as an animated picture."""
        return self.media / "turntable.webp"

    @property
    def sheet(self) -> Path:
        """Contact sheet: colour, geometry and normals from 8 sides."""
        return self.media / "sheet.png"

    @property
    def mesh(self) -> Path:
        """The textured mesh, binary glTF."""
        return self.path / "mesh.glb"

    @property
    def mesh_copies(self) -> list[Path]:
        """The same mesh in other formats, and the files beside those."""
        return [self.mesh.with_suffix(f".{name}") for name in ("obj", "mtl", "png", "ply", "stl", "usdz")]

    @property
    def mesh_report(self) -> Path:
        """What that mesh is like, and how well it agrees with the renderings, JSON."""
        return self.path / "mesh.json"

    @property
    def healing(self) -> Path:
        """What was done about a run that went wrong, JSON; only if something was."""
        return self.path / "healing.json"

    @property
    def candidates(self) -> Path:
        """Which draws a run was chosen from, and by what, JSON; only if it was."""
        return self.path / "candidates.json"

    @property
    def index(self) -> Path:
        """One self-contained page that shows all of it."""
        return self.path / "index.html"

    @classmethod
    def create(cls, path: Path, config: Mapping[str, object]) -> "RunFolder":
        """Make a new run folder and write its `config.json`. An existing empty folder will do.

        Raises UserError where something is there already (nothing is ever overwritten) or where nothing can be written.
        """
        run = cls(path)
        try:
            refuse_occupied(path)
            path.mkdir(parents=True, exist_ok=True)
            write_json(run.config, config)
            run.media.mkdir(exist_ok=True)
        except OSError as error:
            kind = DiskFull if error.errno in DISK_FULL else UserError
            raise kind(f"cannot write to {path} ({error.strerror}): choose another --out") from error
        return run

    @classmethod
    @permitted()
    def open(cls, path: Path) -> "RunFolder":
        """An existing run folder. Raises UserError if `path` is none."""
        run = cls(path)
        require_reachable(run.config)
        if not path.is_dir():
            raise UserError(f"{path} is no folder: give the folder of a run, such as runs/a-hamburger-0")
        if not run.config.is_file():
            raise UserError(
                f"{path} is no run folder (no config.json in it): give one that `dreamfusion generate` made"
            )
        return run

    def read_config(self) -> dict[str, object]:
        """The content of `config.json`. Raises UserError if it is damaged."""
        config = read_json(self.config, "restore it or start a new run")
        if not isinstance(config, dict):
            raise UserError(f"{self.config} holds no configuration: restore it or start a new run")
        return config

    def log(self, record: Mapping[str, object]) -> None:
        """Append one line to `metrics.jsonl`.

        `record["step"]` counts the steps done. NaN and infinity raise ValueError, a full or closed disk UserError.
        """
        line = json.dumps(dict(record), allow_nan=False) + "\n"
        with explain_unwritable(self.metrics), self.metrics.open("a", encoding="utf-8") as file:
            file.write(line)

    def read_metrics(self) -> list[dict[str, Any]]:
        """All logged records in order; empty before the first. A torn last line (after a kill) is left out."""
        return [record for _, record in self._metric_lines()]

    def rewind_metrics(self, step: int) -> None:
        """Drop the lines beyond `step`, and a torn one: a run resumed there then writes what an unbroken one would."""
        if self.metrics.exists():
            kept = [line for line, record in self._metric_lines() if record["step"] <= step]
            write_text(self.metrics, "".join(kept))

    @permitted()
    def _metric_lines(self) -> list[tuple[str, dict[str, Any]]]:
        if not self.metrics.exists():
            return []
        try:
            lines = self.metrics.read_bytes().splitlines(keepends=True)
        except PermissionError:
            raise
        except OSError as error:
            raise UserError(f"{self.metrics} cannot be read ({error.strerror}): repair it, then resume") from error
        whole = lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]
        pairs = [(line.decode("utf-8", "replace"), _record(line)) for line in whole]
        if any(record is None for _, record in pairs):
            raise UserError(f"{self.metrics} is damaged: repair or delete it, then resume")
        return [(line, record) for line, record in pairs if record is not None]


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of `metrics.jsonl`, or None if it is none."""
    try:
        record = json_text.parse(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and isinstance(record.get("step"), int) else None


def default_folder(prompt: str, seed: int, root: Path = Path("runs")) -> Path:
    """`root/<prompt>-<seed>`."""
    return root / folder_name(prompt, seed)


def folder_name(prompt: str, seed: int) -> str:
    """`<prompt>-<seed>`, in letters, digits and dashes."""
    return f"{plain_name(prompt) or 'prompt'}-{seed}"


def plain_name(text: str) -> str:
    """A text as the name of a folder: in lower-case letters, digits and dashes, maybe none."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:_NAME_LENGTH].strip("-")


def refuse_occupied(path: Path) -> None:
    """Raise UserError unless `path` is free for a new folder, or an empty one (but for a lock)."""
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is a file: choose another --out")
    if path.is_dir() and visible(path):
        resume = f", or continue that run with `dreamfusion resume {path}`" if RunFolder(path).config.exists() else ""
        raise UserError(f"{path} exists and is not empty: choose another --out{resume}")
