"""How jobs ended since this process began, by plugin: counts and durations, for whoever watches many nodes.

Bounded: beyond a hundred plugins the others are told as one.
"""

from __future__ import annotations

import bisect
import collections
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from toft.jobs.records import ENDED, State
from toft.jobs.transaction import Effects

OTHER = "other"
BOUNDS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
_MOST = 100
_STEP_S = 5.0
_STEPS = 17_280


@dataclass(slots=True)
class Durations:
    """How long attempts took, or something else.

    Attributes:
        bounds_s: Between what is told apart.
        counts: How many lie in each stretch between two bounds; the last is what took longer.
        total_s: All of them together.
    """

    bounds_s: Sequence[float] = BOUNDS_S
    counts: list[int] = field(default_factory=list)
    total_s: float = 0.0

    def __post_init__(self) -> None:
        self.counts = self.counts or [0] * (len(self.bounds_s) + 1)

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect.bisect_left(self.bounds_s, seconds)] += 1
        self.total_s += seconds

    def copy(self) -> Durations:
        """Return what it is now."""
        return Durations(self.bounds_s, list(self.counts), self.total_s)

    def cumulative(self) -> Sequence[int]:
        """Return how many took no longer than each bound; the last is all of them."""
        return list(itertools.accumulate(self.counts))


class Ends:
    """How jobs ended of late, by instance: whether well, in steps of some seconds, for a day."""

    def __init__(self) -> None:
        self._steps: dict[str, collections.deque[list[float]]] = {}

    def add(self, instance: str, state: State, at: float) -> None:
        """Count one; what somebody cancelled, or a stop interrupted, says nothing."""
        if state not in (State.COMPLETED, State.FAILED):
            return
        if instance not in self._steps and len(self._steps) >= _MOST:
            instance = OTHER
        steps = self._steps.setdefault(instance, collections.deque(maxlen=_STEPS))
        begin = at // _STEP_S * _STEP_S
        if not steps or steps[-1][0] != begin:
            steps.append([begin, 0, 0])
        steps[-1][1 if state is State.COMPLETED else 2] += 1

    def within(self, instance: str | None, window_s: float, at: float) -> tuple[int, int]:
        """Return how many ended well and how many not, of one instance or of all, until a moment."""
        well = badly = 0
        for name, steps in self._steps.items():
            for begin, good, bad in reversed(steps) if instance in (None, name) else ():
                if begin + _STEP_S < at - window_s:
                    break
                well, badly = well + int(good), badly + int(bad)
        return well, badly


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
        self.ends = Ends()

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
                self.ends.add(change.instance, change.after, now)
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
