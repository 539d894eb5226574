"""How far each schedule is. A due time and the job that comes of it are one transaction.

Neither a crash between the two, nor a second start, nor jobs that were forgotten meanwhile make two jobs of
one due time, or none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from toft.jobs import queue as queues
from toft.jobs import rows, submission
from toft.jobs.operations import Operation
from toft.jobs.records import ENDED, Request, State
from toft.jobs.transaction import Running, Transaction
from toft.kernel.record import record
from toft.store import database

_QUERIES = database.read_queries("toft.jobs", "schedules.sql")


@record()
class Row:
    """One schedule as it is stored.

    Attributes:
        timetable: Its text; with another one a schedule begins anew.
        done_at: The due time that was dealt with last, or when it began.
        job: The job that came of it last.
        submitted: Jobs that came of it.
        skipped: Due times at which the job before had not ended.
        missed: Due times that passed while nobody was there.
    """

    name: str
    timetable: str
    done_at: float
    job: str | None = None
    submitted: int = 0
    skipped: int = 0
    missed: int = 0


@record()
class Done:
    """What became of a due time: `submitted`, `skipped`, or `over` when it had been dealt with before."""

    what: str
    job: str | None = None


class Begin(Operation):
    """Keep these schedules and no others; new ones, and those with another timetable, begin now."""

    __slots__ = ("timetables",)

    def __init__(self, timetables: Mapping[str, str]) -> None:
        super().__init__(None)
        self.timetables = timetables

    def apply(self, tx: Transaction) -> None:
        tx.connection.execute(_QUERIES["keep_schedules"], (rows.encode(sorted(self.timetables)),))
        for name, text in sorted(self.timetables.items()):
            tx.connection.execute(_QUERIES["begin_schedule"], (name, text, tx.at))
        self.result = _list(tx.connection)


class SetBack(Operation):
    """The clock is behind what was done last, by far: go on from now."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        super().__init__(None)
        self.name = name

    def apply(self, tx: Transaction) -> None:
        tx.connection.execute(_QUERIES["set_back_schedule"], (tx.at, self.name, tx.at))
        self.result = _find(tx.connection, self.name)


class Turn(submission.Submit):
    """The job of a due time, once; none while the one before has not ended, unless they may overlap."""

    __slots__ = ("due_at", "missed", "name", "overlaps")

    def __init__(
        self, entries: Sequence[submission.Entry], *, name: str, due_at: float, missed: int, overlaps: bool
    ) -> None:
        super().__init__(entries, None)
        self.name = name
        self.due_at = due_at
        self.missed = missed
        self.overlaps = overlaps

    def apply(self, tx: Transaction) -> None:
        row = _find(tx.connection, self.name)
        if row is None or row.done_at >= self.due_at:
            self.result = Done("over", None if row is None else row.job)
            return
        tx.flush()
        before = None if row.job is None or self.overlaps else tx.one("find_job", row.job)
        if before is not None and State(before[6]) not in ENDED:
            self._skip(tx, Running.of(before))
            return
        super().apply(tx)
        if self.error is None:
            (submitted,) = self.result
            turned = (self.due_at, self.missed, submitted.job_id, self.name)
            tx.connection.execute(_QUERIES["turn_schedule"], turned)
            self.result = Done("submitted", submitted.job_id)

    def _skip(self, tx: Transaction, job: Running) -> None:
        tx.connection.execute(_QUERIES["skip_schedule"], (self.due_at, self.missed, self.name))
        told = {"schedule": self.name, "due_at": self.due_at}
        tx.event("passed_over", job.seq, job.id, job.attempt, job.sequence, **told)
        self.result = Done("skipped", job.id)


async def begin(queue: queues.JobQueue, timetables: Mapping[str, str]) -> dict[str, Row]:
    """Keep the schedules of these names and timetables, and return how far each is.

    Durability: Committed before returning.
    """
    kept: dict[str, Row] = await queues.perform(queue, Begin(timetables))
    return kept


async def set_back(queue: queues.JobQueue, name: str) -> Row | None:
    """Let a schedule go on from now, after the clock was set back behind what it did last."""
    row: Row | None = await queues.perform(queue, SetBack(name))
    return row


async def turn(
    queue: queues.JobQueue, name: str, request: Request, *, due_at: float, missed: int, overlaps: bool
) -> Done:
    """Submit the job of a due time that was not dealt with yet.

    Raises:
        UnavailableError: The queue or the disk is full; nothing was stored, the due time is still to come.

    Durability: Committed before returning, job and due time together.
    """
    request = replace(request, by=f"the schedule {name}", due_at=due_at)
    entries = await queues.prepare(queue, [request])
    made = Turn(entries, name=name, due_at=due_at, missed=missed, overlaps=overlaps)
    done: Done = await queues.perform(queue, made)
    return done


async def find(store: database.Store, name: str) -> Row | None:
    """Return how far a schedule is."""
    return await store.read(lambda connection: _find(connection, name))


def _find(connection: database.Connection, name: str) -> Row | None:
    found = connection.execute(_QUERIES["find_schedule"], (name,)).fetchone()
    return None if found is None else Row(*found)


def _list(connection: database.Connection) -> dict[str, Row]:
    return {found[0]: Row(*found) for found in connection.execute(_QUERIES["list_schedules"]).fetchall()}
