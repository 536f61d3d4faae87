"""Errors that a user can cause and mend."""


class UserError(Exception):
    """Bad input. The message is one line that says what to do; the command line prints it and exits with code 2."""


class NoSurface(UserError):
    """A scene that no mesh can show: it is empty, or fog, or has nothing at the level that was asked for."""
