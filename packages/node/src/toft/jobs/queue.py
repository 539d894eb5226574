"""The durable queue: what was submitted is on disk before anybody is told so, and happens once.

The only writer of its tables. All that is asked while a transaction is under way goes into the next one, so
that a commit, and its fsync, is shared. The queue's logic has no thread and no time of its own: the clock,
randomness and the store are arguments.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from toft.jobs import board as boards
from toft.jobs import (
    commits,
    controls,
    errors,
    feed,
    listing,
    notes,
    operations,
    reading,
    recovery,
    retention,
    submission,
)
from toft.jobs.queue_clock import QueueClock
from toft.jobs.records import (
    ENDED,
    INLINE_BYTES,
    Attempt,
    Claimed,
    Event,
    Head,
    Job,
    Limits,
    Outcome,
    Recovered,
    Request,
    ResultRef,
    State,
    Submitted,
)
from toft.jobs.transaction import Effects, Follower, Running
from toft.kernel import clock as clocks
from toft.kernel import ids, traces
from toft.store import blobs as blob_store
from toft.store import database

Entries = list[submission.Entry]
Answers = list[Submitted]


class JobQueue:
    """Jobs of one node.

    Args:
        store: Where the tables are.
        blobs: Where large arguments and results are.
        clock: Wall clock and monotonic clock.
        randomness: For identifiers.
        limits: How much it holds.
        job_type: What jobs are given out as.

    Attributes:
        refusal: Makes what is raised when it is not open; questions that the tables answer are answered.
    """

    def __init__(
        self,
        store: database.Store,
        blobs: blob_store.BlobStore,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
        randomness: ids.Randomness,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        job_type: type[Job] = Job,
    ) -> None:
        self.blobs = blobs
        self.limits = limits
        self.refusal: Callable[[], Exception] = errors.closed
        self.new_id = ids.Ulids(clock, randomness, prefix="job_").next
        self.followers: list[Follower] = []
        self.droppers: list[Callable[[str, str], None]] = []
        self._store = store
        self._clock = clock
        self._commits: commits.Commits | None = None
        self._is_closing = False
        self._feed = feed.Feed(self.events)
        self._keeping = retention.Keeping(blobs, store)
        self._notes: notes.Notes | None = None
        self.listeners: list[Callable[[Effects], None]] = [self._learn]
        self._job_type = job_type
        self._reading = reading.Reading(store, job_type)

    async def open(self) -> Recovered:
        """Take up where the last process ended; what it ran is interrupted, or resumed if idempotent."""
        found = await self._store.read(recovery.look)
        time = QueueClock(self._clock, found.last_q)
        self._commits = commits.Commits(
            self._store,
            time,
            found.board(time),
            limits=self.limits,
            followers=self.followers,
            listeners=self.listeners,
            droppers=self.droppers,
            job_type=self._job_type,
        )
        self._notes = notes.Notes(self._commits.add, self._clock, self.limits.notes_per_s)
        await self._keeping.sweep()
        self._commits.set_timer(found.due)
        self._commits.start_looking()
        return await recovery.recover(
            found.running, self.finish, lambda job: self._control(controls.Resume(job, self._future()))
        )

    async def close(self) -> None:
        """Commit what waits; a second close does nothing."""
        if self._commits is not None and self._notes is not None and not self._is_closing:
            # Nothing more is asked; what waits is committed, and who listens may look.
            self._is_closing = True
            self._notes.close()
            await self._commits.close()
            self._commits, self._is_closing = None, False
        await self._keeping.close()
        self._feed.close()

    # -- work ------------------------------------------------------------------------------------------------

    def submit(self, requests: Sequence[Request]) -> asyncio.Future[list[Submitted]]:
        """Store jobs, all or none; on disk when the answer is there.

        Raises:
            UsageError: A field cannot be right.
            NotFoundError: A job in `after` is not there.
            ConflictError: An idempotency key belongs to something else.
            UnavailableError: The queue or the disk is full; nothing was stored.
        """
        future = self._future()
        trace = traces.current()
        if trace is not None:
            requests = [replace(each, traceparent=each.traceparent or trace) for each in requests]
        for request in requests:
            if len(request.arguments) > INLINE_BYTES:
                return asyncio.ensure_future(self._submit_large(requests))
        self._check_submission(requests)
        entries: Entries = [(each, each.id or self.new_id(), each.arguments, None) for each in requests]
        self._opened.add(submission.Submit(entries, future))
        return future

    def claim(
        self, instance: str, count: int = 1, *, lane_info: Mapping[str, Any] | None = None
    ) -> asyncio.Future[list[Claimed]]:
        """Let the next jobs of an instance run; each begins a new attempt."""
        future = self._future()
        self._opened.add(operations.Claim(instance, count, lane_info or {}, future))
        return future

    def finish(self, job_id: str, attempt: int, outcome: Outcome) -> asyncio.Future[bool]:
        """End an attempt; False when it is not the one that runs (it is fenced, and changes nothing).

        Issued together with a `claim`, without awaiting in between, the two share a commit.
        """
        result = outcome.result
        if isinstance(result, bytes) and len(result) > INLINE_BYTES:
            return asyncio.ensure_future(self._finish_large(job_id, attempt, outcome, result))
        future = self._future()
        ref = ResultRef(len(result), result) if isinstance(result, bytes) else result
        job = self._opened.board.running.get(job_id)
        if job is None:
            # Kept as an event of that job, so that its story shows the late answer.
            self._opened.add(operations.LateFinish(job_id, attempt, outcome, future))
        else:
            if self._notes is not None:
                self._notes.end(job_id)
            self._opened.add(operations.Finish(job, attempt, outcome, ref, future))
        return future

    # -- wishes ----------------------------------------------------------------------------------------------

    def request_cancel(self, job_id: str, because: str = "asked") -> asyncio.Future[Job]:
        """End a pending job, ask the worker of a running one; an ended job is left as it is."""
        return self._control(controls.Cancel(job_id, because, self._future()))

    def retry(self, job_id: str) -> asyncio.Future[Job]:
        """Run a failed or interrupted job again, as its next attempt."""
        return self._control(controls.Retry(job_id, self._future()))

    def end(self, job_id: str, outcome: Outcome) -> asyncio.Future[Job]:
        """End a pending job without running it: a fan-out that is done, or a job that can never fit."""
        result = outcome.result
        if isinstance(result, bytes) and len(result) > INLINE_BYTES:
            return asyncio.ensure_future(self._end_large(job_id, outcome, result))
        ref = ResultRef(len(result), result) if isinstance(result, bytes) else result
        return self._control(controls.End(job_id, outcome, ref, self._future()))

    def reorder(
        self,
        job_id: str,
        *,
        priority: int | None = None,
        before: str | None = None,
        first: bool = False,
        last: bool = False,
    ) -> asyncio.Future[Job]:
        """Give a pending job another priority or place."""
        place = {"priority": priority, "before": before, "first": first, "last": last}
        if sum((priority is not None, before is not None, first, last)) != 1:
            raise errors.bad_request("place", "is one of priority, before, first and last")
        return self._control(controls.Reorder(job_id, place, self._future()))

    def note(self, job_id: str, attempt: int, kind: str, data: Mapping[str, Any]) -> None:
        """Write down something about a job without waiting for it; too late and too many are dropped."""
        if self._commits is None or self._notes is None or self._is_closing:
            return
        job = self._commits.board.running.get(job_id)
        is_of_waiting = kind in ("blocked", "unblocked")
        if (job is None) != is_of_waiting and kind != "evicted":
            return
        if job is None:
            self._commits.add(operations.Note(kind, Running(0, job_id, attempt, "", None), attempt, data))
        elif job.attempt == attempt:
            if kind in notes.THINNED:
                self._notes.note(job, kind, data)
            else:
                self._commits.add(operations.Note(kind, job, attempt, data))

    # -- looking ---------------------------------------------------------------------------------------------

    def heads(self) -> Mapping[str, Head]:
        """Return the next job of each instance, as of the last commit."""
        return self._board.heads

    def counts(self) -> dict[str, int]:
        """Return how many jobs are in each state."""
        return {str(state): count for state, count in self._board.counts.items()}

    def cursor(self) -> int:
        """Return the cursor of the newest event; 0 before the first one."""
        return self._board.numbers.cursor

    async def get(self, job_id: str) -> Job:
        """Return a job.

        Raises:
            NotFoundError: There is none.
        """
        job = await self.find(job_id)
        if job is None:
            raise errors.not_found(job_id)
        return job

    async def find(self, job_id: str) -> Job | None:
        """Return a job or None."""
        return await self._reading.find(job_id)

    async def list(self, wanted: listing.Wanted | None = None, **named: Any) -> list[Job]:
        """Return jobs, the newest first, at most 1000.

        Args:
            wanted: What they must be like.
            named: The same, field by field of `listing.Wanted`; `state` is a single one of `states`.
        """
        return await self._reading.list(wanted or listing.wanted(**named))

    async def attempts(self, job_id: str) -> Sequence[Attempt]:
        """Return the attempts of a job, the first one first."""
        return await self._reading.attempts(job_id)

    async def events(
        self,
        after: int = 0,
        *,
        job: str | None = None,
        sequence: str | None = None,
        limit: int = 1000,
        plugins: Collection[str] | None = None,
    ) -> Sequence[Event]:
        """Return stored events after a cursor, the oldest first; of jobs of these plugins, when given."""
        return await self._reading.events(after, job=job, sequence=sequence, limit=limit, plugins=plugins)

    def watch(
        self,
        *,
        job: str | None = None,
        sequence: str | None = None,
        after: int | None = None,
        capacity: int = 1000,
    ) -> AsyncIterator[Event]:
        """Follow the events of a job, a sequence or everything.

        Args:
            job: Only this job.
            sequence: Only the jobs of this sequence.
            after: The last cursor that was seen; what is stored after it comes first. None is from now on.
            capacity: Events that may wait for a reader; a slower one gets `lost` with how many it missed.
        """
        return self._feed.watch(job=job, sequence=sequence, after=after, capacity=capacity)

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Return a job once it has ended.

        Raises:
            NotFoundError: There is none.
            WaitTimeoutError: It has not ended in that time.
        """
        opened = self._opened
        future = opened.await_end(job_id)
        try:
            if not opened.is_alive(job_id):
                job = await self.get(job_id)
                if job.state in ENDED:
                    return job
            async with asyncio.timeout(timeout_s):
                ended = await future
            return ended or await self.get(job_id)
        except TimeoutError:
            raise errors.wait_timeout(job_id, timeout_s or 0.0) from None
        finally:
            opened.stop_waiting(job_id, future)

    # -- inside ----------------------------------------------------------------------------------------------

    @property
    def _opened(self) -> commits.Commits:
        if self._commits is None or self._is_closing:
            raise self.refusal()
        return self._commits

    @property
    def _board(self) -> boards.Board:
        if self._commits is None:
            raise self.refusal()
        return self._commits.board

    def _future(self) -> asyncio.Future[Any]:
        if self._commits is None or self._is_closing:
            raise self.refusal()
        return asyncio.get_running_loop().create_future()

    def _control(self, operation: controls.Control) -> asyncio.Future[Any]:
        self._opened.add(operation)
        assert operation.future is not None
        return operation.future

    def _check_submission(self, requests: Sequence[Request]) -> None:
        pending = self._opened.board.counts[State.PENDING] + self._opened.submitting
        if pending + len(requests) > self.limits.pending:
            raise errors.queue_full(pending, self.limits.pending, len(requests))
        submission.check(requests)

    async def _submit_large(self, requests: Sequence[Request]) -> Answers:
        entries = await prepare(self, requests)
        answers: Answers = await perform(self, submission.Submit(entries, self._future()))
        return answers

    async def _finish_large(self, job_id: str, attempt: int, outcome: Outcome, result: bytes) -> bool:
        ref = ResultRef(len(result), None, await self.blobs.save(result))
        return await self.finish(job_id, attempt, replace(outcome, result=ref))

    async def _end_large(self, job_id: str, outcome: Outcome, result: bytes) -> Job:
        ref = ResultRef(len(result), None, await self.blobs.save(result))
        return await self.end(job_id, replace(outcome, result=ref))

    def _learn(self, effects: Effects) -> None:
        self._feed.publish(effects.events)
        if self._notes is not None:
            for change in effects.changes:
                if change.before is State.RUNNING:
                    self._notes.forget(change.id)
        if effects.garbage:
            self._keeping.drop(effects.garbage)


async def prepare(queue: JobQueue, requests: Sequence[Request]) -> Entries:
    """Check requests and store their large arguments, so that an operation can put them into the queue.

    Raises:
        UsageError: A field cannot be right.
        UnavailableError: The queue or the disk is full.
    """
    queue._check_submission(requests)
    entries: Entries = []
    for each in requests:
        is_large = len(each.arguments) > INLINE_BYTES
        blob = await queue.blobs.save(each.arguments) if is_large else None
        entries.append((each, each.id or queue.new_id(), None if is_large else each.arguments, blob))
    return entries


def perform(queue: JobQueue, operation: operations.Operation) -> asyncio.Future[Any]:
    """Apply an operation of another module of this room in the next transaction; answers with its result."""
    future = operation.future = operation.future or queue._future()
    queue._opened.add(operation)
    return future


async def snapshots(
    queue: JobQueue, job_id: str, limit: int = 5000
) -> Sequence[tuple[float, Mapping[str, Any]]]:
    """Return when a job was measured and what was found, the oldest first; of very many the last ones.

    Raises:
        NotFoundError: There is no such job.
    """
    await queue.get(job_id)
    return await queue._reading.snapshots(job_id, limit)
