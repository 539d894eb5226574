"""What a document lets a node send its central: rows of its own log, and samples of the machine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from toft.client.place import Place
from toft.dispatch.engine import Engine
from toft.kernel import clock as clocks
from toft.managed import log_lines, protocol, telemetry
from toft.managed.telemetry import Batch, Mark

_SAMPLES = "samples"


class SampleRows:
    """The samples of a node: those taken while something ran, and one of each look that finds none.

    Args:
        opened: Returns what runs the jobs of the node.
        clock: The time.
    """

    signal = protocol.METRICS

    def __init__(self, opened: Callable[[], Awaitable[Engine]], clock: clocks.Clock = clocks.SYSTEM) -> None:
        self._opened = opened
        self._clock = clock

    async def begin(self) -> Mark:
        """Return now."""
        return Mark(partition=_SAMPLES, at=self._now_ms())

    async def read(self, mark: Mark) -> Batch | None:
        """Return what was sampled from a mark on; see `telemetry.Source`."""
        engine = await self._opened()
        # A clock that was set back: what it says from now on is new.
        at = mark.at if mark.until else min(mark.at, self._now_ms())
        found = await self._rows(engine, at, mark.until)
        if not found and not mark.until and engine.sampler is not None:
            await engine.sampler.take()
            found = await self._rows(engine, at, mark.until)
        if not found:
            return None
        return Batch(
            mark=Mark(partition=_SAMPLES, at=at, until=mark.until or found[-1]["at_ms"] + 1),
            rows=[_row(each) for each in found],
            is_last=len(found) < telemetry.CHUNK_ROWS,
        )

    async def _rows(self, engine: Engine, at: int, until: int) -> list[dict[str, Any]]:
        until = until or self._now_ms() + 1
        return await engine.samples.rows(at, until, most=telemetry.CHUNK_ROWS)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def _row(sample: Mapping[str, Any]) -> dict[str, Any]:
    known = {name: value for name, value in sample.items() if name != "at_ms"}
    return {"at": clocks.rfc3339(sample["at_ms"] / 1000), **known}


def log_end(home: Path) -> Mark:
    """Return where the log of a daemon ends that is about to start; blocks."""
    return log_lines.end(Place(home).log)


def sources(
    said: Mapping[str, Any],
    home: Path,
    opened: Callable[[], Awaitable[Engine]],
    *,
    log_files: int,
    begins: Mark,
    redact: Callable[[str], str],
) -> Sequence[telemetry.Source]:
    """Return what a document lets a node send.

    Args:
        said: Its section `telemetry`.
        home: Whose log it is.
        opened: Returns what runs the jobs, and takes samples.
        log_files: Older files of the log that are kept.
        begins: Where the log ended when this process started.
        redact: Takes secrets out of a text.
    """
    found: list[telemetry.Source] = []
    if "logs" in said:
        found.append(log_lines.LogLines(Place(home).log, log_files, said["logs"], begins, redact))
    if said.get("metrics", False):
        found.append(SampleRows(opened))
    return found
