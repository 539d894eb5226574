"""What can be asked of the queue, as operations that are applied together in one transaction.

Within a transaction they go by `order`: what was acknowledged to nobody yet happened at the same time, and of
a finish and a cancel that meet there the finish counts.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

from toft.jobs import errors, rows
from toft.jobs.records import Claimed, Outcome, ResultRef, State
from toft.jobs.transaction import Running, Transaction
from toft.kernel import errors as kernel_errors

_MOST_DUE = 500


class Operation:
    """One wish and who waits for it; `result` or `error` is what becomes of it."""

    __slots__ = ("error", "future", "result")
    order: ClassVar[int] = 0

    def __init__(self, future: asyncio.Future[Any] | None) -> None:
        self.future = future
        self.result: Any = None
        self.error: kernel_errors.NodeError | None = None

    def apply(self, tx: Transaction) -> None:
        """Do it; must leave no effect but in the transaction and in `result` and `error`."""
        raise NotImplementedError

    def settle(self) -> None:
        """Tell who waits what became of it."""
        if self.future is not None and not self.future.done():
            if self.error is not None:
                self.future.set_exception(self.error)
            else:
                self.future.set_result(self.result)

    def fail(self, error: BaseException) -> None:
        """Tell who waits that nothing was done."""
        if self.future is not None and not self.future.done():
            self.future.set_exception(error)


class Note(Operation):
    """Something a running or a pending job has to say; never refused, dropped when it is too late."""

    __slots__ = ("attempt", "data", "job", "kind")
    order = 1

    def __init__(self, kind: str, job: Running, attempt: int, data: Mapping[str, Any]) -> None:
        super().__init__(None)
        self.kind = kind
        self.job = job
        self.attempt = attempt
        self.data = data

    def apply(self, tx: Transaction) -> None:
        job = self.job
        if job.seq and not tx.is_running(job, self.attempt):
            return
        if self.kind == "progress":
            message = rows.text(self.data.get("message"))
            tx.put("note_progress", self.data.get("progress"), message, job.seq, self.attempt)
        elif not job.seq:
            row = tx.one("find_job", job.id)
            if row is None or row[6] != State.PENDING:
                return
            job = Running.of(row)
            if self.kind in ("blocked", "unblocked"):
                tx.put("note_block", rows.optional(self.data.get("reason")), job.seq)
        tx.event(self.kind, job.seq or None, job.id, self.attempt, job.sequence, **self.data)


class Finish(Operation):
    """An attempt ended; of two that say so for one attempt, one is believed."""

    __slots__ = ("attempt", "job", "outcome", "result_ref")
    order = 2

    def __init__(
        self,
        job: Running,
        attempt: int,
        outcome: Outcome,
        result: ResultRef | None,
        future: asyncio.Future[Any] | None,
    ) -> None:
        super().__init__(future)
        self.job = job
        self.attempt = attempt
        self.outcome = outcome
        self.result_ref = result

    def apply(self, tx: Transaction) -> None:
        job, outcome = self.job, self.outcome
        if not tx.is_running(job, self.attempt):
            self.result = False
            tx.event(
                "fenced",
                job.seq,
                job.id,
                self.attempt,
                job.sequence,
                outcome=outcome.state,
                current=job.attempt,
            )
            return
        self.result = True
        tx.ended.add(job.seq)
        if outcome.state is State.PENDING and _is_cancelled(tx, job):
            outcome = dataclasses.replace(outcome, state=State.CANCELLED, because="asked")
        error, usage = rows.optional(outcome.error), rows.optional(outcome.usage)
        ended = State.FAILED if outcome.state is State.PENDING else outcome.state
        because = rows.text(outcome.because) or None
        tx.put(
            "add_attempt", job.seq, job.attempt, ended, job.started_at, tx.at, because, error,
            usage, job.lane,
        )  # fmt: skip
        if outcome.state is State.PENDING:
            requeue(tx, job, State.RUNNING, outcome.because or "retry", outcome.retry_in_s, outcome.error)
            return
        kept = self.result_ref
        size, blob, data = (None, None, None) if kept is None else (kept.size_bytes, kept.blob, kept.data)
        tx.put("finish_job", outcome.state, tx.at, tx.q, error, usage, size, blob, data, job.seq, job.attempt)
        if blob is not None:
            tx.put("add_blob_use", blob, job.seq)
        tx.moved(
            job,
            job.attempt,
            State.RUNNING,
            outcome.state,
            outcome.because or str(outcome.state),
            result=None if size is None else {"size_bytes": size, "blob": blob},
            error=outcome.error,
            usage=outcome.usage or None,
        )


def _is_cancelled(tx: Transaction, job: Running) -> bool:
    """Say whether somebody asked a job to end; then it is not tried again."""
    tx.flush()
    row = tx.one("find_job_by_seq", job.seq)
    return row is not None and row[30] is not None


class LateFinish(Operation):
    """The answer of an attempt that does not run any more."""

    __slots__ = ("attempt", "id", "outcome")
    order = 2

    def __init__(self, job_id: str, attempt: int, outcome: Outcome, future: asyncio.Future[Any]) -> None:
        super().__init__(future)
        self.id = job_id
        self.attempt = attempt
        self.outcome = outcome

    def apply(self, tx: Transaction) -> None:
        row = tx.one("find_job", self.id)
        self.result = False
        if row is not None:
            tx.event(
                "fenced", row[0], self.id, self.attempt, row[28], outcome=self.outcome.state, current=row[7]
            )


def requeue(
    tx: Transaction,
    job: Running,
    before: State,
    because: str,
    delay_s: float | None,
    error: Mapping[str, Any] | None,
    *,
    is_asked: bool = False,
) -> None:
    """Make a job pending again, behind those of its priority that wait already."""
    tx.flush()
    row = tx.one("find_job_by_seq", job.seq)
    assert row is not None
    rank = tx.next_rank(row[8])
    held, due_q, ready_at = (1, tx.q + delay_s, tx.at + delay_s) if delay_s else (0, None, None)
    if row[5] == "map":
        held = 3  # no lane runs it
    # Whoever asks for another run of a job whose deadline passed wants it run.
    deadline_q, deadline_at = (None, None) if is_asked else (row[33], row[16])
    tries_from = job.attempt if is_asked else row[34]
    tx.put(
        "requeue_job", rank, tx.q, held, due_q, ready_at, rows.optional(error), tries_from, deadline_q,
        deadline_at, job.seq,
    )  # fmt: skip
    tx.effects.timers_changed |= bool(due_q or deadline_q)
    tx.ready(job.instance, 0 if held else 1)
    tx.moved(
        job,
        job.attempt,
        before,
        State.PENDING,
        because,
        rank=rank,
        ready_at=ready_at,
        delay_s=delay_s or None,
        deadline_at=deadline_at,
        error=error,
    )


class Due(Operation):
    """Delays that are over and deadlines that passed."""

    __slots__ = ()
    order = 4

    def apply(self, tx: Transaction) -> None:
        tx.flush()
        late = tx.all("late_jobs", tx.q, _MOST_DUE)
        for seq, job_id, attempt, instance, sequence, waiting, held in late:
            job = Running(seq, job_id, attempt, instance, sequence)
            tx.end_pending(
                job, State.FAILED, "deadline", is_ready=not waiting and not held, error=errors.late(job_id)
            )
        tx.flush()
        for seq, job_id, attempt, instance, sequence, waiting in tx.due(_MOST_DUE):
            tx.put("release_job", seq)
            tx.event("unblocked", seq, job_id, attempt, sequence, because="due")
            if not waiting:
                tx.ready(instance, 1)
        tx.effects.timers_changed = True


class Claim(Operation):
    """The next jobs of an instance start to run."""

    __slots__ = ("count", "instance", "lane")
    order = 5

    def __init__(
        self, instance: str, count: int, lane: Mapping[str, Any], future: asyncio.Future[Any] | None
    ) -> None:
        super().__init__(future)
        self.instance = instance
        self.count = count
        self.lane = lane

    def apply(self, tx: Transaction) -> None:
        # An earlier claim of the same instance in this transaction must be seen by this one.
        tx.flush()
        taken, started = [], []
        lane = rows.optional(self.lane)
        candidates = tx.all("claim_candidates", self.instance, tx.q, self.count + 1)
        for row in candidates[: self.count]:
            (seq, job_id, before, plugin, instance, action, arguments, blob, timeout_s, deadline_q, retry,
             idempotent, sequence, step, kind, tries_from, priority, _, _) = row  # fmt: skip
            attempt = before + 1
            started.append(Running(seq, job_id, attempt, instance, sequence, tx.at, lane))
            taken.append(
                Claimed(
                    seq=seq,
                    id=job_id,
                    attempt=attempt,
                    plugin=plugin,
                    instance=instance,
                    action=action,
                    arguments=arguments or b"",
                    arguments_blob=blob,
                    timeout_s=timeout_s,
                    remaining_s=None if deadline_q is None else deadline_q - tx.q,
                    retry=rows.policy(retry, idempotent),
                    idempotent=bool(idempotent),
                    sequence=sequence,
                    step=step,
                    kind=kind,
                    tries=attempt - tries_from,
                    priority=priority,
                )
            )
        tx.claimed(started, self.lane)
        tx.ready(self.instance, -len(taken))
        # Claims come last: what they left is the next one, unless another claim takes it.
        if len(candidates) > len(taken):
            following = candidates[-1]
            tx.effects.heads[self.instance] = (
                following[17],
                following[0],
                following[18],
                following[1],
                following[2],
            )
        self.result = taken
