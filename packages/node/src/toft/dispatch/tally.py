"""How jobs ended since this process began, by plugin: counts and durations, for whoever watches many nodes.

Bounded: beyond a hundred plugins the others are told as one.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from toft.jobs.records import ENDED, State
from toft.jobs.transaction import Effects

OTHER = "other"
BOUNDS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
_MOST = 100


@dataclass(slots=True)
class Durations:
    """How long attempts took.

    Attributes:
        counts: How many lie in each stretch between two of `BOUNDS_S`; the last is what took longer.
        total_s: All of them together.
    """

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    total_s: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect.bisect_left(BOUNDS_S, seconds)] += 1
        self.total_s += seconds

    def cumulative(self) -> Sequence[int]:
        """Return how many took no longer than each bound; the last is all of them."""
        return list(itertools.accumulate(self.counts))


class Tally:
    """What the queue tells, added up.

    Args:
        plugin_of: Says whose an instance is.
        monotonic: The clock that attempts are timed by.
    """

    def __init__(self, plugin_of: Callable[[str], str], monotonic: Callable[[], float]) -> None:
        self.ended: dict[tuple[str, State], int] = {}
        self.durations: dict[str, Durations] = {}
        self.submitted = 0
        self._plugin_of = plugin_of
        self._monotonic = monotonic
        self._began: dict[str, float] = {}

    def learn(self, effects: Effects) -> None:
        """Take in what a commit changed."""
        self.submitted += effects.submitted
        if not effects.started and not effects.changes:
            return
        now = self._monotonic()
        for change in effects.changes:
            if change.before is State.RUNNING:
                began = self._began.pop(change.id, None)
                if began is not None:
                    self.durations[self._name(change.instance)].add(now - began)
            if change.after in ENDED:
                key = self._name(change.instance), change.after
                self.ended[key] = self.ended.get(key, 0) + 1
        for started in effects.started:
            self._began[started.id] = now

    def _name(self, instance: str) -> str:
        name = self._plugin_of(instance)
        if name in self.durations:
            return name
        if len(self.durations) >= _MOST:
            name = OTHER
        self.durations.setdefault(name, Durations())
        return name
