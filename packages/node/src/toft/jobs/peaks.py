"""What the jobs of each instance were measured to need: one row per instance and configuration.

Folded in memory as samples come, written at most once a second by whoever calls `flush`. A configuration is
part of the key because a model's size is a setting.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toft.jobs import ledger
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.store import database

_QUERIES = database.read_queries("toft.jobs", "peaks.sql")
Key = tuple[str, str]
MOST_CONFIGURATIONS = 64
"""Of one instance; beyond these the one that was measured longest ago is forgotten."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measurement of the processes of an instance.

    Attributes:
        peaks: The most they held since they were started, by resource.
        idle: What they held before their first job; empty when that is not known.
        at_once: The most jobs that ran on them at once since they were started.
        cpu_percent: Processor use while it was measured; None when it was not.
    """

    peaks: ledger.Amounts
    idle: ledger.Amounts = field(default_factory=dict)
    at_once: int = 1
    cpu_percent: float | None = None


@dataclass(slots=True)
class Peak:
    """What is known of one instance under one configuration.

    Attributes:
        samples: Measurements of memory so far; 0 is unmeasured.
        idle: What a worker holds without a job.
        each: What one more job adds at most.
        most: The largest peak of all processes together.
        mean: The running mean of their peaks.
        cpu_percent: The running mean of the processor use.
        jobs: Jobs that ended here.
        succeeded: Those of them that completed.
        duration_s: The running mean of how long they took.
        usage: What they reported, summed by unit.
        observed_at: When it last changed, seconds since 1970.
    """

    samples: int = 0
    idle: dict[str, int] = field(default_factory=dict)
    each: dict[str, int] = field(default_factory=dict)
    most: dict[str, int] = field(default_factory=dict)
    mean: dict[str, float] = field(default_factory=dict)
    cpu_samples: int = 0
    cpu_percent: float = 0.0
    jobs: int = 0
    succeeded: int = 0
    duration_s: float = 0.0
    usage: dict[str, float] = field(default_factory=dict)
    observed_at: float = 0.0

    @property
    def is_measured(self) -> bool:
        """Say whether its memory was ever measured."""
        return self.samples > 0

    @property
    def success_rate(self) -> float | None:
        """Return the share of jobs that completed; None before the first."""
        return self.succeeded / self.jobs if self.jobs else None

    def fold(self, sample: Sample) -> None:
        """Take a measurement."""
        self.samples += 1
        at_once = max(1, sample.at_once)
        for name, size in sample.idle.items():
            self.idle[name] = max(self.idle.get(name, 0), min(size, sample.peaks.get(name, size)))
        for name, size in sample.peaks.items():
            self.most[name] = max(self.most.get(name, 0), size)
            before = self.mean.get(name, 0.0)
            self.mean[name] = before + (size - before) / self.samples
            more = max(0, size - self.idle.get(name, 0))
            self.each[name] = max(self.each.get(name, 0), math.ceil(more / at_once))
        if sample.cpu_percent is not None:
            self.cpu_samples += 1
            self.cpu_percent += (sample.cpu_percent - self.cpu_percent) / self.cpu_samples

    def count(self, duration_s: float, *, succeeded: bool, usage: Mapping[str, float]) -> None:
        """Take the end of a job."""
        self.jobs += 1
        self.succeeded += succeeded
        self.duration_s += (duration_s - self.duration_s) / self.jobs
        for unit, amount in usage.items():
            self.usage[unit] = self.usage.get(unit, 0.0) + amount

    def to_dict(self) -> dict[str, Any]:
        """Return what people and scripts see."""
        return {
            "samples": self.samples,
            "idle_bytes": dict(self.idle),
            "each_bytes": dict(self.each),
            "peak_bytes": dict(self.most),
            "mean_bytes": {name: round(size) for name, size in self.mean.items()},
            "cpu_percent": round(self.cpu_percent, 1) if self.cpu_samples else None,
            "jobs": self.jobs,
            "success_rate": self.success_rate,
            "duration_s": self.duration_s,
            "usage": dict(self.usage),
            "observed_at": clocks.rfc3339(self.observed_at) if self.observed_at else None,
        }


_UNKNOWN = Peak()
_FIELDS = tuple(Peak.__dataclass_fields__)


class Peaks:
    """All rows, in memory and in `node.db`.

    Args:
        store: The open database.
        clock: For `observed_at`.
    """

    def __init__(self, store: database.Database, clock: clocks.Clock) -> None:
        self._store = store
        self._clock = clock
        self._rows: dict[Key, Peak] = {}
        self._changed: set[Key] = set()
        self._dropped: set[Key] = set()

    async def open(self) -> None:
        """Read what earlier runs measured."""
        rows = await self._store.read(lambda c: c.execute(_QUERIES["list_peaks"]).fetchall())
        for row in rows:
            self._rows[row["instance"], row["config_hash"]] = _read(row["figures"])

    def find(self, instance: str, config_hash: str) -> Peak:
        """Return what is known; an empty row when that is nothing."""
        return self._rows.get((instance, config_hash), _UNKNOWN)

    def fold(self, instance: str, config_hash: str, sample: Sample) -> None:
        """Take a measurement of an instance."""
        self._row(instance, config_hash).fold(sample)

    def count(
        self,
        instance: str,
        config_hash: str,
        duration_s: float,
        *,
        succeeded: bool,
        usage: Mapping[str, float],
    ) -> None:
        """Take the end of one of its jobs."""
        self._row(instance, config_hash).count(duration_s, succeeded=succeeded, usage=usage)

    async def flush(self) -> None:
        """Write what changed since the last time.

        Durability: Committed before returning.
        """
        keys, self._changed = self._changed, set()
        dropped, self._dropped = self._dropped, set()
        rows = [
            {"instance": key[0], "config_hash": key[1], "figures": _written(self._rows[key])}
            for key in sorted(keys)
        ]
        gone = [{"instance": key[0], "config_hash": key[1]} for key in sorted(dropped)]
        if not rows and not gone:
            return

        def write(connection: database.Connection) -> None:
            connection.executemany(_QUERIES["remove_peak"], gone).close()
            connection.executemany(_QUERIES["put_peak"], rows).close()

        try:
            await self._store.write(write)
        except errors.NodeError:
            # Later, with whatever came meanwhile; what was removed meanwhile stays away.
            self._changed |= keys & self._rows.keys()
            self._dropped |= dropped - self._rows.keys()
            raise

    async def remove(self, instance: str) -> None:
        """Forget an instance under every configuration."""
        for key in [key for key in self._rows if key[0] == instance]:
            del self._rows[key]
            self._changed.discard(key)
        await self._store.write(lambda c: c.execute(_QUERIES["remove_peaks"], {"instance": instance}).close())

    def rows(self) -> list[tuple[str, str, Peak]]:
        """Return (instance, configuration hash, figures) of everything known."""
        return [(*key, self._rows[key]) for key in sorted(self._rows)]

    def _row(self, instance: str, config_hash: str) -> Peak:
        key = (instance, config_hash)
        row = self._rows.get(key)
        if row is None:
            self._make_room(instance)
            row = self._rows[key] = Peak()
        row.observed_at = self._clock.now()
        self._changed.add(key)
        return row

    def _make_room(self, instance: str) -> None:
        """Forget what was measured longest ago of an instance that is configured anew again and again."""
        known = [key for key in self._rows if key[0] == instance]
        if len(known) >= MOST_CONFIGURATIONS:
            oldest = min(known, key=lambda key: self._rows[key].observed_at or 0.0)
            del self._rows[oldest]
            self._changed.discard(oldest)
            self._dropped.add(oldest)


def _written(peak: Peak) -> str:
    return json.dumps({name: getattr(peak, name) for name in _FIELDS}, sort_keys=True)


def _read(text: str) -> Peak:
    """Return a row; keys of other versions are passed over, because measuring again is cheap."""
    try:
        values = json.loads(text)
        return Peak(**{name: values[name] for name in _FIELDS if name in values})
    except (ValueError, TypeError):
        return Peak()
