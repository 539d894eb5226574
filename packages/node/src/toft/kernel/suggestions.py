"""What somebody most likely meant by a name that does not exist."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

_MOST_SHOWN = 12
_MOST_LOOKED_AT = 2000
_LONGEST = 200


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a mistyped one most likely means; None when none is near."""
    # Comparing is quadratic in the length, and both sides may come from a plugin.
    candidates = [each for each in known if len(each) <= _LONGEST][:_MOST_LOOKED_AT]
    close = difflib.get_close_matches(name[:_LONGEST], candidates, n=1, cutoff=0.6)
    return close[0] if close else None


def not_among(value: object, options: Iterable[object]) -> str:
    """Say that a value is none of some, with the nearest text among them."""
    listed = list(options)
    near = (
        nearest(value, [each for each in listed if isinstance(each, str)]) if isinstance(value, str) else None
    )
    among = ", ".join(repr(each) for each in listed[:_MOST_SHOWN]) + (
        ", ..." if len(listed) > _MOST_SHOWN else ""
    )
    said = f"must be one of {among}, not {shown(value)}"
    return f"{said}; did you mean {near}?" if near else said


def shown(value: object) -> str:
    """Return the beginning of a value as it is written, never all of it: aliases make gigabytes of a line."""
    try:
        return (repr(value) if isinstance(value, str) else reprlib.repr(value))[:_LONGEST]
    except ValueError:
        return f"a very long {type(value).__name__}"


def unknown(name: str, known: Iterable[str]) -> str:
    """Say that a name is not known, with the nearest that is, else all of them."""
    names = sorted(known)
    near = nearest(name, names)
    if near:
        return f"unknown; did you mean {near}?"
    if not names:
        return "unknown; none are accepted"
    shown = ", ".join(names[:_MOST_SHOWN]) + (", ..." if len(names) > _MOST_SHOWN else "")
    return f"unknown; accepted: {shown}"
