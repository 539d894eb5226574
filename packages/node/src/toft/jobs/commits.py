"""Turning wishes into transactions: what is asked while one is under way goes into the next.

After each commit memory learns what changed, those who wait are answered, and the timer is set to when the
next delay or deadline is over.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from toft.jobs import board as boards
from toft.jobs import operations, retention, rows, submission
from toft.jobs.queue_clock import QueueClock
from toft.jobs.records import ENDED, Job, Limits, Submitted
from toft.jobs.transaction import Effects, Follower, Transaction
from toft.kernel import errors
from toft.store import database

# An appointment is on the wall clock, which may be set; looking at it again now and then costs nothing.
_APPOINTMENT_CHECK_S = 30.0
_DUE_AGAIN_S = 1.0
# After so many turns of the loop without anything new, or this long (about a commit), the next commit begins.
_IDLE_TURNS = 3
_GATHER_S = 0.001
_LOOK_EVERY_S = 3600.0
# Jobs that were submitted last, of which it is known without a question that they have not ended.
_ALIVE = 10_000
# Errors that one operation may have while another one has none.
_PARTIAL = frozenset({"store.disk_full", "store.conflict"})


class Commits:
    """The one place where the queue's tables are written.

    Args:
        store: Where the tables are.
        time: The queue's clock.
        board: What memory knows; kept up to date here.
        limits: How much is remembered.
        followers: Called in each transaction that changes a state.
        listeners: Called after each commit.
        droppers: Told the job and the kind of each note that could not be stored.
        job_type: What those who wait for a job are given.
    """

    def __init__(
        self,
        store: database.Store,
        time: QueueClock,
        board: boards.Board,
        *,
        limits: Limits,
        followers: Sequence[Follower],
        listeners: Sequence[Callable[[Effects], None]],
        droppers: Sequence[Callable[[str, str], None]] = (),
        job_type: type[Job] = Job,
    ) -> None:
        self.time = time
        self.board = board
        self.submitting = 0
        self._droppers = droppers
        self._job_type = job_type
        self._limits = limits
        self._followers = followers
        self._listeners = listeners
        self._store = store
        self._waiting: list[operations.Operation] = []
        self._flushing: asyncio.Task[None] | None = None
        self._is_open = True
        self._looking: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: dict[str, list[asyncio.Future[Job | None]]] = {}
        self._alive: OrderedDict[str, None] = OrderedDict()

    def add(self, operation: operations.Operation) -> None:
        """Ask for something; it is applied with all else that is asked until the next transaction begins."""
        if isinstance(operation, submission.Submit):
            self.submitting += len(operation.entries)
        self._waiting.append(operation)
        if self._flushing is None:
            self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def close(self) -> None:
        """Commit what waits."""
        self._is_open = False
        for timer in (self._timer, self._looking):
            if timer is not None:
                timer.cancel()
        while self._flushing is not None:
            await asyncio.wait([self._flushing])

    def forget(self) -> None:
        """Remove a few of the ended jobs beyond the limits, beside what else is asked; goes on by itself."""
        if self._is_open and not any(isinstance(each, retention.Forget) for each in self._waiting):
            self.add(retention.Forget(self._limits, self.board.ended))

    def start_looking(self) -> None:
        """Look for jobs that are too old every hour; the first time in an hour.

        A machine that booted with a wrong clock has it set right by then, and keeps its history.
        """
        if self._is_open:
            self._looking = asyncio.get_running_loop().call_later(_LOOK_EVERY_S, self._look)

    def _look(self) -> None:
        self.start_looking()
        if self.board.ended:
            self.forget()

    def is_alive(self, job_id: str) -> bool:
        """Say whether a job is known not to have ended; False also when only the database knows."""
        return job_id in self._alive or job_id in self.board.running

    def await_end(self, job_id: str) -> asyncio.Future[Job | None]:
        """Return what is done when a job ends after now; to be given back with `stop_waiting`.

        Its result is the job as it ended, when the transaction knew that somebody waits, else None.
        """
        future: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(job_id, []).append(future)
        return future

    def stop_waiting(self, job_id: str, future: asyncio.Future[Job | None]) -> None:
        """Wait no more."""
        waiters = self._waiters[job_id]
        waiters.remove(future)
        if not waiters:
            del self._waiters[job_id]

    def set_timer(self, due: tuple[float | None, float | None, float | None]) -> None:
        """Look at delays, appointments and deadlines again when the first of them is over."""
        due_q, ready_at, deadline_q = due
        waits = [due - self.time.q() for due in (due_q, deadline_q) if due is not None]
        if ready_at is not None:
            waits.append(min(ready_at - self.time.at(), _APPOINTMENT_CHECK_S))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if waits and self._is_open:
            self._timer = asyncio.get_running_loop().call_later(max(0.0, min(waits)), self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self._is_open:
            self.add(operations.Due(None))

    async def _flush(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting, []
                await self._commit(batch)
                await self._gather()
        finally:
            self._flushing = None
            if self._waiting:
                # A mistake in one transaction must not leave those who asked meanwhile without an answer.
                self._flushing = asyncio.get_running_loop().create_task(self._flush())

    async def _gather(self) -> None:
        """Let what comes at once come along: whoever was answered just now often asks for the next thing.

        As long as more comes with each turn of the loop, it is cheaper to commit it together.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _GATHER_S
        idle = 0
        while idle < _IDLE_TURNS and loop.time() < until:
            before = len(self._waiting)
            await asyncio.sleep(0)
            idle = 0 if len(self._waiting) > before else idle + 1

    async def _commit(self, batch: list[operations.Operation]) -> None:
        batch.sort(key=_order)
        try:
            effects = await self._store.write(lambda connection: self._apply(connection, batch))
        except errors.NodeError as error:
            if len(batch) == 1 or error.code not in _PARTIAL:
                for each in batch:
                    self._refuse(each, error)
                return
            # What cannot be stored together may be stored in part: a small result still fits on a full disk.
            for each in batch:
                await self._commit([each])
            return
        except BaseException as error:
            for each in batch:
                self._refuse(each, error)
            raise
        self._learn(effects, batch)
        if effects.timers_changed:
            self.set_timer(effects.due)

    def _apply(self, connection: database.Connection, batch: Iterable[operations.Operation]) -> Effects:
        tx = Transaction(
            connection,
            at=self.time.at(),
            q=self.time.q(),
            numbers=self.board.numbers,
            running=self.board.running,
        )
        order = 0
        for operation in batch:
            if operation.order != order:
                tx.follow(self._followers)
                order = operation.order
            operation.error = None
            operation.apply(tx)
        tx.follow(self._followers)
        # Whoever begins to wait at this moment may be missed, and then reads the job.
        waited = [each.id for each in tx.effects.changes if each.after in ENDED and each.id in self._waiters]
        return tx.close(waited)

    def _learn(self, effects: Effects, batch: Iterable[operations.Operation]) -> None:
        self.board.learn(effects, self.time)
        for operation in batch:
            if isinstance(operation, submission.Submit):
                self.submitting -= len(operation.entries)
                # What is built upon a submission, a graph for one, answers with something else.
                self._remember(operation.result if isinstance(operation.result, list) else [])
            operation.settle()
        for change in effects.changes:
            if change.after in ENDED:
                self._alive.pop(change.id, None)
                self._tell_waiters(change.id, effects.ended.get(change.id))
        for listener in self._listeners:
            listener(effects)
        if sum(effects.forgotten.values()) == retention.MOST or self.board.ended > self._limits.keep_count * (
            1 + retention.SLACK
        ):
            self.forget()

    def _tell_waiters(self, job_id: str, row: Sequence[Any] | None) -> None:
        waiters = self._waiters.get(job_id, ())
        job = rows.job(row, self._job_type) if waiters and row is not None else None
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(job)

    def _remember(self, submitted: Sequence[Submitted]) -> None:
        for each in submitted:
            if each.is_new:
                self._alive[each.job_id] = None
        while len(self._alive) > _ALIVE:
            # Of a plain dictionary the first one is found behind the places of all that were removed.
            self._alive.popitem(last=False)

    def _refuse(self, operation: operations.Operation, error: BaseException) -> None:
        if isinstance(operation, submission.Submit):
            self.submitting -= len(operation.entries)
        if isinstance(operation, operations.Due) and self._is_open and self._timer is None:
            # Nobody else asks for it again: delays and deadlines would never be over.
            self._timer = asyncio.get_running_loop().call_later(_DUE_AGAIN_S, self._wake)
        if isinstance(operation, operations.Note):
            for told in self._droppers:
                told(operation.job.id, operation.kind)
        operation.fail(error)


def _order(operation: operations.Operation) -> int:
    return operation.order
