"""What the queue refuses, and why.

NodeError
|- NotFoundError    job.not_found
|- ConflictError    job.idempotency, job.state
|- UnavailableError job.queue_full, job.closed, job.wait_timeout
`- UsageError       job.request
"""

from __future__ import annotations

from typing import Any

from toft.kernel import errors

_FULL_RETRY_S = 1.0


class WaitTimeoutError(errors.UnavailableError):
    """The job had not ended in the time somebody wanted to wait; it goes on."""

    code = "job.wait_timeout"


def not_found(job_id: str) -> errors.NodeError:
    """Nobody knows this job, or it was forgotten."""
    return errors.NotFoundError(
        f"no job {job_id!r}; ended ones are forgotten after a while",
        code="job.not_found",
        details={"job": job_id},
        hint="toft job list shows what is there",
    )


def other_arguments(key: str, job_id: str) -> errors.NodeError:
    """The key was used for something else."""
    return errors.ConflictError(
        f"the idempotency key {key!r} belongs to {job_id}, which has another plugin or other arguments",
        code="job.idempotency",
        details={"idempotency_key": key, "job": job_id},
        hint=f"toft job show {job_id}, or use another key",
    )


def wrong_state(job_id: str, state: str, wanted: str, verb: str) -> errors.NodeError:
    """The job is in a state that does not allow this."""
    return errors.ConflictError(
        f"{job_id} is {state}; only a job that is {wanted} can be {verb}",
        code="job.state",
        details={"job": job_id, "state": state},
        hint=f"toft why {job_id}",
    )


def queue_full(pending: int, limit: int, asked: int) -> errors.NodeError:
    """The queue answers busy instead of growing without limit."""
    return errors.UnavailableError(
        f"the queue is full: {pending} of {limit} jobs are pending, {asked} more do not fit",
        code="job.queue_full",
        details={"pending": pending, "limit": limit, "asked": asked},
        hint="try again later, or raise the setting jobs_pending_limit",
        retry_after_s=_FULL_RETRY_S,
    )


def bad_request(field: str, problem: str, *, hint: str = "toft job submit --help") -> errors.NodeError:
    """A field of a request cannot be right."""
    return errors.UsageError(
        f"{field}: {problem}",
        code="job.request",
        details={"fields": {field: problem}},
        hint=hint,
    )


def closed() -> errors.NodeError:
    """The queue is not open."""
    return errors.UnavailableError(
        "the queue of jobs is not open", code="job.closed", hint="toft status says what the node does"
    )


def wait_timeout(job_id: str, timeout_s: float) -> errors.NodeError:
    """Waited long enough."""
    return WaitTimeoutError(
        f"{job_id} has not ended within {timeout_s:g} s; it goes on",
        details={"job": job_id, "timeout_s": timeout_s},
        hint=f"toft job wait {job_id}",
    )


def late(job_id: str) -> dict[str, Any]:
    """Return the error of a job whose deadline passed before it could start."""
    return errors.UnavailableError(
        f"{job_id} could not start before its deadline",
        code="job.deadline",
        details={"job": job_id},
        hint=f"toft why {job_id}",
    ).to_dict() | {"retry": "never", "category": "fatal"}


def interrupted(job_id: str) -> dict[str, Any]:
    """Return the error of a job that ran when the node ended."""
    return errors.UnavailableError(
        f"the node ended while {job_id} ran; whether it did its work is not known",
        code="job.interrupted",
        details={"job": job_id},
        hint=f"toft job retry {job_id} runs it again",
    ).to_dict() | {"retry": "never"}
