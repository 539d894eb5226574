"""What is told of a node that somebody watches, gathered at one moment; `exposition.py` writes it down."""

from __future__ import annotations

import collections
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toft.api.service import Service, State
from toft.dispatch import tally
from toft.dispatch.engine import Engine
from toft.dispatch.health import Check

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is told, of one moment.

    Attributes:
        version: Of toft.
        uptime_s: Seconds since the daemon was started.
        is_ready: It takes work, and no check of its health fails.
        calls: Calls that run and are no jobs.
        instances: How many are loaded, by state.
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

    version: str
    uptime_s: float
    is_ready: bool
    calls: int
    instances: Mapping[str, int]
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


async def gather(serves: Service) -> Figures:
    """Return all figures of now."""
    engine: Engine = await serves.jobs.open()
    queue, checks = await serves.jobs.status(), await serves.health.checks()
    config = await serves.documents.describe() if serves.documents is not None else None
    # Nothing is waited for from here on: the figures are those of one moment.
    heads = engine.queue.heads().values()
    now = serves.clock.monotonic()
    return Figures(
        version=serves.version,
        uptime_s=serves.uptime_s,
        is_ready=serves.state is State.READY and all(each.ok for each in checks),
        calls=serves.running,
        instances=collections.Counter(str(each.state) for each in serves.node.instances()),
        queue=queue,
        checks=checks,
        ended={(plugin, str(state)): count for (plugin, state), count in engine.tally.ended.items()},
        durations={plugin: each.copy() for plugin, each in engine.tally.durations.items()},
        submitted=engine.tally.submitted,
        ready=sum(each.ready for each in heads),
        oldest_wait_s=max((now - each.since for each in heads), default=0.0),
        requests=serves.traffic.counts(),
        answers=serves.traffic.durations(),
        config=config,
    )
