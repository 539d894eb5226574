"""A job at a glance, for every face alike: what it runs, how long it took, what to know of it now."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from toft.jobs import reasons
from toft.kernel.quantities import duration
from toft.kernel.visible import one_line


def called(job: Mapping[str, Any]) -> str:
    """Return what a job runs, as it was named."""
    action = job.get("action")
    return str(job["plugin"]) if action in (None, "execute") else f"{job['plugin']}.{action}"


def note(job: Mapping[str, Any]) -> str:
    """Return the one thing to know of a job in its state."""
    if job["state"] == "pending":
        return one_line(reasons.sentence(job["block_reason"])) if job.get("block_reason") else ""
    if job["state"] == "running":
        share = f"{job['progress']:.0%} " if isinstance(job.get("progress"), (int, float)) else ""
        return one_line(f"{share}{job.get('message') or ''}".strip(), 60)
    if job.get("error"):
        return one_line(str(job["error"].get("message", "")), 100)
    return took(job)


def took(job: Mapping[str, Any]) -> str:
    """Return how long its last attempt ran."""
    if not job.get("started_at") or not job.get("finished_at"):
        return ""
    ran = datetime.fromisoformat(job["finished_at"]) - datetime.fromisoformat(job["started_at"])
    return duration(max(ran.total_seconds(), 0.0))
