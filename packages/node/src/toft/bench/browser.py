"""A headless Chromium asked through its own pipe: no port, and no library that only development has."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
# The browser reads orders from descriptor 3 and answers on 4.
_START = """
import fcntl, os, sys
orders, answers = (fcntl.fcntl(int(each), fcntl.F_DUPFD, 100) for each in sys.argv[1:3])
os.dup2(orders, 3)
os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_PATIENCE_S = 60.0
_MOST_BYTES = 64 << 20


class Page:
    """A page of its own: nothing in its cache, no cookie.

    Args:
        browser: Where it is open.
        session: How the browser calls it.
    """

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    async def go(self, url: str) -> None:
        """Open an address; returns when that has begun."""
        told = await self._browser.ask("Page.navigate", {"url": url}, self._session)
        if told.get("errorText"):
            raise ConnectionError(f"{url}: {told['errorText']}")

    async def evaluate(self, script: str) -> Any:
        """Return the value of an expression, or of its promise."""
        told = await self._browser.ask(
            "Runtime.evaluate",
            {"expression": script, "awaitPromise": True, "returnByValue": True},
            self._session,
        )
        if "exceptionDetails" in told:
            raise RuntimeError(json.dumps(told["exceptionDetails"])[:500])
        return told["result"].get("value")


class Browser:
    """A running browser.

    Args:
        reader: Its answers.
        orders: The descriptor on which it is asked.
    """

    def __init__(self, reader: asyncio.StreamReader, orders: int) -> None:
        self._reader = reader
        self._orders = orders
        self._numbers = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listening = asyncio.create_task(self._listen())

    async def ask(
        self, method: str, parameters: Mapping[str, Any] | None = None, session: str | None = None
    ) -> dict[str, Any]:
        """Send a command of the DevTools protocol and return its answer."""
        self._numbers += 1
        order = {"id": self._numbers, "method": method, "params": dict(parameters or {})}
        if session is not None:
            order["sessionId"] = session
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[self._numbers] = future
        os.write(self._orders, json.dumps(order).encode() + b"\0")
        async with asyncio.timeout(_PATIENCE_S):
            return await future

    @contextlib.asynccontextmanager
    async def page(self) -> AsyncIterator[Page]:
        """Open a page for the length of a block."""
        context = (await self.ask("Target.createBrowserContext"))["browserContextId"]
        target = await self.ask("Target.createTarget", {"url": "about:blank", "browserContextId": context})
        attached = await self.ask("Target.attachToTarget", {"targetId": target["targetId"], "flatten": True})
        try:
            yield Page(self, attached["sessionId"])
        finally:
            await self.ask("Target.disposeBrowserContext", {"browserContextId": context})

    async def close(self) -> None:
        """Listen no more."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)

    async def _listen(self) -> None:
        try:
            while True:
                told = json.loads((await self._reader.readuntil(b"\0"))[:-1])
                future = self._waiting.pop(told.get("id", 0), None)
                if future is None or future.done():
                    continue
                if "error" in told:
                    future.set_exception(RuntimeError(told["error"].get("message", "")))
                else:
                    future.set_result(told["result"])
        except asyncio.IncompleteReadError:
            for future in self._waiting.values():
                if not future.done():
                    future.set_exception(ConnectionError("the browser ended"))


def find() -> str | None:
    """Return the path of a browser; None when there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[Browser]:
    """Run a browser for the length of a block.

    Raises:
        FileNotFoundError: There is none.
    """
    path = find()
    if path is None:
        raise FileNotFoundError(f"no browser: none of {', '.join(NAMES)} is installed")
    theirs, orders = os.pipe()
    answers, yours = os.pipe()
    with tempfile.TemporaryDirectory(prefix="toft-bench-browser-", ignore_cleanup_errors=True) as profile:
        command = [sys.executable, "-c", _START, str(theirs), str(yours), path, *_FLAGS]
        process = await asyncio.create_subprocess_exec(
            *[*command, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs, yours),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(yours)
        reader = asyncio.StreamReader(limit=_MOST_BYTES)
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(answers, "rb", buffering=0)
        )
        browser = Browser(reader, orders)
        try:
            yield browser
        finally:
            with contextlib.suppress(ConnectionError, TimeoutError, BrokenPipeError):
                await browser.ask("Browser.close")
            await browser.close()
            transport.close()
            os.close(orders)
            try:
                async with asyncio.timeout(10):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
