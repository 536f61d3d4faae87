"""The judge's card: what it learnt from, what it knows, how often it is right. `dreamfusion judge info` prints it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dreamfusion.embedded.world import COLOURS
from dreamfusion.evaluate.judge.judge import CARD
from dreamfusion.evaluate.judge.network import SIZE
from dreamfusion.evaluate.judge.sides import SIDES
from training.nouns import LICENCE, Noun, names

LIMITS = (
    "It knows no other things than these nouns and believes that every picture shows one of them. It looks at "
    f"{SIZE} x {SIZE} pixels. It learned from the same library of meshes as the embedded prior (other renderings, and "
    "for many nouns some other meshes), so its figures compare versions of this project and nothing else: they are not "
    "comparable with figures measured with CLIP."
)


def make_card(
    table: Sequence[Noun], training: Mapping[str, Any], accuracy: Mapping[str, Any], licence: str = LICENCE
) -> dict[str, Any]:
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
        "licence": licence,
        "limits": LIMITS,
    }


def write_card(card: Mapping[str, Any], folder: Path) -> None:
    """`card.json` in `folder`."""
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
