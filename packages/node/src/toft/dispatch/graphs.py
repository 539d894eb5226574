"""Graphs of jobs: stored as one, their references resolved when a step runs, fan-outs spread and joined.

Values pass from step to step as they lie on disk; nothing large is decoded here.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from toft.dispatch import promises
from toft.jobs import errors as job_errors
from toft.jobs import graphs, queue, references, sequence_changes, sequences
from toft.jobs.records import ONCE, THRICE, Claimed, Outcome, Request, ResultRef, RetryPolicy, State
from toft.jobs.references import Item, Ref
from toft.jobs.sequence_states import Following, parts_failed
from toft.jobs.transaction import Effects
from toft.kernel import errors, log, traces
from toft.plugins import paths, values
from toft.plugins.packed import Packed
from toft.plugins.plugin_errors import PluginError

_log = log.get_logger("dispatch.graphs")
HEAVY_BYTES = 64 << 10
_AGAIN_S = 1.0
# The parts of a fan-out all look into one value; reading it for each of thousands takes minutes.
_REMEMBERED = 4


class Graphs:
    """The graphs of one queue.

    Args:
        jobs: The queue; not open yet, so that this hears of everything.
        reading: Questions about its sequences.
        accepts: Checks steps against what is installed.
        open_blob: Opens a stored value without reading it.
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
        self._open_blob = open_blob
        self._waiters: dict[str, list[asyncio.Future[None]]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._remembered: OrderedDict[tuple[str, str], Packed] = OrderedDict()
        self._again: dict[str, asyncio.TimerHandle] = {}
        self._once_more: set[str] = set()
        self._is_open = False
        jobs.followers.append(Following(jobs.new_id))
        jobs.listeners.append(self._on_change)

    async def open(self) -> None:
        """Look after the fan-outs that the last process left half done."""
        self._is_open = True
        for job_id in await self._reading.idle_fan_outs():
            self._attend(job_id)

    async def close(self) -> None:
        """Stop; what was not done is done after the next start."""
        self._is_open = False
        for timer in self._again.values():
            timer.cancel()
        for task in self._tasks.values():
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    # -- what faces offer ------------------------------------------------------------------------------------

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
        self, *, state: str | None = None, limit: int = 100, before: str | None = None
    ) -> Sequence[sequences.JobSequence]:
        """Return sequences, the newest first, at most 1000."""
        number = None if before is None else (await self.get(before)).number
        return await self._reading.recent(state=state, limit=limit, before=number)

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

    # -- when a step runs ------------------------------------------------------------------------------------

    async def resolve(self, claim: Claimed) -> Mapping[str, Any]:
        """Return the arguments of a claimed job, what other steps gave in the place of its references.

        Large ones stay as they are kept, as `toft.plugins.packed.Packed`.

        Raises:
            NodeError: Something that was stored is not there or damaged.
            PluginError: A reference leads nowhere; step and path are named.
        """
        if claim.arguments_blob is None and not claim.arguments:
            return {}
        packed = await self._value(claim.arguments or None, claim.arguments_blob)
        if claim.sequence is not None:
            packed = await self._resolved(packed, claim.sequence)
        if packed.buffers:  # may lie in files
            return await asyncio.to_thread(packed.fields, heavy_bytes=HEAVY_BYTES)
        return packed.fields(heavy_bytes=HEAVY_BYTES)

    async def _resolved(self, packed: Packed, sequence_id: str) -> Packed:
        wanted = {ref.step for _, ref in references.find(packed.tree) if isinstance(ref, Ref)}
        given = {step: await self._given(sequence_id, step) for step in wanted}

        def by(tree: dict[str, Any]) -> Packed | None:
            if references.is_literal(tree):
                return Packed(tree[references.LITERAL], packed.buffers)
            ref = references.read(tree)
            if not isinstance(ref, Ref):
                return None
            return _part(given[ref.step], ref)

        return packed.replaced(by)

    async def _given(self, sequence_id: str, step: str) -> Packed:
        """Return what a step gave; a step that completed gives the same for ever."""
        key = (sequence_id, step)
        value = self._remembered.get(key)
        if value is None:
            value = self._remembered[key] = await self._read_given(sequence_id, step)
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        else:
            self._remembered.move_to_end(key)
        return value

    async def _read_given(self, sequence_id: str, step: str) -> Packed:
        found = await self._reading.given(sequence_id, step)
        if found is None or found.state is not State.COMPLETED:
            raise errors.IntegrityError(
                f"what step {step} gave is not there",
                code="sequence.reference",
                details={"step": step, "sequence": sequence_id},
                hint="results are kept as long as their jobs; submit the graph again",
            )
        if found.data is None and found.blob is None:
            return Packed.of(None)
        return await self._value(found.data, found.blob)

    async def _value(self, data: bytes | None, blob: str | None) -> Packed:
        return Packed.read(data) if data is not None else await self._open_blob(str(blob))

    # -- fan-outs --------------------------------------------------------------------------------------------

    def _on_change(self, effects: Effects) -> None:
        if self._remembered and not self._queue.counts()["running"]:
            self._remembered.clear()
        if self._waiters:
            for event in effects.events:
                if event.type == "sequence" and event.sequence in self._waiters:
                    for future in self._waiters[event.sequence]:
                        if not future.done():
                            future.set_result(None)
        for job_id in effects.expand:
            self._attend(job_id)

    def _attend(self, job_id: str) -> None:
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
            self._attend(job_id)

    async def _look_after(self, job_id: str) -> None:
        """Spread a fan-out whose list is there, or join one whose parts are done."""
        try:
            job = await self._queue.find(job_id)
            if job is None or job.state is not State.PENDING or job.sequence is None or job.step is None:
                return
            members = {each["step"]: each for each in await self._reading.members(job.sequence)}
            parts: Any = []
            while (name := f"{job.step}[{len(parts)}]") in members:
                parts.append(members[name])
            await (self._join(job, parts) if parts else self._spread(job))
        except errors.UnavailableError as error:
            _log.warning("fan_out_waits", job_id=job_id, error=str(error))
            if self._is_open:
                loop = asyncio.get_running_loop()
                self._again[job_id] = loop.call_later(_AGAIN_S, self._attend, job_id)
        except (errors.NodeError, PluginError) as error:
            await self._end(job_id, Outcome(state=State.FAILED, error=error.to_dict(), because="fan_out"))

    async def _spread(self, job: Any) -> None:
        packed = await self._value(*await self._reading.arguments(job.id))
        listed = packed.tree["for_each"]
        source = references.read(listed)
        if isinstance(source, Ref):
            items = _items(_part(await self._given(job.sequence, source.step), source), source)
        else:
            items = packed.at(["for_each"]).items()
        if len(items) > graphs.MAX_FAN_OUT:
            raise graphs.refuse(
                f"for_each has {len(items)} items, more than {graphs.MAX_FAN_OUT}", step=job.step
            )
        if not items:
            await self._end(job.id, Outcome(state=State.COMPLETED, result=values.pack([]), because="empty"))
            return
        usual = THRICE if job.idempotent else ONCE
        requests = [
            Request(
                plugin=job.plugin,
                instance=job.instance,
                action=job.action,
                arguments=_for_item(packed, source, items, number),
                priority=job.priority,
                timeout_s=job.timeout_s,
                idempotent=job.idempotent,
                retry=None if job.retry == usual else job.retry,
                sequence=job.sequence,
                step=f"{job.step}[{number}]",
            )
            for number in range(len(items))
        ]
        entries = await queue.prepare(self._queue, requests)
        operation = sequence_changes.Expand(job.id, job.sequence, job.step, entries)
        await queue.perform(self._queue, operation)

    async def _join(self, job: Any, parts: Sequence[Mapping[str, Any]]) -> None:
        if any(part["state"] in ("pending", "running", "interrupted") for part in parts):
            return
        bad = {part["step"]: part["id"] for part in parts if part["state"] != "completed"}
        if bad:
            error = parts_failed(job.step, bad)
            await self._end(job.id, Outcome(state=State.FAILED, error=error, because="failed"))
            return
        joined = Packed.of([await self._read_given(job.sequence, part["step"]) for part in parts])
        result: bytes | ResultRef
        if joined.size_bytes < HEAVY_BYTES:
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
    given = step.retry
    if given is None or isinstance(given, RetryPolicy):
        return given
    if isinstance(given, int) and not isinstance(given, bool):
        return RetryPolicy(max_attempts=given)
    known = set(RetryPolicy.__dataclass_fields__)
    if not isinstance(given, Mapping) or not given.keys() <= known:
        raise graphs.refuse(f"retry is a number of attempts, or has {', '.join(sorted(known))}", step=step.id)
    return RetryPolicy(**{**given, "on": tuple(given.get("on", RetryPolicy().on))})


def _part(given: Packed, ref: Ref) -> Packed:
    try:
        return given.at(ref.path)
    except paths.PathError as error:
        raise _leads_nowhere(ref, error) from None


def _items(given: Packed, ref: Ref) -> list[Packed]:
    try:
        return given.items()
    except paths.PathError as error:
        raise _leads_nowhere(ref, error) from None


def _leads_nowhere(ref: Ref, error: paths.PathError) -> paths.PathError:
    return error.of(f"step {ref.step}", code="sequence.reference", step=ref.step, asked=list(ref.path))


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
