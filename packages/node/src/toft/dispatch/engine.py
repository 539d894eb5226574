"""What stands behind `node.jobs` once somebody used it: the queue, and what runs its jobs in this process."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from toft.dispatch import dispatcher, graphs, local, logs, promises, readings, samples, tally
from toft.host import monitor
from toft.jobs import admission, ledger, peaks, policies, queue, records, sequences
from toft.kernel import clock as clocks
from toft.kernel import errors, traces
from toft.kernel import settings as node_settings
from toft.plugins import instance as handles
from toft.plugins import node as nodes
from toft.plugins.packed import Packed
from toft.plugins.supervision import calls
from toft.store import blobs, database, locks

_LOCK_S = 5.0
"""Longer than a command that only stores or looks has the queue; two of them must not refuse each other."""

_OVERDUE_S = 5.0


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
        follower: Told what happens to jobs, where somebody collects that.
    """

    store: database.Database
    blobs: blobs.Blobs
    logs: logs.JobLogs
    reader: readings.Reader
    settings: node_settings.Settings
    cores: int
    runs_jobs: bool = True
    follower: Follower | None = None


class Follower(Protocol):
    """Somebody who collects what happens to jobs, and to calls that are none."""

    def follow(self, jobs: queue.JobQueue) -> None:
        """Begin to follow an open queue."""
        ...

    def loaded(self, instance: str, steps: Sequence[traces.Step]) -> None:
        """Take note that an instance was loaded for jobs."""
        ...

    def called(self, instance: handles.Instance, call: calls.Call) -> None:
        """Take note of a call that somebody makes."""
        ...

    async def close(self) -> None:
        """Let go, within seconds."""
        ...


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
        opened: contextlib.AsyncExitStack,
    ) -> None:
        self.means = means
        self.queue = jobs
        self.peaks = known
        self.dispatcher = dispatching
        self.backend = backend
        self.graphs = linked
        self.recovered = records.Recovered()
        self.samples = samples.Samples(means.store)
        self.tally = tally.Tally(self._plugin_of, clocks.SYSTEM.monotonic)
        jobs.listeners.append(self.tally.learn)
        self.sampler: samples.Sampler | None = None
        self.is_ours = True
        self._held = held
        self._opened = opened
        self._owning = asyncio.Lock()

    def _plugin_of(self, instance: str) -> str:
        found = self.backend.plugin_of(instance)
        # One that is not loaded has its plugin's name, as nearly all have.
        return instance if found is None else found

    async def own(self) -> None:
        """See to it that this process may change the queue, when so far it only looked at it.

        Raises:
            UnavailableError: Another process has it, and keeps it (`job.owned_elsewhere`).
        """
        async with self._owning:
            if not self.is_ours:
                await asyncio.to_thread(_hold, self._held, _lock(self.means), _LOCK_S)
                self.recovered = await self.queue.open()
                self.is_ours = True

    async def close(self) -> None:
        """Stop: what runs is interrupted, what waits is there at the next start."""
        await self._opened.aclose()

    def take_samples(self, dispatching: dispatcher.Dispatcher) -> None:
        """Begin to keep how the machine and the lanes are."""
        self.sampler = _sampler(self, dispatching)
        self._opened.push_async_callback(self.sampler.close)
        self.queue.listeners.append(self.sampler.stir)
        self.sampler.start()


async def open_engine(
    means: Means, node: nodes.Node, accepts: promises.Accepts, *, job_type: type[records.Job] = records.Job
) -> Engine:
    """Open the queue of a home and begin to run its jobs.

    Without running jobs it can be looked at also while another process has it.

    Args:
        means: What it works with.
        node: Whose plugins do the work.
        accepts: Checks the steps of graphs.
        job_type: What jobs are given out as.

    Raises:
        UnavailableError: Another process runs the jobs of this home (`job.owned_elsewhere`).
    """
    async with contextlib.AsyncExitStack() as stack:
        held = stack.enter_context(contextlib.ExitStack())
        is_ours = await _hold_or_look(held, means)
        stack.push_async_callback(means.logs.close)
        jobs = queue.JobQueue(
            means.store, means.blobs, randomness=os.urandom, limits=limits(means.settings), job_type=job_type
        )
        jobs.refusal = functools.partial(_elsewhere, _lock(means))
        stack.push_async_callback(jobs.close)
        linked = graphs.Graphs(
            jobs,
            sequences.Reading(means.store),
            accepts,
            open_blob=functools.partial(open_blob, means.blobs),
        )
        recovered = await jobs.open() if is_ours else records.Recovered()
        stack.push_async_callback(linked.close)
        if means.runs_jobs:
            await linked.open()
        known = peaks.Peaks(means.store, clocks.SYSTEM)
        await known.open()
        backend = local.LocalBackend(node, means.reader, means.blobs, means.logs, linked.resolve)
        stack.push_async_callback(backend.close)
        dispatching = None
        if means.runs_jobs:
            dispatching = dispatcher.Dispatcher(
                jobs, backend, known, randomness=os.urandom, options=options(means)
            )
            stack.push_async_callback(dispatching.close)
        engine = Engine(means, jobs, known, dispatching, backend, linked, held, stack.pop_all())
    engine.is_ours, engine.recovered = is_ours, recovered
    if dispatching is not None:
        if means.follower is not None:
            means.follower.follow(jobs)
            backend.on_load = means.follower.loaded
        dispatching.start()
        engine.take_samples(dispatching)
    return engine


async def _hold_or_look(held: contextlib.ExitStack, means: Means) -> bool:
    """Hold the queue for this process; False where it only looks and another one has it."""
    try:
        await asyncio.to_thread(_hold, held, _lock(means), _LOCK_S if means.runs_jobs else 0.0)
    except errors.UnavailableError:
        if means.runs_jobs:
            raise
        return False
    return True


def _sampler(engine: Engine, dispatching: dispatcher.Dispatcher) -> samples.Sampler:
    processor = monitor.Processor()

    async def look() -> samples.Sample:
        reading = await engine.backend.measure()
        counts, lanes = engine.queue.counts(), dispatching.lanes
        return samples.Sample(
            reading=reading,
            cpu_percent=await asyncio.to_thread(processor.read),
            lanes_busy=lanes.taken,
            lanes=lanes.count,
            pending=counts["pending"],
            running=counts["running"],
        )

    return samples.Sampler(engine.samples, look, lambda: engine.queue.counts()["running"] > 0)


async def open_blob(stored: blobs.Blobs, digest: str) -> Packed:
    """Open a stored value without reading it.

    Raises:
        NotFoundError: It is gone.
        IntegrityError: It is damaged.
    """
    try:
        return await asyncio.to_thread(Packed.open, stored.path(digest))
    except FileNotFoundError as error:
        raise blobs.not_found(digest) from error


def _hold(held: contextlib.ExitStack, path: Path, timeout_s: float) -> None:
    try:
        held.enter_context(locks.hold(path, timeout_s=timeout_s))
    except errors.UnavailableError as error:
        raise _elsewhere(path) from error


def _lock(means: Means) -> Path:
    return means.settings.home / "run" / "jobs.lock"


def _elsewhere(path: Path) -> errors.UnavailableError:
    return errors.UnavailableError(
        "another process runs the jobs of this home",
        code="job.owned_elsewhere",
        details={"path": str(path)},
        hint="let toft up --detach run them for all; what is stored can be looked at: toft job list",
    )


def options(means: Means) -> dispatcher.Options:
    """Return how jobs are given out, as the settings say."""
    chosen = means.settings
    return dispatcher.Options(
        lanes=chosen.lanes or means.cores,
        rules=admission.Rules(
            policy=policies.get(chosen.jobs_scheduler),
            overdue_s=_OVERDUE_S,
            keep={ledger.MEMORY: chosen.memory_reserve_bytes},
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
