"""Ctrl-C: the first one asks to stop, the second one interrupts."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it"""


@contextmanager
def interruptible() -> Iterator[Event]:
    """The event is set by the first Ctrl-C; the second one interrupts at once."""
    stop, before = Event(), signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
