"""What every face offers about durable jobs: submit, look, wait, cancel, retry, reorder, watch, why."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any

from toft.dispatch import answers as answering
from toft.dispatch import engine as engines
from toft.dispatch import graphs, promises, samples, sequences, submitting, telling
from toft.dispatch.answers import Job
from toft.jobs import queue, records
from toft.kernel import clock as clocks
from toft.kernel import errors, ids, turns
from toft.plugins import node as nodes
from toft.plugins import values

_STORY_JOBS = 1000


class Jobs(sequences.SequenceVerbs, samples.SampleVerbs):
    """The jobs of a node.

    Nothing is opened before something is asked; then the queue of the home is this process's own.

    Args:
        node: Whose plugins do the work.
        open_engine: Opens the queue, and what runs its jobs; takes what checks the steps of graphs.
        clock: For the time of submission.
    """

    def __init__(
        self,
        node: nodes.Node,
        open_engine: Callable[[promises.Accepts], Awaitable[engines.Engine]],
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self._open_engine = open_engine
        self._clock = clock
        self._checker = submitting.Checker(node, self._outdated)
        self._engine: engines.Engine | None = None
        self._opening: asyncio.Task[engines.Engine] | None = None

    async def open(self) -> engines.Engine:
        """Open the queue, if nobody has yet.

        Raises:
            UnavailableError: Another process has it (`job.owned_elsewhere`).
        """
        if self._engine is None:
            if self._opening is None:
                self._opening = asyncio.ensure_future(self._open_engine(self._checker))
            opening = self._opening
            try:
                self._engine = await asyncio.shield(opening)
            finally:
                if opening.done() and self._engine is None:
                    self._opening = None  # the next one may try again
        return self._engine

    async def _graphs(self, *, is_looking: bool = False) -> graphs.Graphs:
        return (self._engine or await self.open() if is_looking else await self._owned()).graphs

    async def _owned(self) -> engines.Engine:
        engine = self._engine or await self.open()
        if not engine.is_ours:
            await engine.own()
        return engine

    async def _sampled(self) -> tuple[samples.Samples, queue.JobQueue]:
        engine = self._engine or await self.open()
        return engine.samples, engine.queue

    async def close(self) -> None:
        """Stop: what runs is interrupted, what waits stays."""
        if self._opening is not None:
            await asyncio.wait({self._opening})
            opened = self._opening
            if not opened.cancelled() and opened.exception() is None:
                await opened.result().close()
        self._engine = self._opening = None

    async def drain(self, within_s: float | None = None) -> bool:
        """Start nothing more and wait for what runs; False when something still does."""
        if self._engine is None or self._engine.dispatcher is None:
            return True
        return await self._engine.dispatcher.drain(within_s)

    def changed(self, instance: str) -> None:
        """Take note that an instance was configured, switched or removed."""
        self._checker.forget()
        if self._engine is not None:
            self._engine.backend.changed(instance)

    async def forget(self, instance: str) -> None:
        """Forget what was measured of an instance that is no more."""
        self.changed(instance)
        if self._engine is not None:
            await self._engine.peaks.remove(instance)

    def _outdated(self, instance: str) -> None:
        if self._engine is not None:
            self._engine.backend.replace(instance)

    # Submitting

    async def submit(
        self,
        plugin: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        action: str | None = None,
        instance: str | None = None,
        priority: int = 0,
        delay_s: float | None = None,
        start_at: float | datetime.datetime | None = None,
        timeout_s: float | None = None,
        deadline_s: float | None = None,
        idempotent: bool = False,
        idempotency_key: str | None = None,
        retry: records.RetryPolicy | Mapping[str, Any] | int | None = None,
        after: Sequence[str] = (),
    ) -> Job:
        """Store a job; when this returns it is on disk.

        Args:
            plugin: What does it.
            arguments: By name.
            action: Which action; `execute` when None.
            instance: Which instance; the plugin's own when None.
            priority: Higher goes first.
            delay_s: Seconds before it may start.
            start_at: When it may start, seconds since 1970 or a `datetime`.
            timeout_s: Seconds one attempt may take.
            deadline_s: Seconds after which it is too late.
            idempotent: Running it twice does no harm: it is run again when the node went down under it.
            idempotency_key: The same key and arguments are the same job.
            retry: What is tried again and how often; a number is that of attempts.
            after: Jobs that must complete first.

        Returns:
            The job; the earlier one when the key was known.

        Raises:
            NotFoundError: No such plugin, or no such job in `after`.
            InputError: The arguments do not fit; `fields` says which. Nothing was stored.
            RefusedError: The instance is disabled.
            UnavailableError: The queue is full (`job.queue_full`), or another process's.

        Durability: Committed and fsynced before returning.
        """
        engine = await self._owned()
        request = await self._checker.request(
            plugin,
            arguments,
            action=action,
            instance=instance,
            priority=priority,
            delay_s=delay_s,
            start_at=start_at,
            timeout_s=timeout_s,
            deadline_s=deadline_s,
            idempotent=idempotent,
            idempotency_key=idempotency_key,
            retry=retry,
            after=after,
        )
        answers = await engine.queue.submit([request])
        return await self._answer(request, answers[0])

    async def submit_many(self, requests: Sequence[Mapping[str, Any]]) -> list[Job]:
        """Store several jobs at once, all or none.

        Args:
            requests: Each holds the arguments of `submit` by name.
        """
        engine = await self._owned()
        wanted = []
        async for each in turns.sharing(requests):
            submitting.check_names(each)
            wanted.append(await self._checker.request(**each))
        answers = await engine.queue.submit(wanted)
        stored = turns.sharing(zip(wanted, answers, strict=True))
        return [await self._answer(request, answer) async for request, answer in stored]

    async def _answer(self, request: records.Request, answer: records.Submitted) -> Job:
        if not answer.is_new:
            return await self.get(answer.job_id)
        # What was just stored is known; reading it back would cost more than storing it.
        return answering.stored(request, answer, self._clock.now())

    # Looking

    async def get(self, id: str) -> Job:
        """Return a job as it is now.

        Raises:
            NotFoundError: There is none of that id (any more).
        """
        engine = self._engine or await self.open()
        return await self._shown(engine, await engine.queue.get(_checked(id)))

    async def list(
        self,
        *,
        state: str | Sequence[str] | None = None,
        plugin: str | None = None,
        instance: str | None = None,
        sequence: str | None = None,
        since: float | datetime.datetime | None = None,
        until: float | datetime.datetime | None = None,
        error: str | None = None,
        plugins: Collection[str] | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> Sequence[Job]:
        """Return jobs, the newest first, at most 1000.

        Args:
            state: In this state, or in one of several.
            plugin: Of this plugin.
            instance: Of this instance.
            sequence: Of this sequence.
            since: Submitted then or later, in seconds since 1970 or as a `datetime`.
            until: Submitted before.
            error: What is part of the code of their error.
            plugins: Of one of these; of none when it is empty.
            limit: How many.
            before: The last one of the page before.

        Raises:
            UsageError: There is no such state.
            NotFoundError: There is no job `before`.
        """
        engine = self._engine or await self.open()
        found = await engine.queue.list(
            state=state,
            plugin=plugin,
            instance=instance,
            sequence=sequence,
            since=submitting.moment(since),
            until=submitting.moment(until),
            error=error,
            plugins=None if plugins is None else frozenset(plugins),
            limit=limit,
            before_seq=None if before is None else (await engine.queue.get(_checked(before))).seq,
        )
        return await asyncio.gather(*(self._shown(engine, each) for each in found))

    async def wait(self, id: str, timeout_s: float | None = None) -> Job:
        """Return a job once it has ended.

        Raises:
            WaitTimeoutError: It has not ended in that time; it goes on.
        """
        engine = await self._owned()
        return await self._shown(engine, await engine.queue.wait(_checked(id), timeout_s))

    async def result(self, id: str) -> Any:
        """Return what a job returned, with its exact types.

        Raises:
            PluginError: What the plugin raised.
            NodeError: What else it failed with; `job.state` when it has not completed yet.
        """
        engine = self._engine or await self.open()
        job = await engine.queue.get(_checked(id))
        if job.state is not records.State.COMPLETED:
            raise answering.raised(job)
        if job.result is None:
            return None
        if job.result.data is not None:
            return values.unpack(job.result.data)
        return (await engines.open_blob(engine.means.blobs, str(job.result.blob))).take()

    async def events(
        self, *, after: int = 0, job: str | None = None, sequence: str | None = None, limit: int = 1000
    ) -> Sequence[records.Event]:
        """Return stored events after a cursor, the oldest first."""
        engine = self._engine or await self.open()
        return await engine.queue.events(after, job=job, sequence=sequence, limit=limit)

    async def watch(
        self,
        *,
        job: str | None = None,
        sequence: str | None = None,
        after: int | None = None,
        capacity: int = 1000,
    ) -> AsyncIterator[records.Event]:
        """Return events as they come: what was stored after the cursor first, then what happens."""
        engine = self._engine or await self.open()
        async for event in engine.queue.watch(job=job, sequence=sequence, after=after, capacity=capacity):
            yield event

    async def attempts(self, id: str) -> Sequence[records.Attempt]:
        """Return the attempts of a job, the first one first."""
        engine = self._engine or await self.open()
        await engine.queue.get(_checked(id))
        return await engine.queue.attempts(id)

    async def logs(self, id: str, count: int = 200) -> Sequence[str]:
        """Return the last lines that a job printed, what libraries printed for it included."""
        engine = self._engine or await self.open()
        await engine.queue.get(_checked(id))
        return await engine.means.logs.tail(id, count)

    async def why(self, id: str) -> Sequence[dict[str, Any]]:
        """Return the story of a job or a sequence: what happened, because of what, with evidence."""
        if id.startswith("seq_"):
            return await self._why_sequence(id)
        engine = self._engine or await self.open()
        return await telling.of_job(engine, await self.get(id), await self.attempts(id))

    async def _why_sequence(self, id: str) -> Sequence[dict[str, Any]]:
        engine = self._engine or await self.open()
        members = await self.list(sequence=id, limit=_STORY_JOBS)
        return await telling.of_sequence(engine, await self.sequence(id), members)

    async def status(self) -> dict[str, Any]:
        """Return lanes, queue, memory and GPUs as they are now."""
        engine = await self._owned()
        reading = await engine.backend.measure()
        lanes = {} if engine.dispatcher is None else engine.dispatcher.status()
        memory = {"total_bytes": reading.total.get("memory"), "available_bytes": reading.free.get("memory")}
        gpus = [
            {"gpu": name, "total_bytes": size, "free_bytes": reading.free.get(name)}
            for name, size in sorted(reading.total.items())
            if name != "memory"
        ]
        used = {name: dict(amounts) for name, amounts in reading.used.items()}
        return {
            **lanes,
            "at": clocks.rfc3339(self._clock.now()),
            "queue": engine.queue.counts(),
            "cursor": engine.queue.cursor(),
            "memory": memory,
            "gpu": gpus,
            "instances": used,
        }

    # Changing

    async def cancel(self, id: str, *, grace_s: float | None = None) -> Job:
        """Ask a job to end: one that waits is cancelled at once, an ended one stays as it is.

        Args:
            id: Which.
            grace_s: Seconds a running one may take to end by itself before its worker is ended.
        """
        engine = await self._owned()
        if grace_s is not None and engine.dispatcher is not None:
            engine.dispatcher.cancel(_checked(id), grace_s)
        return await self._shown(engine, await engine.queue.request_cancel(_checked(id)))

    async def retry(self, id: str) -> Job:
        """Queue a failed or interrupted job again, as its next attempt.

        Raises:
            ConflictError: It is in another state.
        """
        engine = await self._owned()
        return await self._shown(engine, await engine.queue.retry(_checked(id)))

    async def reorder(
        self,
        id: str,
        *,
        priority: int | None = None,
        before: str | None = None,
        first: bool = False,
        last: bool = False,
    ) -> Job:
        """Move a job that waits: another priority, before another one, first or last of its instance.

        Raises:
            ConflictError: It does not wait any more.
        """
        engine = await self._owned()
        moved = await engine.queue.reorder(
            _checked(id), priority=priority, before=before, first=first, last=last
        )
        return await self._shown(engine, moved)

    async def _shown(self, engine: engines.Engine, job: records.Job) -> Job:
        return await answering.shown(job, engine.means.blobs)


def _checked(id: str) -> str:
    if not isinstance(id, str) or not ids.is_name(id.lower()):
        raise errors.NotFoundError(f"no job {str(id)[:80]!r}", code="job.not_found", hint="toft job list")
    return id


async def checked(
    node_jobs: Jobs, plugin: str, arguments: Mapping[str, Any] | None = None, **more: Any
) -> records.Request:
    """Return what `Jobs.submit` would store for these arguments, after the same checks; nothing is stored."""
    await node_jobs._owned()
    return await node_jobs._checker.request(plugin, arguments, **more)
