"""What the queue knows without asking the database: how many jobs are where, and which come next.

Nothing here grows with the number of pending or ended jobs, only with instances and running jobs.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from toft.jobs import transaction
from toft.jobs.queue_clock import QueueClock
from toft.jobs.records import ENDED, Head, State
from toft.jobs.transaction import Effects, Running


class Board:
    """A picture of the last commit."""

    def __init__(self) -> None:
        self.numbers = transaction.Numbers()
        self.counts: dict[State, int] = dict.fromkeys(State, 0)
        self.running: dict[str, Running] = {}
        self._ready: dict[str, int] = {}
        self._heads: dict[str, Head] = {}

    @property
    def heads(self) -> Mapping[str, Head]:
        """The next job of each instance that has one."""
        return MappingProxyType(self._heads)

    @property
    def ended(self) -> int:
        """How many jobs have ended and are still remembered."""
        return sum(count for state, count in self.counts.items() if state in ENDED)

    def learn(self, effects: Effects, clock: QueueClock) -> None:
        """Take in what a transaction changed."""
        self.numbers = effects.numbers
        counts = self.counts
        counts[State.PENDING] += effects.submitted
        for change in effects.changes:
            counts[change.before] -= 1
            counts[change.after] += 1
            if change.before is State.RUNNING:
                self.running.pop(change.id, None)
        for state, count in effects.forgotten.items():
            counts[state] -= count
        for job in effects.started:
            self.running[job.id] = job
        effects.is_quiet = not self.running
        for instance, by in effects.ready.items():
            self.place(instance, by, effects.heads[instance], clock)

    def place(
        self, instance: str, by: int, row: tuple[int, int, float, str, int] | None, clock: QueueClock
    ) -> None:
        """Take in how many jobs of an instance became ready and which is next."""
        ready = self._ready.get(instance, 0) + by
        if row is None:
            self._ready.pop(instance, None)
            self._heads.pop(instance, None)
            return
        self._ready[instance] = ready
        rank, seq, queued_q, job_id, attempt = row
        self._heads[instance] = Head(rank, seq, ready, clock.monotonic(queued_q), job_id, attempt)
