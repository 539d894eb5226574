"""How the machine and the lanes were: a sample every few seconds while something runs, kept within bounds.

The last day is there as it was taken, the last month in steps of a minute. While nothing runs nothing is
taken and nothing wakes up: a plot has a gap there.
"""

from __future__ import annotations

import asyncio
import datetime
import json
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toft.dispatch import submitting
from toft.jobs import ledger, queue
from toft.kernel import clock as clocks
from toft.kernel import errors, log
from toft.store import database

_log = log.get_logger("dispatch.samples")
_QUERIES = database.read_queries("toft.dispatch", "samples.sql")
MOST = 5000
"""Points in one answer."""

_POINTS = 600
_COLUMNS = (
    *("cpu_percent", "memory_used_bytes", "memory_total_bytes"),
    *("lanes_busy", "lanes", "queue_pending", "queue_running"),
)


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """How samples are taken and kept.

    Attributes:
        every_s: Seconds between two.
        fine_s: For how long all of them are kept.
        coarse_s: Seconds between two that are kept for longer.
        keep_s: For how long any are kept.
        tidy_every: Samples between two looks at what is too old.
    """

    every_s: float = 5.0
    fine_s: float = 86_400.0
    coarse_s: float = 60.0
    keep_s: float = 30 * 86_400.0
    tidy_every: int = 720


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One look.

    Attributes:
        reading: The machine.
        cpu_percent: Of all processors, since the last look; None for the first one.
        lanes_busy: Lanes that are given out.
        lanes: All lanes.
        pending: Jobs that wait.
        running: Jobs that run.
    """

    reading: ledger.Reading
    cpu_percent: float | None
    lanes_busy: int
    lanes: int
    pending: int
    running: int

    def row(self, at: float) -> Sequence[Any]:
        """Return it as it is stored."""
        free, total = self.reading.free, self.reading.total
        used = {name: max(0, size - free.get(name, 0)) for name, size in total.items()}
        gpus = {name: [used[name], size] for name, size in total.items() if name != ledger.MEMORY}
        return (
            int(at * 1000), self.cpu_percent, used.get(ledger.MEMORY, 0), total.get(ledger.MEMORY, 0),
            self.lanes_busy, self.lanes, self.pending, self.running, json.dumps(gpus),
        )  # fmt: skip


class Samples:
    """The samples of a home.

    Args:
        store: The open database, with the tables of `dispatch`.
        clock: Says when a sample was taken.
        keeping: For how long.
    """

    def __init__(
        self,
        store: database.Store,
        clock: clocks.Clock = clocks.SYSTEM,
        keeping: Keeping = Keeping(),
    ) -> None:
        self.keeping = keeping
        self._store = store
        self._clock = clock
        self._since_tidied = keeping.tidy_every
        self._ahead = clock.now() - clock.monotonic()

    async def put(self, sample: Sample) -> None:
        """Keep a sample, and now and then forget what is too old."""
        at = self._clock.now()
        row = sample.row(at)
        self._since_tidied += 1
        is_time = self._since_tidied >= self.keeping.tidy_every
        # Old on both clocks: one that was set to another year must not empty the plots.
        age_from = min(at, self._ahead + self._clock.monotonic())
        if is_time:
            self._since_tidied = 0

        def write(connection: database.Connection) -> None:
            connection.execute(_QUERIES["put_sample"], row)
            if is_time:
                self._tidy(connection, age_from)

        await self._store.write(write)

    def _tidy(self, connection: database.Connection, at: float) -> None:
        kept = self.keeping
        connection.execute(_QUERIES["forget_samples"], {"oldest_ms": int((at - kept.keep_s) * 1000)})
        limits = {"fine_ms": int((at - kept.fine_s) * 1000), "coarse_ms": int(kept.coarse_s * 1000)}
        connection.execute(_QUERIES["thin_samples"], limits)

    async def read(
        self, since: float | None = None, until: float | None = None, step_s: float | None = None
    ) -> dict[str, Any]:
        """Return what was sampled between two moments, as columns for a plot.

        Args:
            since: Seconds since 1970; an hour before `until` when None.
            until: Now when None.
            step_s: Seconds that one point stands for; as many as make 600 points when None.

        Raises:
            UsageError: It would be more than 5000 points.
        """
        until = self._clock.now() if until is None else until
        since = until - 3600.0 if since is None else since
        step_s = max(self.keeping.every_s, (until - since) / _POINTS) if step_s is None else step_s
        if (until - since) / step_s > MOST:
            raise errors.UsageError(
                f"that would be {math.ceil((until - since) / step_s)} points, and an answer has {MOST}",
                code="sample.too_many",
                details={"most": MOST, "step_s": step_s},
                hint="ask for a longer step_s, or for less time",
            )
        question = {
            "since_ms": int(since * 1000),
            "until_ms": math.ceil(until * 1000),
            "step_ms": max(1, int(step_s * 1000)),
            "most": MOST + 1,
        }
        found = await self._store.read(lambda c: c.execute(_QUERIES["list_samples"], question).fetchall())
        return {
            "from": clocks.rfc3339(since),
            "to": clocks.rfc3339(until),
            "step_s": step_s,
            "at": [row[0] / 1000 for row in found],
            "series": _series(found),
        }

    async def rows(self, from_ms: int, until_ms: int, *, most: int = MOST) -> list[dict[str, Any]]:
        """Return the samples between two moments as they were taken, the oldest first.

        Args:
            from_ms: Milliseconds since 1970.
            until_ms: The same; that one is not among them.
            most: How many at most.

        Returns:
            Each with `at_ms`, the columns of `read`, and null for what is not known.
        """
        question = {"from_ms": from_ms, "until_ms": until_ms, "most": most}
        found = await self._store.read(
            lambda c: c.execute(_QUERIES["list_samples_after"], question).fetchall()
        )
        series = _series(found)
        return [
            {"at_ms": row[0], **{name: values[place] for name, values in series.items()}}
            for place, row in enumerate(found)
        ]


def _series(found: Sequence[Sequence[Any]]) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {
        name: [None if row[place] is None else round(row[place], 2) for row in found]
        for place, name in enumerate(_COLUMNS, start=1)
    }
    gpus: list[Mapping[str, Sequence[int]]] = [json.loads(row[8]) for row in found]
    for name in sorted({name for each in gpus for name in each}):
        columns[f"{name}_used_bytes"] = [each[name][0] if name in each else None for each in gpus]
        columns[f"{name}_total_bytes"] = [each[name][1] if name in each else None for each in gpus]
    return columns


def of_job(snapshots: Sequence[tuple[float, Mapping[str, Any]]]) -> dict[str, Any]:
    """Return the snapshots of a job, the oldest first, as columns for a plot."""
    on_gpus = [data.get("gpu_memory_bytes") or {} for _, data in snapshots]
    series = {name: [data.get(name) for _, data in snapshots] for name in ("cpu_percent", "memory_bytes")}
    for name in sorted({name for each in on_gpus for name in each}):
        series[f"{name}_bytes"] = [each.get(name) for each in on_gpus]
    return {"at": [at for at, _ in snapshots], "series": series}


class SampleVerbs:
    """What every face offers about samples."""

    async def _sampled(self) -> tuple[Samples, queue.JobQueue]:
        raise NotImplementedError

    async def samples(
        self,
        since: float | datetime.datetime | None = None,
        until: float | datetime.datetime | None = None,
        *,
        step_s: float | None = None,
        job: str | None = None,
    ) -> dict[str, Any]:
        """Return how the machine and the lanes were while something ran, as columns for a plot.

        Args:
            since: Seconds since 1970 or a `datetime`; an hour before `until` when None.
            until: Now when None.
            step_s: Seconds that one point stands for; as many as make 600 points when None.
            job: What was measured of this job instead, all of it.
        """
        kept, jobs = await self._sampled()
        if job is not None:
            return {"job": job, **of_job(await queue.snapshots(jobs, job))}
        return await kept.read(submitting.moment(since), submitting.moment(until), step_s)


class Sampler:
    """Takes samples while something runs.

    Args:
        samples: Where they go.
        look: Takes one.
        is_busy: Says whether something runs.
    """

    def __init__(
        self, samples: Samples, look: Callable[[], Awaitable[Sample]], is_busy: Callable[[], bool]
    ) -> None:
        self._samples = samples
        self._look = look
        self._is_busy = is_busy
        self._stirred = asyncio.Event()
        self._taking: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._taking = asyncio.get_running_loop().create_task(self._take())

    def stir(self, *_: object) -> None:
        """Look whether something runs now; cheap."""
        if not self._stirred.is_set() and self._is_busy():
            self._stirred.set()

    async def close(self) -> None:
        """Take no more."""
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait([self._taking])

    async def _take(self) -> None:
        while True:
            await self._stirred.wait()
            await self.take()
            while self._is_busy():
                await asyncio.sleep(self._samples.keeping.every_s)
                # The last one shows that it is over.
                await self.take()
            self._stirred.clear()

    async def take(self) -> None:
        """Take a sample now, whether or not something runs."""
        try:
            await self._samples.put(await self._look())
        except (errors.NodeError, OSError) as error:
            # A full disk or a process that vanished while it was measured: a plot can lack a point.
            _log.debug("sample_lost", error=str(error))
