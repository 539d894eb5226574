"""What stands behind `node.jobs` once somebody used it: the queue, and what runs its jobs in this process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toft.dispatch import dispatcher, graphs, local, logs, readings, submitting
from toft.jobs import admission, ledger, peaks, policies, queue, records, sequences
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.kernel import settings as node_settings
from toft.plugins import node as nodes
from toft.plugins.packed import Packed
from toft.store import blobs, database, locks

_LOCK_S = 0.0


@dataclass(frozen=True, kw_only=True)
class Means:
    """What an engine is made from; `toft.wiring` fills it in.

    Attributes:
        store: The open database, with the tables of `jobs`.
        blobs: Where large values are.
        logs: Where what jobs print is kept.
        reader: Measures the machine.
        settings: The node's.
        cores: Lanes when the settings name none.
        runs_jobs: Give out lanes in this process; else jobs are stored and looked at only.
    """

    store: database.Database
    blobs: blobs.Blobs
    logs: logs.JobLogs
    reader: readings.Reader
    settings: node_settings.Settings
    cores: int
    runs_jobs: bool = True


class Engine:
    """An open queue, and its dispatcher when this process runs jobs."""

    def __init__(
        self,
        means: Means,
        jobs: queue.JobQueue,
        known: peaks.Peaks,
        dispatching: dispatcher.Dispatcher | None,
        backend: local.LocalBackend,
        linked: graphs.Graphs,
        held: contextlib.ExitStack,
    ) -> None:
        self.means = means
        self.queue = jobs
        self.peaks = known
        self.dispatcher = dispatching
        self.backend = backend
        self.graphs = linked
        self.recovered = records.Recovered()
        self._held = held

    async def close(self) -> None:
        """Stop: what runs is interrupted, what waits is there at the next start."""
        if self.dispatcher is not None:
            await self.dispatcher.close()
        await self.graphs.close()
        await self.queue.close()
        await self.means.logs.close()
        self._held.close()


async def open_engine(means: Means, node: nodes.Node) -> Engine:
    """Open the queue of a home and begin to run its jobs.

    Raises:
        UnavailableError: Another process runs the jobs of this home (`job.owned_elsewhere`).
    """
    held = contextlib.ExitStack()
    path = means.settings.home / "run" / "jobs.lock"
    await asyncio.to_thread(_hold, held, path)
    try:
        jobs = queue.JobQueue(means.store, means.blobs, randomness=os.urandom, limits=limits(means.settings))
        linked = graphs.Graphs(
            jobs,
            sequences.Reading(means.store),
            submitting.Checker(node),
            open_blob=functools.partial(_open_blob, means.blobs),
        )
        recovered = await jobs.open()
        if means.runs_jobs:
            await linked.open()
        known = peaks.Peaks(means.store, clocks.SYSTEM)
        await known.open()
        backend = local.LocalBackend(node, means.reader, means.blobs, means.logs, linked.resolve)
        dispatching = None
        if means.runs_jobs:
            dispatching = dispatcher.Dispatcher(
                jobs, backend, known, randomness=os.urandom, options=options(means)
            )
            dispatching.start()
    except BaseException:
        held.close()
        raise
    engine = Engine(means, jobs, known, dispatching, backend, linked, held)
    engine.recovered = recovered
    return engine


async def _open_blob(stored: blobs.Blobs, digest: str) -> Packed:
    try:
        return await asyncio.to_thread(Packed.open, stored.path(digest))
    except FileNotFoundError as error:
        raise errors.NotFoundError(
            f"a stored value is gone: there is no blob {digest}",
            code="blob.not_found",
            details={"digest": digest},
            hint="values are kept as long as their jobs: toft job list",
        ) from error


def _hold(held: contextlib.ExitStack, path: Path) -> None:
    try:
        held.enter_context(locks.hold(path, timeout_s=_LOCK_S))
    except errors.UnavailableError as error:
        raise errors.UnavailableError(
            "another process runs the jobs of this home",
            code="job.owned_elsewhere",
            details={"path": str(path)},
            hint="speak to that one: toft status; or end it: toft down",
        ) from error


def options(means: Means) -> dispatcher.Options:
    """Return how jobs are given out, as the settings say."""
    chosen = means.settings
    return dispatcher.Options(
        lanes=chosen.lanes or means.cores,
        rules=admission.Rules(
            policy=policies.get(chosen.jobs_scheduler), keep={ledger.MEMORY: chosen.memory_reserve_bytes}
        ),
    )


def limits(settings: node_settings.Settings) -> records.Limits:
    """Return how much the queue holds, as the settings say."""
    named: dict[str, Any] = {
        field: getattr(settings, name)
        for field, name in (
            ("pending", "jobs_pending_limit"),
            ("keep_s", "jobs_keep_s"),
            ("keep_count", "jobs_keep_count"),
        )
        if hasattr(settings, name)
    }
    return records.Limits(**named)
