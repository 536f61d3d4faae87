"""How a batch stands, as a table and as a page: derived from the directory at any time, item by item, of any size."""

import csv
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

from dreamfusion.batch.folder import BatchFolder
from dreamfusion.batch.manifest import Manifest
from dreamfusion.batch.state import State, States
from dreamfusion.claims import owned
from dreamfusion.files import explain_unwritable

COLUMNS = ("id", "line", "prompt", "negative", "seed", *State.__dataclass_fields__, "folder")
_PLACE = "ROWS"


def standing(folder: BatchFolder) -> Iterator[dict[str, Any]]:
    """Every item of a batch in order: what the manifest says of it, its state, and where its run lies (relative).

    Raises UserError for a directory that holds no batch.
    """
    states = States(folder)
    with Manifest(folder) as manifest:
        for number in range(len(manifest)):
            told = manifest.record(number)
            place = folder.run(told["id"]).relative_to(folder.path).as_posix()
            yield {**told, **asdict(states.read(told["id"])), "folder": place}


def write_report(folder: BatchFolder) -> tuple[list[Path], Counter[str]]:
    """Write `summary.csv` and `index.html`; returns them, and how many items there are by status. Raises UserError.

    Raises InUse if another process is at it.
    """
    place, files = folder.driver("report"), [folder.summary, folder.index]
    with owned(place):
        parts = [place / file.name for file in files]
        with explain_unwritable(place):
            try:
                counts = _written(folder, *parts)
                for part, file in zip(parts, files, strict=True):
                    with explain_unwritable(file):
                        part.replace(file)
            finally:
                for part in parts:
                    part.unlink(missing_ok=True)
    return files, counts


def _written(folder: BatchFolder, table: Path, page: Path) -> Counter[str]:
    counts = Counter[str]()
    frame = resources.files("dreamfusion.batch").joinpath("page.html").read_text(encoding="utf-8")
    before, after = frame.split(_PLACE)
    with table.open("w", encoding="utf-8", newline="") as rows, page.open("w", encoding="utf-8") as shown:
        writer = csv.DictWriter(rows, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        shown.write(before)
        for number, item in enumerate(standing(folder)):
            shown.write((",\n" if number else "") + _card(item))
            writer.writerow(item)
            counts[item["status"]] += 1
        shown.write(after)
    return counts


def _card(item: dict[str, Any]) -> str:
    """What the page shows of an item, as JSON that may stand in a script."""
    shown = [item[name] for name in ("id", "prompt", "seed", "status", "error", "line", "seconds")]
    return json.dumps(shown, ensure_ascii=False).replace("<", "\\u003c")
