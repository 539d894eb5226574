"""The dispatcher on the real queue and a backend that does as it is told, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tests.job_queues import InlineStore, MemoryBlobs
from tests.simulation import virtual_loop

from toft.dispatch import backend
from toft.dispatch.dispatcher import Dispatcher, Options
from toft.jobs import ledger, peaks, policies, reasons
from toft.jobs.admission import Rules
from toft.jobs.queue import JobQueue
from toft.jobs.records import Job, Request, RetryPolicy, State
from toft.jobs.retries import Origin
from toft.kernel import errors

GB = 10**9


@dataclass
class Model:
    """An instance as the tests want it."""

    seconds: float = 1.0
    each: int = 0
    idle: int = 0
    cap: int | None = None
    floor: int = 0
    load_s: float = 0.0
    faults: list[backend.Fault | None] = field(default_factory=list)
    load_faults: list[backend.Fault | None] = field(default_factory=list)
    is_pinned: bool = False


def fault(category: str, origin: Origin = Origin.PLUGIN, **details: Any) -> backend.Fault:
    error = {"code": f"test.{category}", "category": category, "message": "as told", "details": details}
    return backend.Fault(error, origin)


class Attempt:
    def __init__(self, machine: "Machine", claim: Any, told: backend.Listens) -> None:
        self.machine, self.claim, self.told = machine, claim, told
        self.timer: asyncio.TimerHandle | None = None

    def end(self, found: backend.Fault | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.machine.busy[self.claim.instance].remove(self)
        self.machine.used_at[self.claim.instance] = asyncio.get_running_loop().time()
        self.told.ended(backend.Ending(result=None if found else b"1", fault=found))

    def cancel(self, grace_s: float | None = None) -> None:
        self.told.phase("cooperative")
        self.end(fault("cancelled", Origin.CANCELLED))


class Machine:
    """A backend over a machine with some memory."""

    def __init__(self, models: Mapping[str, Model], total: int = 16 * GB) -> None:
        self.models, self.total = models, total
        self.busy: dict[str, list[Attempt]] = {}
        self.peaks: dict[str, int] = {}
        self.used_at: dict[str, float] = {}
        self.conditions: dict[str, backend.Condition] = {}
        self.changed: backend.OnChange = lambda instance: None
        self.most: dict[str, int] = {}
        self.least_free = total
        self.log: list[str] = []
        self.started: list[str] = []
        self.measured = 0

    def held(self, name: str) -> int:
        return self.models[name].idle + self.models[name].each * len(self.busy[name])

    @property
    def free(self) -> int:
        return self.total - sum(map(self.held, self.busy))

    def watch(self, on_change: backend.OnChange) -> None:
        self.changed = on_change

    async def profile(self, plugin: str, instance: str) -> backend.Profile | backend.Fault:
        model = self.models.get(instance)
        if model is None:
            return fault("user_input", Origin.NODE)
        if self.conditions.get(instance) is backend.Condition.DISABLED:
            return backend.Fault({"code": "instance.disabled", "category": "user_input"}, Origin.UNBEGUN)
        floor = {ledger.MEMORY: model.floor} if model.floor else {}
        return backend.Profile(instance=instance, plugin=plugin, config_hash="h", cap=model.cap, floor=floor)

    async def prepare(self, profile: backend.Profile) -> backend.Fault | None:
        model = self.models[profile.instance]
        await asyncio.sleep(model.load_s)
        if model.load_faults and (found := model.load_faults.pop(0)) is not None:
            return found
        self.log.append(f"load {profile.instance}")
        self.conditions.pop(profile.instance, None)
        self.busy.setdefault(profile.instance, [])
        self.peaks[profile.instance] = 0
        return None

    def loaded(self) -> Mapping[str, backend.Loaded]:
        return {name: self.seen(name) for name in self.busy}

    def seen(self, name: str) -> backend.Loaded:
        return backend.Loaded(
            condition=self.conditions.get(name, backend.Condition.READY),
            busy=len(self.busy[name]),
            last_used=self.used_at.get(name, 0.0),
            pinned=self.models[name].is_pinned,
        )

    def find(self, instance: str) -> backend.Loaded | None:
        return self.seen(instance) if instance in self.busy else None

    def start(self, claim: Any, told: backend.Listens, *, timeout_s: float | None) -> Attempt:
        name, model = claim.instance, self.models[claim.instance]
        attempt = Attempt(self, claim, told)
        self.busy[name].append(attempt)
        found = model.faults.pop(0) if model.faults else None
        loop = asyncio.get_running_loop()
        if timeout_s is not None and timeout_s < model.seconds:
            attempt.timer = loop.call_later(timeout_s, attempt.end, fault("transient", Origin.TIMEOUT))
        else:
            # Never all at the same moment.
            seconds = model.seconds * (1 + 0.13 * (len(self.started) % 5))
            self.started.append(claim.id)
            attempt.timer = loop.call_later(seconds, attempt.end, found)
        self.most[name] = max(self.most.get(name, 0), len(self.busy[name]))
        self.most["all"] = max(self.most.get("all", 0), sum(map(len, self.busy.values())))
        self.peaks[name] = max(self.peaks[name], self.held(name))
        self.least_free = min(self.least_free, self.free)
        return attempt

    async def evict(self, instance: str) -> bool:
        await asyncio.sleep(0.01)
        if self.busy.get(instance) != []:
            return False
        del self.busy[instance]
        self.log.append(f"evict {instance}")
        return True

    async def respawn(self, instance: str, because: str) -> backend.Fault | None:
        await asyncio.sleep(0.01)
        self.log.append(f"respawn {instance}")
        return None

    async def measure(self) -> ledger.Reading:
        self.measured += 1
        await asyncio.sleep(0.002)
        return ledger.Reading(
            at=1.0,
            total={ledger.MEMORY: self.total},
            free={ledger.MEMORY: self.free},
            used={name: {ledger.MEMORY: self.held(name)} for name in self.busy},
            peaks={name: {ledger.MEMORY: max(self.peaks[name], self.held(name))} for name in self.busy},
            pids=dict.fromkeys(self.busy, 1),
        )


class Bench:
    """One open queue with its dispatcher."""

    def __init__(self, jobs: JobQueue, machine: Machine, dispatcher: Dispatcher, store: Any) -> None:
        self.jobs, self.machine, self.dispatcher, self.store = jobs, machine, dispatcher, store

    async def submit(self, instance: str, count: int = 1, **more: Any) -> list[str]:
        request = Request(plugin=instance, instance=instance, arguments=b"{}", **more)
        return [each.job_id for each in await self.jobs.submit([replace(request) for _ in range(count)])]

    async def ended(self, ids: list[str], within_s: float = 10_000) -> list[Job]:
        return [await self.jobs.wait(each, within_s) for each in ids]

    async def run(self, instance: str, count: int = 1, **more: Any) -> list[Job]:
        return await self.ended(await self.submit(instance, count, **more))

    async def told(self, job: str, kind: str) -> list[Mapping[str, Any]]:
        return [each.data for each in await self.jobs.events(job=job) if each.type == kind]


class FragileStore(InlineStore):
    """A disk that is full now and then."""

    is_full = False

    async def write(self, work: Callable[..., Any]) -> Any:
        if self.is_full:
            raise errors.UnavailableError("the disk is full", code="store.disk_full")
        return await super().write(work)


def with_bench(
    work: Callable[[Bench], Awaitable[None]],
    models: Mapping[str, Model],
    *,
    total: int = 16 * GB,
    lanes: int = 4,
    rules: Rules | None = None,
    store: InlineStore | None = None,
    **more: Any,
) -> None:
    clock = virtual_loop.Clock()

    async def main() -> None:
        kept = store or InlineStore()
        jobs = JobQueue(kept, MemoryBlobs(), clock=clock, randomness=lambda count: b"\x07" * count)
        await jobs.open()
        machine = Machine(models, total)
        known = peaks.Peaks(kept, clock)  # type: ignore[arg-type]
        options = Options(lanes=lanes, rules=rules or Rules(), **{"ahead_s": 0.0, **more})
        dispatcher = Dispatcher(
            jobs, machine, known, randomness=lambda count: b"\x80" * count, options=options
        )
        dispatcher.start()
        try:
            await asyncio.wait_for(work(Bench(jobs, machine, dispatcher, kept)), 100_000)
        finally:
            await dispatcher.close()
            await jobs.close()

    virtual_loop.run(main(), clock)


class TestLanes:
    def test_no_more_run_than_there_are_lanes(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a")
            jobs = await bench.run("a", 50)
            assert {each.state for each in jobs} == {State.COMPLETED}
            assert bench.machine.most["all"] == 4

        with_bench(work, {"a": Model()})

    def test_an_instance_runs_no_more_than_it_may_and_others_take_the_lanes(self) -> None:
        async def work(bench: Bench) -> None:
            ids = await bench.submit("one", 6) + await bench.submit("many", 12)
            await bench.ended(ids)
            assert bench.machine.most["one"] == 1
            assert bench.machine.most["many"] >= 3

        with_bench(work, {"one": Model(cap=1), "many": Model()})

    def test_a_hung_job_holds_up_nobody(self) -> None:
        async def work(bench: Bench) -> None:
            hung = await bench.submit("hung")
            await asyncio.sleep(0.1)
            began = asyncio.get_running_loop().time()
            jobs = await bench.run("a", 20)
            assert {each.state for each in jobs} == {State.COMPLETED}
            # Alone for a second, because it was never measured; then everybody has the other lanes.
            assert asyncio.get_running_loop().time() - began < 20
            assert (await bench.jobs.get(hung[0])).state is State.RUNNING

        with_bench(work, {"hung": Model(seconds=1e6), "a": Model()})

    def test_lanes_full_of_hung_jobs_are_lent_once_more(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("hung")
            bench.machine.models["hung"].seconds = 1e7
            await bench.submit("hung", 5)
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            jobs = await bench.ended(await bench.submit("a", 3) + await bench.submit("b", 3))
            assert {each.state for each in jobs} == {State.COMPLETED}
            assert asyncio.get_running_loop().time() - began < 30
            assert bench.machine.most["all"] <= 4
            assert bench.machine.most["hung"] == 2

        models = {"hung": Model(seconds=0.1), "a": Model(), "b": Model()}
        with_bench(work, models, lanes=2, rules=Rules(overdue_s=5.0))

    def test_long_jobs_that_are_always_long_lend_nothing(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("long")
            await bench.ended(await bench.submit("long", 4) + await bench.submit("a", 4))
            assert bench.machine.most["all"] == 2

        with_bench(work, {"long": Model(seconds=60), "a": Model()}, lanes=2, rules=Rules(overdue_s=5.0))

    def test_the_higher_priority_goes_first(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a")
            await bench.submit("a")
            low = await bench.submit("a", 3)
            high = await bench.submit("a", priority=5)
            await bench.ended(low + high)
            started = [(await bench.jobs.get(each)).started_at or 0.0 for each in (*low, *high)]
            assert started[3] < min(started[:3])

        with_bench(work, {"a": Model(cap=1)}, lanes=1)

    def test_claiming_ahead_runs_everything_once_and_never_more_than_lanes(self) -> None:
        async def work(bench: Bench) -> None:
            jobs = await bench.run("a", 300)
            assert {each.state for each in jobs} == {State.COMPLETED}
            assert {each.attempt for each in jobs} == {1}
            assert bench.machine.most["all"] <= 2

        with_bench(work, {"a": Model(seconds=0.0005)}, lanes=2, ahead_s=0.01)

    def test_what_was_claimed_ahead_is_given_back_when_its_lane_does_not_come_free(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a", 10)
            bench.machine.models["a"].seconds = 50.0
            first = await bench.submit("a", 20)
            await asyncio.sleep(5)
            running = [each for each in first if (await bench.jobs.get(each)).state is State.RUNNING]
            assert len(running) == 1
            told = [each.data.get("because") for each in await bench.jobs.events(job=first[1])]
            assert told[-1] == "given_back"
            assert told[-1] in reasons.CAUSES
            assert (await bench.jobs.request_cancel(first[-1])).state is State.CANCELLED

        with_bench(work, {"a": Model(seconds=0.0005)}, lanes=1, ahead_s=0.01)

    def test_nothing_happens_while_there_is_nothing_to_do(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a", 3)
            await asyncio.sleep(10)
            measured, writes = bench.machine.measured, bench.store.writes
            await asyncio.sleep(3_000)
            assert (bench.machine.measured, bench.store.writes) == (measured, writes)

        with_bench(work, {"a": Model()})


class TestMemory:
    def test_jobs_are_packed_by_what_they_were_measured_to_take(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a")
            jobs = await bench.run("a", 12)
            assert {each.state for each in jobs} == {State.COMPLETED}
            assert bench.machine.most["a"] == 3
            assert bench.machine.least_free >= 0

        with_bench(work, {"a": Model(each=5 * GB)}, lanes=8)

    def test_one_that_was_never_measured_runs_alone_first(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.ended(await bench.submit("a", 4) + await bench.submit("b", 4))
            first = [each for each in bench.machine.log if each.startswith("load")]
            assert first == ["load a", "load b"]
            assert bench.machine.least_free >= 0

        with_bench(
            work, {"a": Model(seconds=0.5, each=9 * GB), "b": Model(seconds=0.5, each=9 * GB)}, lanes=8
        )

    def test_what_never_fits_fails_at_once_and_says_why(self) -> None:
        async def work(bench: Bench) -> None:
            [job] = await bench.run("huge")
            assert (job.state, job.attempt) == (State.FAILED, 0)
            assert job.error is not None
            assert job.error["code"] == "job.never_fits"
            assert job.error["category"] == "resource"
            assert job.error["details"]["needed_bytes"] == 20 * GB
            assert bench.machine.log == []

        with_bench(work, {"huge": Model(floor=20 * GB)})

    def test_idle_instances_make_room_the_longest_unused_first(self) -> None:
        async def work(bench: Bench) -> None:
            for name in ("old", "new"):
                await bench.run(name)
                await asyncio.sleep(60)
            [job] = await bench.run("big")
            assert job.state is State.COMPLETED
            assert "evict old" in bench.machine.log
            assert "evict new" not in bench.machine.log
            [told] = await bench.told(job.id, "evicted")
            assert told == {
                "instance": "old",
                "because": "making_room",
                "freed_bytes": {"memory": 5 * GB},
                "for": "big",
            }

        models = {
            "old": Model(idle=5 * GB),
            "new": Model(idle=5 * GB),
            "big": Model(floor=9 * GB, each=9 * GB),
        }
        with_bench(work, models)

    def test_pinned_ones_stay_and_the_job_says_what_it_waits_for(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("pinned")
            [job] = await bench.submit("big")
            await asyncio.sleep(30)
            seen = await bench.jobs.get(job)
            assert seen.state is State.PENDING
            assert seen.block_reason is not None
            assert seen.block_reason["code"] == "memory"
            assert len(await bench.told(job, "blocked")) == 1

        models = {"pinned": Model(idle=9 * GB, is_pinned=True), "big": Model(floor=9 * GB)}
        with_bench(work, models)

    def test_a_large_job_is_not_overtaken_for_ever(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("small")
            await bench.run("big")
            ids = await bench.submit("small", 300)
            await asyncio.sleep(2)
            [big] = await bench.submit("big", priority=1)
            job = await bench.jobs.wait(big, 10_000)
            assert job.state is State.COMPLETED
            left = [each for each in ids if (await bench.jobs.get(each)).state is State.PENDING]
            assert len(left) > 100
            told = await bench.told(big, "blocked")
            assert [each["reason"]["code"] for each in told] == ["no_lane", "memory"]

        models = {"small": Model(seconds=3.0, each=4 * GB), "big": Model(each=12 * GB)}
        with_bench(work, models, lanes=4)

    def test_the_policies_that_do_not_wait_for_ever(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.submit("holder")
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            [job] = await bench.run("big")
            waited = asyncio.get_running_loop().time() - began
            assert job.error is not None
            assert job.error["code"] == "job.no_room"
            assert (
                waited < 2 if bench.dispatcher.options.rules.policy is policies.SAFETY else 299 < waited < 303
            )

        models = {"holder": Model(seconds=1e5, each=12 * GB), "big": Model(floor=9 * GB)}
        for policy in (policies.SAFETY, policies.QUEUE):
            with_bench(work, models, rules=Rules(policy=policy))


class TestFaults:
    def test_pauses_between_attempts_grow(self) -> None:
        async def work(bench: Bench) -> None:
            policy = RetryPolicy(max_attempts=4, first_s=10.0, factor=3.0, jitter=0.0)
            [job] = await bench.run("a", retry=policy)
            assert (job.state, job.attempt) == (State.COMPLETED, 4)
            told = await bench.told(job.id, "retry")
            assert [each["delay_s"] for each in told] == [10.0, 30.0, 90.0]

        with_bench(work, {"a": Model(faults=[fault("transient")] * 3)})

    def test_a_resource_error_gets_room_and_a_fresh_worker(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("idle")
            [job] = await bench.run("a")
            assert (job.state, job.attempt) == (State.COMPLETED, 2)
            assert bench.machine.log[-3:] == ["load a", "evict idle", "respawn a"]

        with_bench(work, {"a": Model(faults=[fault("resource")]), "idle": Model(idle=GB)})

    def test_a_lost_worker_is_not_tried_again_unasked(self) -> None:
        async def work(bench: Bench) -> None:
            [job] = await bench.run("a", retry=RetryPolicy(max_attempts=5))
            assert (job.state, job.attempt) == (State.FAILED, 1)

        with_bench(work, {"a": Model(faults=[fault("transient", Origin.WORKER)])})

    def test_a_deadline_is_no_time_out_and_is_not_tried_again(self) -> None:
        async def work(bench: Bench) -> None:
            [job] = await bench.run("a", deadline_s=5.0, idempotent=True)
            assert (job.state, job.attempt) == (State.FAILED, 1)
            assert job.error is not None
            assert job.error["code"] == "job.deadline"
            [job] = await bench.run("a", timeout_s=5.0, idempotent=True)
            assert (job.state, job.attempt) == (State.FAILED, 3)

        with_bench(work, {"a": Model(seconds=60)})

    def test_a_load_that_fails_fails_one_job_and_the_next_waits_a_little(self) -> None:
        async def work(bench: Bench) -> None:
            jobs = await bench.run("a", 4)
            assert [each.state for each in jobs] == [State.FAILED] * 3 + [State.COMPLETED]

        with_bench(work, {"a": Model(load_faults=[fault("fatal")] * 3)}, lanes=1)

    def test_an_instance_that_nobody_knows_any_more(self) -> None:
        async def work(bench: Bench) -> None:
            jobs = await bench.run("gone", 3)
            assert {each.state for each in jobs} == {State.FAILED}
            assert [each.state for each in await bench.run("a", 3)] == [State.COMPLETED] * 3

        with_bench(work, {"a": Model()})

    def test_jobs_of_a_disabled_instance_wait_for_it(self) -> None:
        async def work(bench: Bench) -> None:
            bench.machine.conditions["a"] = backend.Condition.DISABLED
            [job] = await bench.submit("a")
            await asyncio.sleep(100)
            seen = await bench.jobs.get(job)
            assert seen.block_reason is not None
            assert seen.block_reason["code"] == "disabled"
            del bench.machine.conditions["a"]
            bench.machine.changed("a")
            assert (await bench.jobs.wait(job, 3)).state is State.COMPLETED

        with_bench(work, {"a": Model()})

    def test_an_instance_that_restarts_is_waited_for(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a")
            bench.machine.conditions["a"] = backend.Condition.RESTARTING
            bench.machine.changed("a")
            [job] = await bench.submit("a")
            await asyncio.sleep(5)
            seen = await bench.jobs.get(job)
            assert seen.block_reason is not None
            assert seen.block_reason["code"] == "restarting"
            del bench.machine.conditions["a"]
            bench.machine.changed("a")
            assert (await bench.jobs.wait(job, 3)).state is State.COMPLETED

        with_bench(work, {"a": Model()})

    def test_a_full_disk_holds_outcomes_back_and_loses_none(self) -> None:
        store = FragileStore()

        async def work(bench: Bench) -> None:
            await bench.run("a")
            ids = await bench.submit("a", 8)
            await asyncio.sleep(0.5)
            store.is_full = True
            await asyncio.sleep(60)
            store.is_full = False
            began = asyncio.get_running_loop().time()
            jobs = await bench.ended(ids)
            assert {each.state for each in jobs} == {State.COMPLETED}
            assert {each.attempt for each in jobs} == {1}
            assert asyncio.get_running_loop().time() - began < 15

        with_bench(work, {"a": Model()}, store=store)


class TestCancel:
    @pytest.mark.parametrize("after_s", [0.0, 0.0001, 0.5])
    def test_wherever_the_job_is_it_ends_cancelled(self, after_s: float) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a")
            [job] = await bench.submit("a")
            await asyncio.sleep(after_s)
            await bench.jobs.request_cancel(job)
            assert (await bench.jobs.wait(job, 5)).state is State.CANCELLED

        with_bench(work, {"a": Model()})

    def test_one_that_was_claimed_ahead(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a", 10)
            bench.machine.models["a"].seconds = 50.0
            ids = await bench.submit("a", 5)
            await asyncio.sleep(0.05)
            asked = [each for each in ids if (await bench.jobs.get(each)).state is State.RUNNING]
            assert len(asked) > 1
            began = asyncio.get_running_loop().time()
            for each in reversed(asked):
                await bench.jobs.request_cancel(each)
            assert {each.state for each in await bench.ended(asked, 0.1)} == {State.CANCELLED}
            assert asyncio.get_running_loop().time() - began < 0.1

        with_bench(work, {"a": Model(seconds=0.0005)}, lanes=1, ahead_s=0.01)

    def test_closing_interrupts_what_runs(self) -> None:
        async def work(bench: Bench) -> None:
            [job] = await bench.submit("a")
            await asyncio.sleep(1)
            await bench.dispatcher.close()
            assert (await bench.jobs.get(job)).state is State.INTERRUPTED

        with_bench(work, {"a": Model(seconds=100)})

    def test_draining_waits_for_what_runs_and_starts_nothing(self) -> None:
        async def work(bench: Bench) -> None:
            ids = await bench.submit("a", 3)
            await asyncio.sleep(0.5)
            assert not await bench.dispatcher.drain(0.1)
            assert await bench.dispatcher.drain(10)
            states = [(await bench.jobs.get(each)).state for each in ids]
            assert states == [State.COMPLETED, State.PENDING, State.PENDING]

        with_bench(work, {"a": Model()}, lanes=1)
