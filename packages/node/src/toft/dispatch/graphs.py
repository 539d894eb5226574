"""Graphs of jobs: stored as one, looked at, waited for, cancelled and tried again as one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

from toft.dispatch import fan_outs, promises, resolving
from toft.jobs import errors as job_errors
from toft.jobs import graphs, queue, retries, sequence_changes, sequences
from toft.jobs.records import Request, RetryPolicy, State
from toft.jobs.sequence_states import Following
from toft.jobs.transaction import Effects
from toft.kernel import errors, traces
from toft.plugins import values
from toft.plugins.packed import Packed


class Graphs:
    """The graphs of one queue.

    Args:
        jobs: The queue; not open yet, so that this hears of everything.
        reading: Questions about its sequences.
        accepts: Checks steps against what is installed.
        open_blob: Opens a stored value without reading it.

    Attributes:
        resolve: Returns the arguments of a claimed job, what other steps gave in the place of references.
    """

    def __init__(
        self,
        jobs: queue.JobQueue,
        reading: sequences.Reading,
        accepts: promises.Accepts,
        *,
        open_blob: Callable[[str], Awaitable[Packed]],
    ) -> None:
        self._queue = jobs
        self._reading = reading
        self._accepts = accepts
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._resolver = resolving.Resolver(reading, open_blob)
        self._fan_outs = fan_outs.FanOuts(jobs, reading, self._resolver)
        self.resolve = self._resolver.resolve
        jobs.followers.append(Following(jobs.new_id))
        jobs.listeners.append(self._on_change)

    async def open(self) -> None:
        """Look after the fan-outs that the last process left half done."""
        await self._fan_outs.open()

    async def close(self) -> None:
        """Stop; what was not done is done after the next start."""
        await self._fan_outs.close()

    async def submit(
        self,
        steps: Any,
        *,
        name: str | None = None,
        mode: str | None = None,
        priority: int | None = None,
        ordered: bool | None = None,
    ) -> sequences.JobSequence:
        """Store a graph, all of it or nothing; on disk when this returns.

        Args:
            steps: A list of steps, which run in that order; or an object with `steps`, which run as soon as
                what they name has.
            name: What people call it.
            mode: `fail_fast` or `best_effort`.
            priority: Of the steps that say none.
            ordered: Whether each step waits for the one before it.

        Raises:
            GraphError: It cannot be, or a step does not fit its plugin; the step is named.
            UnavailableError: The queue or the disk is full.

        Durability: Committed before returning, in one transaction.
        """
        graph = graphs.read(steps, name=name, mode=mode, priority=priority, ordered=ordered)
        await promises.check(graph, self._accepts)
        sequence_id = self._queue.new_id().replace("job_", "seq_", 1)
        requests = _requests(graph, sequence_id, self._queue.new_id)
        entries = await queue.prepare(self._queue, requests)
        operation = sequence_changes.SubmitSequence(sequence_id, graph, entries)
        stored: sequences.JobSequence = await queue.perform(self._queue, operation)
        return stored

    async def get(self, sequence_id: str) -> sequences.JobSequence:
        """Return a sequence as it is now."""
        return await self._reading.get(sequence_id)

    async def recent(
        self,
        *,
        state: str | None = None,
        limit: int = 100,
        before: str | None = None,
        plugins: Collection[str] | None = None,
    ) -> Sequence[sequences.JobSequence]:
        """Return sequences, the newest first, at most 1000."""
        number = None if before is None else (await self.get(before)).number
        return await self._reading.recent(state=state, limit=limit, before=number, plugins=plugins)

    async def cancel(self, sequence_id: str) -> sequences.JobSequence:
        """End all of it that has not ended; a finished one stays as it is."""
        await queue.perform(self._queue, sequence_changes.CancelSequence(sequence_id, "its sequence"))
        return await self.get(sequence_id)

    async def retry(self, sequence_id: str) -> sequences.JobSequence:
        """Run again what failed or was interrupted, and what was skipped because of it."""
        await queue.perform(self._queue, sequence_changes.RetrySequence(sequence_id))
        return await self.get(sequence_id)

    async def wait(self, sequence_id: str, timeout_s: float | None = None) -> sequences.JobSequence:
        """Return a sequence once nothing of it will happen unasked any more.

        Raises:
            WaitTimeoutError: Something still will; it goes on.
        """
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(sequence_id, [])
        waiters.append(future)
        try:
            async with asyncio.timeout(timeout_s):
                while not _is_over(found := await self.get(sequence_id)):
                    await future
                    waiters.remove(future)
                    future = asyncio.get_running_loop().create_future()
                    waiters.append(future)
        except TimeoutError:
            raise job_errors.wait_timeout(sequence_id, timeout_s or 0.0) from None
        finally:
            waiters.remove(future)
            if not waiters:
                self._waiters.pop(sequence_id, None)
        return found

    def _on_change(self, effects: Effects) -> None:
        if effects.is_quiet:
            self._resolver.forget()
        if self._waiters:
            for event in effects.events:
                if event.type == "sequence" and event.sequence in self._waiters:
                    for future in self._waiters[event.sequence]:
                        if not future.done():
                            future.set_result(None)
        for job_id in effects.expand:
            self._fan_outs.attend(job_id)


def _is_over(found: sequences.JobSequence) -> bool:
    return found.is_finished or found.state is State.INTERRUPTED


def _requests(graph: graphs.Graph, sequence_id: str, new_id: Callable[[], str]) -> list[Request]:
    ids = {step.id: new_id() for step in graph.steps}
    requests = []
    for step in graph.steps:
        needs = graph.needs[step.id]
        arguments: Any = dict(step.arguments)
        if step.is_fan_out:
            arguments = {"for_each": step.for_each, "arguments": arguments}
        requests.append(
            Request(
                plugin=step.plugin,
                instance=step.instance or step.plugin,
                action=step.action or "execute",
                arguments=values.pack(arguments),
                priority=step.priority or graph.priority,
                delay_s=step.delay_s,
                timeout_s=step.timeout_s,
                deadline_s=step.deadline_s,
                idempotent=step.idempotent,
                retry=_policy(step),
                after=tuple(ids[other] for other, need in needs.items() if need == "completed"),
                after_ended=tuple(ids[other] for other, need in needs.items() if need == "ended"),
                sequence=sequence_id,
                step=step.id,
                kind="map" if step.is_fan_out else "call",
                id=ids[step.id],
                traceparent=traces.current(),
            )
        )
    return requests


def _policy(step: graphs.Step) -> RetryPolicy | None:
    try:
        return retries.read_policy(step.retry)
    except errors.UsageError as error:
        raise graphs.refuse(error.message, step=step.id) from None
