"""Many open event streams of one daemon, read with little processor time of the reader's own."""

from __future__ import annotations

import asyncio

from toft.bench import http_load

_OPEN = b": events"
_ENDS = b"\n\n"
_AT_ONCE = 50


class Stream(asyncio.Protocol):
    """One stream.

    Args:
        is_deaf: It asks for events and never reads one.

    Attributes:
        events: How many came.
    """

    def __init__(self, *, is_deaf: bool = False) -> None:
        self.events = 0
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._is_deaf = is_deaf
        self._is_open = False
        self._head = b""
        self._wanted = 0
        self._had: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for all events."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(
            http_load.request("GET", "/v1/events/stream", headers={"Accept": "text/event-stream"})
        )
        if self._is_deaf:
            transport.pause_reading()
            self.opened.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Count what came; an end that is cut in two is as rare as it is harmless."""
        if self._is_open:
            self.events += data.count(_ENDS)
            if self.events >= self._wanted and not self._had.done():
                self._had.set_result(None)
            return
        self._head += data
        if _OPEN in self._head:
            self._is_open = True
            self.opened.set_result(None)
        elif len(self._head) > 4096:
            self.opened.set_exception(ConnectionError(self._head[:300].decode(errors="replace")))

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so to whoever waits for it to open."""
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionError("the daemon hung up"))

    async def has(self, events: int) -> None:
        """Return when so many events have come."""
        self._wanted = events
        if self.events < events:
            await self._had

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()


async def open_all(address: str, count: int, *, is_deaf: bool = False) -> list[Stream]:
    """Open streams and wait until each is told something."""
    loop = asyncio.get_running_loop()
    found: list[Stream] = []
    while len(found) < count:
        some = [
            (await loop.create_unix_connection(lambda: Stream(is_deaf=is_deaf), address))[1]
            for _ in range(min(_AT_ONCE, count - len(found)))
        ]
        await asyncio.gather(*(each.opened for each in some))
        found += some
    return found
