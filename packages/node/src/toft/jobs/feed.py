"""Events to those who watch: the publisher never waits, a slow reader is told what it missed.

Watchers of the same thing share one bounded line of recent events, so that publishing costs the same for one
watcher and for ten thousand; each keeps only its place in the line.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Protocol

from toft.jobs.records import Event

_PAGE = 500
Key = tuple[str, str | None]
_EVERYTHING: Key = ("", "")


class Stored(Protocol):
    """How stored events are read."""

    def __call__(
        self, after: int = 0, *, job: str | None = None, sequence: str | None = None, limit: int = 1000
    ) -> Awaitable[Sequence[Event]]:
        """Return events after a cursor, the oldest first."""
        ...


class _Line:
    """Recent events of one thing; `end` is how many there have been in all."""

    __slots__ = ("capacity", "end", "events", "readers", "sleeping")

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.end = 0
        self.capacity = 0
        self.readers = 0
        self.sleeping: set[asyncio.Future[None]] = set()

    def add(self, event: Event) -> None:
        self.events.append(event)
        self.end += 1
        if len(self.events) > self.capacity:
            self.events.popleft()

    def wake(self) -> None:
        sleeping, self.sleeping = self.sleeping, set()
        for future in sleeping:
            if not future.done():
                future.set_result(None)


class Feed:
    """Who watches what.

    Args:
        stored: Reads stored events.
    """

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._lines: dict[Key, _Line] = {}
        self._is_open = True

    def publish(self, events: Sequence[Event]) -> None:
        """Hand committed events to those who watch; never waits."""
        if not self._lines:
            return
        lines = self._lines
        touched = {}
        for event in events:
            for key in (_EVERYTHING, ("job", event.job), ("sequence", event.sequence)):
                line = lines.get(key)
                if line is not None:
                    line.add(event)
                    touched[key] = line
        for line in touched.values():
            line.wake()

    def close(self) -> None:
        """End all watches, once they have read what there is."""
        self._is_open = False
        for line in self._lines.values():
            line.wake()

    async def watch(
        self, *, job: str | None, sequence: str | None, after: int | None, capacity: int
    ) -> AsyncIterator[Event]:
        """Follow events; see `JobQueue.watch`."""
        key = ("job", job) if job is not None else ("sequence", sequence) if sequence else _EVERYTHING
        line = self._lines.setdefault(key, _Line())
        line.readers += 1
        line.capacity = max(line.capacity, capacity)
        place = line.end
        try:
            cursor = -1
            if after is not None:
                cursor = after
                async for event in self._read(after, job, sequence):
                    cursor = event.cursor
                    yield event
            while True:
                behind = line.end - place
                held = min(len(line.events), capacity)
                if behind > held:
                    place = line.end - held
                    first = line.events[-held]
                    # The last cursor that was seen: whoever comes back with it reads what is lost here.
                    seen = cursor if cursor >= 0 else first.cursor - 1
                    yield Event(seen, first.at, "lost", job, 0, sequence, {"count": behind - held})
                elif behind:
                    event = line.events[-behind]
                    place += 1
                    # What was read from the store may stand in the line as well.
                    if event.cursor > cursor:
                        cursor = event.cursor
                        yield event
                elif not self._is_open:
                    return
                else:
                    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                    line.sleeping.add(future)
                    try:
                        await future
                    finally:
                        line.sleeping.discard(future)
        finally:
            line.readers -= 1
            if not line.readers and self._lines.get(key) is line:
                del self._lines[key]

    async def _read(self, after: int, job: str | None, sequence: str | None) -> AsyncIterator[Event]:
        while True:
            page = await self._stored(after, job=job, sequence=sequence, limit=_PAGE)
            for event in page:
                yield event
            if len(page) < _PAGE:
                return
            after = page[-1].cursor
