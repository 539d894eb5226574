"""What gates find when they look outside of the node, at real servers and ports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from toft.managed import document, gates, looks
from toft.managed.gates import Allowed, Light, Reading
from toft.managed.looks import Absent


class Shop:
    """A server that answers by the path, and keeps what it was asked.

    Args:
        elsewhere: Where `/moved` sends whoever asks.
    """

    def __init__(self, elsewhere: str = "") -> None:
        self._elsewhere = elsewhere
        self.asked: list[str] = []
        self.taken = self.open = 0
        self.port = 0

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def is_left(self) -> None:
        """Wait until nobody is connected any more."""
        async with asyncio.timeout(10):
            while self.open:  # noqa: ASYNC110 - the other end of the connection tells nobody else
                await asyncio.sleep(0.01)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection."""
        self.taken += 1
        self.open += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            path = head.split()[1].decode()
            self.asked.append(path)
            if path == "/hangs":
                await reader.read()
            elif path == "/drips":
                writer.write(b"HTTP/1.1 200 OK\r\n")
                while True:
                    writer.write(b"X-More: 1\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            elif path == "/noise":
                writer.write(b"\x00\xff" * 100)
            elif path == "/moved":
                writer.write(f"HTTP/1.1 302 Found\r\nLocation: {self._elsewhere}\r\n".encode())
                writer.write(b"Content-Length: 0\r\n\r\n")
            else:
                status = path.strip("/").partition("?")[0]
                writer.write(
                    f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
                )
            await writer.drain()
        writer.close()
        self.open -= 1


@contextlib.asynccontextmanager
async def opened(shop: Shop) -> AsyncIterator[Shop]:
    server = await asyncio.start_server(shop.serve, "127.0.0.1", 0)
    shop.port = server.sockets[0].getsockname()[1]
    try:
        yield shop
    finally:
        server.close()


def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def seen(*hosts: str, **spec: object) -> Reading:
    """Look at one gate of a document that a node would take."""
    value = {"schema_version": 1, "health": {"gates": {"it": {"timeout_s": 5, **spec}}}}
    offered = document.parse(json.dumps(value).encode())
    allowed = Allowed.of(hosts, (), Path("/"))
    return (await looks.look(gates.declared(offered), offered, Absent(), allowed))["it"]


@pytest.mark.parametrize(
    ("path", "light", "said"),
    [
        ("/200", Light.GREEN, "answers 200"),
        ("/204", Light.GREEN, "answers 204"),
        ("/503", Light.RED, "answers 503"),
        ("/404", Light.RED, "answers 404"),
        ("/noise", Light.RED, "does not answer: "),
        ("/200?größe", Light.GREEN, "answers 200"),
    ],
)
async def test_a_page_is_green_with_2xx_alone(path: str, light: Light, said: str) -> None:
    async with opened(Shop()) as shop:
        found = await seen(shop.place, kind="http", url=f"http://{shop.place}{path}")
    assert found.light is light
    assert found.message.startswith(said)


@pytest.mark.parametrize("path", ["/hangs", "/drips"])
async def test_a_page_that_never_comes_costs_its_timeout_and_leaves_no_connection(path: str) -> None:
    async with opened(Shop()) as shop:
        began = time.monotonic()
        found = await seen(shop.place, kind="http", url=f"http://{shop.place}{path}", timeout_s=0.3)
        assert found == Reading(Light.RED, "no answer within 0.3 s")
        assert 0.3 <= time.monotonic() - began < 5.0
        await shop.is_left()


async def test_a_redirect_is_red_and_followed_nowhere() -> None:
    async with opened(Shop()) as other, opened(Shop(f"http://{other.place}/200")) as shop:
        found = await seen(shop.place, kind="http", url=f"http://{shop.place}/moved")
        assert found == Reading(Light.RED, "answers 302")
        assert (shop.asked, other.asked) == (["/moved"], [])


@pytest.mark.parametrize("kind", ["http", "tcp"])
async def test_what_is_not_listed_is_asked_nothing_however_it_is_written(kind: str) -> None:
    async with opened(Shop()) as shop:
        spec = {"http": {"url": f"http://{shop.place}/200"}, "tcp": {"address": shop.place}}[kind]
        listed = f"127.0.0.1:{closed_port()}"
        for hosts in ((), (listed,), ("localhost",), ("127.0.0.1.example",)):
            found = await seen(*hosts, kind=kind, **spec)
            assert found.light is Light.RED
            assert "the setting gate_hosts does" in found.message
        if kind == "http":
            # Who is asked stands behind the last @, whatever stands before it.
            found = await seen(listed, kind="http", url=f"http://{listed}@{shop.place}/200")
            assert "the setting gate_hosts does" in found.message
        assert shop.taken == 0
        assert (await seen("127.0.0.1", kind=kind, **spec)).light is Light.GREEN
        assert shop.taken == 1


async def test_a_port_is_green_while_it_takes_connections() -> None:
    async with opened(Shop()) as shop:
        assert await seen(shop.place, kind="tcp", address=shop.place) == Reading(
            Light.GREEN, "takes connections"
        )
        await shop.is_left()
    closed = await seen("127.0.0.1", kind="tcp", address=f"127.0.0.1:{closed_port()}")
    assert closed.light is Light.RED
    assert closed.message.startswith("takes no connection: ")
    with socket.socket() as full:
        # Nobody takes what waits in line, and the line is full: a connection hangs.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        place = f"127.0.0.1:{full.getsockname()[1]}"
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            found = await seen(place, kind="tcp", address=place, timeout_s=0.3)
    assert found == Reading(Light.RED, "no answer within 0.3 s")
    name = "a" * 64 + ".example"
    assert (await seen(name, kind="tcp", address=f"{name}:80")).light is Light.RED
