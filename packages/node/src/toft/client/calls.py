"""A call that runs in the daemon, with the words of one that runs here."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from toft.client import connection as connections
from toft.client import faults
from toft.client.connection import Connection
from toft.kernel import errors
from toft.plugins.plugin_errors import CancelledError
from toft.plugins.supervision.calls import OnLog, OnProgress
from toft.plugins.wire.frames import LogLine

_AHEAD = 4


class RemoteCall:
    """A handle on one execution; see `toft.plugins.supervision.calls.Call`.

    Attributes:
        number: Counts the calls of its instance; log lines carry it.
        progress: The last fraction the plugin reported.
        message: What the plugin said with it.
        usage: What the plugin reported to have used.
        duration_s: Seconds it ran; 0 while it has not ended.
    """

    def __init__(
        self, asked: Connection, instance: str, *, on_progress: OnProgress | None, on_log: OnLog | None
    ) -> None:
        self.number = 0
        self.progress: float | None = None
        self.message = ""
        self.usage: dict[str, float] = {}
        self.duration_s = 0.0
        self.chunks: deque[list[Any]] = deque()
        self.changed = asyncio.Event()
        self._asked = asked
        self._instance = instance
        self._on_progress = on_progress
        self._on_log = on_log
        self._outcome = "running"
        self._future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._room = asyncio.Event()
        self._room.set()
        self._task: asyncio.Task[None] | None = None

    async def begin(self, body: Mapping[str, Any]) -> None:
        """Send the request and return when the daemon has taken it.

        Raises:
            NodeError: It has not: disabled, busy, stopping.
            PluginError: The arguments do not fit.
        """
        route = connections.path("instances", self._instance, "calls")
        happening = self._asked.stream("POST", route, body)
        try:
            first = await anext(happening)
        except BaseException:
            await happening.aclose()
            raise
        self.number = first["number"]
        self._task = asyncio.create_task(self._follow(happening))

    async def _follow(self, happening: AsyncGenerator[Any, None]) -> None:
        try:
            async for each in happening:
                if each["kind"] == "chunks":
                    await self._room.wait()
                self._take(each)
            if self.is_open:
                self._fail(self._asked.origin.broken(ConnectionError("its answer broke off")))
        except asyncio.CancelledError:
            self._fail(faults.closed())
            raise
        except (errors.NodeError, OSError, ValueError) as error:
            self._fail(error if isinstance(error, errors.NodeError) else self._asked.origin.broken(error))
        finally:
            with contextlib.suppress(RuntimeError):
                await happening.aclose()

    def _take(self, each: Mapping[str, Any]) -> None:
        kind = each["kind"]
        if kind == "progress":
            self.progress, self.message, self.usage = each["fraction"], each["message"], each["usage"]
            if self._on_progress is not None:
                self._on_progress(each["fraction"], each["message"])
        elif kind == "log":
            if self._on_log is not None:
                self._on_log(_line(each))
        elif kind == "chunks":
            self.chunks.append(each["values"])
            if len(self.chunks) >= _AHEAD:
                self._room.clear()
        elif kind == "ended":
            self._end(each)
        self.changed.set()

    def _end(self, each: Mapping[str, Any]) -> None:
        self.usage, self.duration_s = each["usage"], each["duration_s"]
        self.progress, self.message = each["progress"], each["message"]
        self._outcome = each["outcome"]
        if self._future.done():
            return
        if "error" in each:
            self._future.set_exception(connections.error_of(each["error"]))
            self._future.exception()
        else:
            self._future.set_result(each["result"])

    def _fail(self, error: Exception) -> None:
        if not self._future.done():
            self._outcome = "failed"
            self._future.set_exception(error)
            self._future.exception()
        self.changed.set()

    async def take_chunks(self) -> list[Any]:
        """Wait for chunks and return them; empty at the end.

        Raises:
            PluginError: What the plugin raised; the chunks before it were given.
        """
        while not self.chunks:
            if not self.is_open:
                if (error := self._future.exception()) is not None:
                    raise error
                return []
            self.changed.clear()
            await self.changed.wait()
        taken = self.chunks.popleft()
        self._room.set()
        return taken

    async def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the result; after `timeout_s` a `TimeoutError`, and the call goes on."""
        async with asyncio.timeout(timeout_s):
            return await asyncio.shield(self._future)

    async def cancel(self, reason: str = "cancelled", *, grace_s: float | None = None) -> bool:
        """Ask the call to stop; False when it has ended already."""
        if not self.is_open:
            return False
        route = connections.path("instances", self._instance, "calls", str(self.number), "cancel")
        try:
            told = await self._asked.ask("POST", route, {"reason": reason, "grace_s": grace_s})
        except errors.NotFoundError:  # its instance is unloaded, and so it has ended
            return False
        return bool(told["cancelled"])

    def drop(self) -> None:
        """Go away without waiting; the daemon cancels what nobody follows."""
        if self._task is not None and self.is_open:
            if not self._future.done():
                self._outcome = "cancelled"
                self._future.set_exception(CancelledError("its reader went away"))
                self._future.exception()
            self.changed.set()
            self._task.cancel()

    @property
    def is_open(self) -> bool:
        """Say whether it has not ended yet."""
        return not self._future.done()

    @property
    def outcome(self) -> str:
        """Return `succeeded`, `failed` or `cancelled` once it has ended, the phase before."""
        return self._outcome


class RemoteChunks:
    """The chunks of a streaming call; see `toft.plugins.supervision.chunks.Chunks`."""

    def __init__(self, call: RemoteCall) -> None:
        self.call = call

    async def take(self, limit: int) -> list[Any]:
        """Wait for chunks and return those that are here; empty at the end."""
        return await self.call.take_chunks()


def _line(fields: Mapping[str, Any]) -> LogLine:
    return LogLine(
        time=fields["time"],
        stream=fields["stream"],
        call=fields["call"],
        text=fields["text"],
        level=fields["level"],
        fields=fields["fields"],
    )
