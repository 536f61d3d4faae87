"""Errors that a user can cause and mend."""


class UserError(Exception):
    """Bad input. The message is one line that says what to do; the command line prints it and exits with code 2."""
