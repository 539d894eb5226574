"""What running jobs report, thinned out: a plugin reports as often as it likes, the disk sees a few a second.

The first reports of a job go through at once, the last one always does, and of those in between the newest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from toft.jobs.operations import Note
from toft.jobs.transaction import Running
from toft.kernel import clock as clocks

THINNED = frozenset({"progress", "snapshot"})
_BURST = 3.0


class _Allowance:
    """How many more reports of a job may be stored now, and what waits."""

    __slots__ = ("at", "left", "waiting")

    def __init__(self, at: float) -> None:
        self.at = at
        self.left = _BURST
        self.waiting: dict[str, dict[str, Any]] = {}


class Notes:
    """Reports on their way to the store; memory is bounded by the jobs that run.

    Args:
        add: Puts one into the next transaction.
        clock: Measures how often.
        per_s: Reports of a job that are stored each second.
    """

    def __init__(self, add: Callable[[Note], None], clock: clocks.Clock, per_s: float) -> None:
        self._add = add
        self._clock = clock
        # A burst counts against the first second.
        self._per_s = max(per_s - _BURST, 0.1)
        self._jobs: dict[str, tuple[Running, _Allowance]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def note(self, job: Running, kind: str, data: Mapping[str, Any]) -> None:
        """Store a report now, or soon, or a newer one instead."""
        now = self._clock.monotonic()
        known = self._jobs.get(job.id)
        if known is None or known[0].attempt != job.attempt:
            known = self._jobs[job.id] = (job, _Allowance(now))
        allowance = known[1]
        allowance.left = min(_BURST, allowance.left + (now - allowance.at) * self._per_s)
        allowance.at = now
        if allowance.left >= 1.0 and kind not in allowance.waiting:
            allowance.left -= 1.0
            self._add(Note(kind, job, job.attempt, data))
            return
        given = {key: value for key, value in data.items() if value is not None}
        allowance.waiting[kind] = {**allowance.waiting.get(kind, {}), **given}
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(1.0 / self._per_s, self._let_through)

    def end(self, job_id: str) -> None:
        """Store what a job reported last, because it ends now."""
        known = self._jobs.pop(job_id, None)
        if known is not None:
            self._store(*known)

    def forget(self, job_id: str) -> None:
        """Let go of a job that has ended, whatever it reported after its end was asked for."""
        self._jobs.pop(job_id, None)

    def close(self) -> None:
        """Store what waits."""
        if self._timer is not None:
            self._timer.cancel()
        for job_id in list(self._jobs):
            self.end(job_id)

    def _let_through(self) -> None:
        self._timer = None
        is_any = False
        for job, allowance in self._jobs.values():
            if allowance.waiting:
                is_any = True
                allowance.left = max(0.0, allowance.left - len(allowance.waiting))
                self._store(job, allowance)
        if is_any:
            self._timer = asyncio.get_running_loop().call_later(1.0 / self._per_s, self._let_through)

    def _store(self, job: Running, allowance: _Allowance) -> None:
        waiting, allowance.waiting = allowance.waiting, {}
        for kind, data in waiting.items():
            self._add(Note(kind, job, job.attempt, data))
