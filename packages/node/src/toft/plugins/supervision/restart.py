"""When a worker that died comes back: at once, later, or not by itself."""

from __future__ import annotations

from dataclasses import dataclass

from toft.kernel import clock as clocks


@dataclass(frozen=True, kw_only=True)
class RestartPolicy:
    """How patient to be with an instance.

    Attributes:
        first_s: Pause before the first restart; doubles with every death in a row.
        most_s: The longest pause.
        healthy_s: A worker that lived this long starts the row anew.
        limit: Deaths in a row after which it stays down.
    """

    first_s: float = 0.1
    most_s: float = 30.0
    healthy_s: float = 60.0
    limit: int = 5


class Restarts:
    """The deaths of one instance."""

    def __init__(self, policy: RestartPolicy, clock: clocks.Clock = clocks.SYSTEM) -> None:
        self._policy = policy
        self._clock = clock
        self._ready_at: float | None = None
        self.in_a_row = 0
        self.total = 0

    def ready(self) -> None:
        """Note that a worker takes calls from now on."""
        self._ready_at = self._clock.monotonic()

    def died(self) -> float | None:
        """Note a death.

        Returns:
            Seconds to wait before the next start; None when it should stay down.
        """
        lived_s = 0.0 if self._ready_at is None else self._clock.monotonic() - self._ready_at
        self._ready_at = None
        if lived_s >= self._policy.healthy_s:
            self.in_a_row = 0
        self.in_a_row += 1
        self.total += 1
        if self.in_a_row >= self._policy.limit:
            return None
        pause_s: float = min(self._policy.first_s * 2.0 ** (self.in_a_row - 1), self._policy.most_s)
        return pause_s

    def forgive(self) -> None:
        """Start the row anew; somebody asked for another try."""
        self.in_a_row = 0
