"""A real queue with its graphs, and plugins that are functions, run when a test says so."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

from toft.dispatch.graphs import Graphs
from toft.jobs.queue import JobQueue
from toft.jobs.records import Claimed, Outcome, ResultRef, State
from toft.jobs.sequences import JobSequence, Reading
from toft.kernel import errors
from toft.plugins import errors as faults
from toft.plugins import values
from toft.plugins.manifests.arguments import Binder
from toft.plugins.packed import Packed
from toft.plugins.plugin_errors import PluginError
from toft.store import blobs, database

ANY: dict[str, Any] = {"parameters": {}, "additional": True}


class Plugins:
    """Plugins that are functions, with the signatures that a manifest would record."""

    def __init__(self) -> None:
        self.run: dict[str, Callable[..., Any]] = {"echo": lambda **given: given}
        self.inputs: dict[str, Mapping[str, Any]] = {}
        self.outputs: dict[str, Mapping[str, Any]] = {}
        self.disabled: set[str] = set()

    def add(self, name: str, run: Callable[..., Any], takes: Any = None, gives: Any = None) -> None:
        self.run[name] = run
        self.inputs[name] = takes or ANY
        self.outputs[name] = gives or {}

    async def binder(self, plugin: str, instance: str, action: str | None) -> Binder:
        if plugin not in self.run:
            raise errors.NotFoundError(
                f"no plugin {plugin}", code="plugin.not_found", hint="toft plugin list"
            )
        if plugin in self.disabled:
            raise faults.DisabledError(f"instance {plugin} is disabled", details={"instance": plugin})
        return Binder(self.inputs.get(plugin, ANY))

    async def output(self, plugin: str, instance: str, action: str | None) -> Mapping[str, Any]:
        return self.outputs.get(plugin, {})


class FragileDatabase(database.Database):
    """A database on a disk that is full now and then."""

    is_full = False

    async def write(self, work: Callable[..., Any]) -> Any:
        if self.is_full:
            raise errors.UnavailableError("the disk is full", code="store.disk_full")
        return await super().write(work)


class Node:
    """A queue with its graphs, and lanes that run what is ready when they are told to."""

    def __init__(self, home: Path, plugins: Plugins) -> None:
        self.plugins = plugins
        self.store = FragileDatabase(home / "node.db")
        self.blobs = blobs.Blobs(home / "blobs")
        self.queue = JobQueue(self.store, self.blobs, randomness=os.urandom)
        self.reading = Reading(self.store)
        self.ran: list[str] = []
        self.graphs = Graphs(self.queue, self.reading, plugins, open_blob=self.open_blob)

    async def open_blob(self, digest: str) -> Packed:
        return await asyncio.to_thread(Packed.open, self.blobs.path(digest))

    async def claim(self) -> list[Claimed]:
        claimed: list[Claimed] = []
        for instance in list(self.queue.heads()):
            claimed += await self.queue.claim(instance, 100)
        return claimed

    async def execute(self, claimed: Claimed) -> None:
        self.ran.append(claimed.step or "")
        try:
            arguments = {
                name: value.value() if isinstance(value, Packed) else value
                for name, value in (await self.graphs.resolve(claimed)).items()
            }
            result = self.plugins.run[claimed.plugin](**arguments)
        except (errors.NodeError, PluginError) as error:
            outcome = Outcome(state=State.FAILED, error=error.to_dict(), because="raised")
        except ZeroDivisionError as error:
            outcome = Outcome(state=State.FAILED, error={"code": "plugin.exception", "message": str(error)})
        else:
            packed = Packed.of(result)
            if packed.size_bytes > 60_000:
                ref = ResultRef(packed.size_bytes, None, await self.blobs.save(packed.parts()))
                outcome = Outcome(state=State.COMPLETED, result=ref)
            else:
                outcome = Outcome(state=State.COMPLETED, result=packed.to_bytes())
        assert await self.queue.finish(claimed.id, claimed.attempt, outcome)

    async def run(self, sequence: JobSequence, *, most: int = 30_000) -> JobSequence:
        """Run what is ready until the sequence is over, or nothing happens any more."""
        for _ in range(most):
            claimed = await self.claim()
            for each in claimed:
                await self.execute(each)
            found = await self.graphs.get(sequence.id)
            if found.is_finished or found.state is State.INTERRUPTED:
                return found
            if not claimed:
                await asyncio.sleep(0.001)
        raise AssertionError(f"it does not end: {await self.states(sequence)}")

    async def states(self, sequence: JobSequence) -> dict[str, str]:
        return {each["step"]: each["state"] for each in await self.reading.members(sequence.id)}

    async def result(self, sequence: JobSequence, name: str) -> Any:
        given = await self.reading.given(sequence.id, name)
        assert given is not None
        return (
            values.unpack(given.data)
            if given.data is not None
            else (await self.open_blob(str(given.blob))).value()
        )

    async def error(self, sequence: JobSequence, name: str) -> Mapping[str, Any]:
        members = {each["step"]: each for each in await self.reading.members(sequence.id)}
        error = (await self.queue.get(members[name]["id"])).error
        assert error is not None
        return error

    async def told(self, sequence: JobSequence) -> list[str]:
        events = await self.queue.events(sequence=sequence.id)
        return [str(event.data["state"]) for event in events if event.type == "sequence"]


def standing() -> Plugins:
    """Return the plugins that most graphs are made of."""
    plugins = Plugins()
    plugins.add("fail", lambda **given: 1 // 0)
    plugins.add("join", lambda words, sep=" ": sep.join(words))
    return plugins


@contextlib.asynccontextmanager
async def running(home: Path, plugins: Plugins) -> AsyncIterator[Node]:
    node = Node(home, plugins)
    await node.store.open({"jobs": "toft.jobs"})
    await node.queue.open()
    await node.graphs.open()
    try:
        yield node
    finally:
        await node.graphs.close()
        await node.queue.close()
        await node.store.close()


def one(name: str, plugin: str = "echo", *, after: Any = (), **arguments: Any) -> dict[str, Any]:
    return {"id": name, "plugin": plugin, "after": after, "arguments": arguments}
