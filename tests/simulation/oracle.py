"""Reads the event log, and nothing of the queue, and says which promise is broken.

Written from the design, not from the code: it has its own table of transitions, its own idea of who may run
when, and folds the events into rows of its own. Beside the log it knows what only the outside knows: what was
acknowledged to callers, what they asked for, and what the workers were told to execute.
"""

import bisect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

MAY_FOLLOW = {
    "pending": {"running", "cancelled", "failed"},
    "running": {"completed", "failed", "cancelled", "interrupted", "pending"},
    "interrupted": {"pending"},
    "failed": {"pending"},
    "completed": set(),
    "cancelled": set(),
}
ASKED = "asked"
"""The `because` of a job that a person or a program sent round again."""


class BrokenError(AssertionError):
    """A promise of the queue does not hold; the message begins with its name."""


class Event(Protocol):
    """What the queue stores of something that happened."""

    cursor: int
    at: float
    type: str
    job: str | None
    attempt: int
    sequence: str | None
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Terms:
    """What this node was promised to keep to.

    Attributes:
        lanes: Jobs at once.
        caps: Jobs at once for each instance.
        wall_jumps: The wall clock was set, so that times of events say nothing about what is due.
        forgets: Ended jobs may be forgotten, and their keys stand for others then.
        unexplained_s: Seconds the first job of an instance may wait before there must be a reason.
    """

    lanes: int
    caps: Mapping[str, int | None]
    unexplained_s: float = 15.0
    wall_jumps: bool = False
    forgets: bool = False


@dataclass(slots=True)
class Seen:
    """A job as the events tell it."""

    id: str
    seq: int
    instance: str
    priority: int
    rank: float
    idempotent: bool
    key: str | None
    max_attempts: int
    retried_on: tuple[str, ...]
    is_held: bool
    waits_for: int
    sequence: str | None
    is_map: bool
    deadline_at: float | None
    state: str = "pending"
    attempt: int = 0
    tries_from: int = 0
    progress: float | None = None
    message: str | None = None
    error: str | None = None
    reason: Mapping[str, Any] | None = None
    is_cancelling: bool = False
    explained: bool = False

    @property
    def is_ready(self) -> bool:
        return not self.is_held and not self.waits_for and not self.is_cancelling

    @property
    def order(self) -> tuple[float, int]:
        return (self.rank, self.seq)


@dataclass
class Outside:
    """What is known besides the log; the driver writes it down as it happens."""

    acknowledged: set[str] = field(default_factory=set)
    """Jobs whose submission was answered."""
    keys: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """What a key stands for: the job that was answered, and its arguments."""
    told: dict[str, str] = field(default_factory=dict)
    """Jobs of which somebody was told that they are over for ever, and how."""
    asked: dict[str, int] = field(default_factory=dict)
    """How often somebody asked for a job to run again and was not refused."""
    sequences: dict[str, int] = field(default_factory=dict)
    """Sequences whose submission was answered, and how many steps they have."""
    executed: set[tuple[str, int]] = field(default_factory=set)
    """Jobs and attempts that a worker was told to run."""


class Oracle:
    """Takes events in the order of the log; each broken promise raises `BrokenError`."""

    def __init__(self, terms: Terms, outside: Outside) -> None:
        self.jobs: dict[str, Seen] = {}
        self.outside = outside
        self.kinds: dict[str, int] = {}
        self._terms = terms
        self._cursor = 0
        self._keys: dict[str, str] = {}
        self._pending: dict[str, list[tuple[float, int, str]]] = {}
        self._running: dict[str, set[str]] = {}
        self._heads: dict[str, tuple[tuple[str, int], float]] = {}
        self._hear = {
            "submitted": self._submitted,
            "state": self._state,
            "retry": self._retry,
            "progress": self._progress,
            "blocked": self._blocked,
            "unblocked": self._unblocked,
            "cancel": self._cancel,
            "reordered": self._reordered,
            "evicted": self._evicted,
        }

    @property
    def cursor(self) -> int:
        return self._cursor

    def read(self, events: Iterable[Event]) -> None:
        """Take in the next events of the log."""
        for event in events:
            if event.cursor <= self._cursor:
                raise BrokenError(f"cursors: {event.cursor} after {self._cursor}")
            self._cursor = event.cursor
            self.kinds[event.type] = self.kinds.get(event.type, 0) + 1
            hear = self._hear.get(event.type)
            if hear is not None:
                hear(event)

    # One handler for each type of event

    def _submitted(self, event: Event) -> None:
        data, job = event.data, _named(event)
        if job in self.jobs:
            raise BrokenError(f"submitted once: {job} is in the log twice")
        seen = Seen(
            id=job,
            seq=len(self.jobs),
            instance=data["instance"],
            priority=data.get("priority", 0),
            rank=data["rank"],
            idempotent=bool(data.get("idempotent")),
            key=data.get("idempotency_key"),
            max_attempts=data.get("retry", {}).get("max_attempts", 3 if data.get("idempotent") else 1),
            retried_on=tuple(data.get("retry", {}).get("on", ("transient", "resource"))),
            is_held="ready_at" in data or data.get("kind") == "map",
            is_map=data.get("kind") == "map",
            sequence=event.sequence,
            waits_for=int(data.get("waiting", 0)),
            deadline_at=data.get("deadline_at"),
        )
        if seen.key is not None:
            other = self._keys.get(seen.key)
            if other is not None and not self.is_forgettable(other):
                raise BrokenError(f"keys: {seen.key} stands for {other} and for {job}")
            self._keys[seen.key] = job
        self.jobs[job] = seen
        self._enqueue(seen)

    def _state(self, event: Event) -> None:
        job = self._job(event)
        before, after = event.data["from"], event.data["to"]
        if before != job.state:
            raise BrokenError(f"replay: {job.id} leaves {before}, the log left it {job.state}")
        is_joined = job.is_map and (before, after) == ("pending", "completed")
        if after not in MAY_FOLLOW[before] and not is_joined:
            word = "terminal states are final" if not MAY_FOLLOW[before] else "transitions"
            raise BrokenError(f"{word}: {job.id} {before} -> {after}")
        expected = job.attempt + (after == "running")
        if event.attempt != expected:
            raise BrokenError(f"epochs: {job.id} {before} -> {after} by {event.attempt}, not {expected}")
        if after != "running" and after != "completed" and not event.data.get("because"):
            raise BrokenError(f"reasons: {job.id} {before} -> {after} without one")
        if before == "pending":
            self._dequeue(job)
        if before == "running":
            self._running[job.instance].discard(job.id)
        if after == "running":
            self._began(job, event.at)
        elif after == "pending":
            self._again(job, before, event)
        job.state, job.attempt = after, event.attempt
        error = event.data.get("error")
        job.error = error["code"] if error else (job.error if after == "running" else None)
        if after == "pending":
            self._enqueue(job)
        if after == "running":
            self._check_room(job)

    def _retry(self, event: Event) -> None:
        if not event.data.get("because"):
            raise BrokenError(f"reasons: a retry of {event.job} without one")

    def _progress(self, event: Event) -> None:
        job = self._job(event)
        if job.state != "running" or event.attempt != job.attempt:
            raise BrokenError(f"fencing: progress of attempt {event.attempt} of {job.id} at {job.attempt}")
        job.progress = event.data.get("progress", job.progress)
        job.message = event.data.get("message", job.message)

    def _blocked(self, event: Event) -> None:
        job, reason = self._job(event), event.data.get("reason")
        if not reason or not reason.get("code"):
            raise BrokenError(f"reasons: {job.id} is blocked without one")
        if job.state != "pending":
            raise BrokenError(f"reasons: {job.id} is {job.state} and blocked")
        job.reason, job.explained = reason, True

    def _unblocked(self, event: Event) -> None:
        job = self._job(event)
        job.reason = None
        if event.data.get("because") == "due":
            job.is_held = job.is_map
        job.waits_for = event.data.get("waiting", job.waits_for)

    def _cancel(self, event: Event) -> None:
        self._job(event).is_cancelling = True

    def _reordered(self, event: Event) -> None:
        job = self._job(event)
        if job.state != "pending":
            raise BrokenError(f"order: {job.id} is {job.state} and was moved")
        self._dequeue(job)
        job.priority, job.rank = event.data["priority"], event.data["rank"]
        self._enqueue(job)

    def _evicted(self, event: Event) -> None:
        if not event.data.get("because") or not event.data.get("instance"):
            raise BrokenError(f"reasons: an eviction for {event.job} without one")

    # What the handlers look at

    def _job(self, event: Event) -> Seen:
        job = self.jobs.get(_named(event))
        if job is None:
            raise BrokenError(f"order of the log: {event.type} of {event.job} before it was submitted")
        return job

    def _enqueue(self, job: Seen) -> None:
        bisect.insort(self._pending.setdefault(job.instance, []), (*job.order, job.id))

    def _dequeue(self, job: Seen) -> None:
        queue = self._pending[job.instance]
        index = bisect.bisect_left(queue, (*job.order, job.id))
        if index >= len(queue) or queue[index][2] != job.id:
            raise BrokenError(f"order: {job.id} is not where its rank says")
        del queue[index]

    def _began(self, job: Seen, at: float) -> None:
        if job.is_cancelling:
            raise BrokenError(f"cancel: {job.id} runs although it was cancelled")
        for _, _, name in self._pending[job.instance]:
            other = self.jobs[name]
            if other.order > job.order:
                break
            if other.is_ready and not self._is_late(other, at):
                raise BrokenError(f"order: {job.id} began before {other.id} of {job.instance}")
        self._heads.pop(job.instance, None)  # whoever is first now waited for this one until now
        job.progress = job.message = job.reason = None
        job.explained = False
        self._running.setdefault(job.instance, set()).add(job.id)

    def _check_room(self, job: Seen) -> None:
        beside = self._running[job.instance]
        cap = self._terms.caps.get(job.instance)
        if cap is not None and len(beside) > cap:
            raise BrokenError(f"caps: {len(beside)} jobs on {job.instance}, which takes {cap}")
        total = sum(map(len, self._running.values()))
        if total > self._terms.lanes:
            raise BrokenError(f"lanes: {total} jobs in {self._terms.lanes}")

    def _again(self, job: Seen, before: str, event: Event) -> None:
        """Something that ran is to run again: who said that it may?"""
        job.deadline_at = event.data.get("deadline_at")
        job.rank, job.is_held = event.data.get("rank", job.rank), "ready_at" in event.data or job.is_map
        if before in ("failed", "interrupted") and self.outside.asked.get(job.id, 0) > 0:
            self.outside.asked[job.id] -= 1
            job.tries_from, job.is_cancelling = job.attempt, False
            return
        if before != "running" and job.sequence is not None and self._is_asked_for(job.sequence):
            job.tries_from, job.is_cancelling = job.attempt, False
            return  # whoever asks for a fan-out asks for its parts
        if job.is_map and before != "running":
            job.is_cancelling = False
            return  # it does nothing itself; one of its parts is to run again
        if job.is_cancelling:
            raise BrokenError(f"cancel: {job.id} is queued again although it was cancelled")
        if before == "failed":
            raise BrokenError(f"terminal states are final: {job.id} failed and is queued again unasked")
        if before == "interrupted":
            if not job.idempotent:
                raise BrokenError(f"never twice: {job.id} was interrupted and is queued again unasked")
            return
        self._check_retry(job, event.data.get("error") or {})

    def _is_asked_for(self, sequence: str) -> bool:
        return any(self.jobs[name].sequence == sequence for name in self.outside.asked if name in self.jobs)

    def _check_retry(self, job: Seen, error: Mapping[str, Any]) -> None:
        if (job.id, job.attempt) not in self.outside.executed:
            return  # no worker ever heard of that attempt
        tries = job.attempt - job.tries_from
        by_plugin = str(error.get("code", "")).startswith("plugin.")
        category = error.get("category")
        if by_plugin and category == "resource" and tries < max(2, job.max_attempts):
            return
        if not by_plugin and not job.idempotent:
            raise BrokenError(f"never twice: {job.id} may have run ({error.get('code')}) and is queued again")
        is_told_apart = error.get("code") == "job.interrupted"  # the node ended, in whatever way
        if tries >= job.max_attempts or not (is_told_apart or category in job.retried_on):
            raise BrokenError(f"retries: {job.id} after {tries} tries and {error.get('code')}")

    # What is asked now and then, and at the end

    def sample(self, monotonic: float) -> None:
        """Look who waits just now; the first of an instance must soon have a reason."""
        for instance, queue in self._pending.items():
            ready = (self.jobs[name] for _, _, name in queue if self.jobs[name].is_ready)
            head = next(ready, None)
            if head is None:
                self._heads.pop(instance, None)
                continue
            known, since = self._heads.get(instance, (None, 0.0))
            if known != (head.id, head.attempt):
                self._heads[instance] = ((head.id, head.attempt), monotonic)
            elif monotonic - since > self._terms.unexplained_s and not head.explained:
                raise BrokenError(
                    f"reasons: {head.id} waits for {monotonic - since:.1f} s and nobody knows why"
                )

    def is_forgettable(self, job: str) -> bool:
        """Say whether this node may have forgotten a job."""
        return self._terms.forgets and self.jobs[job].state in (
            "completed",
            "failed",
            "cancelled",
            "interrupted",
        )

    def open_count(self) -> int:
        """Return how many jobs have not ended."""
        return sum(map(len, self._pending.values())) + sum(map(len, self._running.values()))

    def is_waiting(self) -> bool:
        """Say whether somebody who could run has not ended."""
        return any(self._running.values()) or any(self._pending.values())

    def recent(self, states: Sequence[str], count: int = 200) -> list[str]:
        """Return some of the newest jobs in these states."""
        newest = itertools.islice(reversed(self.jobs.values()), count)
        return [job.id for job in newest if job.state in states]

    def forget_heads(self) -> None:
        """Begin to wait anew: the node was away meanwhile."""
        self._heads.clear()

    def _is_late(self, job: Seen, at: float) -> bool:
        return job.deadline_at is not None and (self._terms.wall_jumps or at >= job.deadline_at - 0.001)

    def check_acknowledged(self) -> None:
        """Everything that was promised to somebody is in the log."""
        for job in sorted(self.outside.acknowledged):
            if job not in self.jobs:
                raise BrokenError(f"acknowledged: {job} is not in the log")
        for job, state in self.outside.told.items():
            now = self.jobs[job].state
            if now != state:
                raise BrokenError(f"terminal states are final: {job} was told to be {state} and is {now}")

    def check_rows(self, rows: Iterable[Any]) -> None:
        """The events, replayed, give the rows."""
        missing = set(self.jobs)
        for row in rows:
            missing.discard(row.id)
            job = self.jobs.get(row.id)
            if job is None:
                raise BrokenError(f"replay: {row.id} has a row and no events")
            told = (job.state, job.attempt, job.priority, job.rank, job.error, job.is_cancelling)
            kept = (
                str(row.state),
                row.attempt,
                row.priority,
                row.rank,
                row.error["code"] if row.error else None,
                row.cancel_requested_at is not None or row.state == "cancelled",
            )
            told = (*told[:5], told[5] or job.state == "cancelled")
            if told != kept:
                raise BrokenError(f"replay: {row.id} is {kept}, its events say {told}")
        for name in sorted(missing):
            if not self.is_forgettable(name):
                raise BrokenError(f"replay: {name} has events and no row")

    def check_ended(self) -> None:
        """After a long quiet time nobody waits any more: nobody was forgotten."""
        for job in self.jobs.values():
            if job.state in ("pending", "running"):
                raise BrokenError(f"starvation: {job.id} of {job.instance} is still {job.state}")


def _named(event: Event) -> str:
    if event.job is None:
        raise BrokenError(f"the log: {event.type} without a job")
    return event.job
