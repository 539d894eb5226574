"""The events of a job, folded, give its row: what `toft why` tells and what the table says cannot differ."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from toft.jobs.records import ENDED, ONCE, THRICE, Event, Job, ResultRef, RetryPolicy, State


def replay(events: Iterable[Event]) -> Job | None:
    """Return the job that these events tell of; None when there are none.

    The number `seq` is 0, and of a small result the size is known but not the bytes: events do not have them.
    """
    job: Job | None = None
    for event in events:
        if event.type == "submitted":
            job = _submitted(event)
        elif job is not None:
            fold = _FOLDS.get(event.type)
            if fold is not None:
                job = fold(job, event)
    return job


def _submitted(event: Event) -> Job:
    told = event.data
    is_idempotent = told.get("idempotent", False)
    retry = told.get("retry")
    return Job(
        seq=0,
        id=str(event.job),
        plugin=told["plugin"],
        instance=told["instance"],
        action=told.get("action", "execute"),
        kind=told.get("kind", "call"),
        state=State.PENDING,
        attempt=0,
        priority=told.get("priority", 0),
        rank=told["rank"],
        waiting=told.get("waiting", 0),
        submitted_at=event.at,
        ready_at=told.get("ready_at"),
        started_at=None,
        finished_at=None,
        timeout_s=told.get("timeout_s"),
        deadline_at=told.get("deadline_at"),
        idempotent=is_idempotent,
        idempotency_key=told.get("idempotency_key"),
        retry=RetryPolicy.from_dict(retry) if retry else THRICE if is_idempotent else ONCE,
        progress=None,
        message=None,
        block_reason=None,
        result=None,
        error=None,
        usage={},
        sequence=event.sequence,
        step=told.get("step"),
        cancel_requested_at=None,
    )


def _moved(job: Job, event: Event) -> Job:
    told = event.data
    before, after = State(told["from"]), State(told["to"])
    if job.state is not before:
        raise ValueError(f"{job.id}: event {event.cursor} leaves {before}, but the job is {job.state}")
    if after is State.RUNNING:
        return replace(
            job,
            state=after,
            attempt=event.attempt,
            started_at=event.at,
            progress=None,
            message=None,
            block_reason=None,
        )
    if after is State.PENDING:
        return replace(
            job,
            state=after,
            rank=told["rank"],
            waiting=told.get("waiting", job.waiting),
            ready_at=told.get("ready_at"),
            deadline_at=told.get("deadline_at"),
            started_at=None,
            finished_at=None,
            error=told.get("error"),
            cancel_requested_at=None,
            progress=None,
            message=None,
            block_reason=None,
        )
    assert after in ENDED
    return replace(
        job,
        state=after,
        finished_at=event.at,
        error=told.get("error"),
        result=_result(told.get("result")),
        usage=told.get("usage", {}) if before is State.RUNNING else job.usage,
        waiting=0,
        block_reason=None,
    )


def _result(told: Mapping[str, Any] | None) -> ResultRef | None:
    return None if told is None else ResultRef(told["size_bytes"], None, told["blob"])


def _progressed(job: Job, event: Event) -> Job:
    told = event.data
    progress, message = told.get("progress"), told.get("message")
    return replace(
        job,
        progress=job.progress if progress is None else progress,
        message=job.message if message is None else message,
    )


def _unblocked(job: Job, event: Event) -> Job:
    return replace(job, waiting=event.data.get("waiting", job.waiting), block_reason=None)


def _cancelling(job: Job, event: Event) -> Job:
    is_first = event.data.get("phase") == "requested" and job.cancel_requested_at is None
    return replace(job, cancel_requested_at=event.at) if is_first and job.state is State.RUNNING else job


_FOLDS: Mapping[str, Callable[[Job, Event], Job]] = {
    "state": _moved,
    "progress": _progressed,
    "blocked": lambda job, event: replace(job, block_reason=event.data.get("reason")),
    "unblocked": _unblocked,
    "cancel": _cancelling,
    # A fan-out waits for its parts, which are jobs of their own.
    "expanded": lambda job, event: replace(job, waiting=event.data["parts"]),
    "reordered": lambda job, event: replace(job, priority=event.data["priority"], rank=event.data["rank"]),
}
