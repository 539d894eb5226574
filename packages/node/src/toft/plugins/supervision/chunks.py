"""The chunks of a streaming call, for whoever reads them.

The call itself never holds its reader, so a reader that is dropped half way is noticed and the call is
cancelled.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

from toft.kernel.errors import NodeError
from toft.plugins.plugin_errors import PluginError
from toft.plugins.supervision import calls
from toft.plugins.wire.streams import Stream

WINDOW = 256


class StreamingCall(calls.Call):
    """A call whose result comes in pieces.

    Attributes:
        window: Chunks that may be on their way before one is taken.
        chunks: Where they arrive; None until the call runs.
    """

    __slots__ = ("_opened", "chunks", "window")

    def __init__(
        self,
        number: int,
        action: str,
        arguments: Mapping[str, Any],
        executor: calls.Executor,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(number, action, arguments, executor, loop)
        self.window = WINDOW
        self.chunks: Stream | None = None
        self._opened = asyncio.Event()

    def opened(self, chunks: Stream) -> None:
        """Take the place where chunks arrive."""
        self.chunks = chunks
        self._opened.set()

    def finish(self, result: Any, error: Exception | None) -> None:
        """End the call; what arrived before can still be read."""
        super().finish(None, error)
        self._opened.set()

    async def wait_open(self) -> Stream | None:
        """Return where chunks arrive, or None when it ended before it ran."""
        await self._opened.wait()
        return self.chunks


class Chunks(AsyncIterator[Any]):
    """Read this with `async for`; `aclose` or dropping it cancels the call.

    Args:
        call: The call.
    """

    def __init__(self, call: StreamingCall) -> None:
        self.call = call
        self._loop = asyncio.get_running_loop()
        self._source: Stream | None = None

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> Any:
        """Return the next chunk.

        Raises:
            PluginError: What the plugin raised; the chunks before it were given.
            WorkerLostError: Its process is gone.
        """
        try:
            if self._source is None:
                self._source = await self.call.wait_open()
            if self._source is not None:
                return await self._source.__anext__()
        except asyncio.CancelledError:
            self.call.cancel("its reader went away")
            raise
        except StopAsyncIteration:
            pass
        except (PluginError, NodeError):
            # How the call ended says more than how its chunks did.
            if not self.call.future.done():
                raise
        return self._end()

    async def take(self, limit: int) -> list[Any]:
        """Wait for a chunk and return it with those that are here already; empty at the end."""
        try:
            first = await self.__anext__()
        except StopAsyncIteration:
            return []
        return [first, *(self._source.take_ready(limit - 1) if self._source is not None else ())]

    def _end(self) -> Any:
        future = self.call.future
        error = future.exception() if future.done() and not future.cancelled() else None
        if error is not None:
            raise error
        raise StopAsyncIteration

    async def __aenter__(self) -> Chunks:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Stop reading; the call is cancelled when it has not ended."""
        self.call.cancel("its reader went away")

    def __del__(self) -> None:
        if self.call.is_open:
            # The interpreter may drop it in any thread, or when the loop is gone.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.call.cancel, "its reader went away")
