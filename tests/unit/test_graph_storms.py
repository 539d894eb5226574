"""Graphs in bad weather: steps fail, are cancelled and retried at random, and the node ends in between.

Whatever happens, counts and state of a sequence are what its jobs say, nothing runs too early or twice,
and once the weather is fair everything comes to an end.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from tests.job_queues import InlineStore, MemoryBlobs, SetClock

from toft.dispatch.graphs import Graphs
from toft.jobs.queue import JobQueue
from toft.jobs.records import Claimed, Outcome, State
from toft.jobs.replay import replay
from toft.jobs.sequences import COUNTS, Reading
from toft.kernel import errors
from toft.plugins import values
from toft.plugins.manifests.arguments import Binder
from toft.plugins.packed import Packed

OPEN = ("pending", "running", "interrupted")


class Anything:
    """Accepts every plugin and every argument."""

    async def binder(self, plugin: str, instance: str, action: str | None) -> Binder:
        return Binder(None)

    async def output(self, plugin: str, instance: str, action: str | None) -> None:
        return None


class Weather:
    """A node whose life is short, and what it must keep in mind over all its lives."""

    def __init__(self, seed: int) -> None:
        self.rolls = random.Random(seed)
        self.store = InlineStore()
        self.blobs = MemoryBlobs()
        self.clock = SetClock()
        self.randomness = random.Random(seed).randbytes
        self.reading = Reading(self.store)
        self.needs: dict[str, Mapping[str, str]] = {}
        self.running: list[Claimed] = []
        self.completed: Counter[str] = Counter()
        self.ended: set[str] = set()
        self.fair = False

    async def start(self) -> None:
        self.queue = JobQueue(self.store, self.blobs, clock=self.clock, randomness=self.randomness)
        self.graphs = Graphs(self.queue, self.reading, Anything(), open_blob=self.open_blob)
        await self.queue.open()
        await self.graphs.open()

    async def restart(self) -> None:
        await self.graphs.close()
        await self.queue.close()
        self.running.clear()
        await self.start()

    async def open_blob(self, digest: str) -> Packed:
        return Packed.read(await self.blobs.load(digest))

    async def submit(self) -> str:
        rolls = self.rolls
        steps: list[dict[str, Any]] = []
        for number in range(rolls.randrange(1, 8)):
            before = [f"s{other}" for other in range(number)]
            step: dict[str, Any] = {"id": f"s{number}", "plugin": "echo", "arguments": {}}
            step["after"] = rolls.sample(before, rolls.randrange(min(2, number) + 1))
            if before and rolls.random() < 0.5:
                step["arguments"]["x"] = {"$from": rolls.choice(before)}
            if rolls.random() < 0.3:
                step["for_each"] = list(range(rolls.randrange(4)))
                step["arguments"]["n"] = {"$item": []}
            step["idempotent"] = rolls.random() < 0.5
            steps.append(step)
        mode = rolls.choice(["fail_fast", "best_effort"])
        stored = await self.graphs.submit({"steps": steps, "mode": mode})
        self.needs = {step["id"]: step["needs"] for step in stored.steps}
        return stored.id

    async def claim(self) -> None:
        for instance in list(self.queue.heads()):
            for claimed in await self.queue.claim(instance, self.rolls.randrange(1, 4)):
                await self.check_turn(claimed)
                self.running.append(claimed)

    async def check_turn(self, claimed: Claimed) -> None:
        """Nothing runs before what it needs, and nothing that completed runs again."""
        assert claimed.sequence is not None
        assert claimed.step is not None
        assert self.completed[claimed.step] == 0, f"{claimed.step} runs again"
        newest = {each["step"]: each["state"] for each in await self.reading.members(claimed.sequence)}
        for other, need in self.needs[claimed.step.partition("[")[0]].items():
            if need == "completed":
                assert newest[other] == "completed", (
                    f"{claimed.step} runs although {other} is {newest[other]}"
                )
            else:
                assert other in self.ended, f"{claimed.step} runs although {other} never ended"
        assert isinstance(await self.graphs.resolve(claimed), Mapping)

    async def finish(self) -> None:
        claimed = self.running.pop(self.rolls.randrange(len(self.running)))
        failing = not self.fair and self.rolls.random() < 0.25
        if failing:
            outcome = Outcome(state=State.FAILED, error={"code": "plugin.failed", "message": "bad weather"})
        else:
            outcome = Outcome(state=State.COMPLETED, result=values.pack({"step": claimed.step}))
            self.completed[str(claimed.step)] += 1
        assert await self.queue.finish(claimed.id, claimed.attempt, outcome)

    async def retry(self, sequence_id: str) -> None:
        members = await self.reading.members(sequence_id)
        wanted = [each for each in members if each["state"] in ("failed", "interrupted")]
        if wanted:
            await self.queue.retry(self.rolls.choice(wanted)["id"])

    async def cancel(self, sequence_id: str) -> None:
        members = await self.reading.members(sequence_id)
        waiting = [each for each in members if each["state"] == "pending"]
        if waiting and self.rolls.random() < 0.5:
            await self.queue.request_cancel(self.rolls.choice(waiting)["id"])
        elif self.rolls.random() < 0.3:
            await self.graphs.cancel(sequence_id)

    async def check(self, sequence_id: str) -> None:
        """The record of the sequence says what its jobs say."""
        for _ in range(20):
            await asyncio.sleep(0)
        found = await self.graphs.get(sequence_id)
        counts: Counter[str] = Counter()
        for each in await self.reading.members(sequence_id):
            if each["state"] in ("completed", "failed", "cancelled"):
                self.ended.add(each["step"])
            counts["skipped" if each["code"] == "job.skipped" else each["state"]] += 1
        assert dict(found.counts) == {name: counts[name] for name in COUNTS}
        if not any(counts[name] for name in OPEN):
            assert found.is_finished, found.to_dict()
            if counts["cancelled"]:
                assert found.state is State.CANCELLED
            elif counts["failed"] and found.mode == "fail_fast":
                assert found.state is State.FAILED
            else:
                assert found.state is State.COMPLETED
        elif counts["running"]:
            assert found.state is State.RUNNING
        events = await self.queue.events(sequence=sequence_id, limit=1000)
        told = [event.data["state"] for event in events if event.type == "sequence"]
        assert told[-1] == found.state

    async def check_events(self, sequence_id: str) -> None:
        """The events of each job, replayed, give its row."""
        for job in await self.queue.list(sequence=sequence_id, limit=1000):
            told = replay(await self.queue.events(job=job.id, limit=1000))
            kept = None if job.result is None else dataclasses.replace(job.result, data=None)
            assert told == dataclasses.replace(job, seq=0, result=kept)

    async def live(self) -> None:
        await self.start()
        sequence_id = await self.submit()
        for _ in range(self.rolls.randrange(60)):
            await self.happen(sequence_id)
            await self.check(sequence_id)
        self.fair = True
        await self.check_events(sequence_id)
        await self.come_to_an_end(sequence_id)
        await self.check_events(sequence_id)
        await self.graphs.close()
        await self.queue.close()

    async def happen(self, sequence_id: str) -> None:
        roll = self.rolls.random()
        if roll < 0.4:
            await self.claim()
        elif roll < 0.75 and self.running:
            await self.finish()
        elif roll < 0.9:
            await self.retry(sequence_id)
        elif roll < 0.93:
            await self.cancel(sequence_id)
        elif roll < 0.97:
            await self.restart()
        else:
            self.clock.advance(1.0)

    async def come_to_an_end(self, sequence_id: str) -> None:
        for _ in range(300):
            await self.claim()
            while self.running:
                await self.finish()
            await self.check(sequence_id)
            found = await self.graphs.get(sequence_id)
            if found.is_finished:
                return
            if found.state is State.INTERRUPTED:
                await self.graphs.retry(sequence_id)
        raise AssertionError(f"it does not end: {found.to_dict()}")


@pytest.mark.parametrize("first", range(0, 60, 20))
async def test_a_sequence_is_what_its_jobs_say(first: int) -> None:
    for seed in range(first, first + 20):
        try:
            await Weather(seed).live()
        except (AssertionError, errors.NodeError) as error:
            raise AssertionError(f"seed {seed}: {error}") from error
