"""Everybody who uses a node, by a seed: they submit, cancel, retry, reorder, look, and pull the plug."""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

from tests.simulation import oracle, sim_backend, sim_database, wishes
from tests.simulation.world import Node, World

from toft.jobs import records
from toft.kernel import errors

EXPECTED = frozenset(
    {"store.disk_full", "job.idempotency", "job.queue_full", "job.state", "job.not_found", "job.wait_timeout"}
    | {"sequence.not_found", "sequence.state"}
)
MOST_OPEN = 60
SAMPLE_EVERY = 25
# A queue that remembers 150 ended jobs has more events of them: none is forgotten before the oracle read it.
FAR_BEHIND = 200
QUIET_S = 4000.0


class Driver:
    """The users of one life of the node.

    Args:
        world: What stays.
        node: What may be killed.
    """

    def __init__(self, world: World, node: Node) -> None:
        self._world = world
        self._node = node
        self._chance = random.Random(world.chance.getrandbits(64))
        self._models = list(world.machine.models.values())
        self._tasks: set[asyncio.Task[None]] = set()
        self._actions: list[tuple[int, Callable[[], None]]] = [
            (64, self._submit),
            (6, self._submit_with_key),
            (2, self._submit_graph),
            (1, self._cancel_graph),
            (10, self._cancel),
            (6, self._retry),
            (8, self._reorder),
            (4, self._wait),
            (4, self._answer_late),
            (2, self._toggle),
            (2, self._change_weather),
            # An end that cannot be written is written later, and counts as running in the log until then.
            *([(1, self._fill_disk)] if world.ahead_s else []),
            *([(1, self._set_clock)] if world.plan.wall_jumps else []),
        ]
        self._weights = [weight for weight, _ in self._actions]

    async def use(self, steps: int) -> None:
        """Use the node until so many steps are done in all."""
        world, chance = self._world, self._chance
        pace_s = chance.choice((0.01, 0.05, 0.3))
        while world.steps < steps:
            for _, act in chance.choices(self._actions, self._weights, k=chance.randint(1, 4)):
                world.count()
                act()
            await asyncio.sleep(chance.expovariate(1 / pace_s))
            behind = self._node.queue.cursor() - world.oracle.cursor
            if chance.random() < 1 / SAMPLE_EVERY or behind > FAR_BEHIND:
                await self._sample()

    async def rest(self) -> None:
        """Calm down and wait until everything has ended; the node has all it needs for that."""
        world = self._world
        world.disk.temper = sim_database.Temper()
        if world.plan.wall_jumps:
            world.clock.set_wall(20 * 365 * 86400)  # appointments are kept by the wall clock
        calm = sim_backend.Weather(fails=0.0, crashes=0.0, hangs=0.0, not_begun=0.0, load_fails=0.0)
        self._node.backend.weather = world.weather = calm
        for instance in sorted(self._node.backend.disabled):
            self._node.backend.set_disabled(instance, False)
        await self._sample()
        for job in [each.id for each in world.oracle.jobs.values() if each.state == "interrupted"]:
            self._spawn(self._retrying(job))  # others may wait for it
        until = world.clock.monotonic() + QUIET_S
        while world.clock.monotonic() < until:
            await asyncio.sleep(20)
            await self._sample()
            if not world.oracle.is_waiting():
                break
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=QUIET_S)
        await self._sample()

    async def _sample(self) -> None:
        await self._node.read_log()
        if self._world.disk.temper.is_full:
            self._world.oracle.forget_heads()  # a reason cannot be written either
        self._world.oracle.sample(self._world.clock.monotonic())
        if self._world.complaints:
            raise oracle.BrokenError(self._world.complaints[0])

    # What they do

    def _spawn(self, work: Awaitable[Any]) -> None:
        async def guarded() -> None:
            try:
                await work
            except errors.NodeError as error:
                if error.code not in EXPECTED:
                    self._world.complaints.append(f"refusals: {error.code}: {error}")

        task = asyncio.ensure_future(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            is_judged = isinstance(error, oracle.BrokenError)
            self._world.complaints.append(str(error) if is_judged else f"refusals: {error!r}")

    def _submit(self) -> None:
        if self._world.oracle.open_count() + len(self._tasks) < MOST_OPEN:
            count = self._chance.randint(2, 12) if self._chance.random() < 0.06 else 1
            known = list(self._world.oracle.jobs)[-40:]
            now = self._world.clock.now()
            requests = [wishes.request(self._chance, self._models, known, now) for _ in range(count)]
            self._spawn(self._submitting(requests))

    async def _submitting(self, requests: list[records.Request]) -> None:
        for submitted in await self._node.queue.submit(requests):
            self._world.outside.acknowledged.add(submitted.job_id)

    def _submit_graph(self) -> None:
        if self._world.oracle.open_count() + len(self._tasks) < MOST_OPEN:
            self._spawn(self._submitting_graph())

    async def _submitting_graph(self) -> None:
        wanted = wishes.graph(self._chance, self._models)
        found = await self._node.graphs.submit(wanted)
        self._world.outside.sequences[found.id] = len(wanted["steps"])

    def _cancel_graph(self) -> None:
        known = list(self._world.outside.sequences)[-20:]
        if known:
            self._spawn(self._node.graphs.cancel(self._chance.choice(known)))

    def _submit_with_key(self) -> None:
        key, arguments = f"key{self._chance.randint(0, 30)}", b'"%d"' % self._chance.randint(0, 1)
        self._spawn(self._keyed(key, arguments))

    async def _keyed(self, key: str, arguments: bytes) -> None:
        # One key always names the same instance, else the request differs by that.
        model = self._models[int(key[3:]) % len(self._models)]
        request = records.Request(
            plugin=model.plugin, instance=model.name, arguments=arguments, idempotency_key=key, timeout_s=9.0
        )
        known = self._world.outside.keys.get(key)
        try:
            (submitted,) = await self._node.queue.submit([request])
        except errors.ConflictError:
            if known is not None and known[1] == arguments and not self._is_forgotten(known[0]):
                raise oracle.BrokenError(f"keys: {key} with the same arguments is refused") from None
            return
        self._world.outside.acknowledged.add(submitted.job_id)
        if known is not None and known != (submitted.job_id, arguments) and not self._is_forgotten(known[0]):
            raise oracle.BrokenError(f"keys: {key} was {known[0]} and is {submitted.job_id}")
        self._world.outside.keys[key] = (submitted.job_id, arguments)

    def _is_forgotten(self, job: str) -> bool:
        return job in self._world.oracle.jobs and self._world.oracle.is_forgettable(job)

    def _some(self, *states: str) -> str | None:
        """Return a job that was in one of these states when the log was last read."""
        jobs = self._world.oracle.recent(states)
        return self._chance.choice(jobs) if jobs else None

    def _cancel(self) -> None:
        job = self._some("pending", "running", "running", "completed", "interrupted")
        if job is not None:
            self._spawn(self._cancelling(job))

    async def _cancelling(self, job: str) -> None:
        await self._node.queue.request_cancel(job)

    def _retry(self) -> None:
        job = self._some("failed", "interrupted", "completed")
        if job is not None:
            self._spawn(self._retrying(job))

    async def _retrying(self, job: str) -> None:
        asked = self._world.outside.asked
        asked[job] = asked.get(job, 0) + 1
        try:
            await self._node.queue.retry(job)
        except errors.ConflictError:
            asked[job] -= 1
            raise

    def _reorder(self) -> None:
        job, other = self._some("pending"), self._some("pending", "running")
        if job is None or other is None:
            return
        how: dict[str, Any] = self._chance.choice(
            ({"priority": self._chance.randint(-2, 9)}, {"first": True}, {"last": True}, {"before": other})
        )
        if how.get("before") != job:
            self._spawn(self._reordering(job, how))

    async def _reordering(self, job: str, how: dict[str, Any]) -> None:
        # The other one may have begun since, or never have been of the same instance.
        with contextlib.suppress(errors.UsageError):
            await self._node.queue.reorder(job, **how)

    def _wait(self) -> None:
        job = self._some("pending", "running", "failed", "completed")
        if job is not None:
            self._spawn(self._waiting(job))

    async def _waiting(self, job: str) -> None:
        ended = await self._node.queue.wait(job, self._chance.choice((0.1, 10.0)))
        if str(ended.state) in ("completed", "cancelled"):
            self._world.outside.told[job] = str(ended.state)

    def _answer_late(self) -> None:
        """Let a worker of an earlier epoch answer at last; nobody may be interested."""
        job = self._some("running", "pending", "completed", "failed", "interrupted")
        if job is None or not (attempt := self._world.oracle.jobs[job].attempt):
            return
        newest = attempt - (self._world.oracle.jobs[job].state == "running")
        if newest > 0:
            self._spawn(self._answering(job, self._chance.randint(1, newest)))

    async def _answering(self, job: str, attempt: int) -> None:
        outcome = records.Outcome(state=records.State.COMPLETED, result=b'"late"')
        self._node.queue.note(job, attempt, "progress", {"progress": 0.99, "message": "late"})
        if await self._node.queue.finish(job, attempt, outcome):
            raise oracle.BrokenError(f"fencing: attempt {attempt} of {job} finished it, late")

    def _toggle(self) -> None:
        name = self._chance.choice(list(self._world.machine.models))
        self._node.backend.set_disabled(name, name not in self._node.backend.disabled)

    def _change_weather(self) -> None:
        chance = self._chance
        self._node.backend.weather = sim_backend.Weather(
            fails=chance.choice((0.0, 0.05, 0.5)),
            crashes=chance.choice((0.0, 0.01, 0.2)),
            hangs=chance.choice((0.0, 0.01, 0.1)),
            not_begun=chance.choice((0.0, 0.1)),
            load_fails=chance.choice((0.0, 0.0, 0.2)),
            longest_s=chance.choice((0.002, 0.3, 3.0)),
            most_reports=chance.choice((0, 3, 20)),
        )
        self._world.disk.temper.slowest_commit_s = chance.choice((0.001, 0.01, 0.2))
        self._world.disk.temper.most_in_a_batch = chance.choice((1, 4, 64))

    def _fill_disk(self) -> None:
        self._world.disk.temper.is_full = True
        asyncio.get_running_loop().call_later(self._chance.random() * 5, self._free_disk)

    def _free_disk(self) -> None:
        self._world.disk.temper.is_full = False

    def _set_clock(self) -> None:
        self._world.clock.set_wall(self._chance.choice((-365 * 86400, 365 * 86400, -60, 3600)))
