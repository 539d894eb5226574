"""Queues for tests: real tables, no thread, a clock that stands still, seeded randomness."""

import asyncio
import hashlib
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from toft.jobs.queue import JobQueue
from toft.jobs.records import Limits, Outcome, Request, State
from toft.kernel import clock as clocks
from toft.store import scripts


@contextmanager
def _blocking() -> Iterator[None]:
    # This store blocks on purpose. Without a running loop nobody minds, and a work that reaches for the loop,
    # as it could not on the thread of a real database, fails.
    loop = asyncio._get_running_loop()
    asyncio._set_running_loop(None)
    try:
        yield
    finally:
        asyncio._set_running_loop(loop)


class InlineStore:
    """Runs each work where it is asked for, in a transaction of its own."""

    def __init__(self, path: Path | None = None, *, rooms: Iterable[str] = ("jobs",)) -> None:
        self.connection = sqlite3.connect(path or ":memory:", isolation_level=None)
        with _blocking():
            self.connection.execute("PRAGMA foreign_keys=ON")
            for room in rooms:
                scripts.migrate(self.connection, room, scripts.read_migrations(f"toft.{room}"))
        self.writes = 0

    async def read(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        with _blocking():
            return work(self.connection)

    async def write(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        self.writes += 1
        with _blocking():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                result = work(self.connection)
            except BaseException:
                self.connection.execute("ROLLBACK")
                raise
            self.connection.execute("COMMIT")
        return result

    def query(self, sql: str, *parameters: Any) -> list[Any]:
        with _blocking():
            return self.connection.execute(sql, parameters).fetchall()


class MemoryBlobs:
    """Blobs in a dictionary."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    async def save(self, data: Any) -> str:
        parts = [data] if isinstance(data, bytes | bytearray | memoryview) else list(data)
        joined = b"".join(bytes(part) for part in parts)
        digest = hashlib.sha256(joined).hexdigest()
        self.kept[digest] = joined
        return digest

    async def load(self, digest: str) -> bytes:
        return self.kept[digest]

    async def discard(self, digests: Iterable[str]) -> list[str]:
        for digest in digests:
            self.kept.pop(digest, None)
        return []

    async def retain(self, digests: frozenset[str]) -> None:
        self.kept = {digest: data for digest, data in self.kept.items() if digest in digests}


def seeded_randomness() -> Callable[[int], bytes]:
    return random.Random(0).randbytes


class SetClock(clocks.ManualClock):
    """A clock whose wall time can be set, as people and time servers do."""

    def jump(self, seconds: float) -> None:
        self._now += seconds


@asynccontextmanager
async def open_queue(
    store: Any = None, clock: clocks.Clock | None = None, limits: Limits | None = None, blobs: Any = None
) -> AsyncIterator[JobQueue]:
    """Open a queue over a store, closed afterwards as a process that ends in order closes it."""
    queue = JobQueue(
        store or InlineStore(),
        blobs or MemoryBlobs(),
        clock=clock or SetClock(),
        randomness=seeded_randomness(),
        limits=limits or Limits(),
    )
    await queue.open()
    try:
        yield queue
    finally:
        await queue.close()


def request(instance: str = "echo", **given: Any) -> Request:
    return Request(**{"plugin": "echo", "instance": instance, "arguments": b"{}", **given})


async def submit(queue: JobQueue, **given: Any) -> str:
    (answer,) = await queue.submit([request(**given)])
    return answer.job_id


def outcome(state: State = State.COMPLETED, **given: Any) -> Outcome:
    return Outcome(state=state, **given)


async def settle() -> None:
    """Let the loop run what is ready."""
    for _ in range(10):
        await asyncio.sleep(0)
