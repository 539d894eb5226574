"""Jobs as people and programs see them: what was just stored, what is there now, what one failed with."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

from toft.jobs import records
from toft.kernel import errors
from toft.plugins import plugin_errors, rendering, values
from toft.store.blobs import Blobs

_LARGE_BYTES = 64 * 1024
_FIELDS = tuple(field.name for field in dataclasses.fields(records.Job))
_values = operator.attrgetter(*_FIELDS)
_BLANK: Mapping[str, Any] = {
    **dict.fromkeys(("started_at", "finished_at", "progress", "message", "block_reason", "result", "error")),
    **{"seq": 0, "attempt": 0, "rank": 0, "usage": {}, "cancel_requested_at": None},
}


class Job(records.Job):
    """A job as people and programs see it: its result is shown as JSON."""

    __slots__ = ()

    def to_dict(self, render: Callable[[bytes], Any] | None = None) -> dict[str, Any]:
        """Return it as JSON."""
        return super().to_dict(render or _rendered)


def _rendered(data: bytes) -> Any:
    return rendering.to_json(values.unpack(data))


def stored(request: records.Request, answer: records.Submitted, now: float) -> Job:
    """Return a job that was stored a moment ago."""
    ready_at = now + request.delay_s if request.delay_s else request.ready_at
    return Job(
        **_BLANK,
        id=answer.job_id,
        plugin=request.plugin,
        instance=request.instance,
        action=request.action,
        kind=request.kind,
        state=answer.state,
        priority=request.priority,
        waiting=len(request.after),
        submitted_at=now,
        ready_at=ready_at,
        timeout_s=request.timeout_s,
        deadline_at=None if request.deadline_s is None else now + request.deadline_s,
        idempotent=request.idempotent,
        idempotency_key=request.idempotency_key,
        retry=request.policy,
        sequence=request.sequence,
        step=request.step,
    )


async def shown(job: records.Job, blobs: Blobs) -> Job:
    """Return a job with its result in it, unless that is large."""
    kept = job.result
    if type(job) is Job and (kept is None or kept.blob is None):
        return job
    fields = dict(zip(_FIELDS, _values(job), strict=True))
    if kept is not None and kept.blob is not None and kept.size_bytes <= _LARGE_BYTES:
        data = await blobs.load(kept.blob)
        fields["result"] = records.ResultRef(kept.size_bytes, data)
    return Job(**fields)


def raised(job: records.Job) -> Exception:
    """Return what a job failed with as an exception."""
    error = job.error
    if job.state is records.State.CANCELLED and error is None:
        return plugin_errors.CancelledError(f"job {job.id} was cancelled")
    if error is None:
        return errors.ConflictError(
            f"job {job.id} is {job.state}; it has no result yet",
            code="job.state",
            details={"job": job.id, "state": str(job.state)},
            hint=f"toft job wait {job.id}",
        )
    if "kind" in error:
        return plugin_errors.from_dict(error)
    raised = errors.NodeError(
        str(error.get("message", "")),
        code=error.get("code"),
        blame=error.get("blame"),
        details=error.get("details"),
        hint=str(error.get("hint") or ""),
        retry_after_s=error.get("retry_after_s"),
    )
    raised.category = str(error.get("category", raised.category))
    raised.retry = str(error.get("retry", raised.retry))
    return raised
