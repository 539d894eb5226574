"""How long to wait: the ladder of failures, what a server asks for, and jitter against marching in step.

Nothing here waits. Randomness comes in as a function that draws from 0 up to 1.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Callable
from datetime import UTC

Draw = Callable[[], float]

LADDER_S = (30.0, 60.0, 120.0, 300.0)
"""After so many failures in a row; the last one stays."""
SHORTEST_S, LONGEST_S = 1.0, 3600.0
"""What of `Retry-After` is believed."""
SHORTEST_INTERVAL_S, LONGEST_INTERVAL_S = 5, 3600
"""What an interval of a document, or of a server, may be."""
INSTALL_LADDER_S = (30.0, 60.0, 120.0, 240.0, 480.0, 900.0)
"""Between two tries of a document that the node, not the document, kept from being applied."""
_JITTER = 0.1
_DIGITS = re.compile(r"[0-9]{1,10}", re.ASCII)
_DATE = re.compile(r"[A-Z][a-z]{2,8},? [A-Za-z0-9: -]{18,30}", re.ASCII)


def ladder_s(failures: int, steps: tuple[float, ...] = LADDER_S) -> float:
    """Return the pause after the given number of failures in a row, 1 for the first."""
    return steps[min(max(failures, 1), len(steps)) - 1]


def retry_after_s(text: str | None, now: float) -> float | None:
    """Return the seconds that a `Retry-After` asks for, as far as they are believed.

    Args:
        text: The header; None without one.
        now: The server's own time where it tells it: a node's clock may be years off.

    Returns:
        None when it is not there, asks for no time or for a past one, or is neither digits nor an HTTP date.
    """
    text = (text or "").strip()
    if _DIGITS.fullmatch(text):
        asked = float(text)
    else:
        date = http_date(text)
        if date is None:
            return None
        asked = date - now
    return min(max(asked, SHORTEST_S), LONGEST_S) if asked > 0 else None


def http_date(text: str | None) -> float | None:
    """Return the seconds since 1970 of an HTTP date; None for anything else."""
    if not text or not _DATE.fullmatch(text.strip()):
        return None
    try:
        moment = email.utils.parsedate_to_datetime(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def interval_s(text: str | None) -> float | None:
    """Return the interval that a server asks for; None when for none, or for one beyond the bounds."""
    text = (text or "").strip()
    if not _DIGITS.fullmatch(text):
        return None
    asked = int(text)
    return float(asked) if SHORTEST_INTERVAL_S <= asked <= LONGEST_INTERVAL_S else None


def steady(seconds: float, draw: Draw) -> float:
    """Return a regular pause, up to a tenth shorter or longer."""
    return seconds * (1 - _JITTER + 2 * _JITTER * draw())


def upward(seconds: float, draw: Draw) -> float:
    """Return a pause that somebody asked for or that failures earned, up to a tenth longer, never shorter."""
    return seconds * (1 + _JITTER * draw())
