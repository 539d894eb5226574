"""Boot is recovery: from the tables alone, every job comes to a right state."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from toft.jobs import board as boards
from toft.jobs import errors, rows
from toft.jobs.queue_clock import QueueClock
from toft.jobs.records import Job, Outcome, Recovered, State
from toft.jobs.transaction import QUERIES, Numbers, Running, look_ahead
from toft.store import database


@dataclass(slots=True)
class Found:
    """What the tables say when the queue opens."""

    numbers: Numbers
    last_q: float
    counts: dict[State, int] = field(default_factory=dict)
    ready: dict[str, int] = field(default_factory=dict)
    heads: dict[str, tuple[int, int, float, str, int]] = field(default_factory=dict)
    running: list[tuple[Job, int]] = field(default_factory=list)
    due: tuple[float | None, float | None, float | None] = (None, None, None)

    def board(self, clock: QueueClock) -> boards.Board:
        """Return what memory knows."""
        board = boards.Board()
        board.numbers = self.numbers
        board.counts.update(self.counts)
        for job, _ in self.running:
            board.running[job.id] = Running(
                job.seq, job.id, job.attempt, job.instance, job.sequence, job.started_at or 0.0
            )
        for instance, count in self.ready.items():
            board.place(instance, count, self.heads.get(instance), clock)
        return board


def look(connection: database.Connection) -> Found:
    """Read what memory must know."""
    seq, cursor, old_seq, old_cursor, last_q, rank = connection.execute(QUERIES["highest"]).fetchone()
    found = Found(Numbers(max(seq, old_seq), max(cursor, old_cursor), max(rank, int(last_q * 1e9))), last_q)
    found.numbers.has_edges = bool(connection.execute(QUERIES["count_edges"]).fetchone()[0])
    found.running = [
        (rows.job(row), row[34]) for row in connection.execute(QUERIES["all_running"]).fetchall()
    ]
    for state, count in connection.execute(QUERIES["count_states"]).fetchall():
        found.counts[State(state)] = count
    (ended,) = connection.execute(QUERIES["count_ended"]).fetchone()
    (everything,) = connection.execute(QUERIES["count_all"]).fetchone()
    found.counts[State.RUNNING] = len(found.running)
    found.counts[State.PENDING] = everything - ended - len(found.running)
    troubled = sum(found.counts.get(state, 0) for state in (State.FAILED, State.CANCELLED, State.INTERRUPTED))
    found.counts[State.COMPLETED] = ended - troubled
    for instance, count in connection.execute(QUERIES["count_ready"]).fetchall():
        found.ready[instance] = count
        found.heads[instance] = tuple(connection.execute(QUERIES["next_ready"], (instance,)).fetchone())
    found.due = look_ahead(connection)
    return found


async def recover(
    running: list[tuple[Job, int]],
    finish: Callable[[str, int, Outcome], asyncio.Future[bool]],
    resume: Callable[[str], asyncio.Future[Job]],
) -> Recovered:
    """Interrupt what was running; what may run twice is pending again, in the same transaction."""
    waits: list[asyncio.Future[bool] | asyncio.Future[Job]] = []
    interrupted, resumed = [], []
    for job, tries_from in running:
        if job.cancel_requested_at is not None:
            # Its worker died with the node, so what was asked for has happened.
            waits.append(finish(job.id, job.attempt, Outcome(state=State.CANCELLED, because="asked")))
            continue
        outcome = Outcome(state=State.INTERRUPTED, error=errors.interrupted(job.id), because="the node ended")
        waits.append(finish(job.id, job.attempt, outcome))
        if job.idempotent and job.attempt - tries_from < job.retry.max_attempts:
            waits.append(resume(job.id))
            resumed.append(job.id)
        else:
            interrupted.append(job.id)
    if waits:
        await asyncio.gather(*waits)
    return Recovered(tuple(interrupted), tuple(resumed))
