"""The words that waits, retries and ends are recorded with, as sentences for a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toft.kernel.quantities import size

INTERRUPTED = "the node ended while it ran, so nobody can say how far it came; it is not run again unasked"
FENCED = "only the newest attempt may end a job, and only once"

CANCEL_PHASES: Mapping[str, str] = {
    "requested": "a cancel was asked for",
    "cooperative": "the plugin was asked to stop",
    "force": "the plugin did not stop in time, so its process was ended",
    "reloading": "a fresh worker takes the place of the one that was ended",
    "done": "the cancel was over",
}

CAUSES: Mapping[str, str] = {}
"""Words in `because` of an event."""

BLOCKS: Mapping[str, str] = {}
"""Codes of block reasons; `{name}` is a value of the reason."""


class _Known(dict[str, str]):
    def __missing__(self, key: str) -> str:
        return "?"


def cause(word: str) -> str:
    """Return the sentence for a recorded cause; what has none is shown as it is."""
    return CAUSES.get(word) or (word if " " in word else word.replace("_", " "))


def sentence(reason: Mapping[str, Any]) -> str:
    """Return why a job waits."""
    code = str(reason.get("code") or reason.get("because") or "")
    values = _Known({key: _shown(key, value) for key, value in reason.items()})
    return BLOCKS[code].format_map(values) if code in BLOCKS else cause(code)


def _shown(name: str, value: Any) -> str:
    if name.endswith("_bytes") and isinstance(value, (int, float)):
        return size(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)
