"""Errors that a user can cause and mend."""

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


class NoSurface(UserError):
    """A scene that no mesh can show: it is empty, or fog, or has nothing at the level that was asked for."""


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
