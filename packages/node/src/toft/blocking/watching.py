"""Events as they come, for programs that do not use asyncio."""

from __future__ import annotations

import asyncio
import collections
import threading
from collections.abc import AsyncIterator, Iterator
from types import TracebackType
from typing import Any

from toft.plugins.loop_thread import LoopThread

_READ_AHEAD = 1000


class Watch(Iterator[Any]):
    """Events as they come; closing it, or leaving its `with` block, ends it.

    They are read ahead in the node's thread, so that a reader pays for a hand-over only when it waits.
    """

    def __init__(self, thread: LoopThread, source: AsyncIterator[Any]) -> None:
        self._thread = thread
        self._source = source
        self._ready: collections.deque[Any] = collections.deque()
        self._changed = threading.Condition()
        self._has_ended = False
        self._error: BaseException | None = None
        self._room: asyncio.Event
        self._task: asyncio.Task[None]
        thread.do(self._begin)

    def __iter__(self) -> Watch:
        return self

    def __next__(self) -> Any:
        """Return the next event; waits for it."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._has_ended)
            if self._ready:
                if len(self._ready) == _READ_AHEAD:
                    self._thread.post(self._room.set)
                return self._ready.popleft()
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop watching; whoever waits for the next event hears the end."""
        if not self._has_ended:
            self._thread.post(self._task.cancel)

    def _begin(self) -> None:
        self._room = asyncio.Event()
        self._task = self._thread.loop.create_task(self._read())
        self._task.add_done_callback(self._end)

    async def _read(self) -> None:
        async for event in self._source:
            with self._changed:
                self._ready.append(event)
                is_full = len(self._ready) == _READ_AHEAD
                if is_full:
                    self._room.clear()
                self._changed.notify()
            if is_full:
                await self._room.wait()

    def _end(self, task: asyncio.Task[None]) -> None:
        with self._changed:
            self._has_ended = True
            self._error = None if task.cancelled() else task.exception()
            self._changed.notify_all()
