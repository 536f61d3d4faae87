"""Lists of prompts as people write them: a text file, a table, or JSON lines. Read line by line, of any length."""

import csv
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from dreamfusion import json_text
from dreamfusion.errors import UserError
from dreamfusion.files import permitted

ADVICE = "give a .txt file with a prompt a line, a .csv file with a column `prompt`, or a .jsonl file"


@dataclass(frozen=True)
class Row:
    """What a line asks for; `wrong` says why it asks for nothing."""

    line: int
    values: dict[str, Any]
    """a prompt, and fields of the configuration"""
    wrong: str = ""


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, by its suffix; empty lines are passed over. Raises UserError if it cannot be read."""
    readers: dict[str, Callable[[TextIO], Iterator[Row]]] = {".txt": _text, ".csv": _table, ".jsonl": _json_lines}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path} is no list of prompts: {ADVICE}")
    with permitted(path):
        try:
            # What is no UTF-8 is kept until it is known which row has it.
            with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                yield from readers[path.suffix.lower()](file)
        except PermissionError:
            raise
        except (OSError, csv.Error) as error:
            raise UserError(f"{path} cannot be read ({error}): {ADVICE}") from error


def _text(file: TextIO) -> Iterator[Row]:
    for line, text in enumerate(file, 1):
        if text.strip():
            yield Row(line, {"prompt": text.strip()})


def _table(file: TextIO) -> Iterator[Row]:
    table = csv.DictReader(file, strict=True)  # or a quote that never ends would take all rows for one prompt
    names = [name.strip() for name in table.fieldnames or []]
    if "prompt" not in names:
        raise UserError(f"{file.name} has no column `prompt`: {ADVICE}")
    for cells in table:
        spare = cells.pop(None, None)  # type: ignore[call-overload]  # where DictReader puts what has no column
        values = {str(name).strip(): cell.strip() for name, cell in cells.items() if cell and cell.strip()}
        if values or spare:
            yield Row(table.line_num, values, "it has more cells than the first line has names" if spare else "")


def _json_lines(file: TextIO) -> Iterator[Row]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            values = json_text.parse(text.encode("utf-8", "surrogateescape"))
        except ValueError as error:
            yield Row(line, {}, f"it is no JSON ({error})")
            continue
        yield Row(line, values) if isinstance(values, dict) else Row(line, {}, "it is no JSON object")
