"""The judge's card, for people: shown by `dreamfusion judge info`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dreamfusion.errors import damage_explained
from dreamfusion.evaluate.judge.judge import CARD, open_judge
from dreamfusion.evaluate.judge.network import SIZE


def describe(folder: Path | None = None) -> str:
    """The judge's card as text: network, vocabulary, accuracy. Raises UserError, as `open_judge` does."""
    judge = open_judge(folder=folder)
    with damage_explained(Path(CARD), "restore the judge"):
        return _described(judge.card)


def _described(card: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"{card['name']}: says what it sees in a picture of {SIZE} x {SIZE} pixels",
            f"  trained on   {card['training']['pictures']:,} pictures of {card['training']['meshes']} meshes",
            *(f"  {line}" for line in _accuracy_lines(card["accuracy"])),
            f"  nouns ({len(card['nouns'])})  {', '.join(card['nouns'])}",
            f"  colours      {', '.join(card['colours'])}",
            f"  sides        {', '.join(card['sides'])} (of {len(card['with front'])} nouns that have a front)",
            f"  limits       {card['limits']}",
            f"  licence      {card['licence']}",
        ]
    )


def _accuracy_lines(accuracy: Mapping[str, Any]) -> list[str]:
    """One line per kind of pictures."""
    lines = []
    for kind, found in accuracy.items():
        shares = {name: found[name] for name in ("noun", "side", "colour") if found[name] is not None}
        told = ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
        lines.append(f"right about   {kind} ({found['pictures']} pictures): {told}")
    return lines
