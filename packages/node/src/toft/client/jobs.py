"""Durable jobs of a home that a daemon has, with the words of `toft.dispatch.jobs.Jobs`."""

from __future__ import annotations

import datetime
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from toft.client import connection as connections
from toft.client import streams
from toft.client.sequences import RemoteSequences, Told
from toft.jobs.records import Attempt, Event, RetryPolicy


class RemoteJobs(RemoteSequences):
    """The jobs of the daemon's node.

    Args:
        asked: The session with the daemon.
    """

    # Submitting

    async def submit(self, plugin: str, arguments: Mapping[str, Any] | None = None, **options: Any) -> Told:
        """Store a job; when this returns it is on disk."""
        return Told(await self._asked.ask("POST", "/v1/jobs", await self._wish(plugin, arguments, options)))

    async def submit_many(self, requests: Sequence[Mapping[str, Any]]) -> list[Told]:
        """Store several jobs at once, all or none."""
        wishes = []
        for each in requests:
            given = dict(each)
            wishes.append(await self._wish(str(given.pop("plugin")), given.pop("arguments", None), given))
        return [Told(each) for each in await self._asked.ask("POST", "/v1/jobs/batch", {"jobs": wishes})]

    async def _wish(
        self, plugin: str, arguments: Mapping[str, Any] | None, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        wish = {name: value for name, value in options.items() if value is not None}
        wish["plugin"] = plugin
        if arguments:
            schema = await self._asked.signature(plugin, wish.get("action"))
            wish["arguments"] = self._asked.origin.arguments(schema, arguments)
        start_at, retry = wish.get("start_at"), wish.get("retry")
        if isinstance(start_at, datetime.datetime):
            wish["start_at"] = start_at.timestamp()
        if isinstance(retry, RetryPolicy):
            wish["retry"] = retry.to_dict()
        elif isinstance(retry, Mapping):
            wish["retry"] = dict(retry)
        if "after" in wish:
            wish["after"] = list(wish["after"])
        return wish

    # Looking

    async def get(self, id: str) -> Told:
        """Return a job as it is now."""
        return Told(await self._ask("GET", id))

    async def list(self, *, before: str | None = None, **wanted: Any) -> Sequence[Told]:
        """Return jobs, the newest first, at most 1000; takes what `toft.dispatch.jobs.Jobs.list` takes."""
        wanted |= {name: _moment(wanted.get(name)) for name in ("since", "until")}
        plugins = wanted.pop("plugins", None)
        if plugins is not None:
            plugin = wanted.get("plugin")
            wanted["plugin"] = sorted(each for each in plugins if plugin in (None, each))
            if not wanted["plugin"]:
                return []
        query = {**wanted, "before": before}
        return [Told(each) for each in await self._asked.ask("GET", "/v1/jobs", query=query)]

    async def wait(self, id: str, timeout_s: float | None = None) -> Told:
        """Return a job once it has ended."""
        return Told(await self._waited(connections.path("jobs", id, "wait"), timeout_s))

    async def result(self, id: str) -> Any:
        """Return what a job returned, with its exact types, or raise what it failed with.

        From another machine it goes on where the connection broke, and is checked against its digest.
        """
        return await self._asked.fetch(connections.path("jobs", id, "result"))

    async def attempts(self, id: str) -> Sequence[Attempt]:
        """Return the attempts of a job, the first one first."""
        return [Attempt.from_dict(each) for each in await self._ask("GET", id, "attempts")]

    async def events(
        self, *, after: int = 0, job: str | None = None, sequence: str | None = None, limit: int = 1000
    ) -> Sequence[Event]:
        """Return stored events after a cursor, the oldest first."""
        query = {"after": after, "job": job, "sequence": sequence, "limit": limit}
        return [Event.from_dict(each) for each in await self._asked.ask("GET", "/v1/events", query=query)]

    async def watch(
        self,
        *,
        job: str | None = None,
        sequence: str | None = None,
        after: int | None = None,
        capacity: int = 1000,
    ) -> AsyncGenerator[Event, None]:
        """Return events as they come: what was stored after the cursor first, then what happens."""
        query = {"job": job, "sequence": sequence, "capacity": capacity}
        async for line in streams.events(self._asked, query, after=after):
            yield Event.from_dict(line)

    async def logs(self, id: str, count: int = 200) -> Sequence[str]:
        """Return the last lines that a job printed."""
        found: Sequence[str] = await self._ask("GET", id, "logs", query={"count": count})
        return found

    async def why(self, id: str) -> Sequence[dict[str, Any]]:
        """Return the story of a job or a sequence: what happened, because of what, with evidence."""
        found: Sequence[dict[str, Any]] = await self._ask("GET", id, "why")
        return found

    async def status(self) -> dict[str, Any]:
        """Return lanes, queue, memory and GPUs as they are now."""
        found: dict[str, Any] = await self._asked.ask("GET", "/v1/queue")
        return found

    async def samples(
        self,
        since: float | datetime.datetime | None = None,
        until: float | datetime.datetime | None = None,
        *,
        step_s: float | None = None,
        job: str | None = None,
    ) -> dict[str, Any]:
        """Return how the machine and the lanes were while something ran, as columns for a plot."""
        found: dict[str, Any]
        if job is not None:
            found = await self._ask("GET", job, "samples")
            return found
        query = {"from": _moment(since), "to": _moment(until), "step_s": step_s}
        found = await self._asked.ask("GET", "/v1/samples", query=query)
        return found

    # Changing

    async def cancel(self, id: str, *, grace_s: float | None = None) -> Told:
        """Ask a job to end: one that waits is cancelled at once, an ended one stays as it is."""
        return Told(await self._ask("POST", id, "cancel", {"grace_s": grace_s}))

    async def retry(self, id: str) -> Told:
        """Queue a failed or interrupted job again, as its next attempt."""
        return Told(await self._ask("POST", id, "retry"))

    async def reorder(self, id: str, **place: Any) -> Told:
        """Move a job that waits."""
        given = {name: value for name, value in place.items() if value not in (None, False)}
        return Told(await self._ask("POST", id, "reorder", given))

    async def _ask(
        self,
        method: str,
        id: str,
        what: str = "",
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        route = connections.path("jobs", id, *([what] if what else []))
        return await self._asked.ask(method, route, body, query=query)


def _moment(given: float | datetime.datetime | None) -> float | None:
    return given.timestamp() if isinstance(given, datetime.datetime) else given
