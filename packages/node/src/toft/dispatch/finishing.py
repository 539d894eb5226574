"""How attempts end: what follows from a fault, and writing it down until it is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from toft.dispatch import backend as seam
from toft.dispatch import faults
from toft.dispatch.stations import Run
from toft.jobs import queue, records, retries
from toft.kernel import errors, log

_log = log.get_logger("dispatch.finishing")
_HELD_S = 0.002
_MOST_HELD = 32
_UNBEGUN = retries.Origin.UNBEGUN


def judge(
    run: Run, ending: seam.Ending, seconds: float, randomness: retries.Randomness
) -> retries.Again | None:
    """Return the next attempt, if there is to be one."""
    fault, claim = ending.fault, run.claim
    if fault is None:
        return None
    if fault.origin is retries.Origin.TIMEOUT and _is_past_deadline(run, seconds):
        return None
    if run.was_cancelled and fault.origin is _UNBEGUN:
        return None
    return retries.again(
        fault.error,
        fault.origin,
        attempt=claim.tries,
        policy=claim.retry,
        idempotent=claim.idempotent,
        randomness=randomness,
    )


def outcome(run: Run, ending: seam.Ending, again: retries.Again | None, seconds: float) -> records.Outcome:
    """Return what is written about the end of an attempt."""
    usage: dict[str, Any] = {"duration_s": round(seconds, 6)}
    if run.peak:
        usage["peak_memory_bytes"] = run.peak
    if ending.units:
        usage["units"] = dict(ending.units)
    fault = ending.fault
    if fault is None:
        return records.Outcome(state=records.State.COMPLETED, result=ending.result, usage=usage)
    if again is not None:
        return records.Outcome(
            state=records.State.PENDING,
            error=fault.error,
            usage=usage,
            because=again.because,
            retry_in_s=again.delay_s,
        )
    if fault.origin is retries.Origin.CANCELLED or (run.was_cancelled and fault.origin is _UNBEGUN):
        error = fault.error if fault.origin is not _UNBEGUN else faults.cancelled(run.claim.id)
        return records.Outcome(state=records.State.CANCELLED, error=error, usage=usage, because="asked")
    error = fault.error
    if fault.origin is retries.Origin.TIMEOUT and _is_past_deadline(run, seconds):
        error = faults.deadline(run.claim.id)
    because = str(error.get("code", "failed"))
    return records.Outcome(state=records.State.FAILED, error=error, usage=usage, because=because)


def _is_past_deadline(run: Run, seconds: float) -> bool:
    left_s, timeout_s = run.claim.remaining_s, run.claim.timeout_s
    return left_s is not None and seconds >= left_s * 0.999 and (timeout_s is None or left_s <= timeout_s)


class Finisher:
    """Writes outcomes to the queue; what cannot be written now is tried until it can.

    Args:
        jobs: The queue.
        on_failure: Told that the store did not take one.
        pauses: Seconds before the second try, and at most.
    """

    def __init__(
        self,
        jobs: queue.JobQueue,
        on_failure: Callable[[BaseException | None], None],
        pauses: tuple[float, float],
    ) -> None:
        self._queue = jobs
        self._on_failure = on_failure
        self._first_s, self._most_s = pauses
        self._writing: set[asyncio.Future[bool]] = set()
        self._trying: dict[asyncio.Task[None], None] = {}
        self._is_closing = False
        self._held: list[tuple[str, int, records.Outcome]] = []
        self._loop = asyncio.get_running_loop()

    def hold(self, job_id: str, attempt: int, wanted: records.Outcome) -> None:
        """Write an outcome soon, together with those that come just now; for when no claim waits for it."""
        self._held.append((job_id, attempt, wanted))
        if len(self._held) == 1:
            self._loop.call_later(_HELD_S, self.flush)
        elif len(self._held) >= _MOST_HELD:
            self.flush()

    def flush(self) -> None:
        """Write what is held."""
        held, self._held = self._held, []
        for each in held:
            self._write(*each)

    def finish(self, job_id: str, attempt: int, wanted: records.Outcome) -> None:
        """Write an outcome now, and what is held with it; returns at once."""
        self.flush()
        self._write(job_id, attempt, wanted)

    def _write(self, job_id: str, attempt: int, wanted: records.Outcome) -> None:
        finishing = self._queue.finish(job_id, attempt, wanted)
        self._writing.add(finishing)
        finishing.add_done_callback(self._writing.discard)
        finishing.add_done_callback(partial(self._on_finished, job_id, attempt, wanted))

    def give_back(self, claim: records.Claimed) -> None:
        """Let a claimed job that was not begun be pending again."""
        back = records.Outcome(state=records.State.PENDING, because="given_back", retry_in_s=0.0)
        self.finish(claim.id, claim.attempt, back)

    def cancelled(self, claim: records.Claimed) -> None:
        """End a claimed job that was cancelled before it was begun."""
        ended = records.Outcome(
            state=records.State.CANCELLED, because="asked", error=faults.cancelled(claim.id)
        )
        self.finish(claim.id, claim.attempt, ended)

    def _on_finished(
        self, job_id: str, attempt: int, wanted: records.Outcome, finishing: asyncio.Future[bool]
    ) -> None:
        if finishing.cancelled():
            return
        error = finishing.exception()
        if error is None:
            if not finishing.result():
                _log.warning("fenced", job_id=job_id, attempt=attempt)
            return
        self._on_failure(error)
        if not self._is_closing:
            trying = asyncio.ensure_future(self.insist(job_id, attempt, wanted))
            self._trying[trying] = None
            trying.add_done_callback(lambda task: self._trying.pop(task, None))

    async def insist(self, job_id: str, attempt: int, wanted: records.Outcome) -> None:
        """Write an outcome, however often it takes; once only while closing."""
        pause_s = self._first_s
        while True:
            try:
                await self._queue.finish(job_id, attempt, wanted)
                return
            except errors.NodeError as error:
                _log.error("outcome_not_written", job_id=job_id, attempt=attempt, error=str(error))
                if self._is_closing:
                    return  # boot will find it running, and say that it was interrupted
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._most_s)

    async def close(self) -> None:
        """Stop trying; what is held is written once, and what is on its way arrives."""
        self._is_closing = True
        if self._writing:
            await asyncio.wait(list(self._writing))
        held, self._held = self._held, []
        for each in held:
            await self.insist(*each)
        for task in list(self._trying):
            task.cancel()
        if self._trying:
            await asyncio.wait(list(self._trying))
