"""Which waiting jobs get a lane now, and why the others do not; pure decisions over what was measured.

The rules, in the order they are applied to the heads of the instances, the most urgent first:

- a lane must be free, and the instance below its own cap;
- an instance that was never measured runs alone first, for a bounded time: a job that hangs there holds up
  nobody for longer;
- the reservation of an instance must fit beside the growth the running jobs still have coming;
- a job that does not fit even an empty machine fails at once; one that fits when idle instances make room
  gets the room, least recently used first;
- one that does not fit may be overtaken, but not for ever: after a while only jobs are let past that would
  fit beside it on the machine.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toft.jobs import ledger, policies
from toft.jobs.ledger import NOTHING, Amounts, Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The numbers behind the decisions.

    Attributes:
        policy: What is looked at.
        keep: What stays free whatever happens.
        alone_s: Seconds an instance that was never measured has the machine for itself, and at most waits
            for the others to end before it starts beside them.
        unknown: Share of the main memory that must be free for an instance that was never measured to start
            beside others.
        overdue_s: A lane held for longer than this, and for ten times what jobs of its instance usually take,
            is lent out once more, to an instance that runs nothing: its holder may hang. None never lends.
        overtaken_s: Seconds a job that does not fit may be overtaken by jobs that delay it.
    """

    policy: policies.Policy = policies.MEASURE
    keep: Amounts = field(default_factory=dict)
    alone_s: float = 1.0
    unknown: float = 0.25
    overtaken_s: float = 10.0
    overdue_s: float | None = None


class Standing(enum.StrEnum):
    """Whether an instance can take a job."""

    COLD = "cold"  # not loaded: it will be
    READY = "ready"
    LOADING = "loading"
    AWAY = "away"  # restarting, recovering, or kept down for a while: `reason` says which


@dataclass(slots=True, kw_only=True)
class Candidate:
    """An instance with work waiting, and with what it runs.

    Attributes:
        instance: Its name.
        rank: Of its most urgent job; smaller goes first.
        seq: The same, among equal ranks.
        ready: How many jobs could run.
        blocked_s: Seconds its most urgent job has been found not to fit.
        running: Jobs that hold a lane here.
        cap: Jobs it may run at once; None is any number.
        standing: Whether it can take one.
        reason: Why not, when it is away.
        need: What it may come to hold with 1, 2… jobs; None while it was never measured.
        floor: What its author says it needs at least.
    """

    instance: str
    rank: float
    seq: int
    ready: int
    blocked_s: float = 0.0
    running: int = 0
    cap: int | None = None
    standing: Standing = Standing.READY
    reason: Mapping[str, Any] | None = None
    need: Needs | None = None
    floor: Amounts = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Needs:
    """What an instance holds without a job, and what each job adds."""

    idle: Amounts
    each: Amounts

    def of(self, jobs: int) -> dict[str, int]:
        """Return what it may come to hold with so many jobs."""
        names = dict.fromkeys((*self.idle, *self.each))
        return {name: self.idle.get(name, 0) + jobs * self.each.get(name, 0) for name in names}


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle:
    """A loaded instance without a job or a call that may be evicted."""

    instance: str
    last_used: float
    cost_s: float = 0.0
    used: Amounts = field(default_factory=dict)


def eviction_order(idle: Idle) -> tuple[float, float, str]:
    """Return what idle instances are sorted by: longest unused first, of those the cheapest to load again."""
    return idle.last_used, idle.cost_s, idle.instance


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """A running instance that was never measured."""

    instance: str
    for_s: float


@dataclass(slots=True, kw_only=True)
class World:
    """Everything a decision looks at.

    Attributes:
        free_lanes: Lanes nobody has; below 0 while some are lent.
        lendable: Lanes that are held for too long and not lent yet.
        running: Instances with jobs, and how many each.
        reading: What was measured last.
        ledger: Reservations; `decide` adds those of the jobs it admits.
        idle: What could be evicted.
        alone: Running instances that were never measured.
        since: What was admitted since a job began to wait that may not be delayed any more, by instance.
    """

    free_lanes: int
    running: Mapping[str, int]
    reading: Reading
    ledger: ledger.Ledger
    idle: Sequence[Idle] = ()
    alone: Sequence[Alone] = ()
    since: Mapping[str, Amounts] = field(default_factory=dict)
    lendable: int = 0


@dataclass(frozen=True, slots=True)
class Admit:
    """Give lanes to an instance."""

    instance: str
    jobs: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Leave an instance's jobs where they are.

    Attributes:
        reason: JSON-like; `code` is a stable word.
        recheck_s: When to look again although nothing happened; 0 is never.
        is_short: It waits for memory.
    """

    instance: str
    reason: dict[str, Any]
    recheck_s: float = 0.0
    is_short: bool = False


@dataclass(frozen=True, slots=True)
class Evict:
    """Unload idle instances so that another fits."""

    instance: str
    victims: tuple[str, ...]
    reason: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Refuse:
    """Fail the most urgent job of an instance: it cannot run here."""

    instance: str
    code: str
    details: dict[str, Any]


Decision = Admit | Wait | Evict | Refuse


def decide(world: World, candidates: Sequence[Candidate], rules: Rules) -> list[Decision]:
    """Return one decision for each candidate.

    Args:
        world: What is running and free.
        candidates: Instances with work waiting, the most urgent first.
        rules: The numbers.
    """
    return _Deciding(world, rules).run(candidates)


class _Deciding:
    """One pass over the candidates; what it admits counts for those after."""

    def __init__(self, world: World, rules: Rules) -> None:
        self._world = world
        self._rules = rules
        self._lanes = max(0, world.free_lanes)
        self._lendable = world.lendable
        self._running = sum(world.running.values())
        self._held_for: Candidate | None = None
        self._held_need: Amounts = NOTHING
        self._quiet_for: Candidate | None = None
        self._since = dict(world.since)
        self._evicting: set[str] = set()

    def run(self, candidates: Sequence[Candidate]) -> list[Decision]:
        # What waits to be measured goes first: else it never is alone while others have more to do.
        waits = [each for each in candidates if each.need is None and each.blocked_s > 0]
        if waits:
            candidates = [*waits, *(each for each in candidates if each not in waits)]
        return [self._one(each) for each in candidates]

    def _one(self, wanted: Candidate) -> Decision:
        if wanted.standing is Standing.AWAY:
            return Wait(wanted.instance, dict(wanted.reason or {"code": "away"}))
        if wanted.standing is Standing.LOADING:
            return Wait(wanted.instance, {"code": "loading", "instance": wanted.instance})
        if wanted.cap is not None and wanted.running >= wanted.cap:
            return Wait(wanted.instance, _busy(wanted))
        if self._lanes <= 0 and not (self._lendable > 0 and not wanted.running):
            recheck_s = (self._rules.overdue_s or 0.0) / 2
            return Wait(wanted.instance, {"code": "no_lane", "running": self._running}, recheck_s=recheck_s)
        if not self._rules.policy.checks:
            return self._admit(wanted, self._most(wanted), NOTHING)
        if self._rules.policy.packs and (waits := self._alone(wanted)) is not None:
            return waits
        return self._fit(wanted)

    def _most(self, wanted: Candidate) -> int:
        most = min(wanted.ready, max(1, self._lanes))
        return most if wanted.cap is None else min(most, wanted.cap - wanted.running)

    def _admit(self, wanted: Candidate, jobs: int, reservation: Amounts) -> Admit:
        if self._lanes <= 0:
            self._lendable -= jobs
        self._lanes = max(0, self._lanes - jobs)
        self._running += jobs
        if reservation:
            self._world.ledger.reserve(wanted.instance, reservation)
            self._since[wanted.instance] = reservation
        return Admit(wanted.instance, jobs)

    # Alone

    def _alone(self, wanted: Candidate) -> Wait | None:
        """Say whether somebody must be alone just now; an instance that was never measured above all."""
        limit_s = self._rules.alone_s
        for other in self._world.alone:
            if other.for_s < limit_s and not (other.instance == wanted.instance and wanted.need is not None):
                reason = {"code": "measuring", "instance": other.instance}
                return Wait(wanted.instance, reason, recheck_s=limit_s - other.for_s)
        if self._quiet_for is not None:
            return Wait(wanted.instance, {"code": "measuring", "instance": self._quiet_for.instance})
        if wanted.need is not None:
            return None
        if wanted.running:
            return Wait(wanted.instance, {"code": "measuring", "instance": wanted.instance})
        if self._running and wanted.blocked_s < limit_s:
            self._quiet_for = wanted
            others = {"code": "unmeasured", "running": self._running}
            return Wait(wanted.instance, others, recheck_s=limit_s - wanted.blocked_s)
        return None

    # Memory

    def _fit(self, wanted: Candidate) -> Decision:
        first = self._reservation(wanted, wanted.running + 1)
        if too_much := self._beyond(wanted.floor if wanted.need is None else self._reservation(wanted, 1)):
            return Refuse(wanted.instance, "job.never_fits", too_much)
        if self._held_for is not None and (held := self._delays(wanted, first)) is not None:
            return held
        missing = self._missing(wanted, first)
        if missing:
            return self._short(wanted, first, missing)
        if wanted.need is None:
            # One job until its memory is known; then there is no more guessing.
            admitted = self._admit(wanted, 1, first)
            self._quiet_for = wanted if self._rules.policy.packs else None
            return admitted
        jobs, reservation = 1, first
        while jobs < self._most(wanted):
            following = self._reservation(wanted, wanted.running + jobs + 1)
            if following != reservation and (
                self._missing(wanted, following)
                or (self._held_for is not None and self._delays(wanted, following) is not None)
            ):
                break
            jobs, reservation = jobs + 1, following
        return self._admit(wanted, jobs, reservation)

    def _reservation(self, wanted: Candidate, jobs: int) -> Amounts:
        if wanted.need is not None:
            return ledger.largest(wanted.need.of(jobs), wanted.floor)
        there = self._world.reading.total.get(ledger.MEMORY)
        if there is None or not (self._running and self._rules.policy.packs):
            return wanted.floor
        # Nobody knows; beside others it gets a place only where there is plenty.
        return ledger.largest({ledger.MEMORY: int(there * self._rules.unknown)}, wanted.floor)

    def _missing(self, wanted: Candidate, reservation: Amounts) -> dict[str, int]:
        world = self._world
        return world.ledger.shortage(
            wanted.instance, reservation, world.reading, self._rules.keep, packed=self._rules.policy.packs
        )

    def _beyond(self, reservation: Amounts) -> dict[str, Any]:
        """Return the evidence that even an empty machine is too small; empty when it is not."""
        for name, needed in reservation.items():
            there = self._world.reading.total.get(name)
            if there is not None and needed > there - self._rules.keep.get(name, 0):
                return {
                    "resource": name,
                    "needed_bytes": needed,
                    "total_bytes": there,
                    "reserved_bytes": self._rules.keep.get(name, 0),
                }
        return {}

    def _short(self, wanted: Candidate, reservation: Amounts, missing: dict[str, int]) -> Decision:
        # Nobody is unloaded for a guess.
        is_known = wanted.need is not None or reservation == wanted.floor
        victims = self._victims(wanted, missing) if is_known else ()
        name = next(iter(missing))
        evidence = {
            "resource": name,
            "needed_bytes": reservation[name],
            "missing_bytes": missing[name],
            "free_bytes": self._world.reading.free.get(name, 0),
            "coming_bytes": self._world.ledger.growth(self._world.reading).get(name, 0),
        }
        if victims:
            self._evicting.update(victims)
            return Evict(
                wanted.instance, victims, {"code": "making_room", "evicted": list(victims), **evidence}
            )
        patience_s = self._rules.policy.patience_s
        if patience_s is not None and wanted.blocked_s >= patience_s:
            return Refuse(
                wanted.instance, "job.no_room", {**evidence, "waited_s": round(wanted.blocked_s, 1)}
            )
        if self._held_for is None and wanted.blocked_s >= self._rules.overtaken_s:
            self._held_for, self._held_need = wanted, reservation
        reason = {"code": "memory", **evidence, "held_by": sorted(self._world.running)[:16]}
        return Wait(wanted.instance, reason, recheck_s=1.0, is_short=True)

    def _victims(self, wanted: Candidate, missing: Amounts) -> tuple[str, ...]:
        """Return the fewest idle instances, longest unused first, that make it fit; none if all do not."""
        keys = [each for each in self._world.idle if each.instance not in (wanted.instance, *self._evicting)]
        left = dict(missing)
        chosen: list[Idle] = []
        for each in sorted(keys, key=eviction_order):
            if not any(size > 0 for size in left.values()):
                break
            if any(left.get(name, 0) > 0 and size > 0 for name, size in each.used.items()):
                chosen.append(each)
                for name, size in each.used.items():
                    left[name] = left.get(name, 0) - size
        if any(size > 0 for size in left.values()):
            return ()
        for each in list(chosen):
            # A later, larger one may have made an earlier one unnecessary.
            if all(left.get(name, 0) + size <= 0 for name, size in each.used.items() if name in missing):
                chosen.remove(each)
                for name, size in each.used.items():
                    left[name] = left.get(name, 0) + size
        return tuple(each.instance for each in chosen)

    # Nobody waits for ever

    def _delays(self, wanted: Candidate, reservation: Amounts) -> Wait | None:
        """Refuse what would stand in the way of the job that was overtaken for long enough."""
        first = self._held_for
        if first is None or first.instance == wanted.instance:
            return None
        others = {
            name: sizes
            for name, sizes in self._since.items()
            if name not in (wanted.instance, first.instance)
        }
        after = ledger.total([*others.values(), reservation, self._held_need])
        for name, size in self._held_need.items():
            if name not in self._world.reading.total or not reservation.get(name, 0):
                continue
            room = self._world.reading.capacity(name) - self._rules.keep.get(name, 0)
            if size > 0 and after.get(name, 0) > room:
                return Wait(
                    wanted.instance,
                    {"code": "not_overtaking", "instance": first.instance, "resource": name},
                    recheck_s=1.0,
                )
        return None


def _busy(wanted: Candidate) -> dict[str, Any]:
    return {"code": "instance_busy", "running": wanted.running, "cap": wanted.cap}
