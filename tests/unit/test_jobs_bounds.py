"""Nobody who asks the queue waits for ever, and nothing it remembers outlives what it is about."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.benches import FragileStore
from tests.job_queues import InlineStore, SetClock, open_queue, outcome, request, settle, submit

from toft.jobs import peaks
from toft.jobs.feed import Feed
from toft.jobs.records import Event
from toft.kernel import errors


class BrokenStore(InlineStore):
    """A database whose reads and writes make a mistake when they are told to."""

    is_broken = False

    async def read(self, work: Callable[..., Any]) -> Any:
        await asyncio.sleep(0)
        if self.is_broken:
            raise ZeroDivisionError("a mistake")
        return await super().read(work)

    async def write(self, work: Callable[..., Any]) -> Any:
        await asyncio.sleep(0)
        if self.is_broken:
            self.is_broken = False
            raise ZeroDivisionError("a mistake")
        return await super().write(work)


def event(cursor: int) -> Event:
    return Event(cursor, 0.0, "state", "job_1", 1, None, {})


async def nothing(after: int = 0, **_: Any) -> list[Event]:
    return []


async def test_a_mistake_while_jobs_are_looked_for_is_told_to_everybody_who_asked() -> None:
    store = BrokenStore()
    async with open_queue(store) as queue:
        job_id = await submit(queue)
        store.is_broken = True
        asked = [asyncio.ensure_future(queue.find(job_id)) for _ in range(3)]
        done, waiting = await asyncio.wait(asked, timeout=1)
        assert not waiting
        assert {type(each.exception()) for each in done} == {ZeroDivisionError}
        store.is_broken = False
        assert (await queue.get(job_id)).id == job_id


async def test_a_mistake_while_the_queue_closes_leaves_nobody_without_an_answer() -> None:
    store = BrokenStore()
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    async with open_queue(store) as queue:
        store.is_broken = True
        first = queue.submit([request()])
        await asyncio.sleep(0)
        second = queue.submit([request()])
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(first, 1)
    assert len(await asyncio.wait_for(second, 1)) == 1
    asyncio.get_running_loop().set_exception_handler(None)
    assert unheard


async def test_a_report_between_an_end_and_its_commit_leaves_nothing_behind() -> None:
    async with open_queue() as queue:
        for number in range(20):
            job_id = await submit(queue)
            await queue.claim("echo")
            finishing = queue.finish(job_id, 1, outcome())
            for _ in range(9):
                queue.note(job_id, 1, "progress", {"progress": 0.5, "message": str(number)})
            assert await finishing
        await settle()
        assert queue._notes is not None
        assert queue._notes._jobs == {}


async def test_readers_that_leave_a_quiet_line_are_forgotten() -> None:
    feed = Feed(nothing)
    stays = asyncio.ensure_future(anext(feed.watch(job="job_1", sequence=None, after=None, capacity=9)))
    for _ in range(50):
        leaves = asyncio.ensure_future(anext(feed.watch(job="job_1", sequence=None, after=None, capacity=9)))
        await settle()
        leaves.cancel()
        await asyncio.wait([leaves])
    (line,) = feed._lines.values()
    assert len(line.sleeping) == 1
    feed.publish([event(1)])
    assert (await stays).cursor == 1


@pytest.mark.parametrize("has_seen", [True, False])
async def test_whoever_comes_back_with_the_cursor_of_a_loss_reads_what_is_held(has_seen: bool) -> None:
    feed = Feed(nothing)
    reader = feed.watch(job=None, sequence=None, after=None, capacity=3)
    first = asyncio.ensure_future(anext(reader))
    await settle()
    feed.publish([event(5)])
    if has_seen:
        await first
    feed.publish([event(cursor) for cursor in range(6, 16)])
    lost = await anext(reader) if has_seen else await first
    assert (lost.type, lost.data["count"]) == ("lost", 7 if has_seen else 8)
    assert lost.cursor == (5 if has_seen else 12)
    assert [(await anext(reader)).cursor for _ in range(3)] == [13, 14, 15]


async def test_what_was_measured_while_the_disk_was_full_is_written_later() -> None:
    store = FragileStore()
    measured = peaks.Peaks(store, SetClock())  # type: ignore[arg-type]
    measured.count("ocr", "hash", 1.0, succeeded=True, usage={})
    measured.count("gone", "hash", 1.0, succeeded=True, usage={})
    store.is_full = True
    with pytest.raises(errors.UnavailableError):
        await measured.flush()
    store.is_full = False
    await measured.remove("gone")
    await measured.flush()
    assert [row[0] for row in store.query("SELECT instance FROM peaks")] == ["ocr"]


async def test_who_listens_to_the_last_commit_may_look_at_the_queue() -> None:
    counted: list[int] = []
    refused: list[errors.NodeError] = []
    async with open_queue(BrokenStore()) as queue:

        def listen(_: Any) -> None:
            counted.append(queue.counts()["pending"])
            try:
                queue.submit([request()])
            except errors.NodeError as error:
                refused.append(error)

        queue.listeners.append(listen)
        submitting = queue.submit([request()])
    assert len(await asyncio.wait_for(submitting, 1)) == 1
    assert counted == [1]
    assert len(refused) == 1


async def test_of_an_instance_configured_anew_for_ever_the_latest_measurements_are_kept() -> None:
    store, clock = FragileStore(), SetClock()
    measured = peaks.Peaks(store, clock)  # type: ignore[arg-type]
    for number in range(peaks.MOST_CONFIGURATIONS + 10):
        clock.jump(1)
        measured.count("ocr", f"{number:03}", 1.0, succeeded=True, usage={})
        await measured.flush()
    kept = [f"{number:03}" for number in range(10, peaks.MOST_CONFIGURATIONS + 10)]
    assert [row[1] for row in measured.rows()] == kept
    assert [row[0] for row in store.query("SELECT config_hash FROM peaks ORDER BY config_hash")] == kept
