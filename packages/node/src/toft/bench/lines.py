"""How a measuring program is driven: one JSON line in names a measure, one JSON line out gives its figures.

Standard library only and Python 3.9, since the programs that measure others run in the others' environments.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

# 229 bytes as JSON, the size of an ordinary small request.
PAYLOAD: dict[str, object] = {
    "id": 1,
    "text": "x" * 140,
    "tags": ["a", "b", "c"],
    "options": {"depth": 3, "exact": True},
}
BIG_BYTES = 100_000_000
OUTSTANDING = 64

# Taken before any library is imported, so that what one prints on stdout is not taken for an answer.
ANSWERS = os.dup(1)
os.dup2(2, 1)


def serve(contender: object) -> None:
    """Answer lines until there are no more; a measure is a method of the contender."""
    answers = os.fdopen(ANSWERS, "w")
    for line in sys.stdin:
        measure: Callable[[], Mapping[str, float]] | None = getattr(
            contender, json.loads(line)["measure"], None
        )
        try:
            answer: dict[str, Any] = dict(measure()) if measure else {}
        except Exception as error:  # noqa: BLE001 - one figure that cannot be had must not cost the others
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value that `part` of all values are below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def call_figures(seconds: Sequence[float]) -> dict[str, float]:
    """Return the figures of many timed calls."""
    return {"call_p50_us": statistics.median(seconds) * 1e6, "call_p99_us": percentile(seconds, 0.99) * 1e6}


def time_each(call: Callable[[], object], times: int, warm: int = 50) -> list[float]:
    """Return how long each of `times` calls took, after `warm` that do not count."""
    for _ in range(warm):
        call()
    clock = time.perf_counter
    seconds = []
    for _ in range(times):
        start = clock()
        call()
        seconds.append(clock() - start)
    return seconds


def rate_mb_s(seconds: Sequence[float]) -> float:
    """Return megabytes a second of repeated moves of the big block."""
    return BIG_BYTES / 1e6 / statistics.median(seconds)


def rss_mb(pid: int) -> float:
    """Return the resident memory of one process."""
    with open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
