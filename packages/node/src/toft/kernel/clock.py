"""Time as an argument: whoever needs it takes a `Clock`, so that a test can replay a run."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> float:
        """Return seconds since 1970 in UTC; may jump, never used for ordering."""
        ...

    def monotonic(self) -> float:
        """Return seconds that only grow; for durations and time-outs."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> float:
        """Return the machine's wall clock."""
        return time.time()

    def monotonic(self) -> float:
        """Return the machine's monotonic clock."""
        return time.monotonic()


class ManualClock:
    """A clock that stands still until it is moved; for tests and replays."""

    def __init__(self, start: float = 1_700_000_000.0) -> None:
        self._now = start
        self._monotonic = 0.0

    def now(self) -> float:
        """Return the wall clock as it was set."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds it was moved in all."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._now += seconds
        self._monotonic += seconds


SYSTEM = SystemClock()


def rfc3339(seconds: float) -> str:
    """Return a time as UTC RFC 3339 text with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_rfc3339(text: str) -> float:
    """Return the time that such text names, in seconds since 1970."""
    return datetime.fromisoformat(text).timestamp()
