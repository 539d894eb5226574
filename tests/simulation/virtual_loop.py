"""An event loop whose time is a number: waiting moves the clock, and what would be a thread runs in line.

Nothing here looks at the machine, so a run is a function of its seed alone.
"""

import asyncio
import heapq
from asyncio import base_events, events
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")

START = 1_700_000_000.0
TURN_S = 1e-6
"""What a turn of the loop takes."""
MOST_TURNS = 200_000
"""Turns without a pause after which somebody is said to spin."""


class NothingLeftError(AssertionError):
    """Everybody waits, and no timer will ever wake anybody: in production this would be a hang."""


class Clock:
    """The clock handed to the code under test: virtual time, and a wall clock that somebody may set."""

    def __init__(self, start: float = START) -> None:
        self._elapsed = 0.0
        self._wall_offset = start

    def now(self) -> float:
        return self._wall_offset + self._elapsed

    def monotonic(self) -> float:
        return self._elapsed

    def set_wall(self, by_s: float) -> None:
        """Do to the wall clock what a person or NTP does: it jumps, the monotonic clock does not."""
        self._wall_offset += by_s

    def wait_until(self, when: float) -> None:
        self._elapsed = max(self._elapsed, when)


class _Never:
    """Stands where the selector stands: instead of waiting for the machine it moves the clock."""

    def __init__(self, loop: "VirtualLoop") -> None:
        self._loop = loop
        self._turns = 0

    def select(self, timeout: float | None) -> list[Any]:
        self._turns += 1
        if timeout is None:
            raise NothingLeftError("every task waits and no timer runs")
        if timeout > 0:
            self._turns = 0
            self._loop.clock.wait_until(self._loop.next_timer())
            return []
        # Nothing is done in no time: without this, a timer due in a billionth of a second never is.
        self._loop.clock.wait_until(self._loop.time() + TURN_S)
        if self._turns > MOST_TURNS:
            who = ", ".join(repr(handle) for handle in list(self._loop._ready)[:4])
            raise NothingLeftError(f"{self._turns} turns of the loop without a pause, somebody spins: {who}")
        return []


class VirtualLoop(base_events.BaseEventLoop):
    """Runs tasks and timers; has no sockets, no signals, no threads.

    Args:
        clock: Shared with the code under test; goes on while everybody waits.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self._selector = _Never(self)
        self._clock_resolution = 1e-6  # finer would be lost in a float of many days
        self.failures: list[dict[str, Any]] = []
        self.ended: BaseException | None = None
        self.set_exception_handler(lambda _, context: self.failures.append(context))

    def time(self) -> float:
        return self.clock.monotonic()

    def next_timer(self) -> float:
        while self._scheduled[0]._cancelled:
            self._timer_cancelled_count -= 1
            heapq.heappop(self._scheduled)._scheduled = False
        return self._scheduled[0]._when

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run it now; its result is there one turn later, as from a thread."""
        future: asyncio.Future[T] = self.create_future()
        # What runs in a thread sees no running loop, and the guard against blocking calls knows it by that.
        events._set_running_loop(None)
        try:
            result = func(*args)
        except Exception as error:  # noqa: BLE001 - a thread delivers whatever it raised
            self.call_soon(_settle, future, None, error)
        except BaseException as error:  # noqa: BLE001 - the world ends, and no task hears of it
            self.ended = error
            self.stop()
        else:
            self.call_soon(_settle, future, result, None)
        finally:
            events._set_running_loop(self)
        return future

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        return self.call_soon(callback, *args, context=context)

    def abandon(self) -> None:
        """End as a killed process does: nobody is asked, nothing more is heard of what was running."""
        for task in asyncio.all_tasks(self):
            task._log_destroy_pending = False
            _bury(task.get_coro())
        self._ready.clear()
        self._scheduled.clear()
        self.close()

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass


def _bury(work: Any) -> None:
    """End a coroutine while there is a loop for what it does at its end; that counts no more."""
    for _ in range(3):
        try:
            work.close()
        except BaseException:  # noqa: BLE001 - it waits once more, or its disk is gone
            continue
        return


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def run(main: Coroutine[Any, Any, T], clock: Clock | None = None) -> T:
    """Run one coroutine to its end in virtual time; what failed unheard in the background fails it too."""
    loop = VirtualLoop(clock or Clock())
    try:
        asyncio.set_event_loop(loop)
        try:
            result = loop.run_until_complete(main)
        except RuntimeError:
            if loop.ended is None:
                raise
            raise loop.ended from None
        if loop.failures:
            raise AssertionError(f"unheard failures: {loop.failures}")
        return result
    finally:
        asyncio.set_event_loop(None)
        if not loop.is_closed():
            loop.abandon()
