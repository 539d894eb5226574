"""Moments that a clock which jumps cannot spoil: seconds since the machine started, beside its wall clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from toft.kernel import clock as clocks

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True)
class Moment:
    """One moment.

    Attributes:
        machine: Changes each time the machine starts; empty where it does not say.
        uptime_s: Seconds since then, time asleep included; only grows.
        wall_s: Seconds since 1970, as the machine believes.
    """

    machine: str
    uptime_s: float
    wall_s: float

    def since(self, earlier: Moment, *, most: float) -> float:
        """Return the seconds from an earlier moment to this one, from 0 to `most`.

        Within one start of the machine its wall clock is not asked; across starts it is all there is, and
        what it says is cut to what can be.
        """
        if self.machine and self.machine == earlier.machine and self.uptime_s >= earlier.uptime_s:
            return min(self.uptime_s - earlier.uptime_s, most)
        return max(0.0, min(self.wall_s - earlier.wall_s, most))


def read(clock: clocks.Clock = clocks.SYSTEM) -> Moment:
    """Return this moment; blocks for one small file."""
    try:
        machine = _BOOT_ID.read_text(encoding="ascii").strip()
        uptime_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        machine, uptime_s = "", clock.monotonic()
    return Moment(machine, uptime_s, clock.now())
