"""Samples are taken while something runs, kept within bounds, and told as columns of a plot."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from tests.job_queues import InlineStore, SetClock, settle
from tests.waiting import eventually_async

from toft.daemon import telemetry
from toft.dispatch import samples
from toft.jobs import ledger
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.kernel.clock import ManualClock
from toft.managed import telemetry as sending
from toft.managed.telemetry import Mark

_DAY_S = 86_400.0


def store_of(kind: type[InlineStore] = InlineStore) -> InlineStore:
    return kind(rooms=("dispatch",))


def sample(used: int = 4, pending: int = 0, gpus: int = 1) -> samples.Sample:
    total = {"memory": 10, **{ledger.gpu(index): 100 for index in range(gpus)}}
    free = {"memory": 10 - used, **{ledger.gpu(index): 60 for index in range(gpus)}}
    reading = ledger.Reading(total=total, free=free)
    return samples.Sample(
        reading=reading, cpu_percent=12.5, lanes_busy=1, lanes=2, pending=pending, running=1
    )


async def test_samples_come_back_as_columns_with_means_of_their_steps() -> None:
    clock = ManualClock(1_700_000_000.0)
    kept = samples.Samples(store_of(), clock)
    for number in range(8):
        await kept.put(sample(used=number, pending=number * 10, gpus=int(number > 3)))
        clock.advance(5)
    told = await kept.read(since=1_700_000_000.0, step_s=20)
    assert told["at"] == [1_700_000_007.5, 1_700_000_027.5]
    assert told["series"]["memory_used_bytes"] == [1.5, 5.5]
    assert told["series"]["queue_pending"] == [15.0, 55.0]
    assert told["series"]["lanes"] == [2, 2]
    assert told["series"]["gpu0_used_bytes"] == [None, 40]
    assert all(len(column) == 2 for column in told["series"].values())
    assert told["from"] == "2023-11-14T22:13:20.000Z"
    every = await kept.read(since=1_700_000_000.0, step_s=1)
    assert len(every["at"]) == 8
    assert (await kept.read(since=1_800_000_000.0, until=1_800_000_100.0))["at"] == []


async def test_a_day_is_kept_as_it_was_taken_a_month_thinned_and_no_more() -> None:
    clock = ManualClock(1_700_000_000.0)
    store = store_of()
    kept = samples.Samples(store, clock, samples.Keeping(tidy_every=1, every_s=20.0))
    for days in (31.0, 2.0, 0.5):
        for _ in range(9):
            await kept.put(sample())
            clock.advance(20)
        clock.advance(days * _DAY_S - 180)
    await kept.put(sample())
    ages = [
        round((clock.now() * 1000 - row[0]) / 1000 / _DAY_S, 1)
        for row in store.query("SELECT at_ms FROM samples ORDER BY at_ms")
    ]
    assert ages.count(0.5) == 9
    assert 3 <= ages.count(2.5) <= 4
    assert max(ages) == 2.5


async def test_an_answer_has_an_end() -> None:
    kept = samples.Samples(store_of(), ManualClock())
    with pytest.raises(errors.UsageError) as caught:
        await kept.read(since=0.0, until=1e6, step_s=1)
    assert caught.value.code == "sample.too_many"
    assert len((await kept.read(since=0.0, until=1e9))["at"]) == 0


async def test_a_clock_that_jumps_empties_no_plot() -> None:
    clock, year = SetClock(), 365 * _DAY_S
    kept = samples.Samples(store_of(), clock, samples.Keeping(tidy_every=1))
    began = clock.now()
    for jump_s in (0.0, year, 1 - year):
        clock.jump(jump_s)
        await kept.put(sample())
    assert (await kept.read(began - 5, began + 5, 1.0))["at"] == [began, began + 1]


async def test_samples_are_taken_while_something_runs_and_once_after() -> None:
    store = store_of()
    kept = samples.Samples(store, ManualClock(), samples.Keeping(every_s=0.0))
    busy = 0
    looked: list[int] = []

    async def look() -> samples.Sample:
        nonlocal busy
        busy = max(0, busy - 1)
        looked.append(busy)
        return sample()

    sampler = samples.Sampler(kept, look, lambda: busy > 0)
    sampler.start()
    try:
        sampler.stir()
        await settle()
        assert looked == []
        busy = 3
        sampler.stir()
        await eventually_async(lambda: len(looked) == 3)
        await settle()
        assert looked == [2, 1, 0]
    finally:
        await sampler.close()


async def test_a_sample_that_cannot_be_stored_is_a_gap_and_no_end() -> None:
    class Full(InlineStore):
        async def write(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
            raise errors.UnavailableError("full", code="store.disk_full")

    looked = 0

    async def look() -> samples.Sample:
        nonlocal looked
        looked += 1
        return sample()

    kept = samples.Samples(store_of(Full), ManualClock(), samples.Keeping(every_s=0.0))
    sampler = samples.Sampler(kept, look, lambda: looked < 3)
    sampler.start()
    sampler.stir()
    await eventually_async(lambda: looked == 3)
    await sampler.close()
    assert looked == 3


def test_what_was_measured_of_a_job_is_columns_too() -> None:
    told = samples.of_job(
        [
            (1.0, {"cpu_percent": None, "memory_bytes": 5, "gpu_memory_bytes": {}}),
            (2.0, {"cpu_percent": 50.0, "memory_bytes": 6, "gpu_memory_bytes": {"gpu1": 7}}),
        ]
    )
    assert told["at"] == [1.0, 2.0]
    assert told["series"] == {"cpu_percent": [None, 50.0], "memory_bytes": [5, 6], "gpu1_bytes": [None, 7]}
    assert samples.of_job([])["series"] == {"cpu_percent": [], "memory_bytes": []}


class Kept:
    """As much of what runs jobs as samples need."""

    def __init__(self, clock: SetClock) -> None:
        self.samples = samples.Samples(store_of(), clock)
        self.sampler = self
        self.taken = 0

    async def take(self) -> None:
        self.taken += 1
        await self.samples.put(sample(used=self.taken))

    def rows(self, clock: SetClock) -> telemetry.SampleRows:
        async def opened() -> Any:
            return self

        return telemetry.SampleRows(opened, clock)


async def test_samples_go_on_as_rows_from_where_they_were_the_same_again_when_asked_again() -> None:
    clock = SetClock()
    kept = Kept(clock)
    await kept.take()  # of before this process
    clock.jump(1)
    rows = kept.rows(clock)
    begins = await rows.begin()
    clock.jump(1)
    await kept.samples.put(sample(used=9))
    clock.jump(1)
    batch = await rows.read(begins)
    assert batch is not None
    assert [each["memory_used_bytes"] for each in batch.rows] == [9]
    assert batch.is_last
    assert batch.rows[0]["at"] == clocks.rfc3339(clock.now() - 1)
    assert batch.rows[0]["gpu0_used_bytes"] == 40
    assert "at_ms" not in batch.rows[0]
    clock.jump(1)
    again = await rows.read(batch.mark)
    assert again is not None
    assert (again.rows, again.mark, kept.taken) == (batch.rows, batch.mark, 1)
    following = await rows.read(Mark(partition=batch.mark.partition, at=batch.mark.until))
    assert following is not None
    assert [each["memory_used_bytes"] for each in following.rows] == [2], "one is taken where nothing runs"
    clock.jump(-3600)
    back = await rows.read(Mark(partition=batch.mark.partition, at=following.mark.until))
    assert back is not None
    assert [each["at"] for each in back.rows] == [clocks.rfc3339(clock.now())], (
        "a clock set back stops nothing"
    )


async def test_rows_of_samples_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "CHUNK_ROWS", 3)
    clock = SetClock()
    kept = Kept(clock)
    rows = kept.rows(clock)
    mark = await rows.begin()
    for _ in range(4):
        clock.jump(1)
        await kept.take()
    clock.jump(1)
    counts = []
    while (batch := await rows.read(mark)) is not None:
        counts.append(len(batch.rows))
        mark = Mark(partition=batch.mark.partition, at=batch.mark.until)
        if batch.is_last:
            break
        clock.jump(1)
    assert counts == [3, 1]
