"""One simulated machine: its disk and clock outlive every node that is killed on it, and a seed decides all.

A step is one thing that the driver, a worker or the database does. The real queue, dispatcher and admission
run in between.
"""

import asyncio
import dataclasses
import hashlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.simulation import oracle, sim_backend, sim_database, virtual_loop

from toft.dispatch import dispatcher, graphs
from toft.jobs import admission, peaks, queue, records, sequences
from toft.jobs.transaction import QUERIES
from toft.store import blobs

PAGE = 1000
MB = sim_backend.MB


@dataclass(frozen=True)
class Plan:
    """What a seed is to be tried with.

    Attributes:
        seed: Decides everything else.
        steps: How many, before the world calms down and everything has to end.
        lives: Whether nodes are killed and restarted on the way.
        wall_jumps: Whether the wall clock is set.
        make_queue: The queue to be tried; tests of the oracle pass broken ones.
    """

    seed: int
    steps: int = 2000
    lives: bool = True
    wall_jumps: bool = False
    make_queue: Callable[..., queue.JobQueue] = queue.JobQueue
    make_dispatcher: Callable[..., dispatcher.Dispatcher] = dispatcher.Dispatcher


@dataclass
class Report:
    """What came of it.

    Attributes:
        steps: Things that happened.
        log: Digest of the event log; two runs of one seed have the same.
        kinds: How often each type of event was seen.
    """

    steps: int
    log: str
    lives: int
    jobs: int
    kinds: Mapping[str, int]


class World:
    """Everything that is simulated, and what is known from outside about it."""

    def __init__(self, plan: Plan, image: bytes, directory: Path) -> None:
        self.plan = plan
        self.chance = random.Random(plan.seed)
        self.clock = virtual_loop.Clock()
        self.disk = sim_database.Disk(image, directory / "node.db")
        self.disk.count = self.count
        self.blobs = blobs.Blobs(directory / "blobs")
        self.weather = sim_backend.Weather()
        self.steps = 0
        self.life = 0
        self.outside = oracle.Outside()
        self.complaints: list[str] = []
        self.machine = sim_backend.Machine(
            models=dict(self._models()),
            lanes=self.chance.choice((1, 2, 4, 8)),
            alone_s=self.chance.choice((1.0, 1e6)),
            total_bytes=self.chance.choice((600, 1000, 4000)) * MB,
            count=self.count,
            complain=self.complaints.append,
            executed=self.outside.executed,
        )
        # The log counts a job as running as soon as it is claimed. In half of the seeds none is claimed
        # before it has a lane; in the others only the machine knows who executes, and it looks at each start.
        self.ahead_s = self.chance.choice((0.0, 0.01))
        caps = {name: each.cap for name, each in self.machine.models.items()}
        terms = oracle.Terms(lanes=self.machine.lanes, caps=caps, wall_jumps=plan.wall_jumps)
        self.limits = records.Limits(pending=5000, keep_count=self.chance.choice((150, 100_000)))
        terms = dataclasses.replace(terms, forgets=self.limits.keep_count < 1000)
        if self.ahead_s:
            terms = dataclasses.replace(terms, lanes=self.machine.lanes + 32 * len(caps), caps={})
        self.terms = terms
        self.oracle = oracle.Oracle(terms, self.outside)
        self.log = hashlib.sha256()

    def _models(self) -> Iterator[tuple[str, sim_backend.Model]]:
        for index in range(self.chance.randint(2, 5)):
            name = f"instance{index}"
            yield (
                name,
                sim_backend.Model(
                    name=name,
                    plugin=f"plugin{index // 2}",
                    cap=self.chance.choice((1, 2, 3, None)),
                    idle_bytes=self.chance.randint(10, 200) * MB,
                    each_bytes=self.chance.randint(1, 100) * MB,
                    load_s=self.chance.choice((0.01, 0.3, 2.0)),
                ),
            )

    def count(self) -> None:
        self.steps += 1

    def next_stop(self) -> int:
        """Return the step at which this life ends in an orderly way, if nobody kills it before."""
        if not self.plan.lives:
            return self.plan.steps
        return min(self.plan.steps, self.steps + self.chance.randint(200, 5000))

    def take(self, events: Sequence[records.Event]) -> None:
        """Hand events to the oracle, and to the digest that two runs of a seed must share."""
        for event in events:
            self.log.update(
                repr((event.cursor, event.at, event.type, event.job, event.attempt, event.data)).encode()
            )
        self.oracle.read(events)


class AcceptsAll:
    """Knows no plugin and takes what it is given: `toft.dispatch.promises.Accepts`."""

    async def binder(self, plugin: str, instance: str, action: str | None) -> "AcceptsAll":
        return self

    def bind(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        return arguments

    async def output(self, plugin: str, instance: str, action: str | None) -> None:
        return None


async def no_blob(digest: str) -> Any:
    raise AssertionError(f"nothing here is so large as to be in a blob: {digest}")


class Node:
    """One life: everything that a kill takes away."""

    def __init__(self, world: World) -> None:
        self.world = world
        chance = random.Random(world.chance.getrandbits(64))
        self.database = sim_database.SimDatabase(world.disk, random.Random(chance.getrandbits(64)))
        self.backend = sim_backend.SimBackend(
            world.machine, world.weather, random.Random(chance.getrandbits(64))
        )
        self.randomness = random.Random(chance.getrandbits(64)).randbytes
        self.queue = world.plan.make_queue(
            self.database,
            world.blobs,
            clock=world.clock,
            randomness=self.randomness,
            limits=world.limits,
        )
        self.sequences = sequences.Reading(self.database)
        self.graphs = graphs.Graphs(self.queue, self.sequences, AcceptsAll(), open_blob=no_blob)
        self.dispatcher: dispatcher.Dispatcher | None = None

    async def open(self) -> records.Recovered:
        recovered = await self.queue.open()
        await self.graphs.open()
        known = peaks.Peaks(self.database, self.world.clock)
        await known.open()
        self.dispatcher = self.world.plan.make_dispatcher(
            self.queue,
            self.backend,
            known,
            randomness=self.randomness,
            options=dispatcher.Options(
                lanes=self.world.machine.lanes,
                rules=admission.Rules(alone_s=self.world.machine.alone_s),
                ahead_s=self.world.ahead_s,
                pause_most_s=4.0,
            ),
        )
        self.dispatcher.start()
        return recovered

    async def close(self) -> None:
        if self.dispatcher is not None:
            await self.dispatcher.close()
        await self.graphs.close()
        heads = self.queue.heads()  # goes on showing what the queue counted
        await self.queue.close()
        stored = await self.database.read(lambda c: c.execute(QUERIES["count_ready"]).fetchall())
        counted = {instance: head.ready for instance, head in heads.items()}
        assert counted == {row[0]: row[1] for row in stored}, "ready jobs were miscounted"
        await self.database.close()

    async def read_log(self) -> None:
        """Let the oracle read what is new in the log."""
        while True:
            events = await self.queue.events(self.world.oracle.cursor, limit=PAGE)
            self.world.take(events)
            if len(events) < PAGE:
                return

    def kill(self) -> None:
        """Kill -9: from this moment on nothing this node does has an effect on anybody."""
        self.database.kill()
        self.backend.kill()
        asyncio.get_running_loop().stop()


class Complaints(logging.Handler):
    """What the code under test logs as an error that no simulated fault explains."""

    FATAL = ("decision_failed", "dispatching_failed", "queue_failed")

    def __init__(self, into: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._into = into

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if any(word in text for word in self.FATAL):
            self._into.append(text)
