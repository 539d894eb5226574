"""What a node does in the words of Prometheus; its labels are bounded, whatever is asked of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from toft.api.service import Service, State
from toft.dispatch import tally
from toft.dispatch.engine import Engine
from toft.dispatch.health import Check
from toft.managed.phases import Phase

if TYPE_CHECKING:
    from prometheus_client.core import Metric

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is told, of one moment.

    Attributes:
        serves: The daemon.
        queue: What `Jobs.status` says.
        checks: Its health.
        ended: Jobs that ended, by plugin and state.
        durations: How long attempts took, by plugin.
        submitted: Jobs that were stored.
        ready: Jobs that could start now.
        oldest_wait_s: How long the first of them has waited.
        requests: Requests over HTTP, by method, route and class of status.
        config: How the node stands with its document; None where no daemon keeps one.
        answers: How long their answers took to begin, by method and route.
    """

    serves: Service
    queue: Mapping[str, Any]
    checks: Iterable[Check]
    ended: Mapping[tuple[str, str], int]
    durations: Mapping[str, tally.Durations]
    submitted: int
    ready: int
    oldest_wait_s: float
    requests: Mapping[tuple[str, str, str], int]
    answers: Mapping[tuple[str, str], tally.Durations]
    config: Mapping[str, Any] | None = None


async def read(serves: Service) -> bytes:
    """Return all figures as Prometheus reads them."""
    engine: Engine = await serves.jobs.open()
    heads = engine.queue.heads().values()
    now = serves.clock.monotonic()
    figures = Figures(
        serves=serves,
        queue=await serves.jobs.status(),
        checks=await serves.health.checks(),
        ended={(plugin, str(state)): count for (plugin, state), count in engine.tally.ended.items()},
        durations={plugin: each.copy() for plugin, each in engine.tally.durations.items()},
        submitted=engine.tally.submitted,
        ready=sum(each.ready for each in heads),
        oldest_wait_s=max((now - each.since for each in heads), default=0.0),
        requests=serves.traffic.counts(),
        answers=serves.traffic.durations(),
        config=await serves.documents.describe() if serves.documents is not None else None,
    )
    return await asyncio.to_thread(_text, figures)


def _text(figures: Figures) -> bytes:
    # A tenth of a second to import, which a daemon that nobody watches does not pay.
    import prometheus_client  # noqa: PLC0415 - see above

    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    registry.register(_Collector(figures))
    prometheus_client.ProcessCollector(registry=registry)
    return prometheus_client.generate_latest(registry)


class _Collector:
    """Gives the figures one by one, as the client library takes them."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        figures = self._figures
        yield from _of_node(figures)
        yield from _of_queue(figures)
        yield from _of_machine(figures.queue)
        yield from _of_traffic(figures)
        if figures.config is not None:
            yield from _of_config(figures.config)


def _of_node(figures: Figures) -> Iterator[Metric]:
    serves = figures.serves
    checks = [((each.check,), float(each.ok)) for each in figures.checks]
    is_ready = serves.state is State.READY and all(ok for _, ok in checks)
    states: dict[str, int] = {}
    for each in serves.node.instances():
        states[str(each.state)] = states.get(str(each.state), 0) + 1
    yield _gauge("toft_build_info", "Which toft this is.", [((serves.version,), 1.0)], ("version",))
    yield _gauge("toft_uptime_seconds", "Seconds since the daemon was started.", [((), serves.uptime_s)])
    yield _gauge("toft_ready", "1 while the node takes work and is healthy.", [((), float(is_ready))])
    yield _gauge("toft_health_check", "1 for each check that does not fail.", checks, ("check",))
    yield _gauge("toft_calls_running", "Calls that are no jobs.", [((), serves.running)])
    loaded = [((state,), float(count)) for state, count in states.items()]
    yield _gauge("toft_instances", "Loaded instances by state.", loaded, ("state",))


def _of_queue(figures: Figures) -> Iterator[Metric]:
    from prometheus_client import core  # noqa: PLC0415 - as in _text

    queue = figures.queue
    jobs = [((state,), float(count)) for state, count in queue["queue"].items()]
    yield _gauge("toft_jobs", "Jobs that are remembered, by state.", jobs, ("state",))
    yield _gauge("toft_queue_ready_jobs", "Jobs that wait for nothing but a lane.", [((), figures.ready)])
    waited = "Seconds that the first job of an instance has waited, of all instances the longest."
    yield _gauge("toft_queue_oldest_wait_seconds", waited, [((), figures.oldest_wait_s)])
    yield _gauge("toft_lanes", "Places for jobs to run in.", [((), queue.get("lanes") or 0)])
    yield _gauge("toft_lanes_busy", "Lanes that are given out.", [((), queue.get("busy") or 0)])
    submitted = core.CounterMetricFamily("toft_jobs_submitted", "Jobs stored since the start.")
    submitted.add_metric((), figures.submitted)
    yield submitted
    ended = core.CounterMetricFamily(
        "toft_jobs_ended", "Jobs that ended since the start.", labels=("plugin", "state")
    )
    for names, count in sorted(figures.ended.items()):
        ended.add_metric(names, count)
    yield ended
    took = [((plugin,), each) for plugin, each in figures.durations.items()]
    yield _histogram("toft_attempt_duration_seconds", "Seconds that attempts took.", took, ("plugin",))


def _of_traffic(figures: Figures) -> Iterator[Metric]:
    from prometheus_client import core  # noqa: PLC0415 - as in _text

    asked = core.CounterMetricFamily(
        "toft_http_requests", "Requests since the start.", labels=("method", "route", "status")
    )
    for names, count in sorted(figures.requests.items()):
        asked.add_metric(names, count)
    yield asked
    words = "Seconds until the answer to a request began."
    yield _histogram(
        "toft_http_request_duration_seconds", words, figures.answers.items(), ("method", "route")
    )


def _of_config(config: Mapping[str, Any]) -> Iterator[Metric]:
    from prometheus_client import core  # noqa: PLC0415 - as in _text

    phases = [((each,), float(each == config["phase"])) for each in Phase]
    yield _gauge("toft_config_phase", "1 for where the node is between two documents.", phases, ("phase",))
    words = "Ways back to the document before, since the node joined."
    back = core.CounterMetricFamily("toft_config_rollbacks", words, labels=("reason",))
    for reason, count in sorted(config["rollbacks"].items()):
        back.add_metric((reason,), count)
    yield back
    lights = [((each["name"],), float(each["state"] == "green")) for each in config["gates"]]
    yield _gauge(
        "toft_config_gate_green", "1 for each gate of the document that is green.", lights, ("gate",)
    )
    if config["apply_s"] is not None:
        words = "Seconds from the commit of the latest proven document to its proof."
        yield _gauge("toft_config_apply_seconds", words, [((), config["apply_s"])])
    polls = core.CounterMetricFamily("toft_config_poll", "Questions to the central.", labels=("code",))
    for code, count in sorted(config["polls"].items()):
        polls.add_metric((code,), count)
    yield polls
    failures = config["consecutive_failures"] or 0
    yield _gauge("toft_config_poll_failures", "Questions in a row without a good answer.", [((), failures)])


def _of_machine(queue: Mapping[str, Any]) -> Iterator[Metric]:
    memory = queue["memory"]
    for name, words in (("total", "Main memory."), ("available", "Main memory that can be had.")):
        size = memory.get(f"{name}_bytes")
        if size is not None:
            yield _gauge(f"toft_memory_{name}_bytes", words, [((), size)])
    for name, words in (("total", "Memory of a GPU."), ("free", "Memory of a GPU that can be had.")):
        found = [((each["gpu"],), each[f"{name}_bytes"] or 0) for each in queue["gpu"]]
        yield _gauge(f"toft_gpu_memory_{name}_bytes", words, found, ("gpu",))


def _histogram(
    name: str,
    words: str,
    found: Iterable[tuple[tuple[str, ...], tally.Durations]],
    labels: tuple[str, ...],
) -> Metric:
    from prometheus_client import core  # noqa: PLC0415 - as in _text

    histogram = core.HistogramMetricFamily(name, words, labels=labels)
    for names, durations in sorted(found, key=lambda each: each[0]):
        bounds = (*map(str, durations.bounds_s), "+Inf")
        counts = zip(bounds, durations.cumulative(), strict=True)
        histogram.add_metric(names, list(counts), durations.total_s)
    return histogram


def _gauge(
    name: str, words: str, found: Iterable[tuple[tuple[str, ...], float]], labels: tuple[str, ...] = ()
) -> Metric:
    from prometheus_client import core  # noqa: PLC0415 - as in _text

    gauge = core.GaugeMetricFamily(name, words, labels=labels)
    for names, value in found:
        gauge.add_metric(names, value)
    return gauge
