"""Lets a browser, which knows no Unix socket, reach one: bytes from a port of this machine, and back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

_BYTES = 64 << 10


@contextlib.asynccontextmanager
async def opened(address: str) -> AsyncIterator[int]:
    """Yield the port that leads to a socket for the length of a block."""
    under_way: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(address)
        for task in (asyncio.create_task(_pass(reader, back)), asyncio.create_task(_pass(there, writer))):
            under_way.add(task)
            task.add_done_callback(under_way.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(_BYTES):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()
