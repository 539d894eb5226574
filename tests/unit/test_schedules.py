"""Schedules over real tables: one job for each due time, whatever stops, is full or is set back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from tests.job_queues import InlineStore, SetClock, open_queue, outcome, request

from toft.dispatch.schedules import Schedule, Schedules
from toft.jobs import schedules as ledger
from toft.jobs.queue import JobQueue
from toft.jobs.records import Limits, Request
from toft.kernel import errors
from toft.kernel.timetable import Timetable

HOUR = 3600.0


class Submitting:
    """The two verbs of a node's jobs that schedules use, over a queue without plugins."""

    def __init__(self, queue: JobQueue, store: InlineStore) -> None:
        self.queue = queue
        self.store = store
        self.refusal: errors.NodeError | None = None

    async def open(self) -> Any:
        return SimpleNamespace(queue=self.queue, means=SimpleNamespace(store=self.store))

    async def checked(self, plugin: str, arguments: Mapping[str, Any] | None = None, **more: Any) -> Request:
        if self.refusal is not None:
            raise self.refusal
        return request(instance=more["instance"])


class World:
    """A store that outlives its processes, and a clock."""

    def __init__(self) -> None:
        self.store = InlineStore()
        self.clock = SetClock()

    @asynccontextmanager
    async def life(self, *schedules: Schedule, limits: Limits | None = None) -> AsyncIterator[Any]:
        async with open_queue(self.store, self.clock, limits=limits) as queue:
            jobs = Submitting(queue, self.store)
            found = Schedules(jobs.open, jobs.checked, schedules, self.clock)
            await found.begin()
            yield SimpleNamespace(schedules=found, queue=queue, jobs=jobs)

    def told(self) -> list[tuple[str, float]]:
        """Which schedule wanted each job, and when."""
        rows = self.store.query(
            "SELECT json_extract(data, '$.by'), json_extract(data, '$.due_at') FROM events"
            " WHERE type = 'submitted' ORDER BY cursor"
        )
        return [(row[0], row[1]) for row in rows]


def hourly(name: str = "tidy", **more: Any) -> Schedule:
    given = {"timetable": Timetable(every_s=HOUR), "overlaps": True, **more}
    return Schedule(name=name, plugin="echo", instance="echo", **given)


async def test_each_due_time_is_one_job_across_lives_and_what_was_missed_is_one() -> None:
    world = World()
    began = world.clock.now()
    async with world.life(hourly()) as life:
        assert await life.schedules.step() == 30.0
        assert world.told() == []
        world.clock.advance(HOUR)
        await life.schedules.step()
        await life.schedules.step()
    async with world.life(hourly()) as life:
        await life.schedules.step()
        assert world.told() == [("the schedule tidy", began + HOUR)]
    world.clock.advance(5.5 * HOUR)
    async with world.life(hourly()) as life:
        assert await life.schedules.step() == 30.0
        assert world.told()[1:] == [("the schedule tidy", began + 6 * HOUR)]
        (shown,) = life.schedules.standing()
        assert (shown["submitted"], shown["missed"], shown["error"]) == (2, 4, None)


async def test_a_stop_between_the_look_and_the_answer_makes_neither_two_jobs_nor_none() -> None:
    world = World()
    write = world.store.write
    async with world.life(hourly()) as life:
        world.clock.advance(HOUR)

        async def stops(work: Any) -> Any:
            await write(work)  # on disk, and nobody hears of it
            raise errors.UnavailableError("the process is gone", code="store.closed")

        world.store.write = stops  # type: ignore[method-assign]
        await life.schedules.step()
        (shown,) = life.schedules.standing()
        assert shown["error"]["code"] == "store.closed"
        world.store.write = write  # type: ignore[method-assign]
        world.clock.advance(10.0)
    async with world.life(hourly()) as life:
        await life.schedules.step()
    assert len(world.told()) == 1

    async with world.life(hourly()) as life:
        world.clock.advance(HOUR)

        async def fails(work: Any) -> Any:
            raise errors.UnavailableError("the disk is full", code="store.disk_full")

        world.store.write = fails  # type: ignore[method-assign]
        await life.schedules.step()
        world.store.write = write  # type: ignore[method-assign]
        world.clock.advance(10.0)
        await life.schedules.step()
    assert len(world.told()) == 2


async def test_a_due_time_passes_over_a_job_that_has_not_ended_and_says_so_in_its_story() -> None:
    world = World()
    async with world.life(hourly(overlaps=False)) as life:
        for _ in range(3):
            world.clock.advance(HOUR)
            await life.schedules.step()
        (shown,) = life.schedules.standing()
        assert (shown["submitted"], shown["skipped"]) == (1, 2)
        passed = [each for each in await life.queue.events() if each.type == "passed_over"]
        assert {each.job for each in passed} == {shown["last_job"]}
        (claim,) = await life.queue.claim("echo")
        await life.queue.finish(claim.id, claim.attempt, outcome())
        world.clock.advance(HOUR)
        await life.schedules.step()
        assert life.schedules.standing()[0]["submitted"] == 2


async def test_another_timetable_begins_anew_and_a_schedule_that_went_is_forgotten() -> None:
    world = World()
    async with world.life(hourly(), hourly("gone")) as life:
        world.clock.advance(10 * HOUR)
    other = hourly(timetable=Timetable(cron="0 * * * *"))
    async with world.life(other) as life:
        await life.schedules.step()
        assert world.told() == []
    world.clock.advance(10 * HOUR)
    async with world.life(hourly("gone")) as life:
        await life.schedules.step()
        assert world.told() == [], "what it was before nobody knows any more"


@pytest.mark.parametrize("back_s", [30.0, 400 * 86_400.0])
async def test_a_clock_that_is_set_back_repeats_nothing_and_stops_nothing(back_s: float) -> None:
    world = World()
    async with world.life(hourly()) as life:
        world.clock.advance(HOUR)
        await life.schedules.step()
        world.clock.jump(-back_s)
        await life.schedules.step()
        assert len(world.told()) == 1
        world.clock.advance(HOUR + 31.0)
        await life.schedules.step()
        assert len(world.told()) == 2


async def test_what_cannot_be_submitted_is_told_tried_again_and_then_one_job() -> None:
    world = World()
    async with world.life(hourly(), hourly("other")) as life:
        life.jobs.refusal = errors.NotFoundError("no plugin is called echo", code="plugin.not_found")
        world.clock.advance(HOUR)
        assert await life.schedules.step() <= 5.0
        assert 1.0 < await life.schedules.step() <= 5.0, "it does not run in circles meanwhile"
        assert {each["error"]["code"] for each in life.schedules.standing()} == {"plugin.not_found"}
        world.clock.advance(2 * HOUR)
        await life.schedules.step()
        life.jobs.refusal = None
        world.clock.advance(10.0)
        await life.schedules.step()
        assert len(world.told()) == 2
        assert {(each["error"], each["missed"]) for each in life.schedules.standing()} == {(None, 2)}
    async with world.life(hourly(), limits=Limits(pending=2)) as life:
        world.clock.advance(HOUR)
        await life.schedules.step()
        assert life.schedules.standing()[0]["error"]["code"] == "job.queue_full"


async def test_two_that_hold_the_same_due_time_make_one_job() -> None:
    world = World()
    async with world.life(hourly()) as life:
        due = world.clock.now() + HOUR
        done = [
            await ledger.turn(life.queue, "tidy", request(), due_at=due, missed=0, overlaps=True)
            for _ in range(2)
        ]
        assert [each.what for each in done] == ["submitted", "over"]
        assert done[0].job == done[1].job
