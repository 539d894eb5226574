"""A browser for tests: a person looks at the pages of a real daemon, and nothing may go wrong unseen.

The daemon listens on a Unix socket, which no browser reaches; a `Doorway` is a loopback address before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright import sync_api

from toft.client import place as places

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PHONE = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
DESKTOP = {"viewport": {"width": 1320, "height": 860}}


class Doorway:
    """A loopback address that passes everything on to the socket of a daemon.

    Args:
        socket: Of the daemon.
    """

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._passing: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(
            asyncio.start_server(self._accept, "127.0.0.1", 0), self._loop
        ).result(10)
        self.port = self._server.sockets[0].getsockname()[1]

    def close(self) -> None:
        """End every connection."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def cut(self) -> None:
        """End the connections there are, as a network does; new ones are taken."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    async def _end(self) -> None:
        assert self._server is not None
        self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        for each in list(self._passing):
            each.cancel()
        await asyncio.gather(*self._passing, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._pass(reader, writer))
        self._passing.add(task)
        task.add_done_callback(self._passing.discard)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with places.address(self._socket) as address:
                inner, outer = await asyncio.open_unix_connection(address)
        except OSError:
            writer.close()
            return
        ways = [asyncio.ensure_future(_copy(*way)) for way in ((reader, outer), (inner, writer))]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in ways:
                each.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            for each in (outer, writer):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Ask the API something, and return the status and the JSON that came back."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"} if data else {})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        finally:
            connection.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.contextmanager
def doorway(socket: Path) -> Iterator[Doorway]:
    """Open a doorway for the length of a `with` block."""
    opened = Doorway(socket)
    opened.open()
    try:
        yield opened
    finally:
        opened.close()


class Visitor:
    """One person with one browser window.

    What a person would not notice is written down: complaints of the page, refused content, dialogs, and
    requests that leave the host.

    Args:
        page: The window.
        url: Where the node is.
    """

    def __init__(self, page: sync_api.Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.expected: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"script: {error}"))
        page.on("request", self._request)
        page.on("dialog", self._dialog)

    def go(self, path: str) -> sync_api.Page:
        """Open a page and wait until its keys work."""
        self.page.goto(self.url + path)
        self.page.wait_for_selector("html[data-ready]")
        return self.page

    def see(self, text: str, within_s: float = 10) -> None:
        """Wait until a text is seen."""
        self.page.get_by_text(text).first.wait_for(timeout=within_s * 1000)

    def complained(self) -> list[str]:
        """Return what went wrong and was not expected to."""
        return [each for each in self.complaints if not any(part in each for part in self.expected)]

    def _console(self, message: sync_api.ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def _request(self, request: sync_api.Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in ("data", "blob") and f"{parts.scheme}://{parts.netloc}" != self.url:
            self.complaints.append(f"leaves the host: {request.url}")

    def _dialog(self, dialog: sync_api.Dialog) -> None:
        if dialog.type == "confirm":
            dialog.accept()
            return
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()


def binary() -> str:
    """Return where Chromium is; skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs chromium: pages are looked at in a real browser, and none is installed")
    return found


@contextlib.contextmanager
def _at_home_in(directory: str) -> Iterator[None]:
    """Let what is started here keep its files in a directory."""
    before = {name: os.environ.get(name) for name in ("TMPDIR", "HOME")}
    os.environ.update(dict.fromkeys(before, directory))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def started() -> Iterator[sync_api.Browser]:
    """Start Chromium for the length of a `with` block; a file of tests needs one, and a window for each."""
    chromium = binary()
    with (
        # Its lock is a socket, whose path may have 107 characters; the directories of a test are longer.
        tempfile.TemporaryDirectory(prefix="toft-", dir="/tmp", ignore_cleanup_errors=True) as scratch,
        contextlib.ExitStack() as stack,
    ):
        with _at_home_in(scratch):
            playwright = stack.enter_context(sync_api.sync_playwright())
            browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
            stack.enter_context(contextlib.closing(browser))
        yield browser


@contextlib.contextmanager
def visiting(url: str, browser: sync_api.Browser | None = None, **look: Any) -> Iterator[Visitor]:
    """Open a window, as of somebody new, for the length of a `with` block; what goes wrong in it fails.

    Args:
        url: Where the node is.
        browser: What is running; one is started for this window alone when it is None.
        look: What the window is like: `DESKTOP` or `PHONE`, `color_scheme`.
    """
    with contextlib.ExitStack() as stack:
        running = browser or stack.enter_context(started())
        context = stack.enter_context(contextlib.closing(running.new_context(**{**DESKTOP, **look})))
        context.set_default_timeout(10_000)
        visitor = Visitor(context.new_page(), url)
        yield visitor
        assert not visitor.complained(), visitor.complained()
