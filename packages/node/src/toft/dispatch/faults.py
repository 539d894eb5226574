"""The errors jobs end with that no plugin and no worker raised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toft.kernel import errors


def stopped(job_id: str) -> dict[str, Any]:
    """Return the error of a job the node was stopped under."""
    return errors.UnavailableError(
        f"the node was stopped while job {job_id} ran",
        code="job.interrupted",
        hint=f"toft job retry {job_id}, when it may be run again",
    ).to_dict()


def cancelled(job_id: str) -> dict[str, Any]:
    """Return the error of a job that was cancelled before its plugin heard of it."""
    error = errors.RefusedError(f"job {job_id} was cancelled", code="call.cancelled").to_dict()
    return {**error, "category": "cancelled"}


def deadline(job_id: str) -> dict[str, Any]:
    """Return the error of a job that was still running at its deadline."""
    return errors.UnavailableError(
        f"job {job_id} did not end before its deadline",
        code="job.deadline",
        blame="caller",
        hint="submit it again with a later deadline",
    ).to_dict()


def refused(code: str, job_id: str, instance: str, details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the error of a job that memory does not suffice for, with the evidence."""
    size, name = details["needed_bytes"], details["resource"]
    evidence = {"instance": instance, **details}
    if code == "job.never_fits":
        error = errors.RefusedError(
            f"job {job_id} needs {size} bytes of {name}; this machine never has that much",
            code="job.never_fits",
            blame="environment",
            details=evidence,
            hint="run it on a larger machine, or configure the plugin to need less",
        )
    else:
        error = errors.RefusedError(
            f"job {job_id} needs {size} bytes of {name}, and they did not become free in time",
            code="job.no_room",
            blame="environment",
            details=evidence,
            hint="end what holds the memory, or choose the scheduling policy `measure`",
        )
    return {**error.to_dict(), "category": "resource"}
