"""Times, amounts and numbers of things as people read them: `1.2 s`, `340 MB`, `1 package`."""

from __future__ import annotations

# A central says what time it is in whole seconds.
_CLOSE_S = 1.0


def duration(duration_s: float) -> str:
    """Return a duration as people read it."""
    if duration_s < 1:
        return f"{duration_s * 1000:.0f} ms"
    if duration_s < 120:
        return f"{duration_s:.1f} s"
    if duration_s < 7200:
        return f"{duration_s / 60:.1f} min"
    return f"{duration_s / 3600:.1f} h" if duration_s < 172_800 else f"{duration_s / 86_400:.1f} days"


def skew(ahead_s: float) -> str:
    """Return how the clock of a node stands to that of its central, which is `ahead_s` ahead of it."""
    if abs(ahead_s) <= _CLOSE_S:
        return "none"
    return f"{duration(abs(ahead_s))} {'behind' if ahead_s > 0 else 'ahead of'} the central"


def size(size_bytes: float) -> str:
    """Return an amount of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return (
                f"{size_bytes:.0f} {unit}" if unit == "B" or size_bytes >= 10 else f"{size_bytes:.1f} {unit}"
            )
        size_bytes /= 1000
    return f"{size_bytes:.1f} TB"


def counted(count: int, what: str) -> str:
    """Return how many there are of something: `no jobs`, `1 job`, `2 jobs`."""
    return f"{count or 'no'} {what}{'' if count == 1 else 's'}"
