"""Server-sent events: one stream a page for all tasks, with replay, so that none is lost.

A stream holds no queue. It remembers the number of the last event that it sent and, when there is news, takes what came
since from the list that all share. (HTML standard, section 9.2: server-sent events.)
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from dreamfusion.studio.index import KEPT_EVENTS, Event, Index

BEAT = 15.0
"""seconds after which a silent stream says that it lives"""


class Hub:
    """The latest events and those who wait for the next one. Belongs to one event loop."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._recent: deque[Event] = deque(index.last_events(KEPT_EVENTS), maxlen=KEPT_EVENTS)
        self._news = asyncio.Event()
        self._ended = False

    @property
    def last(self) -> int:
        """Number of the newest event, 0 before the first."""
        return self._recent[-1].id if self._recent else 0

    def tell(self, kind: str, body: str) -> None:
        """Write an event down and wake the streams."""
        self._recent.append(self._index.tell(kind, body))
        self._wake()

    def end(self) -> None:
        """End all streams; open ones would keep a server from stopping."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def stream(self, after: int | None) -> AsyncIterator[str]:
        """The text of a stream: events after this number, those to come if it is None.

        Where events are asked for that are no longer kept, or never were, the stream begins with `reset`: what the page
        knows must be read again.
        """
        seen = self.last if after is None else after
        if after is not None and not self._follows(after):
            seen = self.last
            yield f"id: {seen}\nevent: reset\ndata: {{}}\n\n"
        else:
            yield f"id: {seen}\nevent: hello\ndata: {{}}\n\n"
        while not self._ended:
            news = self._news
            text = "".join(
                f"id: {event.id}\nevent: {event.kind}\ndata: {event.body}\n\n" for event in self._since(seen)
            )
            if text:
                seen = self.last
                yield text
                continue
            try:
                await asyncio.wait_for(news.wait(), BEAT)
            except asyncio.TimeoutError:  # one class from Python 3.11 on
                yield ": still here\n\n"

    def _since(self, number: int) -> list[Event]:
        found = list[Event]()
        for event in reversed(self._recent):
            if event.id <= number:
                break
            found.append(event)
        return found[::-1]

    def _follows(self, number: int) -> bool:
        """Whether all events after this number are here."""
        return number == self.last or (bool(self._recent) and self._recent[0].id - 1 <= number < self.last)


def number_of(text: str | None) -> int | None:
    """What a browser sends as Last-Event-ID; -1, which nothing follows, for what was never one of ours."""
    if not text:
        return None
    with suppress(ValueError):
        return max(int(text), -1)
    return -1
