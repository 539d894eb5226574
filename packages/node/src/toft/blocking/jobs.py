"""Durable jobs, for programs that do not use asyncio: submit, look, wait, cancel, ask why."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from toft.blocking.sequences import SequenceVerbs
from toft.blocking.watching import Watch


class Jobs(SequenceVerbs):
    """The jobs of a node; see `toft.dispatch.jobs.Jobs` for what each method promises."""

    def submit(
        self,
        plugin: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        action: str | None = None,
        instance: str | None = None,
        priority: int = 0,
        delay_s: float | None = None,
        start_at: float | datetime.datetime | None = None,
        timeout_s: float | None = None,
        deadline_s: float | None = None,
        idempotent: bool = False,
        idempotency_key: str | None = None,
        retry: Any = None,
        after: Sequence[str] = (),
    ) -> Job:
        """Store a job; when this returns it is on disk."""
        submitting = self._jobs.submit(
            plugin,
            arguments,
            action=action,
            instance=instance,
            priority=priority,
            delay_s=delay_s,
            start_at=start_at,
            timeout_s=timeout_s,
            deadline_s=deadline_s,
            idempotent=idempotent,
            idempotency_key=idempotency_key,
            retry=retry,
            after=tuple(after),
        )
        return self._handle(self._thread.run(submitting))

    def submit_many(self, requests: Sequence[Any]) -> list[Job]:
        """Store several jobs at once: all of them, or none."""
        return [self._handle(each) for each in self._thread.run(self._jobs.submit_many(requests))]

    def get(self, id: str) -> Job:
        """Return a job as it is now."""
        return self._handle(self._thread.run(self._jobs.get(id)))

    def list(
        self,
        *,
        state: str | Sequence[str] | None = None,
        plugin: str | None = None,
        instance: str | None = None,
        sequence: str | None = None,
        since: float | datetime.datetime | None = None,
        until: float | datetime.datetime | None = None,
        error: str | None = None,
        plugins: Collection[str] | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Job]:
        """Return jobs, the newest first, at most 1000; `before` is the last one of the page before."""
        listing = self._jobs.list(
            state=state,
            plugin=plugin,
            instance=instance,
            sequence=sequence,
            since=since,
            until=until,
            error=error,
            plugins=plugins,
            limit=limit,
            before=before,
        )
        return [self._handle(each) for each in self._thread.run(listing)]

    def wait(self, id: str, timeout_s: float | None = None) -> Job:
        """Wait until a job has ended and return it; Ctrl-C ends the waiting, not the job."""
        return self._handle(self._thread.run(self._jobs.wait(id, timeout_s)))

    def result(self, id: str) -> Any:
        """Return what a job returned, or raise what it failed with."""
        return self._thread.run(self._jobs.result(id))

    def cancel(self, id: str, *, grace_s: float | None = None) -> Job:
        """Ask a job to end; one that waits ends at once."""
        return self._handle(self._thread.run(self._jobs.cancel(id, grace_s=grace_s)))

    def retry(self, id: str) -> Job:
        """Queue a failed or interrupted job again."""
        return self._handle(self._thread.run(self._jobs.retry(id)))

    def reorder(
        self,
        id: str,
        *,
        priority: int | None = None,
        before: str | None = None,
        first: bool = False,
        last: bool = False,
    ) -> Job:
        """Move a job that waits."""
        moving = self._jobs.reorder(id, priority=priority, before=before, first=first, last=last)
        return self._handle(self._thread.run(moving))

    def watch(
        self,
        *,
        job: str | None = None,
        sequence: str | None = None,
        after: int | None = None,
        capacity: int = 1000,
    ) -> Watch:
        """Return events as they come: what was stored after the cursor first, then what happens."""
        source = self._jobs.watch(job=job, sequence=sequence, after=after, capacity=capacity)
        return Watch(self._thread, source)

    def events(
        self, *, after: int = 0, job: str | None = None, sequence: str | None = None, limit: int = 1000
    ) -> Sequence[Any]:
        """Return stored events after a cursor, the oldest first."""
        finding = self._jobs.events(after=after, job=job, sequence=sequence, limit=limit)
        found: Sequence[Any] = self._thread.run(finding)
        return found

    def logs(self, id: str, count: int = 200) -> Sequence[str]:
        """Return the last lines that a job printed."""
        lines: Sequence[str] = self._thread.run(self._jobs.logs(id, count))
        return lines

    def why(self, id: str) -> Sequence[dict[str, Any]]:
        """Return the story of a job or a sequence: what happened, because of what, with evidence."""
        story: Sequence[dict[str, Any]] = self._thread.run(self._jobs.why(id))
        return story

    def samples(
        self,
        since: float | datetime.datetime | None = None,
        until: float | datetime.datetime | None = None,
        *,
        step_s: float | None = None,
        job: str | None = None,
    ) -> dict[str, Any]:
        """Return how the machine and the lanes were while something ran, as columns for a plot."""
        found: dict[str, Any] = self._thread.run(self._jobs.samples(since, until, step_s=step_s, job=job))
        return found

    def attempts(self, id: str) -> Sequence[Any]:
        """Return the attempts of a job, the first one first."""
        made: Sequence[Any] = self._thread.run(self._jobs.attempts(id))
        return made

    def status(self) -> dict[str, Any]:
        """Return lanes, queue, memory and GPUs as they are now."""
        now: dict[str, Any] = self._thread.run(self._jobs.status())
        return now

    def _handle(self, record: Any) -> Job:
        return Job(self, record)


class Job:
    """One job: what is known of it, and what can be asked of it.

    Attributes:
        id: Its name.
        record: Everything that was known of it when it was looked at; `refresh` looks again.
    """

    def __init__(self, jobs: Jobs, record: Any) -> None:
        self.id: str = record.id
        self.record = record
        self._jobs = jobs

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.state}>"

    @property
    def state(self) -> str:
        """Return its state when it was looked at."""
        return str(self.record.state)

    @property
    def has_ended(self) -> bool:
        """Say whether it had ended when it was looked at."""
        return self.state not in ("pending", "running")

    def to_dict(self) -> dict[str, Any]:
        """Return everything that was known of it, as scripts get it."""
        told: dict[str, Any] = self.record.to_dict()
        return told

    def refresh(self) -> Job:
        """Look again."""
        return self._take(self._jobs.get(self.id))

    def wait(self, timeout_s: float | None = None) -> Job:
        """Wait until it has ended; Ctrl-C ends the waiting, not the job."""
        return self._take(self._jobs.wait(self.id, timeout_s))

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for its result, or raise what it failed with."""
        self.wait(timeout_s)
        return self._jobs.result(self.id)

    def cancel(self, *, grace_s: float | None = None) -> Job:
        """Ask it to end."""
        return self._take(self._jobs.cancel(self.id, grace_s=grace_s))

    def retry(self) -> Job:
        """Queue it again after a failure or an interruption."""
        return self._take(self._jobs.retry(self.id))

    def events(self, **wanted: Any) -> Sequence[Any]:
        """Return what happened to it, oldest first."""
        return self._jobs.events(job=self.id, **wanted)

    def watch(self, after: int | None = None) -> Watch:
        """Return its events as they come."""
        return self._jobs.watch(job=self.id, after=after)

    def logs(self, count: int = 200) -> Sequence[str]:
        """Return the last lines it printed."""
        return self._jobs.logs(self.id, count)

    def why(self) -> Sequence[dict[str, Any]]:
        """Return its story."""
        return self._jobs.why(self.id)

    def _take(self, seen: Job) -> Job:
        self.record = seen.record
        return self
