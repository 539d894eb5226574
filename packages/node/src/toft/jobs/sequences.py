"""Jobs that belong together: their record, kept in step with every change of one of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toft.jobs.graphs import Graph
from toft.jobs.records import FINISHED, State
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.store import database

QUERIES = database.read_queries("toft.jobs", "sequences.sql")
COUNTS = ("pending", "running", "completed", "failed", "cancelled", "skipped", "interrupted")
SKIPPED = "job.skipped"
MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSequence:
    """Jobs that were submitted together, as they are now.

    Attributes:
        number: Grows with each sequence.
        counts: How many of its jobs are where; of a step that ran again only the newest counts. `skipped` are
            those that were not run because another one did not complete.
        steps: As they were submitted: id, plugin, action, needs, whether it is a fan-out.
        error: Which step decided that it failed or was cancelled.
    """

    number: int
    id: str
    name: str
    mode: str
    priority: int
    state: State
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    cancel_requested_at: float | None
    error: Mapping[str, Any] | None
    steps: Sequence[Mapping[str, Any]]
    counts: Mapping[str, int]

    @property
    def plugins(self) -> frozenset[str]:
        """Return the plugins of its steps."""
        return frozenset(str(step["plugin"]) for step in self.steps)

    @property
    def is_finished(self) -> bool:
        """Say whether nothing of it will happen unasked any more."""
        return self.state in FINISHED

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "id": self.id,
            "name": self.name,
            "mode": self.mode,
            "priority": self.priority,
            "state": str(self.state),
            "submitted_at": _time(self.submitted_at),
            "started_at": _time(self.started_at),
            "finished_at": _time(self.finished_at),
            "cancel_requested_at": _time(self.cancel_requested_at),
            "error": self.error,
            "counts": dict(self.counts),
            "steps": [dict(step) for step in self.steps],
        }


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else clocks.rfc3339(seconds)


def from_row(row: Any) -> JobSequence:
    """Return the sequence of a row."""
    return JobSequence(
        number=row["number"],
        id=row["id"],
        name=row["name"],
        mode=row["mode"],
        priority=row["priority"],
        state=State(row["state"]),
        submitted_at=row["submitted_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        cancel_requested_at=row["cancel_requested_at"],
        error=json.loads(row["error"]) if row["error"] else None,
        steps=json.loads(row["steps"]),
        counts={name: row[f"jobs_{name}"] for name in COUNTS},
    )


def described(graph: Graph) -> list[dict[str, Any]]:
    """Return the steps of a graph as a sequence remembers them."""
    return [
        {
            "id": step.id,
            "plugin": step.plugin,
            "action": step.action or "execute",
            "needs": dict(graph.needs[step.id]),
            "for_each": step.is_fan_out,
        }
        for step in graph.steps
    ]


def ask(connection: database.Connection, query: str, values: Any = ()) -> list[dict[str, Any]]:
    """Run a statement of `sequences.sql` and return its rows by the names of their columns."""
    cursor = connection.execute(QUERIES[query], values)
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def find(connection: database.Connection, sequence_id: str) -> dict[str, Any] | None:
    """Return the row of a sequence, or None."""
    found = ask(connection, "find_sequence", (sequence_id,))
    return found[0] if found else None


def not_found(sequence_id: str) -> errors.NodeError:
    """Nobody knows this sequence, or it was forgotten."""
    return errors.NotFoundError(
        f"no sequence {sequence_id[:80]!r}; finished ones are forgotten after a while",
        code="sequence.not_found",
        details={"sequence": sequence_id[:80]},
        hint="toft sequence list shows what is there",
    )


@dataclass(frozen=True, slots=True)
class Given:
    """What a step gave.

    Attributes:
        job: The job.
        state: Of the job.
        data: The packed result, when it is small.
        blob: The blob that has it, when it is large.
    """

    job: str
    state: State
    data: bytes | None
    blob: str | None


class Reading:
    """Questions about sequences that the database answers."""

    def __init__(self, store: database.Store) -> None:
        self._store = store

    async def find(self, sequence_id: str) -> JobSequence | None:
        """Return a sequence or None."""
        row = await self._one("find_sequence", sequence_id)
        return None if row is None else from_row(row)

    async def get(self, sequence_id: str) -> JobSequence:
        """Return a sequence.

        Raises:
            NotFoundError: There is none.
        """
        found = await self.find(sequence_id)
        if found is None:
            raise not_found(sequence_id)
        return found

    async def recent(
        self,
        *,
        state: str | None = None,
        limit: int = 100,
        before: int | None = None,
        plugins: Collection[str] | None = None,
    ) -> Sequence[JobSequence]:
        """Return sequences, the newest first; when plugins are given those whose steps are all of them."""
        values = {
            "state": state,
            "limit": max(0, min(limit, MOST)),
            "before": before,
            "plugins": None if plugins is None else json.dumps(sorted(plugins)),
        }
        return [from_row(row) for row in await self._all("list_sequences", values)]

    async def members(self, sequence_id: str) -> Sequence[Mapping[str, Any]]:
        """Return the newest job of each step: id, step, kind, state, attempt."""
        return await self._all("newest_members", (sequence_id,))

    async def idle_fan_outs(self) -> list[str]:
        """Return the fan-outs that wait for nothing but somebody to look at them."""
        return [row["id"] for row in await self._all("idle_fan_outs", ())]

    async def given(self, sequence_id: str, step: str) -> Given | None:
        """Return what a step gave; None when it has no job."""
        row = await self._one("find_result", sequence_id, step)
        if row is None:
            return None
        return Given(row["id"], State(row["state"]), row["result"], row["result_blob"])

    async def arguments(self, job_id: str) -> tuple[bytes | None, str | None]:
        """Return the packed arguments of a job, or the blob that has them."""
        row = await self._one("find_arguments", job_id)
        return (None, None) if row is None else (row["arguments"], row["arguments_blob"])

    async def _one(self, query: str, *values: Any) -> Any:
        found = await self._all(query, values)
        return found[0] if found else None

    async def _all(self, query: str, values: Any) -> Sequence[dict[str, Any]]:
        return await self._store.read(lambda connection: ask(connection, query, values))
