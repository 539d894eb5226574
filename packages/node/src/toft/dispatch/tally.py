"""How jobs ended since this process began, by plugin: counts and durations, for whoever watches many nodes.

Bounded: beyond a hundred plugins the others are told as one.
"""

from __future__ import annotations

import bisect
import itertools
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from toft.jobs.records import ENDED, State
from toft.jobs.transaction import Effects

OTHER = "other"
BOUNDS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
_MOST = 100
_STEP_S = 5.0
_STEPS = 17_282  # of a day, with the one it begins in and the one that goes on


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


class _Steps:
    """How the jobs of one instance ended: how many had by the beginning of each step in which one did."""

    __slots__ = ("badly", "began", "ended_badly", "ended_well", "well")

    def __init__(self) -> None:
        # Arrays: a day of them takes a quarter of a megabyte, and a window is found without counting.
        self.began, self.well, self.badly = array("d"), array("Q"), array("Q")
        self.ended_well = self.ended_badly = 0

    def add(self, is_well: bool, at: float) -> None:
        begin = at // _STEP_S * _STEP_S
        if not self.began or self.began[-1] != begin:
            self.began.append(begin)
            self.well.append(self.ended_well)
            self.badly.append(self.ended_badly)
            if len(self.began) >= 2 * _STEPS:
                del self.began[:-_STEPS], self.well[:-_STEPS], self.badly[:-_STEPS]
        if is_well:
            self.ended_well += 1
        else:
            self.ended_badly += 1

    def since(self, moment: float) -> tuple[int, int]:
        first = bisect.bisect_left(self.began, moment - _STEP_S)
        if first == len(self.began):
            return 0, 0
        return self.ended_well - self.well[first], self.ended_badly - self.badly[first]


class Ends:
    """How jobs ended of late, by instance: whether well, in steps of some seconds, for a day at least.

    Beyond a hundred instances the others are counted as one, but for those that somebody asks about.
    """

    def __init__(self) -> None:
        self._steps: dict[str, _Steps] = {}
        # Health gates, which a document has no more than some dozens of.
        self._asked: set[str] = set()

    def add(self, instance: str, state: State, at: float) -> None:
        """Count one; what somebody cancelled, or a stop interrupted, says nothing."""
        if state not in (State.COMPLETED, State.FAILED):
            return
        steps = self._steps.get(instance)
        if steps is None:
            if len(self._steps) >= _MOST and instance not in self._asked:
                instance = OTHER
            steps = self._steps.setdefault(instance, _Steps())
        steps.add(state is State.COMPLETED, at)

    def within(self, instance: str | None, window_s: float, at: float) -> tuple[int, int]:
        """Return how many ended well and how many not, of one instance or of all, until a moment."""
        if instance is not None and len(self._asked) < _MOST:
            self._asked.add(instance)
        asked = [each for name, each in self._steps.items() if instance in (None, name)]
        found = [each.since(at - window_s) for each in asked]
        return sum(well for well, _ in found), sum(badly for _, badly in found)


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
