"""What the dispatcher keeps of each instance that has work, and of each attempt that runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

from toft.dispatch import backend
from toft.jobs import records
from toft.jobs.ledger import NOTHING, Amounts

_KEPT = 0.8  # share of the old mean in the running mean of durations


class Station:
    """One instance with work.

    Attributes:
        instance: Its name.
        profile: What is known of it; None until the backend has said.
        lanes: Lanes it holds: for attempts that run, are being claimed, or wait for it to load.
        admitted: How many it had when it was last admitted.
        claiming: Jobs asked of the queue and not yet given.
        ahead: Claimed jobs that start as soon as one of its lanes is free.
        is_stale: What is known of it may be out of date.
        is_learning: The backend is being asked for the profile.
        is_loading: It is being loaded, since `loading_since`.
        away: Why it takes nothing just now, whatever the backend says.
        failures: Loads in a row that failed.
        doomed: What the next claimed job ends with, because loading ended with it.
        idle: What its worker held before the first job.
        most_at_once: Most attempts at once since its worker started.
        pid: That worker.
        mean_s: How long its jobs take, the recent ones above all; None before the first.
        alone_since: Loop time at which it got the machine for itself, to be measured.
        head: The job the next fields are about.
        waiting_since: Loop time at which that became the next one.
        blocked_since: Loop time at which it was first found not to fit; 0 for never.
        told: What was last written as its reason.
    """

    __slots__ = (
        "admitted",
        "ahead",
        "alone_since",
        "away",
        "blocked_since",
        "claiming",
        "doomed",
        "failures",
        "head",
        "idle",
        "instance",
        "is_learning",
        "is_loading",
        "is_stale",
        "lanes",
        "loading_since",
        "mean_s",
        "most_at_once",
        "pid",
        "profile",
        "told",
        "waiting_since",
    )

    def __init__(self, instance: str) -> None:
        self.instance = instance
        self.profile: backend.Profile | None = None
        self.lanes = 0
        self.admitted = 0
        self.claiming = 0
        self.ahead: deque[records.Claimed] = deque()
        self.is_stale = True
        self.is_learning = False
        self.is_loading = False
        self.loading_since = 0.0
        self.away: Mapping[str, Any] | None = None
        self.failures = 0
        self.doomed: backend.Fault | None = None
        self.idle: Amounts = NOTHING
        self.most_at_once = 0
        self.pid = 0
        self.mean_s: float | None = None
        self.alone_since = 0.0
        self.head: records.Head | None = None
        self.waiting_since = 0.0
        self.blocked_since = 0.0
        self.told: tuple[Any, ...] | None = None

    @property
    def is_forgettable(self) -> bool:
        """Say whether nothing would be lost without it."""
        return not (
            self.lanes or self.claiming or self.ahead or self.is_loading or self.away or self.failures
        )

    def see(self, head: records.Head, now: float) -> None:
        """Note which job is next."""
        if self.head is None or self.head.seq != head.seq or self.head.attempt != head.attempt:
            self.waiting_since = now
            self.blocked_since = 0.0
            self.told = None
        self.head = head

    def note_duration(self, seconds: float) -> None:
        """Take how long a job took."""
        mean = self.mean_s
        self.mean_s = seconds if mean is None else mean * _KEPT + seconds * (1 - _KEPT)


class Run:
    """One attempt, from its claim to its end; what its backend talks to."""

    __slots__ = (
        "_note",
        "_on_end",
        "claim",
        "grace_s",
        "handle",
        "has_begun",
        "is_over",
        "peak",
        "shown_at",
        "started_at",
        "station",
        "was_cancelled",
    )

    def __init__(
        self,
        station: Station,
        claim: records.Claimed,
        started_at: float,
        note: Callable[[str, int, str, Mapping[str, Any]], object],
        on_end: Callable[[Run, backend.Ending], None],
    ) -> None:
        self.station = station
        self.claim = claim
        self.started_at = started_at
        self.handle: backend.Running | None = None
        self.has_begun = False
        self.is_over = False
        self.was_cancelled = False
        self.grace_s: float | None = None
        self.peak = 0
        self.shown_at = float("-inf")
        self._note = note
        self._on_end = on_end

    def progress(self, fraction: float, message: str) -> None:
        """Take what the plugin reported."""
        self.note("progress", {"progress": fraction, "message": message})

    def phase(self, phase: str) -> None:
        """Take a step of cancelling."""
        self.note("cancel", {"phase": phase})

    def note(self, kind: str, data: Mapping[str, Any]) -> None:
        """Write an event of this attempt, unless it is over."""
        if not self.is_over:
            self._note(self.claim.id, self.claim.attempt, kind, data)

    def ended(self, ending: backend.Ending) -> None:
        """Take the end; later ones are nobody's."""
        if not self.is_over:
            self._on_end(self, ending)

    def cancel(self) -> None:
        """Ask it to end."""
        self.was_cancelled = True
        if self.handle is not None:
            self.handle.cancel(self.grace_s)
