"""Threads that own a connection each and run what waits for it; what waits together is written together.

What kind of database it is, an `Engine` knows.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Any, Protocol

from toft.kernel import errors, log
from toft.store.processors import Follower

_log = log.get_logger("store")
_BATCH = 256
Work = Callable[[Any], Any]


class Engine(Protocol):
    """What is different between databases.

    Attributes:
        faults: What its connections raise.
        name: What it is called in messages.
    """

    faults: tuple[type[Exception], ...]
    name: str

    def begin(self, connection: Any) -> None:
        """Begin a transaction that writes."""
        ...

    def commit(self, connection: Any) -> None:
        """Put it on disk."""
        ...

    def roll_back(self, connection: Any) -> None:
        """Leave nothing of it, if there still is one."""
        ...

    def translate(self, error: Exception) -> errors.NodeError:
        """Return the node's error for one of its own."""
        ...


class Lane:
    """A thread that owns a connection and runs what waits for it, in order.

    Results go back with one wake-up of the event loop for all that ran together.

    Args:
        connection: Its own; closed at the end.
        engine: What kind of database that is to.
        is_writer: What it runs are transactions; else questions.
        after_commit: Called with the connection after each of them.
    """

    def __init__(
        self,
        connection: Any,
        engine: Engine,
        *,
        is_writer: bool = False,
        after_commit: Callable[[Any], None] | None = None,
    ) -> None:
        self._connection = connection
        self._engine = engine
        self._waiting: queue.SimpleQueue[Item | None] = queue.SimpleQueue()
        self._after_commit = after_commit
        # Long questions are better asked beside the loop than in its place.
        self._follower = Follower() if is_writer else None
        self._has_ended = False
        self._run = self._commit if is_writer else self._look
        name = f"toft-store-{'writer' if is_writer else 'reader'}"
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Say whether its thread still works."""
        return not self._has_ended

    def run(self, work: Work) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        if self._follower is not None:
            self._follower.see()
        self._waiting.put(Item(work, loop, future))
        if self._has_ended:
            self._give_up([])
        return future

    async def close(self) -> None:
        """Run what waits, then close the connection."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        items: list[Item] = []
        try:
            self._serve(items)
        except self._engine.faults as error:
            # Its connection is of no use any more. Whoever waits is told so, and whoever comes.
            _log.error("thread_ended", thread=self._thread.name, error=repr(error))
        finally:
            # Before it looks for who waits: whoever comes later looks at this.
            self._has_ended = True
            self._give_up(items)

    def _give_up(self, items: list[Item]) -> None:
        """Tell whoever still waits that nobody will do it."""
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._waiting.get_nowait()
                if item is not None:
                    items.append(item)
        for item in items:
            item.fail(
                errors.UnavailableError(
                    f"the thread that works on {self._engine.name} has ended",
                    code="store.thread_ended",
                    blame="node",
                    hint="toft down, then toft up; nothing that was acknowledged is lost",
                )
            )
        _deliver(items)

    def _serve(self, items: list[Item]) -> None:
        is_open = True
        while is_open:
            items.clear()
            item = self._waiting.get()
            while item is not None:
                items.append(item)
                if len(items) == _BATCH:
                    break
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
            is_open = item is not None
            if items:
                if self._follower is not None:
                    self._follower.go()
                self._run(items)
                _deliver(items.copy())
                items.clear()
                if self._after_commit is not None:
                    self._after_commit(self._connection)
        self._connection.close()

    def _look(self, items: list[Item]) -> None:
        for item in items:
            item.attempt(self._connection, self._engine)

    def _commit(self, items: list[Item]) -> None:
        engine = self._engine
        try:
            engine.begin(self._connection)
        except engine.faults as error:
            for item in items:
                item.fail(engine.translate(error))
            return
        for item in items:
            item.attempt(self._connection, engine)
            if item.error is not None:
                break
        else:
            try:
                engine.commit(self._connection)
                return
            except engine.faults as error:
                items[0].fail(engine.translate(error))
        engine.roll_back(self._connection)
        if len(items) > 1:
            for item in items:
                item.error = None
                self._commit([item])


class Item:
    """Something to run and who waits for it."""

    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(self, work: Work, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self.work = work
        self.loop = loop
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None

    def attempt(self, connection: Any, engine: Engine) -> None:
        """Do it; what it raises is raised where it was asked for."""
        try:
            self.result = self.work(connection)
        except engine.faults as error:
            self.fail(engine.translate(error), error)
        except OverflowError as error:
            told = errors.UsageError(
                f"a number is too large to be stored: {error}",
                code="store.number",
                hint="whole numbers have at most 64 bits",
            )
            self.fail(told, error)
        except BaseException as error:  # noqa: BLE001 - it is raised where the work was asked for
            self.error = error

    def fail(self, error: BaseException, cause: BaseException | None = None) -> None:
        error.__cause__ = cause
        self.error = error

    def settle(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


def _deliver(items: list[Item]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Item]] = {}
    for item in items:
        by_loop.setdefault(item.loop, []).append(item)
    for loop, its in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, its)
        except RuntimeError:
            # The loop ended; nobody waits any more.
            continue


def _settle(items: list[Item]) -> None:
    for item in items:
        item.settle()
