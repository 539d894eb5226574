"""The real queue, database and blobs, and a power cut at any moment: what was promised is there."""

import asyncio
import random
import sqlite3
from pathlib import Path

import pytest
from tests.simulation import disk, oracle, recording_vfs
from tests.simulation.test_disk import cuts

from toft.jobs import queue, records
from toft.kernel import errors
from toft.store import blobs, database

ROOMS = {"jobs": "toft.jobs"}
INSTANCES = ("a", "b", "c")
LARGE = records.INLINE_BYTES * 2


class Workload:
    """Users and a dispatcher in one: they submit, run, cancel and note each promise when it is made."""

    def __init__(self, home: Path, recorded: disk.Recording, seed: int) -> None:
        self._recorded = recorded
        self._chance = random.Random(seed)
        self._store = database.Database(home / "node.db")
        kept = blobs.Blobs(home / "blobs", operations=disk.RecordedOperations(recorded))
        self._queue = queue.JobQueue(self._store, kept, randomness=self._chance.randbytes)

    async def run(self, rounds: int) -> None:
        await self._store.open(ROOMS)
        await self._queue.open()
        for _ in range(rounds):
            wishes = [self._submit(), *(self._work(instance) for instance in INSTANCES)]
            await asyncio.gather(*wishes)
        await self._queue.close()
        await self._store.close()

    async def _submit(self) -> None:
        chance = self._chance
        requests = [
            records.Request(
                plugin="p",
                instance=chance.choice(INSTANCES),
                arguments=chance.randbytes(LARGE if chance.random() < 0.2 else 200),
                idempotent=chance.random() < 0.5,
                priority=chance.randint(0, 3),
            )
            for _ in range(chance.randint(1, 4))
        ]
        for submitted in await self._queue.submit(requests):
            self._recorded.note((submitted.job_id, "submitted", 0))
            if chance.random() < 0.1:
                job = await self._queue.request_cancel(submitted.job_id)
                if job.state == "cancelled":
                    self._recorded.note((submitted.job_id, "cancelled", job.attempt))

    async def _work(self, instance: str) -> None:
        for claimed in await self._queue.claim(instance, 2):
            self._recorded.note((claimed.id, "running", claimed.attempt))
            luck = self._chance.random()
            if luck < 0.1:
                continue  # its worker never answers
            self._queue.note(claimed.id, claimed.attempt, "progress", {"progress": 0.5, "message": "half"})
            outcome = records.Outcome(state=records.State.COMPLETED, result=self._result())
            if luck < 0.2:
                outcome = records.Outcome(state=records.State.PENDING, because="transient", retry_in_s=0.0)
            assert await self._queue.finish(claimed.id, claimed.attempt, outcome)
            self._recorded.note((claimed.id, str(outcome.state), claimed.attempt))

    def _result(self) -> bytes:
        # Some results are equal: they share a blob.
        return bytes([self._chance.randint(0, 5)]) * LARGE if self._chance.random() < 0.3 else b'"small"'


def record(home: Path, recorded: disk.Recording, *, rounds: int, seed: int = 1) -> None:
    async def work() -> None:
        await Workload(home, recorded, seed).run(rounds)

    with recording_vfs.recording(recorded):
        asyncio.run(work())


class LostError(AssertionError):
    """Something that was promised is not there."""


async def recover(left: Path, promises: list[tuple[str, str, int]]) -> None:
    """Start a node on what is left, and hold it to every promise."""
    store = database.Database(left / "node.db")
    kept = blobs.Blobs(left / "blobs")
    await store.open(ROOMS)
    jobs = queue.JobQueue(store, kept, randomness=random.Random(0).randbytes)
    await jobs.open()
    try:
        await check(store, jobs, kept, promises)
    finally:
        await jobs.close()
        await store.close()


async def check(
    store: database.Database, jobs: queue.JobQueue, kept: blobs.Blobs, promises: list[tuple[str, str, int]]
) -> None:
    if await store.read(lambda c: c.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
        raise LostError("the database is damaged")
    reader = oracle.Oracle(oracle.Terms(lanes=10_000, caps={}), oracle.Outside())
    while events := await jobs.events(reader.cursor, limit=1000):
        reader.read(events)
    rows = await jobs.list(limit=1000)
    reader.check_rows(rows)
    there = {row.id: row for row in rows}
    for job, state, attempt in promises:
        row = there.get(job)
        if row is None:
            raise LostError(f"{job} was {state}, and nobody knows it")
        if row.state == "running":
            raise LostError(f"{job} runs, and nobody runs it")
        if row.attempt < attempt:
            raise LostError(f"{job} had attempt {attempt}, and is at {row.attempt}")
        if state in ("completed", "cancelled") and row.state != state:
            raise LostError(f"{job} was {state}, and is {row.state}")
    for row in rows:
        if row.result is not None and row.result.blob is not None:
            await kept.load(row.result.blob)


def lost_of(
    recorded: disk.Recording, home: Path, tmp_path: Path, *, count: int, seed: int
) -> tuple[int, list[str]]:
    """Return how many cuts were made, and what was wrong after which."""
    wrong, made = [], 0
    for left, promises in cuts(recorded, home, tmp_path, count=count, seed=seed):
        made += 1
        try:
            asyncio.run(recover(left, promises))
        except (AssertionError, errors.NodeError, sqlite3.Error) as error:
            wrong.append(f"{left.name}: {error!r}")
    return made, wrong


@pytest.fixture
def disk_home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


def test_every_promise_survives_a_cut_at_any_moment(disk_home: Path, tmp_path: Path) -> None:
    recorded = disk.Recording()
    record(disk_home, recorded, rounds=40)
    made, wrong = lost_of(recorded, disk_home, tmp_path, count=25, seed=3)
    assert wrong == []
    assert made > 20


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_every_promise_survives_many_cuts(disk_home: Path, tmp_path: Path, seed: int) -> None:
    recorded = disk.Recording()
    record(disk_home, recorded, rounds=150, seed=seed)
    made, wrong = lost_of(recorded, disk_home, tmp_path, count=400, seed=seed)
    assert wrong == []
    assert made > 300


def test_a_disk_that_does_not_sync_loses_promises(disk_home: Path, tmp_path: Path) -> None:
    recorded = disk.Recording(syncs=False)
    record(disk_home, recorded, rounds=10)
    _, wrong = lost_of(recorded, disk_home, tmp_path, count=25, seed=3)
    assert any("nobody knows it" in each or "there is no blob" in each for each in wrong)
