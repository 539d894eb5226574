"""One SQLite file, one thread that writes and one that reads: a transaction that returned is on disk.

Whatever waits to be written shares one commit, so that many callers pay for one fsync. Rooms bring their own
tables as numbered scripts; this module knows none by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from toft.kernel import errors, log
from toft.store import durable
from toft.store.checkpoints import Checkpoints
from toft.store.lanes import Lane
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


class Opened(Store, Protocol):
    """A database that somebody opens and closes."""

    async def open(self, rooms: Mapping[str, str]) -> None:
        """Bring every room's tables to their newest form."""
        ...

    async def close(self) -> None:
        """End it."""
        ...


class Database:
    """An open database file.

    Args:
        path: The file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Lane | None = None
        self._reader: Lane | None = None
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
        engine = _Sqlite(self._path)
        self._writer = Lane(writer, engine, is_writer=True, after_commit=self._checkpoints.count)
        self._reader = Lane(reader, engine)

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

    def _opened(self, lane: Lane | None) -> Lane:
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


class _Sqlite:
    """SQLite, as an engine of lanes."""

    faults: tuple[type[Exception], ...] = (sqlite3.Error,)

    def __init__(self, path: Path) -> None:
        self._path = path
        self.name = str(path)

    def begin(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")

    def commit(self, connection: sqlite3.Connection) -> None:
        connection.execute("COMMIT")

    def roll_back(self, connection: sqlite3.Connection) -> None:
        # Some errors, a full disk among them, have ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def translate(self, error: Exception) -> errors.NodeError:
        assert isinstance(error, sqlite3.Error)
        return translate(error, self._path)


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
