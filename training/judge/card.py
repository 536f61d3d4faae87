"""The judge's card: what it learnt from, what it knows, how often it is right. `dreamfusion judge info` prints it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamfusion.embedded.world import COLOURS
from dreamfusion.evaluate.judge.judge import CARD
from dreamfusion.evaluate.judge.network import SIZE
from dreamfusion.evaluate.judge.sides import SIDES
from training.nouns import Assets, names

LIMITS = (
    "It knows no other things than these nouns and believes that every picture shows one of them. It looks at "
    f"{SIZE} x {SIZE} pixels. It learned from all meshes of the library that the embedded prior learned from, though "
    "from other renderings: it says whether a result is the thing of that library, not what a stranger would call it. "
    "Its figures compare versions of this project and nothing else; they are not comparable with figures measured "
    "with CLIP."
)


def make_card(assets: Assets, training: Mapping[str, Any], accuracy: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a trained judge; `accuracy` is measured on real meshes."""
    without = {row.noun for row in assets.table if not row.front}
    return {
        "name": "toybox-judge-3",
        "nouns": names(assets.table),
        "with front": [noun for noun in names(assets.table) if noun not in without],
        "colours": list(COLOURS),
        "sides": list(SIDES),
        "training": dict(training),
        "accuracy": dict(accuracy),
        "licence": assets.licence,
        "limits": LIMITS,
    }


def write_card(card: Mapping[str, Any], folder: Path) -> None:
    """`card.json` in `folder`."""
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
