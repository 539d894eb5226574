"""One SQLite file, one connection, one thread: a transaction that returned is on disk.

Rooms bring their own tables as numbered scripts; this module knows none by name.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import TypeVar

from toft.kernel import errors

T = TypeVar("T")
Connection = sqlite3.Connection
Row = sqlite3.Row

_LOCKED_AFTER_S = 10.0
_SCRIPT = re.compile(r"(\d{4})_(pre|post)_[a-z0-9_]+\.sql")
_NAMED = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


class Database:
    """An open database file.

    Args:
        path: The file; made when it is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="toft-store")
        self._connection: sqlite3.Connection | None = None

    async def open(self, rooms: Mapping[str, str]) -> None:
        """Open the file and bring every room's tables to their newest form.

        Args:
            rooms: Room name to the package that holds its `migrations` directory.

        Raises:
            IntegrityError: The file is no database, or a newer toft wrote it.
            UnavailableError: Another process held it too long.
        """
        await self._run(self._open, rooms)

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run queries that change nothing."""
        return await self._run(work, self._opened())

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run one transaction; committed and fsynced when this returns, rolled back when `work` raises.

        Cancellation: The transaction still ends, one way or the other.
        """
        return await asyncio.shield(self._run(self._transact, work))

    async def close(self) -> None:
        """Close the file; a second close does nothing."""
        if self._connection is not None:
            await self._run(self._connection.close)
            self._connection = None
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        except sqlite3.DatabaseError as error:
            raise _translate(error, self._path) from error

    def _opened(self) -> sqlite3.Connection:
        if self._connection is None:
            raise errors.UnavailableError(f"{self._path} is not open", code="store.closed")
        return self._connection

    def _open(self, rooms: Mapping[str, str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(
            self._path, timeout=_LOCKED_AFTER_S, isolation_level=None, check_same_thread=False
        )
        try:
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            for room, package in rooms.items():
                _migrate(connection, room, read_migrations(package))
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._opened()
        connection.execute("BEGIN IMMEDIATE")
        try:
            result = work(connection)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return result


def read_migrations(package: str) -> list[tuple[int, str]]:
    """Return the numbered scripts in a package's `migrations` directory, in order."""
    scripts = []
    for entry in resources.files(package).joinpath("migrations").iterdir():
        match = _SCRIPT.fullmatch(entry.name)
        if match:
            scripts.append((int(match.group(1)), entry.read_text(encoding="utf-8")))
    return sorted(scripts)


def read_queries(package: str, file: str = "queries.sql") -> dict[str, str]:
    """Return the statements of a `.sql` file by the name in the `-- name: x` line above each."""
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    parts = _NAMED.split(text)[1:]
    return {name: body.strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)}


def _migrate(connection: sqlite3.Connection, room: str, scripts: Iterable[tuple[int, str]]) -> None:
    scripts = list(scripts)
    newest = max((number for number, _ in scripts), default=0)
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_numbers "
            "(room TEXT PRIMARY KEY, number INTEGER NOT NULL) STRICT"
        )
        row = connection.execute("SELECT number FROM schema_numbers WHERE room = ?", (room,)).fetchone()
        current = row[0] if row else 0
        if current > newest:
            raise errors.IntegrityError(
                f"the tables of {room} have schema {current}, this toft knows up to {newest}",
                code="store.newer",
                hint="use the toft that wrote this home, or another TOFT_HOME",
            )
        for number, script in scripts:
            if number > current:
                for statement in _statements(script):
                    connection.execute(statement)
        connection.execute(
            "INSERT INTO schema_numbers VALUES (?, ?) "
            "ON CONFLICT (room) DO UPDATE SET number = excluded.number",
            (room, newest),
        )
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _statements(script: str) -> list[str]:
    # executescript would commit the transaction that makes a migration all or nothing.
    statements, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            statements.append(current)
            current = ""
    return [*statements, current] if current.strip() else statements


def _translate(error: sqlite3.DatabaseError, path: Path) -> errors.NodeError:
    name = getattr(error, "sqlite_errorname", "")
    details = {"path": str(path), "sqlite": f"{name}: {error}" if name else str(error)}
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return errors.UnavailableError(
            f"{path} was locked by another process for {_LOCKED_AFTER_S:g} s",
            code="store.locked",
            details=details,
            hint="wait for the other toft to end",
        )
    if name.startswith("SQLITE_CONSTRAINT"):
        return errors.ConflictError(f"{path}: {error}", code="store.conflict", details=details)
    if name.startswith("SQLITE_FULL"):
        return errors.UnavailableError(
            f"{path} cannot grow: the disk is full",
            code="store.disk_full",
            details=details,
            hint="free some space: toft env gc removes environments that nothing uses",
        )
    if name.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_PERM", "SQLITE_IOERR")):
        return errors.RefusedError(
            f"{path} cannot be used: {error}",
            code="store.unusable",
            blame="environment",
            details=details,
            hint="run toft as the user who owns it, or point TOFT_HOME at a directory of your own",
        )
    return errors.IntegrityError(
        f"{path}: {error}",
        code="store.damaged",
        details=details,
        hint="move it away: plugins stay installed, and what instances were configured with is lost",
    )
