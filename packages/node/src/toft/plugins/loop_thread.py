"""An event loop in a thread of its own, and the ways to have things done there and wait for them."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent import futures
from types import TracebackType
from typing import Any, Generic, TypeVar

from toft.kernel import errors

T = TypeVar("T")
_JOIN_S = 30.0
_TIDY_S = 30.0
_LAST_S = 0.2


class Outcome(Generic[T]):
    """What one thread waits for and another one gives; lighter than a future of either kind.

    As a context manager it gives the error that ends the block.
    """

    __slots__ = ("_error", "_lock", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._value: Any = None
        self._error: BaseException | None = None

    def give(self, value: T | None, error: BaseException | None = None) -> None:
        """Wake the one who waits."""
        self._value, self._error = value, error
        self._lock.release()

    def wait(self) -> T:
        """Wait; Ctrl-C ends the waiting.

        Raises:
            BaseException: The error that was given.
        """
        self._lock.acquire()
        if self._error is not None:
            raise self._error
        value: T = self._value
        return value

    def __enter__(self) -> Outcome[T]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        self.give(None, error)
        return isinstance(error, Exception)


class LoopThread:
    """The thread; a daemon, so that a program that forgets to close can still end."""

    def __init__(self, name: str) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_forever()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something there and wait for it.

        Ctrl-C cancels the work and waits until it has taken back what it began; a second one does not wait.
        """
        if not self.loop.is_running():
            work.close()
            raise errors.UnavailableError("the node was closed", code="node.closed")
        ended: futures.Future[T] = futures.Future()
        begun: list[asyncio.Task[T]] = []

        def begin() -> None:
            begun.append(self.loop.create_task(work))
            begun[0].add_done_callback(lambda task: _pass_on(task, ended))

        self.post(begin)
        try:
            return ended.result()
        except KeyboardInterrupt:
            self.post(lambda: [task.cancel() for task in begun])
            futures.wait([ended], timeout=_TIDY_S)
            raise

    def do(self, work: Callable[[], T]) -> T:
        """Call a function there and return what it returns."""
        outcome: Outcome[T] = Outcome()

        def doing() -> None:
            with outcome:
                outcome.give(work())

        self.post(doing)
        return outcome.wait()

    def post(self, work: Callable[[], object]) -> None:
        """Call a function there and do not wait."""
        try:
            self.loop.call_soon_threadsafe(work)
        except RuntimeError:
            raise errors.UnavailableError("the node was closed", code="node.closed") from None

    def stop(self) -> None:
        """End the loop and the thread, once generators that were left half way have been closed."""
        if self.loop.is_running():
            with contextlib.suppress(futures.TimeoutError):
                asyncio.run_coroutine_threadsafe(_tidy(), self.loop).result(_TIDY_S)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_JOIN_S)
        if not self._thread.is_alive():
            self.loop.close()


async def _tidy() -> None:
    await asyncio.get_running_loop().shutdown_asyncgens()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=_LAST_S)


def _pass_on(task: asyncio.Task[T], ended: futures.Future[T]) -> None:
    """Give what a task ended with to whoever waits in another thread."""
    if task.cancelled():
        ended.set_exception(errors.UnavailableError("the node was closed", code="node.closed"))
        return
    error = task.exception()
    if error is not None:
        ended.set_exception(error)
    else:
        ended.set_result(task.result())
