"""What meets in the queue, or just misses: the simulation found these."""

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benches import FragileStore
from tests.job_queues import InlineStore, SetClock, open_queue, outcome, submit
from tests.waiting import eventually_async

from toft.jobs.records import State
from toft.store import blobs, durable


class SlowAnswers(InlineStore):
    """Commits at once and tells of it two turns of the loop later, as a thread does."""

    async def write(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        result = await super().write(work)
        for _ in range(2):
            await asyncio.sleep(0)
        return result


async def test_two_answers_of_one_attempt_in_neighbouring_commits_are_one() -> None:
    store = SlowAnswers()
    async with open_queue(store) as queue:
        job_id = await submit(queue)
        await queue.claim("echo")
        first, before = queue.finish(job_id, 1, outcome(result=b"1")), store.writes
        for _ in range(9):
            if store.writes == before:
                await asyncio.sleep(0)
        assert not first.done(), "it is committed, and nobody has been told"
        second = queue.finish(job_id, 1, outcome(State.FAILED))
        queue.note(job_id, 1, "progress", {"progress": 0.9})
        assert (await first, await second) == (True, False)
        assert [each.type for each in await queue.events(job=job_id)] == [
            "submitted",
            "state",
            "state",
            "fenced",
        ]


async def test_a_cancel_outlives_the_attempt_it_was_meant_for() -> None:
    async with open_queue() as queue:
        job_id = await submit(queue, idempotent=True)
        await queue.claim("echo")
        await queue.request_cancel(job_id)
        assert await queue.finish(job_id, 1, outcome(State.PENDING, because="worker_lost"))
        assert (await queue.get(job_id)).state is State.CANCELLED
        assert queue.heads() == {}


async def test_a_job_that_was_being_cancelled_is_not_resumed_after_a_restart() -> None:
    store = InlineStore()
    async with open_queue(store) as queue:
        job_id = await submit(queue, idempotent=True)
        await queue.claim("echo")
        await queue.request_cancel(job_id)
    async with open_queue(store) as queue:
        assert (await queue.get(job_id)).state is State.CANCELLED


async def test_delays_are_over_although_the_disk_was_full_when_they_were() -> None:
    clock, store = SetClock(), FragileStore()
    async with open_queue(store, clock=clock) as queue:
        await submit(queue, delay_s=0.02)
        clock.advance(1)
        store.is_full = True
        await asyncio.sleep(0.05)
        store.is_full = False
        await eventually_async(lambda: queue.heads(), 3)


class Counting(durable.SystemOperations):
    def __init__(self) -> None:
        self.synced: list[str] = []

    def sync_directory(self, path: str) -> None:
        self.synced.append(path)


def test_a_blob_that_is_there_is_made_to_survive_before_it_is_promised(tmp_path: Path) -> None:
    operations = Counting()
    kept = blobs.Blobs(tmp_path, operations=operations)
    digest = kept.put(b"x" * 100)
    operations.synced.clear()
    assert kept.put(b"x" * 100) == digest
    assert str(kept.path(digest).parent) in operations.synced
