"""How a revision reaches a fleet: in waves, each of which must prove itself before the next one opens.

    draft --start--> running --last wave proven--> done
                     running --too few applied---> paused --resume--> running
                     running, paused --too many went back, or somebody asks--> aborted

Everything here is a pure function of what is stored and of the moment: the same rows give the same orders,
whoever asks and however often the process died in between.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toft.central import layers
from toft.central.waves import Rules, Wave
from toft.kernel.errors import ConflictError
from toft.kernel.quantities import counted

BUCKETS = 10_000
SEEN_S = 24 * 3600.0
"""A node that was heard of within this time counts; an offline one blocks nobody and is offered nothing."""
AT_ONCE = 200
"""Nodes that one order offers to: the transaction of an order stays short."""
WORDS = 500


class State(enum.StrEnum):
    """Where a rollout is."""

    DRAFT = "draft"
    RUNNING = "running"
    PAUSED = "paused"
    ABORTED = "aborted"
    DONE = "done"


OPEN = (State.DRAFT, State.RUNNING, State.PAUSED)
"""States from which a rollout may still change what somebody is served."""


class Stage(enum.StrEnum):
    """How far one node is with what it was offered."""

    OFFERED = "offered"
    DOWNLOADED = "downloaded"
    STAGED = "staged"
    PROBATION = "probation"
    APPLIED = "applied"
    ROLLED_BACK = "rolled_back"
    FAILED = "failed"
    SKIPPED = "skipped"


BAD = (Stage.ROLLED_BACK, Stage.FAILED)
UNDER_WAY = (Stage.OFFERED, Stage.DOWNLOADED, Stage.STAGED, Stage.PROBATION)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A rollout as it is stored.

    Attributes:
        salt: Makes its buckets other ones than those of the next rollout.
        wave: The newest open wave; -1 before the first.
        opened_at: When that one opened, or when somebody let it go on after a pause.
        is_emergency: All waves open at once.
    """

    id: str
    salt: str
    rules: Rules
    state: State = State.DRAFT
    wave: int = -1
    opened_at: float = 0.0
    is_emergency: bool = False


@dataclass(frozen=True)
class Place:
    """What a rollout did to a node so far."""

    wave: int
    stage: Stage
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A node that a rollout is about.

    Attributes:
        seen_at: When it was heard of last.
        place: None while it was offered nothing.
        kept_out: Why it is not to be touched; empty for most.
    """

    id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    seen_at: float = 0.0
    place: Place | None = None
    kept_out: str = ""

    def is_seen(self, now: float) -> bool:
        """Say whether it was heard of lately."""
        return now - self.seen_at <= SEEN_S

    @property
    def is_reached(self) -> bool:
        """Say whether the revision was offered to it."""
        return self.place is not None and self.place.stage is not Stage.SKIPPED


@dataclass(frozen=True)
class Open:
    """Open a wave."""

    wave: int


@dataclass(frozen=True)
class Offer:
    """Serve the revision to some nodes."""

    nodes: tuple[str, ...]
    wave: int


@dataclass(frozen=True)
class Skip:
    """Leave some nodes out."""

    nodes: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Pause:
    """Offer nothing more until somebody looks."""

    reason: str


@dataclass(frozen=True)
class Abort:
    """Serve to everybody what they had before."""

    reason: str


@dataclass(frozen=True)
class Finish:
    """Serve the revision to everybody from now on, those included that nobody has heard of."""


Order = Open | Offer | Skip | Pause | Abort | Finish


def bucket(salt: str, node_id: str) -> int:
    """Return the place of a node in a rollout's order, 0 to 9,999; the low ones come first."""
    digest = hashlib.sha256(f"{salt}{node_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % BUCKETS


def plan(rollout: Rollout, nodes: Iterable[Member], now: float) -> tuple[Order, ...]:
    """Return what is to be done next; nothing when there is nothing but to wait.

    Carrying the orders out and asking again leads on. Doing one of them twice does no harm, and neither does
    a stop between two.
    """
    if rollout.state not in (State.RUNNING, State.PAUSED):
        return ()
    members = sorted(nodes, key=lambda each: (bucket(rollout.salt, each.id), each.id))
    reached = [each for each in members if each.is_reached]
    told = _too_bad(rollout.rules, reached)
    if told:
        return (Abort(told),)
    if rollout.state is State.PAUSED:
        return ()
    if not members:
        return (Finish(),)
    last = len(rollout.rules.waves) - 1
    if rollout.wave < 0:
        return (Open(last if rollout.is_emergency else 0),)
    return _skips(members) or _offers(rollout, members, now) or _judge(rollout, members, now)


def _too_bad(rules: Rules, reached: Sequence[Member]) -> str:
    bad = [each for each in reached if each.place is not None and each.place.stage in BAD]
    if not bad or len(bad) < rules.most_bad(len(reached)):
        return ""
    reasons = sorted({each.place.reason for each in bad if each.place and each.place.reason})
    because = f": {', '.join(reasons)}" if reasons else ""
    return f"{len(bad)} of {counted(len(reached), 'node')} went back or failed{because}"[:WORDS]


def _skips(members: Sequence[Member]) -> tuple[Order, ...]:
    found: dict[str, list[str]] = {}
    for each in members:
        if each.kept_out and each.place is None:
            found.setdefault(each.kept_out, []).append(each.id)
    return tuple(
        Skip(tuple(ids[start : start + AT_ONCE]), reason)
        for reason, ids in found.items()
        for start in range(0, len(ids), AT_ONCE)
    )


def _is_free(member: Member) -> bool:
    """Say whether a node may be offered something, or was."""
    if member.kept_out:
        return False
    place = member.place
    # What was left out for a reason that does not hold any more is one of them again.
    return place is None or place.stage is not Stage.SKIPPED or place.reason in KEPT_OUT


KEPT_OUT = ("pinned",)
"""Reasons for leaving a node out that can end."""


def _offers(rollout: Rollout, members: Sequence[Member], now: float) -> tuple[Order, ...]:
    wanted: dict[str, None] = {}
    for wave in rollout.rules.waves[: rollout.wave + 1]:
        pool = [each for each in members if _is_about(wave, each) and (_is_free(each) or each.is_reached)]
        # Those that took it and fell silent still count: others must not take their place.
        pool = [each for each in pool if each.is_reached or each.is_seen(now)]
        had = sum(each.is_reached or each.id in wanted for each in pool)
        waiting = [each.id for each in pool if not each.is_reached and each.id not in wanted]
        wanted.update(dict.fromkeys(waiting[: max(quota(wave.percent, len(pool)) - had, 0)]))
    ids = tuple(wanted)
    return tuple(Offer(ids[start : start + AT_ONCE], rollout.wave) for start in range(0, len(ids), AT_ONCE))


def _lacks(rollout: Rollout, members: Sequence[Member]) -> bool:
    """Say whether the open waves would have more nodes if everybody were there."""
    free = [each for each in members if each.is_reached or _is_free(each)]
    for wave in rollout.rules.waves[: rollout.wave + 1]:
        pool = [each for each in free if _is_about(wave, each)]
        if quota(wave.percent, len(pool)) > sum(each.is_reached for each in pool):
            return True
    return False


def quota(percent: float, count: int) -> int:
    """Return how many nodes a share is: rounded down, so that it is never more, but one at least."""
    # 0.07 * 100 is a little more than 7: what is meant by a person has few digits.
    return min(count, max(1, math.floor(round(percent * count / 100, 6)))) if count else 0


def _is_about(wave: Wave, member: Member) -> bool:
    return layers.matches(wave.selector, member.labels)


def _judge(rollout: Rollout, members: Sequence[Member], now: float) -> tuple[Order, ...]:
    wave = rollout.rules.waves[rollout.wave]
    mine = [each for each in members if each.is_reached and _place(each).wave == rollout.wave]
    reached = [each for each in members if each.is_reached]
    if not reached:
        # Nobody is there, or all are kept out; whoever turns up begins it.
        free = any(_is_free(each) for each in members)
        return () if free else (Finish(),)
    # So small a fleet that this wave has no nodes of its own has nothing to bake. One whose nodes only seem
    # to be away has: they may come back before it is over.
    is_whole = not mine and not _lacks(rollout, members)
    if not is_whole and now - rollout.opened_at < wave.bake_s:
        return ()
    if not mine:
        return (_onward(rollout),)
    heard = [each for each in mine if each.is_seen(now)]
    applied = sum(_place(each).stage is Stage.APPLIED for each in heard)
    if heard and applied >= rollout.rules.min_success * len(heard) and applied:
        return (_onward(rollout),)
    return (Pause(_why_not(rollout, mine, heard, applied)),)


def _place(member: Member) -> Place:
    assert member.place is not None
    return member.place


def _onward(rollout: Rollout) -> Order:
    is_last = rollout.wave == len(rollout.rules.waves) - 1
    return Finish() if is_last else Open(rollout.wave + 1)


def _why_not(rollout: Rollout, mine: Sequence[Member], heard: Sequence[Member], applied: int) -> str:
    name = f"wave {rollout.wave + 1} of {len(rollout.rules.waves)}"
    if not heard:
        return f"{name}: none of its {counted(len(mine), 'node')} was heard of for {SEEN_S / 3600:g} h"
    counts: dict[Stage, int] = {}
    for each in heard:
        stage = _place(each).stage
        if stage is not Stage.APPLIED:
            counts[stage] = counts.get(stage, 0) + 1
    rest = ", ".join(f"{count} {stage.replace('_', ' ')}" for stage, count in counts.items())
    needed = f"{rollout.rules.min_success:.0%} are needed"
    return f"{name}: {applied} of {counted(len(heard), 'node')} applied, {needed}; {rest}"


_FROM: Mapping[str, tuple[State, ...]] = {
    "start": (State.DRAFT,),
    "pause": (State.RUNNING,),
    "resume": (State.PAUSED,),
    "promote": (State.RUNNING, State.PAUSED),
    "emergency": OPEN,
    "abort": OPEN,
}
VERBS = tuple(_FROM)
"""What somebody may ask of a rollout."""


def may(verb: str, rollout: Rollout) -> bool:
    """Say whether something can be asked of a rollout in the state it is in."""
    return rollout.state in _FROM[verb]


def check_verb(verb: str, rollout: Rollout) -> None:
    """Refuse what cannot be done in the state a rollout is in.

    Raises:
        ConflictError: Says in which states it can.
    """
    if not may(verb, rollout):
        raise ConflictError(
            f"rollout {rollout.id} is {rollout.state}; {verb} is for one that is {' or '.join(_FROM[verb])}",
            code="rollout.state",
            details={"rollout": rollout.id, "state": str(rollout.state), "verb": verb},
            hint=f"toft central rollout show {rollout.id}",
        )


def asked(verb: str, rollout: Rollout, now: float) -> dict[str, Any]:
    """Return what changes of a rollout when somebody asks for something."""
    last = len(rollout.rules.waves) - 1
    match verb:
        case "pause":
            return {"state": State.PAUSED}
        case "abort":
            return {"state": State.ABORTED, "ended_at": now}
        case "resume":
            # What was not proven gets the time of a wave once more.
            return {"state": State.RUNNING, "wave_opened_at": now}
        case "emergency":
            return {"state": State.RUNNING, "is_emergency": True, "wave": last, "wave_opened_at": now}
        case "promote" if rollout.wave == last:
            return {"state": State.DONE}
        case "promote":
            return {"state": State.RUNNING, "wave": rollout.wave + 1, "wave_opened_at": now}
        case _:
            return {"state": State.RUNNING}
