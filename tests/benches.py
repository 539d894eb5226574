"""A dispatcher on the real queue and a backend that does as it is told, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tests.job_queues import InlineStore, MemoryBlobs
from tests.simulation import virtual_loop

from toft.dispatch import backend
from toft.dispatch.dispatcher import Dispatcher, Options
from toft.jobs import ledger, peaks
from toft.jobs.admission import Rules
from toft.jobs.queue import JobQueue
from toft.jobs.records import Job, Request
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
        self.is_blind = False

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
        if self.is_blind:
            raise OSError(24, "Too many open files")
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
