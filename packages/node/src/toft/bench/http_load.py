"""Asks a daemon over HTTP with little processor time of its own, so that what is measured is the daemon.

No HTTP library: whoever measures shares two cores with what is measured. An answer must have a length.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class Asker(asyncio.Protocol):
    """One connection that asks one thing after the other.

    Attributes:
        seconds: How long each answer took.
        body: Of the last answer.
    """

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.body = b""
        self._requests: Iterator[bytes] = iter(())
        self._transport: asyncio.Transport
        self._data = b""
        self._needed = 0
        self._status = b"201"
        self._began = 0.0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what is written to."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Say so to whoever waits."""
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the daemon hung up"))

    def data_received(self, data: bytes) -> None:
        """Take what came; ask the next thing when an answer is whole."""
        self._data += data
        if not self._needed:
            head, end, _ = self._data.partition(_END)
            if not end:
                return
            self._needed = len(head) + len(end) + _length(head)
        if len(self._data) < self._needed:
            return
        answer, self._data, self._needed = self._data, b"", 0
        self.seconds.append(time.perf_counter() - self._began)
        if answer[9:12] != self._status:
            self._fail(answer)
            return
        self.body = answer[answer.index(_END) + len(_END) :]
        self._next()

    async def ask_all(self, requests: Iterable[bytes], *, status: int) -> None:
        """Send requests, each when the one before was answered.

        Args:
            requests: As made by `request`.
            status: What every answer must have.

        Raises:
            ConnectionError: The daemon hung up, or answered something else.
        """
        self._requests, self._status = iter(requests), b"%d" % status
        self._done = asyncio.get_running_loop().create_future()
        self._next()
        await self._done

    def close(self) -> None:
        """Hang up."""
        self._transport.abort()

    def _next(self) -> None:
        content = next(self._requests, None)
        if content is None:
            self._done.set_result(None)
            return
        self._began = time.perf_counter()
        self._transport.write(content)

    def _fail(self, answer: bytes) -> None:
        self._done.set_exception(ConnectionError(answer[:500].decode(errors="replace")))
        self._transport.abort()


def request(
    method: str, target: str, body: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None
) -> bytes:
    """Return the bytes of a request, with a body of JSON."""
    content = b"" if body is None else json.dumps(body).encode()
    told = {"Host": "localhost", **(headers or {})}
    if body is not None:
        told |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
    head = "".join(f"{name}: {value}\r\n" for name, value in told.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + content


async def connect(address: str, count: int) -> list[Asker]:
    """Open connections to a Unix socket."""
    loop = asyncio.get_running_loop()
    return [(await loop.create_unix_connection(Asker, address))[1] for _ in range(count)]


def _length(head: bytes) -> int:
    for line in head.lower().split(b"\r\n"):
        if line.startswith(_LENGTH):
            return int(line[len(_LENGTH) :])
    raise ConnectionError(f"an answer without a length: {head[:200]!r}")


async def share(askers: Sequence[Asker], requests: Iterable[bytes], *, status: int) -> float:
    """Let several connections send requests from one heap; returns the seconds until all are answered."""
    heap = iter(requests)
    start = time.perf_counter()
    await asyncio.gather(*(each.ask_all(heap, status=status) for each in askers))
    return time.perf_counter() - start
