"""A result that breaks off goes on, and is never made of two; against servers that behave and that do not."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from toft.api import frames
from toft.client import downloads
from toft.client.connection import Connection
from toft.client.origins import NodeOrigin
from toft.client.target import Target
from toft.kernel import errors

OLD, NEW = frames.pack("old" * 100_000), frames.pack("new" * 100_000)
Answer = Callable[[int, int | None], tuple[bytes, bytes, int]]
"""From the number of a request and the first byte it wants: head, body, and how much of it is sent."""


def tag(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()}"'


def whole(body: bytes, sent: int | None = None, etag: str | None = None) -> tuple[bytes, bytes, int]:
    head = f"HTTP/1.1 200 OK\r\nETag: {etag or tag(body)}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode(), body, len(body) if sent is None else sent


def rest(
    body: bytes, first: int, sent: int | None = None, etag: str | None = None
) -> tuple[bytes, bytes, int]:
    left = body[first:]
    head = (
        f"HTTP/1.1 206 Partial Content\r\nETag: {etag or tag(body)}\r\nContent-Length: {len(left)}\r\n"
        f"Content-Range: bytes {first}-{len(body) - 1}/{len(body)}\r\n\r\n"
    )
    return head.encode(), left, len(left) if sent is None else sent


class Server:
    """Answers results as it is told to, and remembers what it was asked."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.asked: list[tuple[str, str]] = []
        self.serving: set[asyncio.Task[None]] = set()

    def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A plain function: the loop itself never hears of a task that the test has ended.
        self.serving.add(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            await self._answer(reader, writer)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            except (asyncio.IncompleteReadError, ConnectionError):
                return
            named = {name.lower(): value for name, value in re.findall(r"(?m)^([\w-]+): (.*?)\r$", head)}
            if head.startswith("POST"):
                body = b"".join(frames.frame({"session": "s", "pid": 1, "version": "1", "settings": {}}))
                kind = f"HTTP/1.1 200 OK\r\nContent-Type: {frames.MEDIA_TYPE}\r\n\r\n"
                writer.write(kind.encode() + body)
                continue
            first = re.fullmatch(r"bytes=(\d+)-", named.get("range", ""))
            self.asked.append((named.get("range", ""), named.get("if-range", "")))
            text, body, sent = self.answer(len(self.asked), int(first[1]) if first else None)
            writer.write(text + body[:sent])
            await writer.drain()
            if sent < len(body):
                return


@asynccontextmanager
async def asking(answer: Answer) -> AsyncIterator[tuple[Connection, Server]]:
    server = Server(answer)
    listening = await asyncio.start_server(server.take, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    origin = NodeOrigin(Target(url=f"http://127.0.0.1:{port}"))
    try:
        async with Connection(origin) as connection:
            yield connection, server
    finally:
        listening.close()
        for each in server.serving:
            each.cancel()
        await asyncio.gather(*server.serving, return_exceptions=True)


async def test_it_goes_on_where_it_broke_off_as_often_as_it_gets_further() -> None:
    def answer(number: int, first: int | None) -> tuple[bytes, bytes, int]:
        return whole(OLD, 40_000) if first is None else rest(OLD, first, 40_000)

    async with asking(answer) as (connection, server):
        assert await connection.fetch("/v1/jobs/x/result") == "old" * 100_000
    assert len(server.asked) == 8
    assert server.asked[0] == ("", "")
    assert {condition for _, condition in server.asked[1:]} == {tag(OLD)}


@pytest.mark.parametrize("then", ["another value", "ranges are ignored", "if-range is ignored", "elsewhere"])
async def test_it_is_never_made_of_two(then: str) -> None:
    def answer(number: int, first: int | None) -> tuple[bytes, bytes, int]:
        if number == 1:
            return whole(OLD, 100_000)
        if first is None or then == "another value":
            return whole(NEW)
        if then == "ranges are ignored":
            return whole(OLD)
        return rest(NEW, first) if then == "if-range is ignored" else rest(OLD, first + 1)

    async with asking(answer) as (connection, _):
        found = await connection.fetch("/v1/jobs/x/result")
    assert found == ("old" if then == "ranges are ignored" else "new") * 100_000


def test_a_piece_of_something_else_is_not_even_read() -> None:
    coming = downloads.Download()
    assert coming.begin(200, [(b"ETag", tag(OLD).encode()), (b"Content-Length", b"%d" % len(OLD))])
    coming.take(OLD[:10])
    assert coming.wanted() == {"Range": "bytes=10-", "If-Range": tag(OLD)}
    piece = [(b"Content-Range", b"bytes 10-20/21"), (b"ETag", tag(NEW).encode())]
    assert not coming.begin(206, piece)
    assert (coming.wanted(), coming.furthest) == ({}, 10)


async def test_what_was_changed_on_the_way_is_asked_for_again_and_then_refused() -> None:
    torn = NEW[:500] + b"?" + NEW[501:]
    async with asking(lambda number, _: whole(torn if number == 1 else NEW, etag=tag(NEW))) as (
        connection,
        _,
    ):
        assert await connection.fetch("/v1/jobs/x/result") == "new" * 100_000
    async with asking(lambda *_: whole(torn, etag=tag(NEW))) as (connection, server):
        with pytest.raises(errors.UnavailableError) as damaged:
            await connection.fetch("/v1/jobs/x/result")
    assert damaged.value.code == "remote.damaged"
    assert len(server.asked) == 2


async def test_it_is_given_up_when_it_gets_no_further() -> None:
    async with asking(lambda *_: whole(OLD, 1000, etag='W/"weak"')) as (connection, server):
        with pytest.raises(errors.UnavailableError) as gone:
            await connection.fetch("/v1/jobs/x/result")
    assert gone.value.code == "remote.gone"
    assert server.asked == [("", "")] * 4
