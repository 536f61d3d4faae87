"""How large things are: a table of the longest sides of real ones, `sizes.ini`."""

from collections.abc import Mapping
from configparser import ConfigParser
from functools import cache
from importlib import resources

from dreamfusion.words import words_of

UNKNOWN = 0.5
"""metres, of what is not in the table"""


@cache
def table() -> Mapping[str, float]:
    """Metres by name."""
    parser = ConfigParser(delimiters=(":",), comment_prefixes=("#",), interpolation=None)
    parser.read_string(resources.files("dreamfusion.scenes").joinpath("sizes.ini").read_text(encoding="utf-8"))
    return {name.strip(): float(metres) for metres, names in parser["metres"].items() for name in names.split(",")}


def size_of(caption: str, own: Mapping[str, float]) -> float | None:
    """Metres along the longest side of what a caption says; None if that is in neither `own` nor the table.

    The longest name at the caption's end counts, and what `own` says of a name before the table.
    """
    words = words_of(caption)
    ends = [" ".join(words[start:]) for start in range(len(words))]
    return next((known[end] for end in ends for known in (own, table()) if end in known), None)
