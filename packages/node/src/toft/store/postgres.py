"""A database on a PostgreSQL server behind the same verbs: one connection that writes and one that reads.

Rooms write their SQL once, in what both kinds understand; what is spelled differently is translated here.
One process uses a database at a time: it holds a lock of the server for as long as it is connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row

from toft.kernel import errors
from toft.store.lanes import Lane
from toft.store.scripts import read_migrations, statements

T = TypeVar("T")
_CONNECT_S = 10
_LOCK = 0x746F6674
_PAUSES_S = (0.05, 0.1, 0.2, 0.5, 1.0)
_NAME = re.compile(r"'[^']*'|(?<!:):([a-z_][a-z0-9_]*)")
_SPELLINGS = (
    # The order in which rows came is the one of SQLite's own column of that name.
    (re.compile(r"\)\s*STRICT\b"), ", rowid BIGINT GENERATED ALWAYS AS IDENTITY)"),
    (re.compile(r"\bBLOB\b"), "BYTEA"),
    (re.compile(r"\bREAL\b"), "DOUBLE PRECISION"),
    (re.compile(r"\bINTEGER\b"), "BIGINT"),
    (re.compile(r"\s*CHECK \(json_valid\(\w+\)\)"), ""),
)


class PostgresDatabase:
    """A database on a server.

    Args:
        dsn: How it is reached, as libpq has it; a password is better in a file that PGPASSFILE names.
    """

    def __init__(self, dsn: str) -> None:
        self._engine = _Postgres(dsn)
        self._writer: Lane | None = None
        self._reader: Lane | None = None

    async def open(self, rooms: Mapping[str, str]) -> None:
        """Connect, and bring every room's tables to their newest form.

        Args:
            rooms: Room name to the package that holds its `migrations` directory.

        Raises:
            UnavailableError: The server does not answer, or another process uses this database.
            IntegrityError: A newer toft wrote it.
        """
        writer, reader = await asyncio.to_thread(self._open, rooms)
        self._writer = Lane(writer, self._engine, is_writer=True)
        self._reader = Lane(reader, self._engine)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run queries that change nothing; they see all that was committed before."""
        result: T = await self._opened(self._reader).run(work)
        return result

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run one transaction, as `Database.write` does.

        When the connection breaks in its last moment it may have been committed all the same.
        """
        result: T = await asyncio.shield(self._opened(self._writer).run(work))
        return result

    async def close(self) -> None:
        """Disconnect; a second close does nothing."""
        lanes = [lane for lane in (self._reader, self._writer) if lane is not None]
        self._reader = self._writer = None
        for lane in lanes:
            await lane.close()

    def _opened(self, lane: Lane | None) -> Lane:
        if lane is None:
            raise errors.UnavailableError(f"{self._engine.name} is not open", code="store.closed")
        return lane

    def _open(self, rooms: Mapping[str, str]) -> tuple[_Connection, _Connection]:
        writer = _Connection(self._engine, holds_lock=True)
        try:
            writer.connect()
            for room, package in rooms.items():
                self._migrate(writer, room, read_migrations(package))
            reader = _Connection(self._engine, holds_lock=False)
            reader.connect()
        except psycopg.Error as error:
            writer.close()
            raise self._engine.translate(error) from error
        except BaseException:
            writer.close()
            raise
        return writer, reader

    def _migrate(self, connection: _Connection, room: str, scripts: Iterable[tuple[int, str]]) -> None:
        """Bring the tables of a room to their newest form, all or nothing."""
        scripts = list(scripts)
        newest = max((number for number, _ in scripts), default=0)
        self._engine.begin(connection)
        try:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS schema_numbers (room TEXT PRIMARY KEY, number BIGINT NOT NULL)"
            )
            query = "SELECT number FROM schema_numbers WHERE room = :room"
            row = connection.execute(query, {"room": room}).fetchone()
            current = row["number"] if row else 0
            if current > newest:
                raise errors.IntegrityError(
                    f"the tables of {room} have schema {current}, this toft knows up to {newest}",
                    code="store.newer",
                    hint="use the toft that wrote this database, or another one",
                )
            for number, script in scripts:
                if number > current:
                    for statement in statements(script):
                        connection.execute(_spelled(statement))
            connection.execute(
                "INSERT INTO schema_numbers VALUES (:room, :number) "
                "ON CONFLICT (room) DO UPDATE SET number = excluded.number",
                {"room": room, "number": newest},
            )
        except BaseException:
            self._engine.roll_back(connection)
            raise
        self._engine.commit(connection)


class _Connection:
    """A connection with the words of one to SQLite, made anew after it broke."""

    def __init__(self, engine: _Postgres, *, holds_lock: bool) -> None:
        self._engine = engine
        self._holds_lock = holds_lock
        self._raw: psycopg.Connection[dict[str, Any]] | None = None

    def connect(self) -> psycopg.Connection[dict[str, Any]]:
        """Return the connection, made anew when it is broken."""
        if self._raw is not None and not self._raw.closed:
            return self._raw
        raw = psycopg.connect(
            self._engine.dsn, autocommit=True, row_factory=dict_row, connect_timeout=_CONNECT_S
        )
        if self._holds_lock and not _lock(raw):
            raw.close()
            raise psycopg.errors.LockNotAvailable("another process uses this database")
        self._raw = raw
        return raw

    @property
    def is_in_transaction(self) -> bool:
        """Say whether something was begun and not ended."""
        idle = psycopg.pq.TransactionStatus.IDLE
        return self._raw is not None and not self._raw.closed and self._raw.info.transaction_status != idle

    def execute(self, statement: str, values: Mapping[str, Any] | None = None) -> Any:
        """Run a statement with named values."""
        was_in_transaction = self.is_in_transaction
        raw = self.connect()
        try:
            return raw.execute(_placed(statement), values)
        except psycopg.OperationalError:
            # A question may be asked again; what belongs to a transaction is lost with it.
            if not raw.closed or was_in_transaction or self._holds_lock:
                raise
            return self.connect().execute(_placed(statement), values)

    def executemany(self, statement: str, rows: Iterable[Mapping[str, Any]]) -> Any:
        """Run a statement for each of many."""
        cursor = self.connect().cursor()
        cursor.executemany(_placed(statement), list(rows))
        return cursor

    def close(self) -> None:
        """Disconnect."""
        if self._raw is not None:
            with contextlib.suppress(psycopg.Error):
                self._raw.close()


def _lock(raw: psycopg.Connection[dict[str, Any]]) -> bool:
    """Take the lock of this database; the server may take a moment to see that its last holder was killed."""
    query = "SELECT pg_try_advisory_lock(%s, hashtext(current_database())) AS held"
    for pause in (*_PAUSES_S, 0.0):
        row = raw.execute(query, (_LOCK,)).fetchone()
        if row is not None and row["held"]:
            return True
        time.sleep(pause)
    return False


class _Postgres:
    """PostgreSQL, as an engine of lanes."""

    faults: tuple[type[Exception], ...] = (psycopg.Error,)

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.name = "the database"
        with contextlib.suppress(psycopg.Error):
            told = psycopg.conninfo.conninfo_to_dict(dsn)
            self.name = f"the database {told.get('dbname', '')} at {told.get('host', 'this machine')}"

    def begin(self, connection: _Connection) -> None:
        connection.execute("BEGIN")

    def commit(self, connection: _Connection) -> None:
        connection.execute("COMMIT")

    def roll_back(self, connection: _Connection) -> None:
        if connection.is_in_transaction:
            with contextlib.suppress(psycopg.Error):
                connection.execute("ROLLBACK")

    def translate(self, error: Exception) -> errors.NodeError:
        code = getattr(error, "sqlstate", None) or ""
        details = {"postgres": f"{code} {error}".strip()[:500]}
        if isinstance(error, psycopg.errors.LockNotAvailable):
            return errors.ConflictError(
                f"another process uses {self.name}",
                code="store.in_use",
                details=details,
                hint="one process has a database: end the other one first",
            )
        if isinstance(error, psycopg.errors.DiskFull):
            return errors.UnavailableError(
                f"{self.name} cannot grow: its disk is full",
                code="store.disk_full",
                details=details,
                hint="free some space on the server",
            )
        if isinstance(error, psycopg.IntegrityError):
            return errors.ConflictError(f"{self.name}: {error}", code="store.conflict", details=details)
        if isinstance(error, psycopg.DataError):
            return errors.UsageError(
                f"{self.name} cannot hold such a value: {error}",
                code="store.value",
                details=details,
                hint="texts without a null character, whole numbers of at most 64 bits",
            )
        if isinstance(error, psycopg.OperationalError):
            return errors.UnavailableError(
                f"{self.name} does not answer: {error}",
                code="store.unreachable",
                details=details,
                retry_after_s=2.0,
                hint="is the server up, and may this machine and user reach it? psql with the same address",
            )
        return errors.NodeError(
            f"{self.name}: a statement failed: {error}",
            code="store.failed",
            details=details,
            hint="nothing of it was stored; please report it",
        )


@functools.lru_cache(maxsize=1024)
def _placed(statement: str) -> str:
    """Return a statement with its named values as psycopg marks them."""

    def mark(found: re.Match[str]) -> str:
        return f"%({found[1]})s" if found[1] else found[0].replace("%", "%%")

    # A comment may have a colon, and says nothing to a server.
    bare = re.sub(r"--[^\n]*", "", statement)
    return _NAME.sub(mark, bare)


def _spelled(statement: str) -> str:
    for found, spelled in _SPELLINGS:
        statement = found.sub(spelled, statement)
    return statement
