"""The judge's card: what it learnt from, what it knows, how often it is right. `dreamfusion judge info` prints it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamfusion.embedded.card import LICENCE
from dreamfusion.embedded.dataset import COLOURS
from dreamfusion.embedded.table import Noun, names
from dreamfusion.errors import damage_explained
from dreamfusion.evaluate.judge.judge import CARD, open_judge
from dreamfusion.evaluate.judge.network import SIZE
from dreamfusion.evaluate.judge.views import SIDES

LIMITS = (
    "It knows no other things than these nouns and believes that every picture shows one of them. It looks at "
    f"{SIZE} x {SIZE} pixels. It learned from the same library of meshes as the embedded prior (other renderings, and "
    "for many nouns some other meshes), so its figures compare versions of this project and nothing else: they are not "
    "comparable with figures measured with CLIP."
)


def make_card(table: list[Noun], training: Mapping[str, Any], accuracy: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a trained judge; `accuracy` is measured on real meshes."""
    without = {row.noun for row in table if not row.front}
    kept = [row.file for row in table if row.kept_from == "judge"]
    return {
        "name": "toybox-judge-2",
        "nouns": names(table),
        "with front": [noun for noun in names(table) if noun not in without],
        "colours": list(COLOURS),
        "sides": list(SIDES),
        "data": {"meshes": len(table) - len(kept), "kept meshes": kept},
        "training": dict(training),
        "accuracy": dict(accuracy),
        "licence": LICENCE,
        "limits": LIMITS,
    }


def describe(folder: Path | None = None) -> str:
    """What the judge is, knows, and how often it is right, for people. Raises UserError, as `open_judge` does."""
    judge = open_judge(folder=folder)
    with damage_explained(Path(CARD), "restore the judge"):
        return _described(judge.card)


def _described(card: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"{card['name']}: says what it sees in a picture of {SIZE} x {SIZE} pixels",
            f"  trained on   {card['training']['pictures']:,} pictures of {card['data']['meshes']} meshes; "
            f"{len(card['data']['kept meshes'])} meshes kept from it",
            *(f"  {line}" for line in _accuracy_lines(card["accuracy"])),
            f"  nouns ({len(card['nouns'])})  {', '.join(card['nouns'])}",
            f"  colours      {', '.join(card['colours'])}",
            f"  sides        {', '.join(card['sides'])} (of {len(card['with front'])} nouns that have a front)",
            f"  limits       {card['limits']}",
            f"  licence      {card['licence']}",
        ]
    )


def write_card(card: Mapping[str, Any], folder: Path) -> None:
    """`card.json` in `folder`."""
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def _accuracy_lines(accuracy: Mapping[str, Any]) -> list[str]:
    """One line per kind of pictures."""
    lines = []
    for kind, found in accuracy.items():
        shares = {name: found[name] for name in ("noun", "side", "colour") if found[name] is not None}
        told = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
        lines.append(f"right about   {kind} ({found['pictures']} pictures): {told}")
    return lines
