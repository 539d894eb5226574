"""Tells a collector what became of jobs and calls, as OpenTelemetry traces; imported where that is wanted."""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections import deque
from collections.abc import Sequence

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from toft.dispatch import spans
from toft.jobs.queue import JobQueue
from toft.jobs.records import ENDED, Event
from toft.kernel import clock as clocks
from toft.kernel import errors, log, traces
from toft.kernel.version import VERSION
from toft.plugins.instance import Instance
from toft.plugins.supervision.calls import Call

_log = log.get_logger("dispatch.telemetry")
_LOADS = 1000
_BEHIND = 10_000
_PAGE = 1000
_EXPORT_S = 3.0
_NANO = 1_000_000_000


class Telemetry:
    """Follows a queue and tells each job that has ended; what cannot be sent is dropped, and holds nobody up.

    Args:
        endpoint: Where a collector takes OTLP over HTTP.
        exporter: Takes the spans instead.
    """

    def __init__(self, endpoint: str, *, exporter: SpanExporter | None = None) -> None:
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": "toft", "service.version": VERSION}),
            shutdown_on_exit=False,
        )
        sending = exporter or OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_S)
        self._provider.add_span_processor(BatchSpanProcessor(sending))
        self._tracer = self._provider.get_tracer("toft", VERSION)
        self._propagator = TraceContextTextMapPropagator()
        self._loads: deque[spans.Load] = deque(maxlen=_LOADS)
        self._task: asyncio.Task[None] | None = None
        self._is_closed = False

    def follow(self, jobs: JobQueue) -> None:
        """Begin to follow an open queue."""
        self._task = asyncio.create_task(self._follow(jobs))

    def loaded(self, instance: str, steps: Sequence[traces.Step]) -> None:
        """Take note that an instance was loaded for jobs."""
        self._loads.append(spans.Load(instance, tuple(steps)))

    def called(self, instance: Instance, call: Call) -> None:
        """Take note of a call that somebody makes; it is told when it has ended."""
        steps, instance.steps = instance.steps, ()
        asked = spans.Asked(
            instance.plugin, instance.id, clocks.SYSTEM.now(), asyncio.get_running_loop().time(), steps
        )
        parent = traces.current()
        call.future.add_done_callback(functools.partial(self._ended, asked, call, parent))

    def _ended(self, asked: spans.Asked, call: Call, parent: str | None, _: object) -> None:
        self._send(spans.of_call(asked, call, asyncio.get_running_loop().time()), parent)

    async def close(self) -> None:
        """Send what is left, for some seconds at most; a second time does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        task, self._task = self._task, None
        if task is not None:
            # The queue is closed by now, and with that the watch ends once it has read what there is.
            with contextlib.suppress(TimeoutError, errors.NodeError):
                async with asyncio.timeout(1.0):
                    await task
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2 * _EXPORT_S):
                await asyncio.to_thread(self._provider.shutdown)

    async def _follow(self, jobs: JobQueue) -> None:
        async for event in jobs.watch(capacity=_BEHIND):
            if event.type == "lost":
                _log.warning("traces_lost", events=event.data.get("count"))
            elif event.type == "state" and event.data.get("to") in ENDED and event.job is not None:
                try:
                    self._tell(await _all(jobs, event.job, event.cursor))
                except errors.NodeError as error:
                    # Of this job nothing could be read; those that come later are told.
                    _log.warning("trace_lost", job=event.job, error=str(error))

    def _tell(self, events: Sequence[Event]) -> None:
        self._send(*spans.of(events, self._loads))

    def _send(self, found: Sequence[spans.Span], parent: str | None) -> None:
        above = None if parent is None else self._propagator.extract({traces.HEADER: parent})
        made: list[trace.Span] = []
        for each in found:
            context = above if each.parent is None else trace.set_span_in_context(made[each.parent])
            span = self._tracer.start_span(
                each.name,
                context,
                attributes=dict(each.attributes),
                start_time=round(each.began * _NANO),
            )
            if each.error:
                span.set_attribute("error.type", each.error)
                span.set_status(trace.Status(trace.StatusCode.ERROR, each.error))
            made.append(span)
        for each, span in zip(found, made, strict=True):
            span.end(round(each.ended * _NANO))


async def _all(jobs: JobQueue, job: str, last: int) -> list[Event]:
    """Return the events of a job up to one of them, without the many that only say how far it is."""
    found: list[Event] = []
    after = 0
    while True:
        page = await jobs.events(after, job=job, limit=_PAGE)
        found += [each for each in page if each.cursor <= last and each.type in ("submitted", "state")]
        if len(page) < _PAGE or page[-1].cursor >= last:
            return found
        after = page[-1].cursor
