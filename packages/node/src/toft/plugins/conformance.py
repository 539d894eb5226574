"""Holds a plugin to its promises: inside its own environment, and across a process boundary.

The kit itself is `toft_sdk.testing`. It is put beside the plugin like the rest of the SDK, so the first half
runs where the plugin's packages are; the second half runs here and talks to a worker as any caller does.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

from toft.kernel import errors
from toft.plugins.wire.connection import Connection
from toft_sdk import testing
from toft_sdk.conformance import Finding as Finding
from toft_sdk.errors import PluginError

T = TypeVar("T")

OpenWorker = Callable[[str, str | None], AbstractAsyncContextManager[Connection]]
_KIT = ("toft_sdk.testing", "Conformance")


async def examine(
    open_worker: OpenWorker,
    module: str,
    class_name: str | None = None,
    *,
    on_step: Callable[[str], None] = lambda text: None,
) -> list[Finding]:
    """Check one plugin class.

    Args:
        open_worker: Opens a worker in the plugin's environment, which hosts the class it is told, loaded and
            initialized with its defaults; ends it at the end of an `async with` block.
        module: The plugin's module.
        class_name: Its class; None takes the only one there is.
        on_step: Told what is being done.

    Returns:
        What was found, in order. A plugin that takes its process down is a finding too.
    """
    on_step("checking the class in its environment")
    subject: dict[str, Any] | None = None
    findings: list[Finding] = []
    try:
        async with open_worker(*_KIT) as connection:
            arguments = {"module": module, "class_name": class_name}
            told = await _call(connection, "check", arguments)
            findings = [Finding(**each) for each in told]
            if any(each.check == "is a plugin" and each.ok for each in findings):
                subject = await _call(connection, "subject", arguments)
    except (errors.NodeError, PluginError) as error:
        findings.append(_broken("survives the checks", error))
    if subject is None or subject["missing_variables"]:
        return findings
    on_step("calling it from another process")
    try:
        async with open_worker(module, subject["description"]["class"]) as connection:
            findings += await _across(connection, subject)
    except (errors.NodeError, PluginError) as error:
        findings.append(_broken("works in a worker", error))
    return findings


async def _call(connection: Connection, action: str, arguments: Mapping[str, Any]) -> Any:
    return await connection.request("call", {"action": action, "arguments": dict(arguments)})


def _broken(check: str, error: errors.NodeError | PluginError) -> Finding:
    trace = getattr(error, "trace", "")
    evidence = f"{error.code}: {error.message}" + (f"\n{trace}" if trace else "")
    hint = getattr(error, "hint", "") or "run the plugin alone: python MODULE.py"
    return Finding(check, False, evidence, hint)


async def _across(connection: Connection, subject: Mapping[str, Any]) -> list[Finding]:
    loop = asyncio.get_running_loop()

    @contextlib.contextmanager
    def opened() -> Iterator[_FromThread]:
        yield _FromThread(connection, loop)

    # The kit is plain blocking code, written for authors; it gets a thread and talks back to this loop.
    return await asyncio.to_thread(
        testing.check_worker,
        opened,
        subject["description"],
        subject["examples"],
        subject["cancel_within_s"],
    )


class _FromThread:
    """A connection as the kit sees it, from a thread that may block."""

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self._connection = connection
        self._loop = loop

    def call(self, action: str, arguments: Mapping[str, Any]) -> Any:
        return self.start(action, arguments).result()

    def stream(self, action: str, arguments: Mapping[str, Any]) -> Iterator[Any]:
        wanted = {"action": action, "arguments": dict(arguments)}

        async def gathered() -> list[Any]:
            chunks: AsyncIterator[Any] = self._connection.stream("stream", wanted)
            return [chunk async for chunk in chunks]

        return iter(asyncio.run_coroutine_threadsafe(gathered(), self._loop).result())

    def start(self, action: str, arguments: Mapping[str, Any]) -> _Started:
        return _Started(self._connection, self._loop, {"action": action, "arguments": dict(arguments)})


class _Started:
    """A call that runs on the loop while a thread holds this."""

    def __init__(
        self, connection: Connection, loop: asyncio.AbstractEventLoop, wanted: Mapping[str, Any]
    ) -> None:
        self._connection = connection
        self._loop = loop
        self._number = 0
        self._has_number = threading.Event()
        self._future = asyncio.run_coroutine_threadsafe(self._run(wanted), loop)

    async def _run(self, wanted: Mapping[str, Any]) -> Any:
        self._number = self._connection.next_call_id()
        self._has_number.set()
        return await self._connection.request("call", wanted, call_id=self._number)

    def cancel(self) -> None:
        self._has_number.wait(5)
        self._loop.call_soon_threadsafe(self._connection.cancel, self._number)

    def result(self, timeout_s: float | None = None) -> Any:
        return self._future.result(timeout_s)


__all__ = ["Finding", "OpenWorker", "examine"]
