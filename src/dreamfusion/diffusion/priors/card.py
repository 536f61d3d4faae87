"""A prior's metadata beyond its networks: `card.json`, an optional file beside `model_index.json`.

A folder without a card is any other diffusers pipeline: the paper's view words, every word allowed, nothing known
besides the text. Beside a card there may be a word list, `words.ini`.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dreamfusion.diffusion.view_words import ViewWords
from dreamfusion.errors import UserError
from dreamfusion.files import read_json
from dreamfusion.words import WordList, read_words

CONDITIONS = frozenset({"pose", "background", "light", "variety"})

PAPER_WORDS = ViewWords()


@dataclass(frozen=True)
class Card:
    """A prior in words."""

    name: str
    image_size: int
    view_words: ViewWords = PAPER_WORDS
    conditions: frozenset[str] = frozenset()
    """names of the fields of `ViewCondition` that the network takes as keyword arguments"""
    vocabulary: frozenset[str] | None = None
    words: WordList | None = None
    zero_padding: bool = False
    """whether text embeddings are zero where a caption has no token"""


@dataclass(frozen=True, eq=False)
class Described:
    """What a prior's card says, by the names of the `PromptEncoder` protocol."""

    card: Card

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def view_words(self) -> ViewWords:
        return self.card.view_words

    @property
    def conditions(self) -> frozenset[str]:
        return self.card.conditions

    @property
    def vocabulary(self) -> frozenset[str] | None:
        return self.card.vocabulary

    @property
    def words(self) -> WordList | None:
        return self.card.words


def read_card(folder: Path, image_size: int) -> Card:
    """The folder's card, or a plain one from its name. UserError if it is damaged."""
    path = folder / "card.json"
    if not path.exists():
        return Card(folder.name, image_size)
    try:
        card = _parsed(read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is no valid prior card ({error!r}): restore the file") from error
    words = folder / "words.ini"
    return replace(card, words=read_words(words)) if words.exists() else card


def _parsed(card: dict[str, Any]) -> Card:
    conditions = frozenset(card["conditions"])
    if not conditions <= CONDITIONS:
        raise ValueError(f"unknown conditions {sorted(conditions - CONDITIONS)}")
    return Card(
        name=str(card["name"]),
        image_size=int(card["image_size"]),
        view_words=_view_words(card["view_words"], math.radians(card["overhead_above_deg"])),
        conditions=conditions,
        vocabulary=None if card["vocabulary"] is None else frozenset(card["vocabulary"]),
        zero_padding=bool(card.get("zero_padding", False)),
    )


def _view_words(words: dict[str, str], overhead_above: float) -> ViewWords:
    return ViewWords(
        front=words["front"],
        left=words["left"],
        back=words["back"],
        right=words["right"],
        overhead=words["overhead"],
        overhead_above=overhead_above,
        textureless=words["textureless"],
    )
