"""Errors that a user can cause and mend."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LONGEST = 1200
"""characters of a message"""


class UserError(Exception):
    """Bad input. The message is one line that says what to do; the command line prints it and exits with code 2.

    Names and values in it come from anywhere: what cannot be printed in a line is escaped, and the end of what is very
    long is left away.
    """

    def __init__(self, message: str) -> None:
        shown = message if len(message) <= LONGEST else f"{message[:LONGEST]} ..."
        super().__init__("".join(each if each.isprintable() else _escaped(each) for each in shown))


class DiskFull(UserError):
    """Something could not be written for lack of space; what was saved before is intact."""


class NoSurface(UserError):
    """A scene that no mesh can show: it is empty, or fog, or has nothing at the level that was asked for."""


@contextmanager
def damage_explained(path: Path, advice: str) -> Iterator[None]:
    """Turn whatever is raised by reading a file into a UserError: libraries have no one error for damaged ones."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(f"{path} is damaged ({reason}): {advice}") from error


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
