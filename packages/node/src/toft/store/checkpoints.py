"""Moves what is in the journal into the database, beside the thread that writes."""

from __future__ import annotations

import asyncio
import sqlite3
import threading

from toft.kernel import log
from toft.store.sqlite_errors import LOCKED_AFTER_S

_EVERY_COMMITS = 200
_EVERY_ROWS = 4000
_LONG_PAGES = 4096
_log = log.get_logger("store.checkpoints")


class Checkpoints:
    """A thread that moves pages whenever enough were written.

    A journal begins anew only when all of it was moved and nobody reads it. While somebody writes all the
    time that never happens, so a long one is ended by the writer itself, once nearly all of it was moved.

    Args:
        connection: One of its own; closed at the end.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._commits = 0
        self._rows = connection.total_changes
        self._is_long = False
        self._is_open = True
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="toft-store-checkpoints", daemon=True)
        self._thread.start()

    def count(self, writer: sqlite3.Connection) -> None:
        """Note that a transaction ended; on the writer's thread, between two transactions."""
        self._commits += 1
        if self._commits < _EVERY_COMMITS and writer.total_changes - self._rows < _EVERY_ROWS:
            return
        self._commits, self._rows = 0, writer.total_changes
        if self._is_long:
            self._is_long = False
            # Somebody may be reading for long, a backup for one: then another time.
            writer.execute("PRAGMA busy_timeout=20")
            self._move(writer, "RESTART")
            writer.execute(f"PRAGMA busy_timeout={int(LOCKED_AFTER_S * 1000)}")
        self._wake.set()

    async def close(self) -> None:
        """End the thread; what is in the journal stays there, safe."""
        self._is_open = False
        self._wake.set()
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if not self._is_open:
                break
            pages = self._move(self._connection, "PASSIVE")
            self._is_long = pages > _LONG_PAGES
        self._connection.close()

    def _move(self, connection: sqlite3.Connection, mode: str) -> int:
        try:
            _, pages, _ = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            # Nothing is lost: it is in the journal, and is moved another time. Writes tell of a full disk.
            _log.debug("not_moved", error=str(error))
            return 0
        return int(pages)
