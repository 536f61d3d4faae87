"""The table of nouns: which meshes teach a word, which of them are kept from whom."""

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


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
    """who never sees it: "prior" (the training of the prior), "judge" (the training of the judge), or nobody"""


def nouns() -> list[Noun]:
    """The table `nouns.csv` beside this file: all meshes of a noun follow each other."""
    text = Path(__file__).with_name("nouns.csv").read_text()
    return [
        Noun(r["noun"], r["file"], float(r["yaw_deg"]), r["front"] == "yes", r["adjective"], r["kept_from"])
        for r in csv.DictReader(text.splitlines())
    ]


def learned(table: Sequence[Noun]) -> list[Noun]:
    """The rows that the prior learns from."""
    return [row for row in table if row.kept_from != "prior"]


def names(table: Sequence[Noun]) -> list[str]:
    """The distinct nouns, in the table's order."""
    return list(dict.fromkeys(row.noun for row in table))


def holdout_rule(files: Sequence[str]) -> dict[str, str]:
    """The rule behind `kept_from` among the files of one noun: file by file, from whom it is kept.

    In the order of the files' SHA-256, the first of three or more is kept from the prior and the next from the judge;
    of two, the first is kept from the judge; a single one from nobody.
    """
    order = sorted(files, key=lambda file: hashlib.sha256(file.encode()).hexdigest())
    kept = {1: (), 2: ("judge",)}.get(len(order), ("prior", "judge"))
    return dict(zip(order, kept, strict=False))


def shares(table: Sequence[Noun], views: int, least: int) -> list[int]:
    """How many views each row gets: every noun has `views` in all, spread evenly over its meshes, of which none has
    fewer than `least`, however many they are."""
    rows = [row.noun for row in table]
    counts = []
    for index, noun in enumerate(rows):
        base, rest = divmod(views, rows.count(noun))
        counts.append(max(least, base + (rows[:index].count(noun) < rest)))
    return counts
