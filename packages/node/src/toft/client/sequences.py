"""Sequences and graphs of jobs that a daemon has, with the words of those that run here."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toft.client import connection as connections
from toft.client import streams
from toft.client.connection import Connection
from toft.jobs import graphs, references
from toft.jobs.records import FINISHED, RetryPolicy, State
from toft.kernel import clock, errors


class Told:
    """A job or a sequence as the daemon told of it.

    Attributes:
        id: Its name.
        state: Where it was when it was looked at.
    """

    __slots__ = ("_fields", "id", "state")

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._fields = dict(fields)
        self.id: str = fields["id"]
        self.state = State(fields["state"])

    def __getattr__(self, name: str) -> Any:
        try:
            value = self._fields[name]
        except KeyError:
            raise AttributeError(name) from None
        # Text on the wire and in `to_dict`, seconds in a program, as in a record of this process.
        return clock.from_rfc3339(value) if name.endswith("_at") and value is not None else value

    @property
    def is_finished(self) -> bool:
        """Say whether nothing of it will happen unasked any more."""
        return self.state in FINISHED

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return dict(self._fields)


class RemoteSequences:
    """Jobs that belong together.

    Args:
        asked: The session with the daemon.
    """

    def __init__(self, asked: Connection) -> None:
        self._asked = asked

    async def submit_sequence(
        self, steps: Sequence[Any], *, name: str | None = None, fail_fast: bool = True, priority: int = 0
    ) -> Told:
        """Store jobs that run one after another: all of them, or none."""
        mode = graphs.FAIL_FAST if fail_fast else graphs.BEST_EFFORT
        return await self.submit_graph(list(steps), name=name, mode=mode, priority=priority)

    async def submit_uniform(
        self,
        plugin: str,
        arguments: Iterable[Mapping[str, Any]] | Mapping[str, Sequence[Any]],
        *,
        name: str | None = None,
        fail_fast: bool = True,
        priority: int = 0,
    ) -> Told:
        """Store a sequence that runs one plugin over many sets of arguments."""
        steps = graphs.uniform(plugin, arguments)
        return await self.submit_sequence(steps, name=name, fail_fast=fail_fast, priority=priority)

    async def submit_graph(
        self, steps: Any, *, name: str | None = None, mode: str | None = None, priority: int | None = None
    ) -> Told:
        """Store jobs that run as soon as what each refers to is there: all of them, or none."""
        document = references.plain(_written(steps))
        listed = document.get("steps") if isinstance(document, dict) else document
        for step in listed if isinstance(listed, list) else ():
            await self._make_absolute(step)
        body = {"steps": document, "name": name, "mode": mode, "priority": priority}
        return Told(await self._asked.ask("POST", "/v1/sequences", body))

    async def _make_absolute(self, step: Any) -> None:
        if isinstance(step, dict) and isinstance(step.get("arguments"), dict):
            plugin, action = step.get("plugin"), step.get("action")
            if isinstance(plugin, str) and (action is None or isinstance(action, str)):
                schema = await self._asked.signature(plugin, action)
                step["arguments"] = self._asked.origin.arguments(schema, step["arguments"])

    async def sequence(self, id: str) -> Told:
        """Return a sequence or graph as it is now."""
        return Told(await self._asked.ask("GET", connections.path("sequences", id)))

    async def sequences(
        self, *, state: str | None = None, limit: int = 100, before: str | None = None
    ) -> Sequence[Told]:
        """Return sequences and graphs, the newest first, at most 1000."""
        query = {"state": state, "limit": limit, "before": before}
        return [Told(each) for each in await self._asked.ask("GET", "/v1/sequences", query=query)]

    async def cancel_sequence(self, id: str) -> Told:
        """End what has not ended."""
        return Told(await self._asked.ask("POST", connections.path("sequences", id, "cancel")))

    async def retry_sequence(self, id: str) -> Told:
        """Run again what failed or was interrupted, and what was skipped because of it."""
        return Told(await self._asked.ask("POST", connections.path("sequences", id, "retry")))

    async def wait_sequence(self, id: str, timeout_s: float | None = None) -> Told:
        """Return a sequence once nothing of it will happen unasked any more."""
        return Told(await self._waited(connections.path("sequences", id, "wait"), timeout_s))

    async def _waited(self, route: str, timeout_s: float | None) -> Any:
        """Wait there; over a connection that breaks, not longer in all than was asked for."""
        loop = asyncio.get_running_loop()
        until = None if timeout_s is None else loop.time() + timeout_s
        patience = streams.Patience(self._asked)
        while True:
            left = None if until is None else max(until - loop.time(), 0.0)
            try:
                return await self._asked.ask("GET", route, query={"timeout_s": left}, tries=1)
            except errors.UnavailableError as error:
                await patience.again(error)


def _written(steps: Any) -> Any:
    """Return a graph as it stands in a file: steps that are objects of ours become what describes them."""
    if isinstance(steps, Mapping):
        return {**steps, "steps": _written(steps.get("steps"))}
    if isinstance(steps, (list, tuple)):
        return [_step(each) for each in steps]
    return steps


def _step(step: Any) -> Any:
    if not isinstance(step, graphs.Step):
        return dict(step) if isinstance(step, Mapping) else step
    fields = {each.name: getattr(step, each.name) for each in dataclasses.fields(step)}
    found = {name: value for name, value in fields.items() if value not in (None, (), 0, False)}
    found["arguments"] = dict(step.arguments)
    if isinstance(step.retry, RetryPolicy):
        found["retry"] = step.retry.to_dict()
    return found
