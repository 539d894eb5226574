"""The queue's own time: it only grows, across restarts too and whatever the machine's clock does.

Ranks, delays and deadlines are decided on it. It starts at the wall clock, or where it was when that is
later, and then runs with the monotonic clock.
"""

from __future__ import annotations

from toft.kernel import clock as clocks


class QueueClock:
    """Time for people (`at`) and time for decisions (`q`)."""

    def __init__(self, clock: clocks.Clock, last_q: float) -> None:
        self._clock = clock
        self._offset = max(clock.now(), last_q) - clock.monotonic()

    def at(self) -> float:
        """Return the wall clock; what is written beside events."""
        return self._clock.now()

    def q(self) -> float:
        """Return the queue's time."""
        return self._offset + self._clock.monotonic()

    def monotonic(self, q: float) -> float:
        """Return a queue time on the monotonic clock of this process."""
        return q - self._offset
