"""Noun and, if present, colour word of a caption in the embedded vocabulary."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dreamfusion.diffusion.priors import words_of
from dreamfusion.embedded.world import COLOURS
from dreamfusion.errors import UserError


@dataclass(frozen=True)
class Meaning:
    """The words of a caption that can be seen in a picture."""

    noun: str
    colour: str | None = None


def meaning(caption: str, nouns: Sequence[str]) -> Meaning | None:
    """The longest of `nouns` that stands in the caption, and the first colour word; None if there is no such noun."""
    said = f" {' '.join(words_of(caption))} "
    found = max((noun for noun in nouns if f" {noun} " in said), key=len, default=None)
    if found is None:
        return None
    return Meaning(found, next((word for word in words_of(caption) if word in COLOURS), None))


def require_meaning(caption: str, nouns: Sequence[str]) -> Meaning:
    """The same. Raises UserError for a caption without a known noun."""
    said = meaning(caption, nouns)
    if said is None:
        raise UserError(
            f"the judge knows no thing in {caption!r} (`dreamfusion judge info` lists what it knows):"
            " leave the prompt out, or give a --scorer that knows more"
        )
    return said


def without_colour(caption: str) -> str:
    """The caption without its colour words: for textureless pictures."""
    colourless = re.sub(rf"\b({'|'.join(COLOURS)})\s+", "", caption)
    return re.sub(r"\b(an?)(?= (\w))", lambda found: "an" if found[2] in "aeiou" else "a", colourless)
