"""What is said never fails what is done: output that nobody takes is dropped, and every text can be written."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from io import TextIOWrapper
from typing import Any


class Patient:
    """A text stream whose reader may leave, or whose disk may be full: the first failure is the last write."""

    def __init__(self, stream: TextIOWrapper) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """As of the stream."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """As of the stream."""
        with self._dropping():
            self._stream.flush()

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            with suppress(OSError, ValueError):  # what is left in its buffer must go somewhere when Python ends
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, self._stream.fileno())
                os.close(nowhere)


@contextmanager
def patient() -> Iterator[None]:
    """Standard output and error never raise: not for readers that left, nor for letters that they cannot hold."""
    with redirect_stdout(_patient(sys.stdout)) as out, redirect_stderr(_patient(sys.stderr)) as error:
        try:
            yield
        finally:
            for stream in (out, error):
                if stream is not None:  # it is, where a process was started without
                    stream.flush()


def _patient(stream: Any) -> Any:
    if not isinstance(stream, TextIOWrapper):
        return stream
    stream.reconfigure(errors="backslashreplace")
    return Patient(stream)
