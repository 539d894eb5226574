"""Wishes of people and programs about jobs that are there: cancel, retry, reorder, end.

Each looks at the job as it is in this transaction, so a race with its completion is decided here, once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from toft.jobs import errors, rows
from toft.jobs.operations import Operation, requeue
from toft.jobs.records import AGEING_S, Outcome, ResultRef, State
from toft.jobs.transaction import Running, Transaction

_AGEING_NS = int(AGEING_S * 1e9)
_STEP_NS = 1_000_000
_WINDOW = 256


class Control(Operation):
    """A wish about one job; answers with the job as it is afterwards."""

    __slots__ = ("id",)
    order = 3

    def __init__(self, job_id: str, future: asyncio.Future[Any] | None) -> None:
        super().__init__(future)
        self.id = job_id

    def apply(self, tx: Transaction) -> None:
        tx.flush()
        row = tx.one("find_job", self.id)
        if row is None:
            self.error = errors.not_found(self.id)
            return
        self.change(tx, row, Running.of(row))
        if self.error is None:
            tx.flush()
            self.result = rows.job(tx.one("find_job", self.id) or row)

    def change(self, tx: Transaction, row: Sequence[Any], job: Running) -> None:
        """Do it to the job of a row of `job_rows`."""
        raise NotImplementedError


class Cancel(Control):
    """End it when it is pending; ask its worker when it runs; nothing when it has ended."""

    __slots__ = ("because",)

    def __init__(self, job_id: str, because: str, future: asyncio.Future[Any] | None) -> None:
        super().__init__(job_id, future)
        self.because = because

    def change(self, tx: Transaction, row: Sequence[Any], job: Running) -> None:
        if row[6] == State.PENDING:
            tx.event("cancel", job.seq, job.id, job.attempt, job.sequence, phase="requested")
            tx.end_pending(job, State.CANCELLED, self.because, is_ready=not row[10] and not row[31])
        elif row[6] == State.RUNNING:
            tx.effects.cancels.append(job.id)
            if row[30] is None:
                tx.put("request_cancel", tx.at, job.seq)
                tx.event("cancel", job.seq, job.id, job.attempt, job.sequence, phase="requested")


class Retry(Control):
    """Run it again, as the next attempt."""

    __slots__ = ()

    def change(self, tx: Transaction, row: Sequence[Any], job: Running) -> None:
        before = State(row[6])
        if before not in (State.FAILED, State.INTERRUPTED):
            self.error = errors.wrong_state(self.id, before, "failed or interrupted", "retried")
            return
        tx.event("retry", job.seq, job.id, job.attempt, job.sequence, because="asked")
        requeue(tx, job, before, "asked", None, None, is_asked=True)


class Resume(Control):
    """Run an interrupted job again that said that running twice does no harm."""

    __slots__ = ()

    def change(self, tx: Transaction, row: Sequence[Any], job: Running) -> None:
        tx.event("retry", job.seq, job.id, job.attempt, job.sequence, because="idempotent")
        requeue(tx, job, State(row[6]), "idempotent", None, None)


class End(Control):
    """End a pending job that never runs: a fan-out that is done, or one that can never fit."""

    __slots__ = ("outcome", "ref")

    def __init__(
        self, job_id: str, outcome: Outcome, ref: ResultRef | None, future: asyncio.Future[Any] | None
    ) -> None:
        super().__init__(job_id, future)
        self.outcome = outcome
        self.ref = ref

    def change(self, tx: Transaction, row: Sequence[Any], job: Running) -> None:
        if row[6] != State.PENDING:
            self.error = errors.wrong_state(self.id, row[6], "pending", "ended")
            return
        kept = self.ref
        result = (None, None, None) if kept is None else (kept.size_bytes, kept.blob, kept.data)
        tx.end_pending(
            job,
            self.outcome.state,
            self.outcome.because or str(self.outcome.state),
            is_ready=not row[10] and not row[31],
            error=self.outcome.error,
            result=result,
        )
        if kept is not None and kept.blob is not None:
            tx.put("add_blob_use", kept.blob, job.seq)


class Reorder(Control):
    """Give a pending job another place."""

    __slots__ = ("place",)

    def __init__(self, job_id: str, place: Mapping[str, Any], future: asyncio.Future[Any] | None) -> None:
        super().__init__(job_id, future)
        self.place = place

    def change(self, tx: Transaction, row: Sequence[Any], job: Running) -> None:
        if row[6] != State.PENDING:
            self.error = errors.wrong_state(self.id, row[6], "pending", "reordered")
            return
        priority = row[8]
        if self.place.get("priority") is not None:
            priority = self.place["priority"]
            rank = row[9] + (row[8] - priority) * _AGEING_NS
        elif self.place.get("first"):
            head = tx.one("next_ready", job.instance)
            rank = row[9] if head is None or head[1] == job.seq else head[0] - _STEP_NS
        elif self.place.get("last"):
            last = tx.one("rank_last", job.instance)
            rank = row[9] if last is None else last[0] + _STEP_NS
        else:
            found = self._before(tx, job)
            if found is None:
                return
            rank = found
        tx.put("move_job", priority, rank, job.seq)
        tx.ready(job.instance, 0)
        tx.event("reordered", job.seq, job.id, job.attempt, job.sequence, priority=priority, rank=rank)

    def _before(self, tx: Transaction, job: Running) -> int | None:
        other = tx.one("find_job", self.place["before"])
        if other is None:
            self.error = errors.not_found(self.place["before"])
            return None
        if other[6] != State.PENDING or other[3] != job.instance or other[0] == job.seq:
            self.error = errors.bad_request(
                "before",
                f"{self.place['before']} is not another pending job of {job.instance}",
                hint="toft job list --state pending",
            )
            return None
        rank: int = other[9]
        ahead = tx.all("rank_before", job.instance, rank, other[0], job.seq, _WINDOW)
        if not ahead:
            return rank - _STEP_NS
        if rank - ahead[0][0] < 2:
            return _make_room(tx, rank, ahead, job)
        return int(rank + ahead[0][0]) // 2


def _make_room(tx: Transaction, rank: int, ahead: Sequence[Sequence[Any]], job: Running) -> int:
    """Spread a few of the jobs ahead over the numbers they have, and return the one that is freed."""
    for count, row in enumerate(ahead):
        if rank - row[0] > 2 * count + 2:
            low, moved = int(row[0]), ahead[:count]
            break
    else:
        low, moved = int(ahead[-1][0]) - _STEP_NS, ahead
    step = (rank - low) // (len(moved) + 2)
    for place, (_, seq, job_id, attempt, priority, sequence) in enumerate(moved, start=2):
        fresh = rank - place * step
        tx.put("move_job", priority, fresh, seq)
        tx.event("reordered", seq, job_id, attempt, sequence, priority=priority, rank=fresh, because=job.id)
    return rank - step
