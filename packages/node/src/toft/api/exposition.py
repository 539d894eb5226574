"""The figures of a node in the words of Prometheus; their labels are bounded, whatever is asked of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import prometheus_client
from prometheus_client import core

from toft.api.metrics import Figures
from toft.dispatch import tally
from toft.managed.phases import Phase

_Labels = tuple[str, ...]


def text(figures: Figures) -> bytes:
    """Return figures as Prometheus reads them, with those of the process."""
    registry = prometheus_client.CollectorRegistry(auto_describe=False)
    registry.register(_Collector(figures))
    prometheus_client.ProcessCollector(registry=registry)
    return prometheus_client.generate_latest(registry)


class _Collector:
    """Gives the figures one by one, as the client library takes them."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[core.Metric]:
        figures = self._figures
        yield from _of_node(figures)
        yield from _of_queue(figures)
        yield from _of_machine(figures.queue)
        yield from _of_traffic(figures)
        if figures.config is not None:
            yield from _of_config(figures.config)


def _of_node(figures: Figures) -> Iterator[core.Metric]:
    checks = [((each.check,), float(each.ok)) for each in figures.checks]
    loaded = [((state,), float(count)) for state, count in figures.instances.items()]
    yield _gauge("toft_build_info", "Which toft this is.", [((figures.version,), 1.0)], ("version",))
    yield _gauge("toft_uptime_seconds", "Seconds since the daemon was started.", [((), figures.uptime_s)])
    ready = float(figures.is_ready)
    yield _gauge("toft_ready", "1 while the node takes work and is healthy.", [((), ready)])
    yield _gauge("toft_health_check", "1 for each check that does not fail.", checks, ("check",))
    yield _gauge("toft_calls_running", "Calls that are no jobs.", [((), figures.calls)])
    yield _gauge("toft_instances", "Loaded instances by state.", loaded, ("state",))


def _of_queue(figures: Figures) -> Iterator[core.Metric]:
    queue = figures.queue
    jobs = [((state,), float(count)) for state, count in queue["queue"].items()]
    yield _gauge("toft_jobs", "Jobs that are remembered, by state.", jobs, ("state",))
    yield _gauge("toft_queue_ready_jobs", "Jobs that wait for nothing but a lane.", [((), figures.ready)])
    waited = "Seconds that the first job of an instance has waited, of all instances the longest."
    yield _gauge("toft_queue_oldest_wait_seconds", waited, [((), figures.oldest_wait_s)])
    yield _gauge("toft_lanes", "Places for jobs to run in.", [((), queue.get("lanes") or 0)])
    yield _gauge("toft_lanes_busy", "Lanes that are given out.", [((), queue.get("busy") or 0)])
    yield _counter("toft_jobs_submitted", "Jobs stored since the start.", [((), figures.submitted)])
    words = "Jobs that ended since the start."
    yield _counter("toft_jobs_ended", words, figures.ended.items(), ("plugin", "state"))
    took = [((plugin,), each) for plugin, each in figures.durations.items()]
    yield _histogram("toft_attempt_duration_seconds", "Seconds that attempts took.", took, ("plugin",))


def _of_traffic(figures: Figures) -> Iterator[core.Metric]:
    words = "Requests since the start."
    yield _counter("toft_http_requests", words, figures.requests.items(), ("method", "route", "status"))
    words = "Seconds until the answer to a request began."
    yield _histogram(
        "toft_http_request_duration_seconds", words, figures.answers.items(), ("method", "route")
    )


def _of_config(config: Mapping[str, Any]) -> Iterator[core.Metric]:
    phases = [((each,), float(each == config["phase"])) for each in Phase]
    yield _gauge("toft_config_phase", "1 for where the node is between two documents.", phases, ("phase",))
    words = "Ways back to the document before, since the node joined."
    back = [((reason,), count) for reason, count in config["rollbacks"].items()]
    yield _counter("toft_config_rollbacks", words, back, ("reason",))
    lights = [((each["name"],), float(each["state"] == "green")) for each in config["gates"]]
    yield _gauge(
        "toft_config_gate_green", "1 for each gate of the document that is green.", lights, ("gate",)
    )
    if config["apply_s"] is not None:
        words = "Seconds from the commit of the latest proven document to its proof."
        yield _gauge("toft_config_apply_seconds", words, [((), config["apply_s"])])
    polls = [((code,), count) for code, count in config["polls"].items()]
    yield _counter("toft_config_poll", "Questions to the central.", polls, ("code",))
    failures = config["consecutive_failures"] or 0
    yield _gauge("toft_config_poll_failures", "Questions in a row without a good answer.", [((), failures)])


def _of_machine(queue: Mapping[str, Any]) -> Iterator[core.Metric]:
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
    found: Iterable[tuple[_Labels, tally.Durations]],
    labels: _Labels,
) -> core.Metric:
    histogram = core.HistogramMetricFamily(name, words, labels=labels)
    for names, durations in sorted(found, key=lambda each: each[0]):
        bounds = (*map(str, durations.bounds_s), "+Inf")
        counts = zip(bounds, durations.cumulative(), strict=True)
        histogram.add_metric(names, list(counts), durations.total_s)
    return histogram


def _counter(
    name: str, words: str, found: Iterable[tuple[_Labels, float]], labels: _Labels = ()
) -> core.Metric:
    counter = core.CounterMetricFamily(name, words, labels=labels)
    for names, count in sorted(found):
        counter.add_metric(names, count)
    return counter


def _gauge(
    name: str, words: str, found: Iterable[tuple[_Labels, float]], labels: _Labels = ()
) -> core.Metric:
    gauge = core.GaugeMetricFamily(name, words, labels=labels)
    for names, value in found:
        gauge.add_metric(names, value)
    return gauge
