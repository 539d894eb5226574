"""What each figure has to reach, and how far a machine's own speed excuses it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """The limit of one figure.

    Attributes:
        limit: What it has to reach on a machine like the ones it was set on.
        ratio: What it has to reach of the yardstick's figure instead, where the machine is slower than those;
            None where the yardstick has no such figure.
        needs_both: True when the ratio is asked for as well, not instead.
        is_rate: True when more is better.
        unit: What people see.
        label: The same in words.
    """

    label: str
    unit: str
    limit: float | None = None
    ratio: float | None = None
    is_rate: bool = False
    needs_both: bool = False

    def met(self, figure: float, yardstick: float | None) -> bool | None:
        """Tell whether a figure is good enough; None when nothing was asked of it."""
        if self.limit is None:
            return None
        reaches = [figure >= self.limit if self.is_rate else figure <= self.limit]
        if self.ratio is not None and yardstick:
            part = figure / yardstick
            reaches.append(part >= self.ratio if self.is_rate else part <= self.ratio)
        return all(reaches) if self.needs_both else any(reaches)


RUNTIME: Mapping[str, Target] = {
    "call_async_p50_us": Target("call, async", "µs", 150, 2.5, needs_both=True),
    "call_p50_us": Target("call, blocking", "µs", 250, 4.7),
    "call_p99_us": Target("call, 99 of 100", "µs"),
    "calls_per_s_64": Target("64 calls open", "/s", 15_000, 0.387, is_rate=True),
    "stream_chunks_per_s": Target("stream chunks", "/s", 40_000, 0.465, is_rate=True),
    "to_worker_100mb_mb_s": Target("100 MB to worker", "MB/s", 5000, 0.463, is_rate=True),
    "from_worker_100mb_mb_s": Target("100 MB from worker", "MB/s", 5000, 0.463, is_rate=True),
    "cold_start_ms": Target("cold start", "ms", 60, 2.4),
    "zygote_start_ms": Target("zygote restart", "ms", 10),
    "cancel_ms": Target("cancel", "ms", 20),
    "force_cancel_ms": Target("force cancel", "ms", 250),
    "worker_rss_mb": Target("worker memory", "MB", 15, 1.25),
    "host_rss_mb": Target("host memory", "MB"),
    "host_kill_gone_s": Target("host killed, gone", "s", 2),
}

JOBS: Mapping[str, Target] = {
    "submit_per_s_64": Target("submissions, 64 waiting", "/s", 15_000, 0.2, is_rate=True),
    "jobs_per_s": Target("submit to completed", "/s", 3_000, 0.4, is_rate=True),
    "roundtrip_p50_ms": Target("one job, idle node", "ms", 5),
    "roundtrip_p99_ms": Target("one job, 99 of 100", "ms", 20),
    "claim_p99_ms_1m": Target("claim, a million wait", "ms", 10),
    "rss_1m_mb": Target("memory, a million wait", "MB", 300),
    "idle_rss_mb": Target("idle daemon", "MB", 90),
    "idle_cpu_percent": Target("idle daemon, of a core", "%", 1),
    "cancel_ms": Target("cancel to last event", "ms", 50),
    "event_p99_ms": Target("event to subscriber, 99 of 100", "ms", 50),
}

API: Mapping[str, Target] = {
    "submit_http_per_s": Target("submissions over HTTP, 64 waiting", "/s", 2_500, 0.1, is_rate=True),
    "list_p99_ms": Target("page out of a million jobs, 99 of 100", "ms", 20),
    "event_p99_ms": Target("event to a browser, 99 of 100", "ms", 100),
    "page_first_paint_ms": Target("page of a job, usable", "ms", 300),
    "sse_2k_rss_mb": Target("2,000 event streams, more memory", "MB", 200),
}

CENTRAL: Mapping[str, Target] = {
    "agents": Target("nodes that wait at one central", ""),
    "offer_all_s": Target("a new revision, offered to all", "s", 30),
    "central_rss_mb": Target("its memory, at most", "MB", 1000),
    "bad_rollout_share": Target("nodes of 200 that a bad revision reaches", "of all", 0.02),
    "join_s": Target("from a pasted line to a confirmed document", "s", 10),
}
