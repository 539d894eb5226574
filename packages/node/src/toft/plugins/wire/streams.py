"""The chunks of one streaming call: fed by the connection, taken by the caller, bounded by credit."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from toft_sdk import wire


class Flow:
    """What lies between the connection and the one who reads the stream.

    The connection holds this and never the `Stream`, so that a stream nobody holds any more is noticed.

    Args:
        window: Chunks the worker may send before it is given credit again.
        give: Sends credit for so many more.
    """

    def __init__(self, window: int, give: Callable[[int], None]) -> None:
        if window < 1:
            raise ValueError("a stream needs a window of at least one chunk")
        self.chunks: deque[Any] = deque()
        self.is_done = False
        self.error: Exception | None = None
        self._window = window
        self._batch = max(1, window // 2)
        self._give = give
        self._taken = 0
        self._waiter: asyncio.Future[None] | None = None

    def feed(self, chunk: Any) -> None:
        """Take a chunk that arrived."""
        if len(self.chunks) >= self._window:
            raise wire.ProtocolError("a stream sends more than it has credit for")
        self.chunks.append(chunk)
        self._wake()

    def finish(self, error: Exception | None) -> None:
        """Take note of the end."""
        self.is_done = True
        self.error = error
        self._wake()

    def take(self) -> Any:
        """Return the oldest chunk; there must be one."""
        chunk = self.chunks.popleft()
        self._taken += 1
        if self._taken >= self._batch and not self.is_done:
            taken, self._taken = self._taken, 0
            self._give(taken)
        return chunk

    async def wait(self) -> None:
        """Wait until there is a chunk or the end."""
        if self.chunks or self.is_done:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Stream(AsyncIterator[Any]):
    """The chunks of one call, for its caller; `Connection.stream` makes it.

    Attributes:
        call_id: The number to cancel it by.
    """

    def __init__(
        self, flow: Flow, begin: Callable[[], Awaitable[None]] | None, stop: Callable[[], None], call_id: int
    ) -> None:
        self.call_id = call_id
        self._flow = flow
        self._begin = begin
        self._stop = stop
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        """Return the next chunk.

        Raises:
            PluginError: What the plugin raised; the chunks before it were given.
        """
        flow = self._flow
        if flow.chunks:
            return flow.take()
        begin, self._begin = self._begin, None
        if begin is not None:
            await begin()
        while not flow.chunks:
            if flow.is_done:
                error, flow.error = flow.error, None
                if error is not None:
                    raise error
                raise StopAsyncIteration
            await flow.wait()
        return flow.take()

    def take_ready(self, limit: int) -> list[Any]:
        """Return the chunks that are here already, at most so many."""
        flow = self._flow
        ready: list[Any] = []
        while flow.chunks and len(ready) < limit:
            ready.append(flow.take())
        return ready

    async def aclose(self) -> None:
        """Stop; the call is cancelled when it has not ended."""
        self.close()

    def close(self) -> None:
        """Stop without waiting; the call is cancelled when it has not ended."""
        if self._begin is None and not self._flow.is_done:
            self._stop()
        self._begin = None
        self._flow.chunks.clear()
        self._flow.finish(None)

    def __del__(self) -> None:
        if self._begin is None and not self._flow.is_done:
            # The garbage collector runs in any thread; the socket belongs to the loop's.
            with contextlib.suppress(RuntimeError):  # the loop is closed, and with it everything here
                self._loop.call_soon_threadsafe(self._stop)
