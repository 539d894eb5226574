"""The numbered scripts and the named statements that rooms bring in their packages."""

from __future__ import annotations

import functools
import re
import sqlite3
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from toft.kernel import errors

_SCRIPT = re.compile(r"(\d{4})_(pre|post)_[a-z0-9_]+\.sql")
_TOGETHER = (32, 16, 8, 4, 2)
_ROW = re.compile(
    r"^INSERT\b.*\bVALUES\s*(\([^()]*\))\s*$|^WITH\b.*\bVALUES\s*(\([?, ]*\))\s*\)\s*UPDATE\b", re.DOTALL
)
_NAMED = re.compile(r"^-- name: ([a-z_]+)$", re.MULTILINE)


def read_migrations(package: str) -> list[tuple[int, str]]:
    """Return the numbered scripts in a package's `migrations` directory, in order.

    Raises:
        IntegrityError: Two have the same number: whoever has run one of them would never run the other.
    """
    scripts: dict[int, tuple[str, str]] = {}
    for entry in resources.files(package).joinpath("migrations").iterdir():
        match = _SCRIPT.fullmatch(entry.name)
        if match is None:
            continue
        number = int(match.group(1))
        if number in scripts:
            names = sorted((scripts[number][0], entry.name))
            raise errors.IntegrityError(
                f"{' and '.join(names)} of {package} have one number",
                code="store.scripts",
                details={"package": package, "scripts": names},
                hint="this toft was built wrongly: install it anew; who builds it numbers one of them apart",
            )
        scripts[number] = (entry.name, entry.read_text(encoding="utf-8"))
    return [(number, text) for number, (_, text) in sorted(scripts.items())]


def read_queries(package: str, file: str = "queries.sql") -> dict[str, str]:
    """Return the statements of a `.sql` file by the name in the `-- name: x` line above each."""
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    parts = _NAMED.split(text)[1:]
    return {name: body.strip().rstrip(";") for name, body in zip(parts[::2], parts[1::2], strict=True)}


def run_many(connection: sqlite3.Connection, statement: str, rows: Sequence[Sequence[Any]]) -> None:
    """Run a statement for each row, in order; of many rows, inserts and changes by a row go as few long ones.

    Each run of a statement lets other threads have the interpreter and has to get it back. A change by a row
    reads `WITH name (…) AS (VALUES (?, …)) UPDATE … FROM name …`, and no two rows may be about the same one.
    """
    done = 0
    for count in _TOGETHER:
        while len(rows) - done >= count and (long := _lengthened(statement, count)) is not None:
            connection.execute(long, [value for row in rows[done : done + count] for value in row])
            done += count
    if len(rows) - done == 1:
        connection.execute(statement, rows[done])
    elif done < len(rows):
        connection.executemany(statement, rows[done:])


@functools.lru_cache
def _lengthened(statement: str, count: int) -> str | None:
    """Return a statement of so many rows; None for what has no row of plain parameters."""
    found = _ROW.search(statement)
    if found is None:
        return None
    start, end = found.span(1 if found[2] is None else 2)
    return f"{statement[:start]}{', '.join([statement[start:end]] * count)}{statement[end:]}"


def migrate(connection: sqlite3.Connection, room: str, scripts: Iterable[tuple[int, str]]) -> None:
    """Bring the tables of a room to their newest form, all or nothing."""
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
                for statement in statements(script):
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


def statements(script: str) -> list[str]:
    """Return the statements of a script, one by one."""
    # executescript would commit the transaction that makes a migration all or nothing.
    found, current = [], ""
    for line in script.splitlines(keepends=True):
        current += line
        if sqlite3.complete_statement(current):
            found.append(current)
            current = ""
    return [*found, current] if current.strip() else found
