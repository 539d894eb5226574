"""Questions about jobs that the database answers, on the thread that reads.

Questions for single jobs that are asked at the same time share one statement.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from toft.jobs import listing, rows
from toft.jobs.records import Attempt, Event, Job
from toft.jobs.transaction import QUERIES
from toft.store import database

MOST = 1000
_Finding = asyncio.Task[dict[str, Job]]


class Reading:
    """Reads of the queue's tables."""

    def __init__(self, store: database.Store, job_type: type[Job] = Job) -> None:
        self._store = store
        self._job_type = job_type
        self._gathering: tuple[dict[str, None], _Finding] | None = None
        self._asked: _Finding | None = None

    async def find(self, job_id: str) -> Job | None:
        """Return a job or None."""
        if self._gathering is None:
            wanted: dict[str, None] = {}
            finding = asyncio.get_running_loop().create_task(self._find(wanted, self._asked))
            finding.add_done_callback(self._found)
            self._gathering, self._asked = (wanted, finding), finding
        wanted, finding = self._gathering
        wanted[job_id] = None
        # Whoever goes away leaves the others their answer.
        return (await asyncio.shield(finding)).get(job_id)

    async def list(self, wanted: listing.Wanted) -> list[Job]:
        """Return jobs that fit, the newest first."""
        return await self._store.read(functools.partial(listing.read, wanted=wanted, kind=self._job_type))

    async def attempts(self, job_id: str) -> Sequence[Attempt]:
        """Return the attempts of a job."""
        found = await self._store.read(lambda connection: _all(connection, "list_attempts", {"id": job_id}))
        return [rows.attempt(row) for row in found]

    async def snapshots(self, job_id: str, limit: int) -> Sequence[tuple[float, Mapping[str, Any]]]:
        """Return when a job was measured and what was found, the oldest first; of very many the last ones."""
        found = await self._store.read(lambda connection: _all(connection, "list_snapshots", (job_id, limit)))
        return [(at, json.loads(data)) for at, data in reversed(found)]

    async def events(
        self,
        after: int,
        *,
        job: str | None,
        sequence: str | None,
        limit: int,
        plugins: Collection[str] | None = None,
    ) -> Sequence[Event]:
        """Return stored events after a cursor; only of jobs of these plugins, when they are given."""
        values = {
            "after": after,
            "limit": max(0, min(limit, MOST)),
            "job": job,
            "sequence": sequence,
            "plugins": None if plugins is None else rows.encode(sorted(plugins)),
        }
        query = "list_events"
        if job is not None:
            query = "list_job_events"
        elif sequence is not None:
            query = "list_sequence_events"
        found = await self._store.read(lambda connection: _all(connection, query, values))
        return [rows.event(row) for row in found]

    async def _find(self, wanted: dict[str, None], before: _Finding | None) -> dict[str, Job]:
        """Return jobs by their names; one question at a time, with all that is wanted by when it is asked."""
        if before is not None:
            await asyncio.wait([before])
        self._gathering = None
        values = (rows.encode(list(wanted)),)
        found = await self._store.read(functools.partial(_all, query="find_jobs", values=values))
        return {row[1]: rows.job(row, self._job_type) for row in found}

    def _found(self, finding: _Finding) -> None:
        if self._asked is finding:
            self._asked = None  # and with it the jobs that were found


def _all(connection: database.Connection, query: str, values: Sequence[Any] | Mapping[str, Any]) -> list[Any]:
    return connection.execute(QUERIES[query], values).fetchall()
