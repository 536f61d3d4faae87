"""The manifest: a table of which meshes show a noun, and which of them are kept from whom (docs/training.md)."""

import csv
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dreamfusion.errors import UserError
from dreamfusion.files import read_lines

TABLE = Path(__file__).with_name("nouns.csv")
"""of the networks that ship"""
LICENCE = (
    "Trained only on renderings of CC0 1.0 meshes by Kenney (kenney.nl), Quaternius (quaternius.com) and Kay Lousberg "
    "(kaylousberg.com). The weights are CC0 1.0 too."
)
COLUMNS = {"yaw_deg": "0", "front": "yes", "adjective": "", "kept_from": ""}
"""columns that may be missing, and what is meant then"""


@dataclass(frozen=True)
class Noun:
    """One mesh of a noun (a word or two): a row of the table."""

    noun: str
    file: str
    yaw_deg: float
    """turn about y after which the mesh faces +z"""
    front: bool = True
    """whether it has a front; if not, its broad side faces +z"""
    adjective: str = ""
    """a true word of kind or material, or none"""
    kept_from: str = ""
    """who never sees it: "prior" (the training of the prior), or nobody"""


@dataclass(frozen=True)
class Assets:
    """A folder of meshes, and what they show."""

    folder: Path
    table: Sequence[Noun]
    licence: str = LICENCE
    """what the card of a network says about them"""

    def file(self, row: Noun) -> Path:
        """Where the mesh of a row lies."""
        return self.folder / "meshes" / row.file

    def require(self, rows: Sequence[Noun]) -> None:
        """Raise UserError if a mesh of these rows is not there."""
        if missing := [str(self.file(row)) for row in rows if not self.file(row).exists()]:
            raise UserError(f"{missing[0]} is missing; --assets must name a folder with meshes/, as the manifest says")


def nouns(file: Path = TABLE) -> list[Noun]:
    """The rows of a manifest, all meshes of a noun following each other.

    Raises UserError if the file cannot be read, or names a line that is not of the format.
    """
    advice = "docs/training.md has the format of a manifest"
    reader = csv.DictReader(read_lines(file, advice))
    if not {"noun", "file"} <= set(reader.fieldnames or ()):
        raise UserError(f"{file} has no columns noun and file: {advice}")
    rows = list[Noun]()
    for line in reader:
        try:
            rows.append(_row(COLUMNS | {key: text for key, text in line.items() if key and text}))
        except (KeyError, ValueError) as error:
            raise UserError(f"{file}, line {reader.line_num}: {error}; {advice}") from error
    if not learned(rows):
        raise UserError(f"{file} has no mesh that a prior could learn from: {advice}")
    order = names(rows)
    return sorted(rows, key=lambda row: order.index(row.noun))


def _row(cells: dict[str, str]) -> Noun:
    if not cells.get("noun") or not cells.get("file"):
        raise ValueError("noun or file is empty")
    if cells["front"] not in ("yes", "no"):
        raise ValueError("front is yes or no")
    if cells["kept_from"] not in ("", "prior"):
        raise ValueError("kept_from is prior or nothing")
    yaw = float(cells["yaw_deg"])
    if not math.isfinite(yaw):
        raise ValueError("yaw_deg is a number of degrees")
    words = " ".join((cells["noun"], cells["adjective"]))
    if set(words) - set("abcdefghijklmnopqrstuvwxyz0123456789 "):
        raise ValueError("nouns and adjectives are lower-case letters, digits and spaces")
    return Noun(cells["noun"], cells["file"], yaw, cells["front"] == "yes", cells["adjective"], cells["kept_from"])


def learned(table: Sequence[Noun]) -> list[Noun]:
    """The rows that the prior learns from."""
    return [row for row in table if row.kept_from != "prior"]


def names(table: Sequence[Noun]) -> list[str]:
    """The distinct nouns, in the table's order."""
    return list(dict.fromkeys(row.noun for row in table))


def holdout_rule(files: Sequence[str]) -> dict[str, str]:
    """The rule behind `kept_from` among the files of one noun: file by file, from whom it is kept.

    Of three or more, the first in the order of their SHA-256 is kept from the prior; of fewer, none.
    """
    first = min(files, key=lambda file: hashlib.sha256(file.encode()).hexdigest())
    return {first: "prior"} if len(files) > 2 else {}
