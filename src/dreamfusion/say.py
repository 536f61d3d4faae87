"""How work tells what it is doing, without knowing who listens."""

from collections.abc import Callable

Say = Callable[[str], None]
"""Told in a few words what is being done"""


def silent(doing: str) -> None:
    """The `Say` of nobody."""
