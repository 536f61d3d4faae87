"""Ctrl-C and the system's request to end (SIGTERM, SIGHUP): the first one asks to stop, the second one interrupts."""

import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it: 128 and the number of the signal; 143 after SIGTERM"""
_ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


class Ended(KeyboardInterrupt):
    """A request to end, where Ctrl-C would raise KeyboardInterrupt."""

    def __init__(self, code: int) -> None:
        super().__init__()
        self.code = code


class Stop:
    """Whether to stop, and the exit code that says so afterwards."""

    code = INTERRUPTED

    def __init__(self) -> None:
        self._asked = False

    def is_set(self) -> bool:
        """Whether somebody asked."""
        return self._asked

    def set(self, code: int = INTERRUPTED) -> None:
        """Ask."""
        self._asked, self.code = True, code


@contextmanager
def ending() -> Iterator[None]:
    """Requests to end raise `Ended`, so that what is begun is cleared away. One that is ignored (`nohup`) stays so."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(128 + number)

    with _handled({number: end for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN}):
        yield


@contextmanager
def interruptible() -> Iterator[Stop]:
    """The first signal sets `Stop`. The second one ends: Ctrl-C by an interrupt, others at once, clearing nothing."""
    stop, before = Stop(), signal.getsignal(signal.SIGINT)
    ending = [number for number in _ENDING if signal.getsignal(number) is not signal.SIG_IGN]

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set(128 + number)
        signal.signal(signal.SIGINT, before)
        for other in ending:
            signal.signal(other, signal.SIG_DFL)

    with _handled(dict.fromkeys([signal.SIGINT, *ending], ask)):
        yield stop


@contextmanager
def _handled(handlers: Mapping[int, Callable[[int, FrameType | None], None]]) -> Iterator[None]:
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
