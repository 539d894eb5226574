"""What a look at something found: the check, whether it holds, what was seen, what to do next."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        check: What it is about.
        ok: Nothing has to be done.
        evidence: What was found.
        next: What to do; empty when nothing.
    """

    check: str
    ok: bool
    evidence: str
    next: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the finding as JSON-like values."""
        return asdict(self)
