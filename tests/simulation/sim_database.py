"""What stands where `toft.store.database.Database` stands: the same works, commits at moments a seed chooses.

`kill` is a kill -9 of the simulated process: the next life sees every commit and nothing that was still
waiting for one.
"""

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from toft.kernel import errors
from toft.store import database, sqlite_errors

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], Any]


@dataclass
class Temper:
    """How the disk behaves; the driver changes it while the simulation runs."""

    slowest_commit_s: float = 0.01
    most_in_a_batch: int = 64
    is_full: bool = False


class SimDatabase:
    """One life's view of the database; `Disk` is what stays.

    Args:
        disk: The committed state, shared by all lives.
        chance: Decides when commits happen and what they take along.
    """

    def __init__(self, disk: "Disk", chance: random.Random) -> None:
        self._disk = disk
        self._chance = chance
        self._waiting: list[tuple[Work, asyncio.Future[Any]]] = []
        self._is_dead = False
        self.path = disk.path

    async def open(self, rooms: Mapping[str, str]) -> None:
        """The tables are there: the disk was formatted by the real database."""

    async def close(self) -> None:
        while self._waiting and not self._is_dead:  # noqa: ASYNC110 - in virtual time, polling is exact
            await asyncio.sleep(self._disk.temper.slowest_commit_s)

    def kill(self) -> None:
        self._is_dead = True
        self._waiting.clear()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(self._chance.random() * 0.002, self._read, work, future)
        return await future

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not self._is_dead:
            if not self._waiting:
                loop.call_later(self._chance.random() * self._disk.temper.slowest_commit_s, self._commit)
            self._waiting.append((work, future))
        return await asyncio.shield(future)

    def _read(self, work: Work, future: asyncio.Future[Any]) -> None:
        if self._is_dead or future.done():
            return
        try:
            future.set_result(work(self._disk.connection))
        except (errors.NodeError, sqlite3.Error) as error:
            future.set_exception(error)

    def _commit(self) -> None:
        if self._is_dead:
            return
        count = self._chance.randint(1, self._disk.temper.most_in_a_batch)
        batch, self._waiting = self._waiting[:count], self._waiting[count:]
        answers = self._disk.commit([work for work, _ in batch])
        loop = asyncio.get_running_loop()
        # The reply travels to the loop's thread: between commit and reply there is room for a kill.
        loop.call_later(self._chance.choice((0, 0, 0.001)), self._deliver, batch, answers)
        if self._waiting:
            loop.call_later(self._chance.random() * self._disk.temper.slowest_commit_s, self._commit)

    def _deliver(self, batch: list[tuple[Work, asyncio.Future[Any]]], answers: list[Any]) -> None:
        if self._is_dead:
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)


class Disk:
    """The committed state of one simulated machine, in memory, with the tables of the real migrations."""

    def __init__(self, image: bytes, path: Path) -> None:
        self.path = path
        self.temper = Temper()
        self.commits = 0
        self.end_at: int | None = None
        """The number of the commit at which the process is killed: before it, or before its answer."""
        self.end_before = False
        self.count: Callable[[], None] = lambda: None
        self.on_end: Callable[[], None] = lambda: None
        self.connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        with contextlib.closing(sqlite3.connect(":memory:")) as made:
            made.deserialize(image)
            made.backup(self.connection)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute("PRAGMA foreign_keys=ON")
        self.connection.execute("PRAGMA synchronous=OFF")

    def commit(self, works: list[Work]) -> list[Any]:
        """Run works as the real database does: together, or one by one when one of them raises."""
        try:
            return self._transact(works)
        except (errors.NodeError, sqlite3.Error) as error:
            if len(works) == 1:
                return [
                    sqlite_errors.translate(error, self.path) if isinstance(error, sqlite3.Error) else error
                ]
            return [answer for work in works for answer in self.commit([work])]

    def _transact(self, works: list[Work]) -> list[Any]:
        self.commits += 1
        self.count()
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            answers = [work(self.connection) for work in works]
            if self.temper.is_full:
                raise errors.UnavailableError(f"{self.path} cannot grow", code="store.disk_full")
        except BaseException:
            self.connection.execute("ROLLBACK")
            raise
        is_end = self.end_at is not None and self.commits >= self.end_at
        if is_end and self.end_before:
            self.connection.execute("ROLLBACK")
        else:
            self.connection.execute("COMMIT")
        if is_end:
            self.end_at = None
            self.on_end()
        return answers

    def close(self) -> None:
        self.connection.close()


def formatted(rooms: Mapping[str, str], path: Path) -> bytes:
    """Let the real database make the tables of these rooms, and return the file it made."""

    async def make() -> None:
        store = database.Database(path)
        await store.open(rooms)
        await store.close()

    asyncio.run(make())
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    connection.close()
    return path.read_bytes()
