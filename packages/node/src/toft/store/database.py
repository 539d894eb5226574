"""One SQLite file, one thread that writes and one that reads: a transaction that returned is on disk.

Whatever waits to be written shares one commit, so that many callers pay for one fsync. Rooms bring their own
tables as numbered scripts; this module knows none by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from toft.kernel import errors, log
from toft.store import durable
from toft.store.checkpoints import Checkpoints
from toft.store.processors import Follower
from toft.store.scripts import migrate, read_migrations, read_queries, run_many
from toft.store.sqlite_errors import LOCKED_AFTER_S, translate

__all__ = ["Connection", "Database", "Row", "Store", "read_migrations", "read_queries", "run_many"]

T = TypeVar("T")
_log = log.get_logger("store")
Connection = sqlite3.Connection
Row = sqlite3.Row
Work = Callable[[sqlite3.Connection], Any]

_BATCH = 256
_PROBE = "UPDATE schema_numbers SET number = number"
_CACHE_KIB = 16_384
# Up to this size the whole file is checked before anything is promised; for a bigger one that takes too long.
_CHECKED_BYTES = 8_000_000


class Store(Protocol):
    """What a room needs of a database: transactions that are on disk when they return."""

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run queries that change nothing."""
        ...

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run one transaction; on disk when this returns, nothing of it when `work` raises."""
        ...


class Database:
    """An open database file.

    Args:
        path: The file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: _Lane | None = None
        self._reader: _Lane | None = None
        self._checkpoints: Checkpoints | None = None

    async def open(self, rooms: Mapping[str, str]) -> None:
        """Open the file and bring every room's tables to their newest form.

        Args:
            rooms: Room name to the package that holds its `migrations` directory.

        Raises:
            IntegrityError: The file is no database, it is damaged, or a newer toft wrote it.
            UnavailableError: Another process held it too long.
        """
        try:
            writer, reader, mover = await asyncio.to_thread(self._open, rooms)
        except sqlite3.Error as error:
            raise translate(error, self._path) from error
        self._checkpoints = Checkpoints(mover)
        self._writer = _Lane(writer, self._path, after_commit=self._checkpoints.count)
        self._reader = _Lane(reader, self._path)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run queries that change nothing; they see all that was committed before."""
        result: T = await self._opened(self._reader).run(work)
        return result

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run one transaction; committed and fsynced when this returns, rolled back when `work` raises.

        Works that wait at the same time share one transaction. When one of them raises, all are rolled back
        and run again one by one, so a work must change nothing but the database.

        Cancellation: The transaction still ends, one way or the other.
        """
        result: T = await asyncio.shield(self._opened(self._writer).run(work))
        return result

    @property
    def threads(self) -> Mapping[str, bool]:
        """Return which of its threads work: the one that writes and the one that reads."""
        lanes = {"writer": self._writer, "reader": self._reader}
        return {name: lane is not None and lane.is_alive for name, lane in lanes.items()}

    async def probe(self) -> None:
        """Commit something that changes nothing.

        Raises:
            UnavailableError: The disk is full, another process holds the file, or the thread has ended.
        """
        await self.write(lambda connection: connection.execute(_PROBE).close())

    async def close(self) -> None:
        """Close the file; a second close does nothing."""
        lanes = [lane for lane in (self._reader, self._writer) if lane is not None]
        self._reader = self._writer = None
        for lane in lanes:
            await lane.close()
        if self._checkpoints is not None:
            await self._checkpoints.close()
            self._checkpoints = None

    def _opened(self, lane: _Lane | None) -> _Lane:
        if lane is None:
            raise errors.UnavailableError(f"{self._path} is not open", code="store.closed")
        return lane

    def _open(self, rooms: Mapping[str, str]) -> tuple[sqlite3.Connection, ...]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        _keep_private(self._path)
        writer = _connect(self._path)
        try:
            if self._path.stat().st_size <= _CHECKED_BYTES:
                found = writer.execute("PRAGMA quick_check(1)").fetchone()[0]
                if found != "ok":
                    raise sqlite3.DatabaseError(found)
            writer.execute("PRAGMA journal_mode=WAL")
            writer.execute("PRAGMA synchronous=FULL")
            writer.execute("PRAGMA foreign_keys=ON")
            writer.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
            for room, package in rooms.items():
                migrate(writer, room, read_migrations(package))
            writer.execute("PRAGMA wal_autocheckpoint=0")
            reader, mover = _connect(self._path), _connect(self._path)
        except BaseException:
            writer.close()
            raise
        reader.execute("PRAGMA query_only=ON")
        mover.execute("PRAGMA synchronous=FULL")
        return writer, reader, mover


class _Lane:
    """A thread that owns a connection and runs what waits for it, in order.

    Results go back with one wake-up of the event loop for all that ran together.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        *,
        after_commit: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        self._connection = connection
        self._path = path
        self._waiting: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._after_commit = after_commit
        # Long questions are better asked beside the loop than in its place.
        self._follower = Follower() if after_commit is not None else None
        self._has_ended = False
        self._run = self._look if after_commit is None else self._commit
        name = f"toft-store-{'reader' if after_commit is None else 'writer'}"
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
        self._waiting.put(_Item(work, loop, future))
        if self._has_ended:
            self._give_up([])
        return future

    async def close(self) -> None:
        """Run what waits, then close the connection."""
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        items: list[_Item] = []
        try:
            self._serve(items)
        except sqlite3.Error as error:
            # Its connection is of no use any more. Whoever waits is told so, and whoever comes.
            _log.error("thread_ended", thread=self._thread.name, error=repr(error))
        finally:
            # Before it looks for who waits: whoever comes later looks at this.
            self._has_ended = True
            self._give_up(items)

    def _give_up(self, items: list[_Item]) -> None:
        """Tell whoever still waits that nobody will do it."""
        with contextlib.suppress(queue.Empty):
            while True:
                item = self._waiting.get_nowait()
                if item is not None:
                    items.append(item)
        for item in items:
            item.fail(
                errors.UnavailableError(
                    f"the thread that works on {self._path} has ended",
                    code="store.thread_ended",
                    blame="node",
                    hint="toft down, then toft up; nothing that was acknowledged is lost",
                )
            )
        _deliver(items)

    def _serve(self, items: list[_Item]) -> None:
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

    def _look(self, items: list[_Item]) -> None:
        for item in items:
            item.attempt(self._connection, self._path)

    def _commit(self, items: list[_Item]) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            for item in items:
                item.fail(translate(error, self._path))
            return
        for item in items:
            item.attempt(self._connection, self._path)
            if item.error is not None:
                break
        else:
            try:
                self._connection.execute("COMMIT")
                return
            except sqlite3.Error as error:
                items[0].fail(translate(error, self._path))
        self._roll_back()
        if len(items) > 1:
            for item in items:
                item.error = None
                self._commit([item])

    def _roll_back(self) -> None:
        # Some errors, a full disk among them, have ended the transaction already.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


class _Item:
    """Something to run and who waits for it."""

    __slots__ = ("error", "future", "loop", "result", "work")

    def __init__(self, work: Work, loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]) -> None:
        self.work = work
        self.loop = loop
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None

    def attempt(self, connection: sqlite3.Connection, path: Path) -> None:
        try:
            self.result = self.work(connection)
        except sqlite3.Error as error:
            self.fail(translate(error, path), error)
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


def _deliver(items: list[_Item]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Item]] = {}
    for item in items:
        by_loop.setdefault(item.loop, []).append(item)
    for loop, its in by_loop.items():
        try:
            loop.call_soon_threadsafe(_settle, its)
        except RuntimeError:
            # The loop ended; nobody waits any more.
            continue


def _settle(items: list[_Item]) -> None:
    for item in items:
        item.settle()


def _keep_private(path: Path) -> None:
    """Let nobody but its owner read a database and its journal, whoever may look into its directory.

    What cannot be done here is said by SQLite, which opens the file next.
    """
    with contextlib.suppress(OSError):
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            # By name: closing a descriptor of the file would drop the locks that this process has on it.
            for each in (path, *(path.with_name(path.name + tail) for tail in ("-wal", "-shm"))):
                with contextlib.suppress(FileNotFoundError):
                    if each.stat().st_mode & 0o077:
                        each.chmod(0o600)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=LOCKED_AFTER_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


def copy(source: Path, target: Path) -> None:
    """Write a copy of a database as of now, whole or not at all, while others write. Blocks."""
    temporary = durable.temporary_name(target)
    try:
        origin = _connect(source)
        try:
            _keep_private(temporary)
            made = sqlite3.connect(temporary)
            try:
                # In one step: a copy in steps starts anew whenever somebody writes in between.
                origin.backup(made)
            finally:
                made.close()
        finally:
            origin.close()
        durable.publish_file(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
