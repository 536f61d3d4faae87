"""How work tells what it is doing, without knowing who listens."""

from collections.abc import Callable

ProgressCallback = Callable[[str], None]
"""Told in a few words what is being done"""


def silent(doing: str) -> None:
    """A `ProgressCallback` that does nothing."""
