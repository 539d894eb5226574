"""Moments and lengths of time as people write them on a command line."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from toft.kernel.clock import SYSTEM, Clock
from toft.kernel.errors import UsageError
from toft.kernel.visible import one_line

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_LONGEST = 9


def lasting(text: str) -> float:
    """Return the seconds that a text such as 12h says.

    Raises:
        UsageError: It says none.
    """
    number, unit = text[:-1], text[-1:]
    if unit in _UNITS and number.isdecimal() and len(number) <= _LONGEST:
        return int(number) * _UNITS[unit]
    raise UsageError(
        f"{text[:40]!r} is no length of time",
        code="access.expiry",
        hint="such as 90d, 12h, 30m or 45s",
    )


def read(text: str, clock: Clock = SYSTEM, *, is_past: bool = False) -> float:
    """Return the moment a text names, in seconds since 1970.

    Args:
        text: RFC 3339, or without a zone in local time; a time of day alone is the next such time.
        clock: Says what is next.
        is_past: A time of day alone is the last such time.

    Raises:
        UsageError: It names none.
    """
    now = datetime.fromtimestamp(clock.now(), UTC).astimezone()
    try:
        if "-" not in text:
            of_day = time.fromisoformat(text)
            moment = datetime.combine(now.date(), of_day, of_day.tzinfo or now.tzinfo)
            if is_past:
                return (moment if moment <= now else moment - timedelta(days=1)).timestamp()
            return (moment if moment >= now else moment + timedelta(days=1)).timestamp()
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise UsageError(
            f"{one_line(text)!r} is not a moment",
            code="request.command_line",
            hint="such as 2027-01-31T18:30:00Z, 2027-01-31T18:30 or 18:30",
        ) from None
