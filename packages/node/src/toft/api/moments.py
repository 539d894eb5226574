"""Moments as requests name them."""

from __future__ import annotations

import math
from datetime import UTC, datetime

from toft.kernel import errors

_MOST = 253_402_300_799.0
"""The end of the year 9999: no calendar of ours goes on."""


def seconds(name: str, text: str | None) -> float | None:
    """Return a moment in seconds since 1970; None for none.

    Args:
        name: Of the parameter, for the error.
        text: RFC 3339, in UTC when it names no zone; or the seconds themselves.

    Raises:
        UsageError: It names no moment.
    """
    if text is None:
        return None
    try:
        try:
            found = float(text)
        except ValueError:
            # A plus sign that nobody encoded arrives as a space.
            moment = datetime.fromisoformat(text.strip().replace(" ", "+") if "T" in text else text)
            found = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        found = math.nan
    if not 0 <= found <= _MOST:
        raise errors.UsageError(
            f"{name}: {text[:80]!r} is no moment",
            code="request.fields",
            details={"fields": {name: "is no moment"}},
            hint="such as 2027-01-31T18:30:00Z, or seconds since 1970",
        )
    return found
