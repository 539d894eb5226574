"""Steps that run once for each item of a list: spread when the list is there, joined when all parts end."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from toft.dispatch import resolving
from toft.jobs import graphs, queue, references, sequence_changes, sequences
from toft.jobs.records import ONCE, THRICE, Job, Outcome, Request, ResultRef, State
from toft.jobs.references import Item, Ref
from toft.jobs.sequence_states import parts_failed
from toft.kernel import errors, log
from toft.plugins import paths, values
from toft.plugins.packed import Packed
from toft.plugins.plugin_errors import PluginError

_log = log.get_logger("dispatch.fan_outs")
_AGAIN_S = 1.0
_MANY = 500


class FanOuts:
    """Looks after the fan-outs of one queue, each with a task of its own while there is something to do.

    Args:
        jobs: The queue.
        reading: Questions about its sequences.
        resolver: Returns what steps gave.
    """

    def __init__(
        self, jobs: queue.JobQueue, reading: sequences.Reading, resolver: resolving.Resolver
    ) -> None:
        self._queue = jobs
        self._reading = reading
        self._resolver = resolver
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._again: dict[str, asyncio.TimerHandle] = {}
        self._once_more: set[str] = set()
        self._is_open = False

    async def open(self) -> None:
        """Look after those that the last process left half done."""
        self._is_open = True
        for job_id in await self._reading.idle_fan_outs():
            self.attend(job_id)

    async def close(self) -> None:
        """Stop; what was not done is done after the next start."""
        self._is_open = False
        for timer in self._again.values():
            timer.cancel()
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    def attend(self, job_id: str) -> None:
        """Look whether a fan-out can be spread or joined now; returns at once."""
        if job_id in self._tasks:
            self._once_more.add(job_id)
        elif self._is_open:
            self._again.pop(job_id, None)
            task = asyncio.get_running_loop().create_task(self._look_after(job_id))
            self._tasks[job_id] = task
            task.add_done_callback(lambda _: self._attended(job_id))

    def _attended(self, job_id: str) -> None:
        self._tasks.pop(job_id, None)
        if job_id in self._once_more:
            self._once_more.discard(job_id)
            self.attend(job_id)

    async def _look_after(self, job_id: str) -> None:
        try:
            await self._advance(job_id)
        except errors.UnavailableError as error:
            # The queue or the disk is full, also for how it ended; nobody else would look at it again.
            _log.warning("fan_out_waits", job_id=job_id, error=str(error))
            if self._is_open:
                loop = asyncio.get_running_loop()
                self._again[job_id] = loop.call_later(_AGAIN_S, self.attend, job_id)

    async def _advance(self, job_id: str) -> None:
        """Spread a fan-out whose list is there, or join one whose parts are done."""
        job = await self._queue.find(job_id)
        if job is None or job.state is not State.PENDING or job.sequence is None or job.step is None:
            return
        try:
            members = {each["step"]: each for each in await self._reading.members(job.sequence)}
            parts: list[Mapping[str, Any]] = []
            while (name := f"{job.step}[{len(parts)}]") in members:
                parts.append(members[name])
            await (
                self._join(job, job.sequence, parts) if parts else self._spread(job, job.sequence, job.step)
            )
        except errors.UnavailableError:
            raise
        except (errors.NodeError, PluginError) as error:
            await self._end(job_id, Outcome(state=State.FAILED, error=error.to_dict(), because="fan_out"))

    async def _spread(self, job: Job, sequence: str, step: str) -> None:
        packed = await self._resolver.value(*await self._reading.arguments(job.id))
        listed = packed.tree["for_each"]
        source = references.read(listed)
        if isinstance(source, Ref):
            items = resolving.items(
                resolving.part(await self._resolver.given(sequence, source.step), source), source
            )
        else:
            items = packed.at(["for_each"]).items()
        if len(items) > graphs.MAX_FAN_OUT:
            raise graphs.refuse(f"for_each has {len(items)} items, more than {graphs.MAX_FAN_OUT}", step=step)
        if not items:
            await self._end(job.id, Outcome(state=State.COMPLETED, result=values.pack([]), because="empty"))
            return
        made = functools.partial(_parts, job, sequence, step, packed, source, items)
        # Thousands of parts take a fifth of a second, which nobody else should wait for.
        requests = made() if len(items) < _MANY else await asyncio.to_thread(made)
        entries = await queue.prepare(self._queue, requests)
        operation = sequence_changes.Expand(job.id, sequence, step, entries)
        await queue.perform(self._queue, operation)

    async def _join(self, job: Job, sequence: str, parts: Sequence[Mapping[str, Any]]) -> None:
        if any(part["state"] in ("pending", "running", "interrupted") for part in parts):
            return
        bad = {part["step"]: part["id"] for part in parts if part["state"] != "completed"}
        if bad:
            error = parts_failed(str(job.step), bad)
            await self._end(job.id, Outcome(state=State.FAILED, error=error, because="failed"))
            return
        joined = Packed.of([await self._resolver.read_given(sequence, part["step"]) for part in parts])
        result: bytes | ResultRef
        if joined.size_bytes < resolving.HEAVY_BYTES:
            result = joined.to_bytes()
        else:
            size_bytes = joined.size_bytes
            result = ResultRef(size_bytes, None, await self._queue.blobs.save(joined.parts()))
        await self._end(job.id, Outcome(state=State.COMPLETED, result=result, because="parts completed"))

    async def _end(self, job_id: str, outcome: Outcome) -> None:
        try:
            await self._queue.end(job_id, outcome)
        except errors.ConflictError:
            _log.debug("fan_out_ended_meanwhile", job_id=job_id)


def _parts(
    job: Job, sequence: str, step: str, packed: Packed, source: Any, items: Sequence[Packed]
) -> list[Request]:
    """Return what is submitted for each item."""
    usual = THRICE if job.idempotent else ONCE
    return [
        Request(
            plugin=job.plugin,
            instance=job.instance,
            action=job.action,
            arguments=_for_item(packed, source, items, number),
            priority=job.priority,
            timeout_s=job.timeout_s,
            idempotent=job.idempotent,
            retry=None if job.retry == usual else job.retry,
            sequence=sequence,
            step=f"{step}[{number}]",
        )
        for number in range(len(items))
    ]


def _for_item(packed: Packed, source: Any, items: Sequence[Packed], number: int) -> bytes:
    def by(item: Item) -> Any:
        if isinstance(source, Ref):
            return Ref(source.step, (*source.path, number, *item.path)).to_json()
        try:
            return {references.LITERAL: items[number].at(item.path).tree}
        except paths.PathError as error:
            raise error.of(
                f"item {number}", code="sequence.reference", item=number, asked=list(item.path)
            ) from None

    template = packed.tree["arguments"]
    return Packed(references.with_item(template, by), packed.buffers).replaced().to_bytes()
