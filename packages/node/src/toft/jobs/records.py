"""What a job is: its states, the one table of transitions, and the records that go in and out of the queue.

The same table stands as a trigger in `migrations/0001_pre_jobs.sql`; a test compares the two.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from toft.kernel import clock as clocks
from toft.kernel.record import record

INLINE_BYTES = 16 * 1024
"""Arguments and results up to this size stand in the job's row, larger ones in a blob."""

AGEING_S = 60.0
"""One step of priority is worth this many seconds of waiting."""


class State(StrEnum):
    """Where a job is."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


TRANSITIONS: frozenset[tuple[State, State]] = frozenset(
    {
        (State.PENDING, State.RUNNING),  # claimed
        (State.PENDING, State.CANCELLED),  # by somebody, or because what it waited for did not complete
        (State.PENDING, State.FAILED),  # its deadline passed, or it can never fit
        (State.PENDING, State.COMPLETED),  # a fan-out whose parts are done; it has no attempt of its own
        (State.RUNNING, State.COMPLETED),
        (State.RUNNING, State.FAILED),
        (State.RUNNING, State.CANCELLED),
        (State.RUNNING, State.INTERRUPTED),  # the node ended under it
        (State.RUNNING, State.PENDING),  # retried by its policy
        (State.INTERRUPTED, State.PENDING),  # asked for, or declared idempotent
        (State.FAILED, State.PENDING),  # asked for
    }
)
ENDED = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.INTERRUPTED})
FINISHED = ENDED - {State.INTERRUPTED}
KINDS = ("call", "map")
NEEDS = ("completed", "ended")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When an attempt that failed is followed by another one unasked.

    Attributes:
        max_attempts: Attempts in all, the first included.
        on: Categories of errors after which another attempt may help.
        first_s: Pause before the second attempt.
        factor: What each further pause is multiplied by.
        most_s: The longest pause.
        jitter: Share of the pause, 0 to 1, that is random.
    """

    max_attempts: int = 1
    on: tuple[str, ...] = ("transient", "resource")
    first_s: float = 1.0
    factor: float = 2.0
    most_s: float = 300.0
    jitter: float = 0.2

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return dataclasses.asdict(self) | {"on": list(self.on)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> RetryPolicy:
        """Read it from JSON."""
        return cls(**{**values, **({"on": tuple(values["on"])} if "on" in values else {})})


ONCE = RetryPolicy()
THRICE = RetryPolicy(max_attempts=3)


@record(kw_only=True)
class Request:
    """A job to submit.

    Attributes:
        arguments: Packed; opaque here.
        priority: Higher goes first; one step is worth `AGEING_S` seconds of waiting.
        ready_at: Not before this moment of the wall clock.
        delay_s: Not before so many seconds have passed.
        timeout_s: How long one attempt may take.
        deadline_s: Seconds from submission after which it is too late to start or go on.
        idempotent: Running it twice does no harm.
        idempotency_key: The same key and the same arguments are the same job.
        arguments_hash: What tells arguments from others beside the key; None takes the bytes as they are.
        retry: None is once, or three times when idempotent.
        after: Jobs that come first.
        needs: What `after` must have done: `completed`, or `ended` in whatever way.
        after_ended: Jobs that come first and must only have ended.
        id: Chosen beforehand with `JobQueue.new_id`, so that jobs submitted together can name each other.
        traceparent: The trace it belongs to; by default that of whoever submits it.
        by: What asks for it, when that is not somebody who submits it.
        due_at: When that wanted it.
    """

    plugin: str
    instance: str
    action: str = "execute"
    arguments: bytes = b""
    priority: int = 0
    ready_at: float | None = None
    delay_s: float | None = None
    timeout_s: float | None = None
    deadline_s: float | None = None
    idempotent: bool = False
    idempotency_key: str | None = None
    arguments_hash: str | None = None
    retry: RetryPolicy | None = None
    after: tuple[str, ...] = ()
    needs: str = "completed"
    after_ended: tuple[str, ...] = ()
    sequence: str | None = None
    step: str | None = None
    kind: str = "call"
    id: str | None = None
    traceparent: str | None = None
    by: str | None = None
    due_at: float | None = None

    @property
    def policy(self) -> RetryPolicy:
        """What holds when nothing was said about retries."""
        return self.retry or (THRICE if self.idempotent else ONCE)


@record()
class Submitted:
    """The answer to a submission; `is_new` is False when the key named a job that was there."""

    job_id: str
    state: State
    is_new: bool = True


@record()
class ResultRef:
    """A result: its bytes, or the blob that has them."""

    size_bytes: int
    data: bytes | None = None
    blob: str | None = None


@record()
class Head:
    """The next job of an instance.

    Attributes:
        rank: Smaller goes first.
        seq: Decides between equal ranks.
        ready: How many jobs of the instance could be claimed now.
        since: When this one was submitted, on the monotonic clock of this process.
        id: The job.
        attempt: Its attempts so far.
    """

    rank: int
    seq: int
    ready: int
    since: float
    id: str
    attempt: int


@record()
class Claimed:
    """A job that is now running, with all that is needed to run it.

    Attributes:
        tries: Which attempt this is since it was submitted or somebody asked for a retry; for the policy.
        remaining_s: Seconds until its deadline.
        arguments_blob: The blob that holds the arguments when they are large; `arguments` is empty then.
    """

    seq: int
    id: str
    attempt: int
    plugin: str
    instance: str
    action: str
    arguments: bytes
    arguments_blob: str | None
    timeout_s: float | None
    remaining_s: float | None
    retry: RetryPolicy
    idempotent: bool
    sequence: str | None
    step: str | None
    kind: str
    tries: int
    priority: int


@record(kw_only=True)
class Outcome:
    """How an attempt ended.

    Attributes:
        state: `completed`, `failed`, `cancelled`, `interrupted`, or `pending` for another attempt.
        result: Packed, when completed; large ones are put into a blob.
        error: As `NodeError.to_dict` gives it.
        usage: What it used.
        because: Why it ended so, for people and scripts.
        retry_in_s: Pause before the next attempt, when `pending`.
    """

    state: State
    result: bytes | ResultRef | None = None
    error: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    because: str = ""
    retry_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One numbered epoch of a job."""

    attempt: int
    state: State
    started_at: float
    finished_at: float | None
    because: str | None
    error: Mapping[str, Any] | None
    usage: Mapping[str, Any]
    lane: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "attempt": self.attempt,
            "state": str(self.state),
            "started_at": _time(self.started_at),
            "finished_at": _time(self.finished_at),
            "because": self.because,
            "error": self.error,
            "usage": dict(self.usage),
            "lane": dict(self.lane),
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Attempt:
        """Read it from JSON."""
        ended = told["finished_at"]
        return cls(
            **{
                **told,
                "state": State(told["state"]),
                "started_at": clocks.from_rfc3339(told["started_at"]),
                "finished_at": None if ended is None else clocks.from_rfc3339(ended),
            }
        )


@record()
class Event:
    """Something that happened; `cursor` grows and is never used twice."""

    cursor: int
    at: float
    type: str
    job: str | None
    attempt: int
    sequence: str | None
    data: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "cursor": self.cursor,
            "at": clocks.rfc3339(self.at),
            "type": self.type,
            "job": self.job,
            "attempt": self.attempt,
            "sequence": self.sequence,
            **self.data,
        }

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Event:
        """Read it from JSON."""
        data = dict(told)
        return cls(
            cursor=data.pop("cursor"),
            at=clocks.from_rfc3339(data.pop("at")),
            type=data.pop("type"),
            job=data.pop("job"),
            attempt=data.pop("attempt"),
            sequence=data.pop("sequence"),
            data=data,
        )


@record(kw_only=True)
class Job:
    """A job as it is now."""

    seq: int
    id: str
    plugin: str
    instance: str
    action: str
    kind: str
    state: State
    attempt: int
    priority: int
    rank: int
    waiting: int
    submitted_at: float
    ready_at: float | None
    started_at: float | None
    finished_at: float | None
    timeout_s: float | None
    deadline_at: float | None
    idempotent: bool
    idempotency_key: str | None
    retry: RetryPolicy
    progress: float | None
    message: str | None
    block_reason: Mapping[str, Any] | None
    result: ResultRef | None
    error: Mapping[str, Any] | None
    usage: Mapping[str, Any]
    sequence: str | None
    step: str | None
    cancel_requested_at: float | None

    def to_dict(self, render: Callable[[bytes], Any] | None = None) -> dict[str, Any]:
        """Return it as JSON.

        Args:
            render: Turns the packed result into JSON values; without it a small result is left out.
        """
        return {
            "id": self.id,
            "plugin": self.plugin,
            "instance": self.instance,
            "action": self.action,
            "state": str(self.state),
            "attempt": self.attempt,
            "priority": self.priority,
            "submitted_at": _time(self.submitted_at),
            "ready_at": _time(self.ready_at),
            "started_at": _time(self.started_at),
            "finished_at": _time(self.finished_at),
            "timeout_s": self.timeout_s,
            "deadline_at": _time(self.deadline_at),
            "progress": self.progress,
            "message": self.message,
            "block_reason": self.block_reason,
            "result": self._shown_result(render),
            "error": self.error,
            "usage": dict(self.usage),
            "sequence": self.sequence,
            "step": self.step,
            "idempotency_key": self.idempotency_key,
        }

    def _shown_result(self, render: Callable[[bytes], Any] | None) -> Any:
        if self.result is None:
            return None
        if self.result.blob is not None:
            return {"blob": self.result.blob, "size_bytes": self.result.size_bytes}
        if render is None or self.result.data is None:
            return None
        return render(self.result.data)


@dataclass(frozen=True, slots=True)
class Recovered:
    """What opening the queue found: jobs that were running when the last process ended."""

    interrupted: tuple[str, ...] = ()
    resumed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much the queue holds.

    Attributes:
        pending: Jobs that may be pending; one more is answered `busy`.
        keep_s: Seconds an ended job is remembered.
        keep_count: Ended jobs that are remembered.
        notes_per_s: Progress reports of one job that are stored each second; others wait for a thirtieth of a
            second at most, so that who watches is not told late.
    """

    pending: int = 2_000_000
    keep_s: float = 30 * 86_400.0
    keep_count: int = 100_000
    notes_per_s: float = 33.0


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else clocks.rfc3339(seconds)
