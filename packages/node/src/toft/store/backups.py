"""A copy of what a node knows, made while it works: the database as of one moment, and the large values.

Everything else in a home can be made again (environments) or is for its owner to keep (secrets, plugin data).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from toft.kernel import errors
from toft.store import database, durable
from toft.store.sqlite_errors import translate


@dataclass(frozen=True)
class Backup:
    """What was written."""

    path: Path
    database_bytes: int
    blobs: int
    blobs_bytes: int


def write(home: Path, target: Path) -> Backup:
    """Write a backup into a new directory, whole or not at all. Blocks.

    The database comes first: a value that is removed after it belonged to a job that was forgotten meanwhile.

    Raises:
        NotFoundError: There is nothing in this home yet.
        ConflictError: The directory is there already.
        IntegrityError: The database is damaged; a copy of it would be no backup.
        UnavailableError: The disk is full.
    """
    if not (home / "node.db").is_file():
        raise errors.NotFoundError(
            f"there is no node in {home}", code="backup.nothing", hint="toft --home DIR, or set TOFT_HOME"
        )
    if target.exists():
        raise errors.ConflictError(
            f"{target} is there already", code="backup.exists", hint="name a directory that is not there yet"
        )
    staged = durable.temporary_name(target)
    try:
        durable.make_directory(staged, 0o700)
        database_bytes = _copy_database(home / "node.db", staged / "node.db")
        count, size = _copy_blobs(home / "blobs", staged / "blobs")
        durable.publish_directory(staged, target)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    return Backup(target, database_bytes, count, size)


def _copy_database(source: Path, target: Path) -> int:
    try:
        database.copy(source, target)
        copied = sqlite3.connect(target)
        try:
            found = copied.execute("PRAGMA quick_check(1)").fetchone()[0]
        finally:
            copied.close()
        if found != "ok":
            raise sqlite3.DatabaseError(found)
    except sqlite3.Error as error:
        raise translate(error, source) from error
    return target.stat().st_size


def _copy_blobs(source: Path, target: Path) -> tuple[int, int]:
    count = size = 0
    target.mkdir(mode=0o700)  # also when nothing is large: what is missing there looks lost
    for directory, _, names in os.walk(source):
        inside = target / Path(directory).relative_to(source)
        inside.mkdir(mode=0o700, exist_ok=True)
        for name in names:
            path = Path(directory) / name
            if name.startswith(".tmp-"):
                continue
            with contextlib.suppress(FileNotFoundError):
                _share(path, inside / name)
                count += 1
                size += path.stat().st_size
    return count, size


def _share(source: Path, target: Path) -> None:
    # A blob is never changed, only removed, so that two names for one file are as good as a copy.
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
