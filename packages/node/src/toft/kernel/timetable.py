"""When something that comes again is due: every so many seconds, or by a cron expression in UTC. Pure.

What was missed is one turn, not many: a node that was off for a day has one thing to do for each timetable.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cronsim import CronSim, CronSimError

from toft.kernel.errors import UsageError

MOST_COUNTED = 1000
"""Missed turns are counted up to here; a number as large says enough."""
_SET_BACK_S = 3600.0
_FIELDS = 5
# What lies beyond is no date: a clock that stands there is wrong, and nothing comes of it.
_LAST = datetime(9000, 1, 1, tzinfo=UTC).timestamp()


@dataclass(frozen=True)
class Turn:
    """A due time.

    Attributes:
        due_at: In seconds since 1970.
        missed: How many came before it and were not done; at most `MOST_COUNTED`.
    """

    due_at: float
    missed: int = 0


@dataclass(frozen=True, kw_only=True)
class Timetable:
    """When something is due.

    Attributes:
        every_s: Seconds from one to the next.
        cron: Minute, hour, day of the month, month and day of the week, instead.
    """

    every_s: float | None = None
    cron: str | None = None

    @property
    def text(self) -> str:
        """Return it as people write it; another text is another timetable."""
        return f"every {self.every_s:g} s" if self.every_s is not None else f"cron {self.cron}"

    def check(self, now: float) -> None:
        """Refuse an expression that says nothing.

        Raises:
            UsageError: It is none, or names a day that never comes (`schedule.cron`).
        """
        if self.cron is None:
            return
        try:
            if len(self.cron.split()) != _FIELDS:
                raise ValueError("it has not five fields")
            comes = self.following(now)
        except (CronSimError, ValueError, OverflowError) as error:
            raise _bad(self.cron, str(error)) from None
        if comes is None:
            raise _bad(self.cron, "it never comes")

    def following(self, moment: float) -> float | None:
        """Return the first due time after a moment; None when there is none."""
        if self.every_s is not None:
            return moment + self.every_s
        return next(self._times(moment), None)

    def latest(self, since: float, now: float) -> Turn | None:
        """Return the last due time after `since` that has come; None when none has."""
        if now <= since or now >= _LAST:
            return None
        if self.every_s is not None:
            count = int((now - since) // self.every_s)
            return Turn(since + count * self.every_s, min(count - 1, MOST_COUNTED)) if count else None
        last = next(self._times(now + 1.0, back=True), None)
        if last is None or last <= since:
            return None
        before = itertools.takewhile(lambda each: each < last, self._times(since))
        return Turn(last, sum(1 for _ in itertools.islice(before, MOST_COUNTED)))

    def is_ahead(self, since: float, now: float) -> bool:
        """Say whether what was done last was done at a time that the clock, set back, knows nothing of.

        After a small step back nothing is done twice; after a large one, waiting for the clock to come there
        again would be waiting for ever.
        """
        return since - now > min(self.every_s or _SET_BACK_S, _SET_BACK_S)

    def _times(self, moment: float, *, back: bool = False) -> Iterator[float]:
        start = datetime.fromtimestamp(moment, UTC).replace(microsecond=0)
        for each in CronSim(self.cron or "", start, reverse=back):
            yield each.timestamp()


def _bad(cron: str, why: str) -> UsageError:
    return UsageError(
        f"{cron[:80]!r} is no cron expression: {why}",
        code="schedule.cron",
        hint="minute hour day month weekday, in UTC: 30 4 * * 1 is Mondays at 4:30",
    )
