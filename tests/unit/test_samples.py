"""Samples are taken while something runs, kept within bounds, and told as columns of a plot."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import Any

import pytest
from tests.job_queues import InlineStore, SetClock, settle
from tests.waiting import eventually_async

from toft.dispatch import samples
from toft.jobs import ledger
from toft.kernel import errors
from toft.kernel.clock import ManualClock

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
