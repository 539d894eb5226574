"""What running jobs take: one pass over the machine for all of them, and none while nothing runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from toft.dispatch import backend as seam
from toft.dispatch.stations import Run, Station
from toft.jobs import ledger, peaks
from toft.jobs.admission import Needs
from toft.kernel import log

_SHORTEST_SNAPSHOT_S = 1.0
_log = log.get_logger("dispatch.measuring")


class Measurer:
    """Keeps the last reading and folds what it says about peaks.

    Args:
        backend: Measures.
        known: Takes the peaks.
    """

    def __init__(self, backend: seam.Backend, known: peaks.Peaks) -> None:
        self.reading = ledger.Reading()
        self._backend = backend
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._taken_at = float("-inf")
        self._measuring: asyncio.Task[ledger.Reading] | None = None

    @property
    def age_s(self) -> float:
        """Return the age of the reading."""
        return self._loop.time() - self._taken_at

    async def measure(self) -> ledger.Reading:
        """Return a reading that was begun after this was called, or is just being made."""
        if self._measuring is None:
            self._measuring = asyncio.ensure_future(self._measure())
        return await asyncio.shield(self._measuring)

    async def _measure(self) -> ledger.Reading:
        try:
            self.reading = await self._backend.measure()
            self._taken_at = self._loop.time()
            return self.reading
        finally:
            self._measuring = None

    async def _measured(self) -> bool:
        """Measure, and say whether that could be done: a process may have as many files open as it may."""
        try:
            await self.measure()
        except OSError as error:
            _log.warning("not_measured", error=str(error))
            return False
        return True

    async def close(self) -> None:
        """Wait for a measurement that is on its way."""
        if self._measuring is not None:
            await asyncio.wait({self._measuring})

    # Peaks

    def need(self, station: Station) -> Needs | None:
        """Return what an instance needs; None while it was never measured."""
        profile = station.profile
        if profile is None:
            return None
        peak = self._known.find(profile.instance, profile.config_hash)
        if not peak.is_measured:
            return None
        if peak.jobs:
            return Needs(peak.idle, peak.each)
        # Its first job is still at it, and what it held so far need not be all.
        return Needs(peak.idle, {name: 2 * size for name, size in peak.each.items()})

    def note_idle(self, station: Station) -> None:
        """Take what an instance holds before its first job."""
        station.idle = self.reading.used.get(station.instance, ledger.NOTHING)
        station.pid = self.reading.pids.get(station.instance, 0)

    def fold(self, station: Station, *, cpu_percent: float | None = None) -> None:
        """Take the peaks of an instance that runs, or ran until now."""
        held = self.reading.peaks.get(station.instance)
        if station.profile is None or not held:
            return
        pid = self.reading.pids.get(station.instance, 0)
        if pid != station.pid:
            # Another worker: what the last one held, and how many jobs it had at once, is nothing to it.
            station.pid, station.idle = pid, ledger.NOTHING
            station.most_at_once = max(1, station.lanes)
        sample = peaks.Sample(
            peaks=held, idle=station.idle, at_once=max(1, station.most_at_once), cpu_percent=cpu_percent
        )
        self._known.fold(station.instance, station.profile.config_hash, sample)

    async def look(self, station: Station) -> None:
        """Measure an instance whose job has just ended; its lane waits for this, so it never fails."""
        if await self._measured():
            self.fold(station)

    def count(self, run: Run, seconds: float, ending: seam.Ending) -> None:
        """Take the end of a job."""
        profile = run.station.profile
        if profile is not None:
            self._known.count(
                profile.instance,
                profile.config_hash,
                seconds,
                succeeded=ending.fault is None,
                usage=ending.units,
            )

    async def sample(self, runs: Iterable[Run], stations: Iterable[Station], every_s: float) -> None:
        """Measure once, fold the peaks of what runs, and tell each job that has run for a while.

        Args:
            runs: What runs.
            stations: Where.
            every_s: Seconds between two snapshots of one job.
        """
        before, earlier = self.reading, self._taken_at
        if not await self._measured():
            return
        reading, seconds = self.reading, self._taken_at - earlier
        shares: dict[str, float | None] = {}
        for station in stations:
            if station.lanes and not station.is_loading:
                shares[station.instance] = _cpu_percent(station.instance, before, reading, seconds)
                self.fold(station, cpu_percent=shares[station.instance])
        now = self._loop.time()
        for run in runs:
            if now - run.started_at >= _SHORTEST_SNAPSHOT_S and now - run.shown_at >= 0.9 * every_s:
                run.shown_at = now
                _tell(run, reading, shares.get(run.station.instance))


def _tell(run: Run, reading: ledger.Reading, cpu_percent: float | None) -> None:
    instance = run.station.instance
    used = reading.used.get(instance, ledger.NOTHING)
    run.peak = max(run.peak, reading.peaks.get(instance, ledger.NOTHING).get(ledger.MEMORY, 0))
    run.note(
        "snapshot",
        {
            "pid": reading.pids.get(instance),
            "cpu_percent": None if cpu_percent is None else round(cpu_percent, 1),
            "memory_bytes": used.get(ledger.MEMORY, 0),
            "gpu_memory_bytes": {name: size for name, size in used.items() if name != ledger.MEMORY},
        },
    )


def _cpu_percent(
    instance: str, before: ledger.Reading, after: ledger.Reading, seconds: float
) -> float | None:
    """Return the processor use between two readings; None when the worker is not the same one."""
    if not 0 < seconds < float("inf") or before.pids.get(instance) != after.pids.get(instance):
        return None
    spent = after.cpu_s.get(instance, 0.0) - before.cpu_s.get(instance, 0.0)
    return max(0.0, spent) / seconds * 100
