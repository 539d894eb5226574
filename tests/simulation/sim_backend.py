"""What stands where `toft.dispatch.local.LocalBackend` stands: workers that do what workers do, by a seed.

It belongs to one life of the node: killed with it, and nothing of it is heard again.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toft.dispatch import backend
from toft.jobs.ledger import MEMORY, Reading
from toft.jobs.retries import Origin

MB = 1_000_000

CATEGORIES = {
    "transient": "plugin.transient",
    "resource": "plugin.resource",
    "fatal": "plugin.fatal",
    "user_input": "plugin.input",
}


def error(code: str, category: str) -> dict[str, Any]:
    return {
        "code": code,
        "category": category,
        "blame": "plugin",
        "retry": "never",
        "retry_after_s": None,
        "message": f"as the simulation wished: {code}",
        "details": {},
        "hint": "",
    }


@dataclass(frozen=True)
class Model:
    """A simulated instance, the same in every life.

    Attributes:
        cap: Calls at once.
        idle_bytes: What its worker holds without a call.
        each_bytes: What each call adds.
        load_s: How long it takes to load.
    """

    name: str
    plugin: str
    cap: int | None
    idle_bytes: int
    each_bytes: int
    load_s: float


@dataclass
class Weather:
    """How likely what goes wrong; the driver changes it while the simulation runs."""

    fails: float = 0.05
    crashes: float = 0.01
    hangs: float = 0.01
    ends_at_once: float = 0.1
    not_begun: float = 0.01
    load_fails: float = 0.02
    ignores_cancel: float = 0.3
    longest_s: float = 2.0
    most_reports: int = 3


@dataclass(kw_only=True)
class Machine:
    """What is the same in every life, and what is known of all of them.

    Attributes:
        models: The instances there are.
        lanes: How many jobs may execute at once.
        alone_s: How long an instance that was never measured has the machine for itself.
        total_bytes: Its memory.
        count: Told for each thing a worker does.
        complain: Told of each thing that must not happen.
        executed: Jobs and attempts that a worker was told to run.
        measured: Instances whose memory was measured while they ran.
    """

    models: Mapping[str, Model]
    lanes: int
    alone_s: float
    total_bytes: int
    count: Callable[[], None]
    complain: Callable[[str], None]
    executed: set[tuple[str, int]]
    measured: set[str] = field(default_factory=set)


@dataclass
class _Worker:
    model: Model
    loaded: backend.Loaded = field(default_factory=backend.Loaded)
    running: dict[int, "_Attempt"] = field(default_factory=dict)
    last_used: float = 0.0
    peak: int = 0
    has_run: bool = False

    @property
    def bytes(self) -> int:
        return self.model.idle_bytes + self.model.each_bytes * len(self.running)


class SimBackend:
    """Implements `toft.dispatch.backend.Backend`.

    Args:
        machine: What stays when this is killed.
        weather: How workers behave.
        chance: Decides everything.
    """

    def __init__(self, machine: Machine, weather: Weather, chance: random.Random) -> None:
        self.weather = weather
        self.chance = chance
        self.count = machine.count
        self.disabled: set[str] = set()
        self._machine = machine
        self._workers: dict[str, _Worker] = {}
        self._on_change: backend.OnChange = lambda instance: None
        self._numbers = 0
        self._is_dead = False

    def kill(self) -> None:
        """Nothing of this life is heard of again."""
        self._is_dead = True
        for worker in self._workers.values():
            worker.running.clear()

    # The seam

    def watch(self, on_change: backend.OnChange) -> None:
        self._on_change = on_change

    async def profile(self, plugin: str, instance: str) -> backend.Profile | backend.Fault:
        await asyncio.sleep(0)
        model = self._machine.models.get(instance)
        if model is None:
            return backend.Fault(error("instance.not_found", "user_input"), Origin.NODE)
        return backend.Profile(
            instance=instance, plugin=plugin, config_hash=f"hash-{instance}", cap=model.cap, floor={}
        )

    async def prepare(self, profile: backend.Profile) -> backend.Fault | None:
        self.count()
        model = self._machine.models[profile.instance]
        await asyncio.sleep(model.load_s * self.chance.random())
        if self._is_dead:
            await asyncio.Event().wait()
        if self.chance.random() < self.weather.load_fails:
            return backend.Fault(error("instance.load_failed", "fatal"), Origin.NODE)
        condition = backend.Condition.DISABLED if model.name in self.disabled else backend.Condition.READY
        if model.name not in self._workers or not self._workers[model.name].running:
            self._workers[model.name] = _Worker(
                model, backend.Loaded(condition=condition, cost_s=model.load_s)
            )
        self._changed(model.name)
        return None

    def loaded(self) -> Mapping[str, backend.Loaded]:
        return {name: self._view(worker) for name, worker in self._workers.items()}

    def find(self, instance: str) -> backend.Loaded | None:
        worker = self._workers.get(instance)
        return None if worker is None else self._view(worker)

    def start(self, claim: Any, told: backend.Listens, *, timeout_s: float | None) -> "_Attempt":
        self.count()
        worker = self._workers.get(claim.instance)
        attempt = _Attempt(self, worker, claim, told)
        if worker is None or self.chance.random() < self.weather.not_begun:
            attempt.end(fault=backend.Fault(error("worker.gone", "transient"), Origin.UNBEGUN))
            return attempt
        self._machine.executed.add((claim.id, claim.attempt))
        self._numbers += 1
        attempt.number = self._numbers
        worker.running[attempt.number] = attempt
        worker.peak, worker.has_run = max(worker.peak, worker.bytes), True
        self._check_room(worker)
        attempt.live(timeout_s)
        return attempt

    def _check_room(self, worker: _Worker) -> None:
        """The truth about lanes, beside which the log may only be more careful."""
        busy = [each for each in self._workers.values() if each.running]
        total = sum(len(each.running) for each in busy)
        if total > self._machine.lanes:
            self._machine.complain(f"lanes: {total} jobs execute in {self._machine.lanes}")
        if worker.model.cap is not None and len(worker.running) > worker.model.cap:
            self._machine.complain(
                f"caps: {len(worker.running)} execute on {worker.model.name}, at most {worker.model.cap}"
            )
        if total > 1 and self._machine.alone_s > 1000:
            for each in busy:
                if each.model.name not in self._machine.measured:
                    self._machine.complain(
                        f"measuring: {each.model.name} was never measured and is not alone"
                    )

    async def evict(self, instance: str) -> bool:
        self.count()
        await asyncio.sleep(self.chance.random() * 0.05)
        worker = self._workers.get(instance)
        if self._is_dead or worker is None or worker.running:
            return False
        del self._workers[instance]
        self._changed(instance)
        return True

    async def respawn(self, instance: str, because: str) -> backend.Fault | None:
        self.count()
        worker = self._workers.get(instance)
        if worker is not None:
            self._lose(worker, "worker.replaced")
            await asyncio.sleep(worker.model.load_s * self.chance.random())
        return None

    async def measure(self) -> Reading:
        await asyncio.sleep(self.chance.random() * 0.01)
        self._machine.measured.update(name for name, worker in self._workers.items() if worker.has_run)
        used = {name: {MEMORY: worker.bytes} for name, worker in self._workers.items()}
        return Reading(
            at=asyncio.get_running_loop().time(),
            total={MEMORY: self._machine.total_bytes},
            free={MEMORY: max(0, self._machine.total_bytes - sum(each[MEMORY] for each in used.values()))},
            used=used,
            peaks={name: {MEMORY: max(worker.peak, worker.bytes)} for name, worker in self._workers.items()},
            cpu_s=dict.fromkeys(used, 1.0),
            pids={name: 1000 + index for index, name in enumerate(used)},
        )

    # What happens in it

    def _view(self, worker: _Worker) -> backend.Loaded:
        return backend.Loaded(
            condition=worker.loaded.condition,
            because=worker.loaded.because,
            busy=len(worker.running),
            last_used=worker.last_used,
            cost_s=worker.model.load_s,
        )

    def _changed(self, instance: str) -> None:
        if not self._is_dead:
            self._on_change(instance)

    def set_disabled(self, instance: str, disabled: bool) -> None:
        """Do what a person does with `instance disable` and `enable`."""
        (self.disabled.add if disabled else self.disabled.discard)(instance)
        worker = self._workers.get(instance)
        if worker is not None:
            condition = backend.Condition.DISABLED if disabled else backend.Condition.READY
            worker.loaded = backend.Loaded(condition=condition, because="as asked" if disabled else "")
        self._changed(instance)

    def _lose(self, worker: _Worker, code: str) -> None:
        """A worker's process is gone, and with it everything it ran; after a while there is a new one."""
        worker.loaded = backend.Loaded(condition=backend.Condition.RESTARTING, because="its worker ended")
        for attempt in list(worker.running.values()):
            attempt.end(fault=backend.Fault(error(code, "transient"), Origin.WORKER))
        self._changed(worker.model.name)
        asyncio.get_running_loop().call_later(self.chance.random() * 3, self._back, worker)

    def _back(self, worker: _Worker) -> None:
        if self._is_dead or self._workers.get(worker.model.name) is not worker:
            return
        if worker.loaded.condition is not backend.Condition.RESTARTING:
            return
        is_down = self.chance.random() < 0.1
        condition = backend.Condition.DOWN if is_down else backend.Condition.READY
        if worker.model.name in self.disabled:
            condition = backend.Condition.DISABLED
        worker.loaded = backend.Loaded(condition=condition, because="it died too often" if is_down else "")
        self._changed(worker.model.name)


class _Attempt:
    """One call on a worker: `toft.dispatch.backend.Running`."""

    def __init__(self, owner: SimBackend, worker: _Worker | None, claim: Any, told: backend.Listens) -> None:
        self._owner = owner
        self._worker = worker
        self._claim = claim
        self._told = told
        self._is_over = False
        self._is_cancelled = False
        self.number = 0

    def live(self, timeout_s: float | None) -> None:
        """Choose what this attempt will do, and when."""
        chance, weather = self._owner.chance, self._owner.weather
        loop = asyncio.get_running_loop()
        if timeout_s is not None:
            loop.call_later(timeout_s, self._time_out)
        if chance.random() < weather.hangs:
            return
        lasts_s = chance.random() * weather.longest_s
        for _ in range(chance.randint(0, weather.most_reports)):
            loop.call_later(chance.random() * lasts_s, self._report, round(chance.random(), 3))
        luck = chance.random()
        if luck < weather.crashes:
            loop.call_later(lasts_s, self._crash)
        elif luck < weather.crashes + weather.fails:
            category = chance.choice(list(CATEGORIES))
            fault = backend.Fault(error(CATEGORIES[category], category), Origin.PLUGIN)
            loop.call_later(lasts_s, self.end, fault)
        elif chance.random() < weather.ends_at_once:
            self.end()  # before `start` has returned
        else:
            loop.call_later(lasts_s, self.end)

    def cancel(self, grace_s: float | None = None) -> None:
        if self._is_over or self._is_cancelled:
            return
        self._owner.count()
        self._is_cancelled = True
        self._told.phase("cooperative")
        loop, chance = asyncio.get_running_loop(), self._owner.chance
        if chance.random() < self._owner.weather.ignores_cancel:
            loop.call_later(3.0 if grace_s is None else grace_s, self._force)
        else:
            loop.call_later(chance.random() * 0.1, self._cancelled)

    def end(self, fault: backend.Fault | None = None) -> None:
        if self._is_over or self._owner._is_dead:
            return
        self._owner.count()
        self._is_over = True
        if self._worker is not None and self.number:
            self._worker.running.pop(self.number, None)
            self._worker.last_used = asyncio.get_running_loop().time()
        if self._is_cancelled and (fault is None or fault.origin is not Origin.CANCELLED):
            # Once cancelled, always cancelled: what came of it anyway is not told.
            fault = backend.Fault(error("call.cancelled", "transient"), Origin.CANCELLED)
        result = None if fault else f'"{self._claim.id}/{self._claim.attempt}"'.encode()
        self._told.ended(backend.Ending(result=result, fault=fault, units={"tokens": 1.0}))

    def _report(self, fraction: float) -> None:
        if not self._is_over and not self._owner._is_dead:
            self._owner.count()
            self._told.progress(fraction, f"at {fraction}")

    def _crash(self) -> None:
        if not self._is_over and not self._owner._is_dead and self._worker is not None:
            self._owner._lose(self._worker, "worker.killed")

    def _time_out(self) -> None:
        if not self._is_over and not self._owner._is_dead:
            self.end(backend.Fault(error("call.timeout", "transient"), Origin.TIMEOUT))

    def _cancelled(self) -> None:
        self.end(backend.Fault(error("call.cancelled", "transient"), Origin.CANCELLED))

    def _force(self) -> None:
        if not self._is_over and not self._owner._is_dead:
            self._told.phase("force")
            self._told.phase("reloading")
            self._cancelled()
