"""Threads for a plugin that takes several calls at once."""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections import deque
    from typing import Any, Callable

    from toft_sdk.calls import WorkerCall
else:
    try:  # `collections` around it costs a start 1.5 ms.
        from _collections import deque
    except ImportError:
        from collections import deque


class Threads:
    """Daemon threads that run calls, started as they are needed."""

    def __init__(self, run: Callable[[WorkerCall], None], limit: int) -> None:
        self._run = run
        self._limit = limit
        self._started = 0
        self._idle = 0
        self._queue: deque[WorkerCall] = deque()
        self._lock = allocate_lock()
        self._sleepers: list[Any] = []

    def submit(self, call: WorkerCall) -> None:
        """Run a call in the next free thread."""
        with self._lock:
            self._queue.append(call)
            if self._sleepers:
                self._sleepers.pop().release()
                return
            if self._started >= self._limit:
                return
            self._started += 1
        start_new_thread(self._loop, ())

    def _loop(self) -> None:
        bell = allocate_lock()
        bell.acquire()
        while True:
            with self._lock:
                call = self._queue.popleft() if self._queue else None
                if call is None:
                    self._sleepers.append(bell)
            if call is None:
                bell.acquire()
            else:
                self._run(call)
