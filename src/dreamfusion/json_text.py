"""JSON that others wrote: whatever is wrong with it is a ValueError of one line, never another error."""

import json
import re
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

DEEPEST = 100
"""lists and objects inside one another: none of our files needs ten, and whoever walks through a value may recurse"""
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(rb"[\[\]{}]")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")  # one of the two escapes that make a character, perhaps alone


def read(path: Path) -> Any:
    """The value in a UTF-8 file. Raises OSError and what `parse` raises."""
    return parse(path.read_bytes())


def parse(content: bytes, constant: Callable[[str], Any] = float) -> Any:
    """The value of a UTF-8 text, with a byte order mark or without.

    `constant` makes something of NaN, Infinity and -Infinity, which are no JSON. Raises ValueError for anything else
    that is none, for deep nesting, and for half characters, which no file could hold.
    """
    if _depth(content) > DEEPEST:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    value = json.loads(content.decode("utf-8-sig"), parse_constant=constant)
    if _HALF.search(content):
        json.dumps(value, ensure_ascii=False).encode()
    return value


def alike(value: Any, usual: Any) -> bool:
    """Whether a value can take the place of a usual one: of its type, all numbers finite and such as indices hold."""
    if type(value) is not type(usual):
        return False
    if isinstance(value, dict):
        return all(alike(each, 0.0) for each in value.values())
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not isinstance(value, float) or abs(value) < 2.0**53


def _depth(content: bytes) -> int:
    brackets = _BRACKET.findall(_TEXT.sub(b"", content))
    return max(accumulate(1 if bracket in b"[{" else -1 for bracket in brackets), default=0)
