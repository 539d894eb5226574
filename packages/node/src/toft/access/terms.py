"""How long something holds: until a moment, and no longer than it was until then, whatever the clock does."""

from __future__ import annotations

from dataclasses import dataclass

from toft.kernel import clock as clocks


@dataclass(frozen=True)
class Term:
    """A time that ends on the wall clock or on the monotonic one, whichever is first.

    The wall clock alone would let a token hold for another year when it is set back by one; the monotonic
    one alone stands still while a machine sleeps, and starts again with each process.

    Attributes:
        until: When it ends, in seconds since 1970.
        passes: When it ends on the monotonic clock of this process.
    """

    until: float
    passes: float

    @classmethod
    def of(cls, clock: clocks.Clock, until: float, *, since: float = 0.0) -> Term:
        """Return the term until a moment.

        Args:
            clock: The time.
            until: When it ends.
            since: A moment that is known to have been; the wall clock may be behind it.
        """
        return cls(until, clock.monotonic() + until - max(clock.now(), since))

    @classmethod
    def lasting(cls, clock: clocks.Clock, seconds: float) -> Term:
        """Return the term that begins now."""
        return cls(clock.now() + seconds, clock.monotonic() + seconds)

    def left_s(self, clock: clocks.Clock) -> float:
        """Return the seconds that are left of it; none when it is over."""
        return max(min(self.until - clock.now(), self.passes - clock.monotonic()), 0.0)

    def is_over(self, clock: clocks.Clock) -> bool:
        """Say whether it has ended."""
        return self.left_s(clock) <= 0

    def first(self, other: Term | None) -> Term:
        """Return what is over when one of two is."""
        if other is None:
            return self
        return Term(min(self.until, other.until), min(self.passes, other.passes))
