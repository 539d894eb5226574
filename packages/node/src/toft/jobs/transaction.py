"""One transaction of the queue: changes of rows, the events that belong to them, and what memory must learn.

An instance lives inside one `Store.write`. It may be thrown away and made anew when the transaction is rolled
back; only `effects` leaves it, after the commit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from toft.jobs import rows
from toft.jobs.records import AGEING_S, ENDED, Event, State
from toft.kernel.record import record
from toft.store import database

QUERIES = database.read_queries("toft.jobs")
_AGEING_NS = int(AGEING_S * 1e9)
_GAP_NS = 1000


@dataclass(slots=True)
class Numbers:
    """The last numbers that were given out."""

    seq: int = 0
    cursor: int = 0
    rank: int = 0
    has_edges: bool = False  # whether any job ever waited for another one; without, nobody looks


@record()
class Running:
    """A job that runs, as memory knows it."""

    seq: int
    id: str
    attempt: int
    instance: str
    sequence: str | None
    started_at: float = 0.0
    lane: str | None = None

    @classmethod
    def of(cls, row: Sequence[Any]) -> Running:
        """Return the job of a row of `job_rows`."""
        return cls(row[0], row[1], row[7], row[3], row[28])


@record()
class Change:
    """One change of state in a transaction."""

    seq: int
    id: str
    attempt: int
    instance: str
    sequence: str | None
    before: State
    after: State


@dataclass(slots=True)
class Effects:
    """What memory learns when the transaction is committed."""

    numbers: Numbers
    events: list[Event] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    submitted: int = 0
    ready: dict[str, int] = field(default_factory=dict)
    heads: dict[str, tuple[int, int, float, str, int] | None] = field(default_factory=dict)
    started: list[Running] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    expand: list[str] = field(default_factory=list)
    ended: dict[str, Sequence[Any]] = field(default_factory=dict)
    forgotten: dict[State, int] = field(default_factory=dict)
    garbage: list[str] = field(default_factory=list)
    is_quiet: bool = False  # no job runs after it
    timers_changed: bool = False
    due: tuple[float | None, float | None, float | None] = (None, None, None)


Follower = Callable[["Transaction", Sequence[Change]], None]


class Transaction:
    """Buffers rows so that a batch of operations costs a few statements."""

    def __init__(
        self,
        connection: database.Connection,
        *,
        at: float,
        q: float,
        numbers: Numbers,
        running: Mapping[str, Running] = MappingProxyType({}),
    ) -> None:
        self.connection = connection
        self._running = running
        self.at = at
        self.q = q
        self.effects = Effects(replace(numbers))
        self.ended: set[int] = set()
        # Fan-outs that wait again for a part: their other parts stay as they are.
        self.reopened: set[int] = set()
        self._followed = 0
        self._event_rows: list[tuple[Any, ...]] = []
        self._buffers: dict[str, list[tuple[Any, ...]]] = {}

    def is_running(self, job: Running, attempt: int) -> bool:
        """Say whether an attempt has not ended, in this transaction or in one before it."""
        # What was asked while an earlier transaction was under way may be about an attempt that ended in it.
        return self._running.get(job.id) is job and job.attempt == attempt and job.seq not in self.ended

    def next_seq(self) -> int:
        """Return the number of a new job."""
        self.effects.numbers.seq += 1
        return self.effects.numbers.seq

    def next_rank(self, priority: int) -> int:
        """Return where a job that comes now stands; later ones of equal priority stand behind it."""
        numbers = self.effects.numbers
        numbers.rank = max(int(self.q * 1e9), numbers.rank + _GAP_NS)
        return numbers.rank - priority * _AGEING_NS

    def event(
        self, kind: str, seq: int | None, job: str | None, attempt: int, sequence: str | None, /, **data: Any
    ) -> None:
        """Write an event."""
        self.write_event(kind, seq, job, attempt, sequence, data)

    def write_event(
        self,
        kind: str,
        seq: int | None,
        job: str | None,
        attempt: int,
        sequence: str | None,
        data: Mapping[str, Any],
        text: str | None = None,
    ) -> None:
        """Write an event whose data are at hand, and perhaps their text."""
        numbers = self.effects.numbers
        numbers.cursor += 1
        if text is None:
            text = rows.encode(data) if data else "{}"
        self._event_rows.append((numbers.cursor, self.at, kind, seq, attempt, sequence, text))
        self.effects.events.append(Event(numbers.cursor, self.at, kind, job, attempt, sequence, data))

    def moved(
        self, job: Running, attempt: int, before: State, after: State, because: str, **data: Any
    ) -> None:
        """Write the event of a change of state and remember it for those who follow."""
        told = {"from": before, "to": after, "because": because}
        told.update((key, value) for key, value in data.items() if value is not None)
        self._move(job, attempt, before, after, told)

    def claimed(self, jobs: Sequence[Running], lane: Mapping[str, Any]) -> None:
        """Write that jobs run now: what is said of them is the same for all, and is turned into text once."""
        told: dict[str, Any] = {"from": State.PENDING, "to": State.RUNNING, "because": "claimed"}
        if lane:
            told["lane"] = lane
        text = rows.encode(told)
        self.put("claim_jobs", self.at, rows.encode([job.seq for job in jobs]))
        for job in jobs:
            self._move(job, job.attempt, State.PENDING, State.RUNNING, told, text)
        self.effects.started += jobs

    def _move(
        self,
        job: Running,
        attempt: int,
        before: State,
        after: State,
        told: Mapping[str, Any],
        text: str | None = None,
    ) -> None:
        self.write_event("state", job.seq, job.id, attempt, job.sequence, told, text)
        self.effects.changes.append(
            Change(job.seq, job.id, attempt, job.instance, job.sequence, before, after)
        )

    def put(self, query: str, *parameters: Any) -> None:
        """Buffer a statement of `queries.sql`; equal ones run together at the next `flush`."""
        buffer = self._buffers.get(query)
        if buffer is None:
            if query == "add_edge":
                self.effects.numbers.has_edges = True
            buffer = self._buffers[query] = []
        buffer.append(parameters)

    def one(self, query: str, *parameters: Any) -> Sequence[Any] | None:
        """Return the first row of a question, or None."""
        row: Sequence[Any] | None = self.connection.execute(QUERIES[query], parameters).fetchone()
        return row

    def all(self, query: str, *parameters: Any) -> list[Sequence[Any]]:
        """Return all rows of a question."""
        found: list[Sequence[Any]] = self.connection.execute(QUERIES[query], parameters).fetchall()
        return found

    def due(self, most: int) -> list[tuple[int, str, int, str, str | None, int]]:
        """Return jobs whose delay or appointment is over."""
        question = {"q": self.q, "at": self.at, "most": most}
        return self.connection.execute(QUERIES["due_jobs"], question).fetchall()

    def flush(self) -> None:
        """Run what is buffered, in the order in which each statement was first asked for."""
        buffers, self._buffers = self._buffers, {}
        for query, parameters in buffers.items():
            database.run_many(self.connection, QUERIES[query], parameters)

    def ready(self, instance: str, by: int) -> None:
        """Count jobs that became ready, or are no more."""
        counts = self.effects.ready
        counts[instance] = counts.get(instance, 0) + by
        self.effects.heads.pop(instance, None)

    def follow(self, followers: Sequence[Follower]) -> None:
        """Let what depends on changed jobs change too, until nothing does any more."""
        self.flush()
        changes = self.effects.changes
        while self._followed < len(changes):
            fresh = changes[self._followed :]
            self._followed = len(changes)
            # Followers first: they know more about why a job is not run than that it waited for another one.
            for follower in followers:
                follower(self, fresh)
            self.flush()
            self._release_children([change for change in fresh if change.after in ENDED])

    def close(self, waited: Sequence[str] = ()) -> Effects:
        """Write the events, and look at the new heads and at ended jobs that somebody waits for."""
        self.flush()
        if waited:
            self.effects.ended = {row[1]: row for row in self.all("find_jobs", rows.encode(waited))}
        if self._event_rows:
            database.run_many(self.connection, QUERIES["add_event"], self._event_rows)
        for instance in self.effects.ready.keys() - self.effects.heads.keys():
            row = self.one("next_ready", instance)
            self.effects.heads[instance] = None if row is None else tuple(row)
        if self.effects.timers_changed:
            self.effects.due = look_ahead(self.connection)
        return self.effects

    def end_pending(
        self,
        job: Running,
        state: State,
        because: str,
        *,
        is_ready: bool,
        error: Mapping[str, Any] | None = None,
        result: tuple[int | None, str | None, bytes | None] = (None, None, None),
        **data: Any,
    ) -> None:
        """End a job that never ran this time."""
        self.put("end_pending", state, self.at, self.q, rows.optional(error), *result, job.seq)
        # Counted also when it was not ready: its instance's head may be another one now.
        self.ready(job.instance, -1 if is_ready else 0)
        self.ended.add(job.seq)
        size, blob, _ = result
        shown = None if size is None else {"size_bytes": size, "blob": blob}
        self.moved(job, job.attempt, State.PENDING, state, because, error=error, result=shown, **data)

    def _release_children(self, changes: Sequence[Change]) -> None:
        if not changes or not self.effects.numbers.has_edges:
            return
        having = self.all("has_edges", rows.encode([change.seq for change in changes]))
        if not having:
            return
        parents = {row[0] for row in having}
        for change in changes:
            if change.seq in parents and change.after is not State.INTERRUPTED:
                for child, needs in self.all("take_edges", change.seq):
                    self._release(child, needs, change)
        self.flush()

    def _release(self, child: int, needs: str, parent: Change) -> None:
        self.flush()
        row = self.one("find_job_by_seq", child)
        if row is None or row[6] != State.PENDING:
            return
        job = Running(row[0], row[1], row[7], row[3], row[28])
        waiting, held = row[10], row[31]
        if needs == "completed" and parent.after is not State.COMPLETED:
            self.end_pending(
                job,
                State.CANCELLED,
                "skipped",
                is_ready=False,
                error=skipped(parent.id, parent.after),
                parent=parent.id,
            )
            return
        self.put("lessen_waiting", child)
        self.event(
            "unblocked",
            job.seq,
            job.id,
            job.attempt,
            job.sequence,
            because=f"{parent.id} {parent.after}",
            parent=parent.id,
            waiting=waiting - 1,
        )
        if waiting == 1 and row[5] == "map":
            self.effects.expand.append(job.id)
        elif waiting == 1 and not held:
            self.ready(job.instance, 1)


def skipped(parent: str, state: State) -> dict[str, Any]:
    """Return the error of a job that did not run because another one did not complete."""
    return {
        "code": "job.skipped",
        "blame": "caller",
        "category": "user_input",
        "retry": "never",
        "retry_after_s": None,
        "message": f"not run, because {parent} ended {state}",
        "details": {"parent": parent, "state": str(state)},
        "hint": f"toft why {parent}",
    }


def look_ahead(connection: database.Connection) -> tuple[float | None, float | None, float | None]:
    """Return when the next delay, the next appointment and the next deadline are over."""
    found = [
        connection.execute(QUERIES[query]).fetchone()
        for query in ("next_delayed", "next_scheduled", "next_deadline")
    ]
    due_q, ready_at, deadline_q = (None if row is None else row[0] for row in found)
    return due_q, ready_at, deadline_q
