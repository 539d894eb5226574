"""Keeps the instances that the node's document declares loaded, and says how each of them stands.

One that cannot be loaded is tried again, ever more seldom, and at once when something changes that it may
have waited for. The daemon serves all the same: whether the document is good for the node is a gate's word.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from toft.access import tokens
from toft.dispatch import schedules
from toft.kernel import clock as clocks
from toft.kernel import errors, log
from toft.managed.applying import Applied
from toft.plugins import activity as activities
from toft.plugins import node as nodes
from toft.plugins.plugin_errors import PluginError
from toft.plugins.supervision import states

_log = log.get_logger("daemon.applying")
_AT_ONCE = 4
_FIRST_S = 1.0
_ROUND_S = 15.0
_MOST_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Kept:
    """How a declared instance stands.

    Attributes:
        state: `loading`, `failed`, `disabled`, or the state of what is loaded.
        since: When that was seen first, in seconds since 1970.
        error: Why it is not loaded.
    """

    instance: str
    plugin: str
    state: str
    since: float
    error: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "instance": self.instance,
            "plugin": self.plugin,
            "state": self.state,
            "since": clocks.rfc3339(self.since),
            "error": None if self.error is None else dict(self.error),
        }


class Applying:
    """What a document declares, on a running node.

    Args:
        node: The node.
        applied: What its document makes of it.
        held: The tokens it lets in.
        timed: Its schedules.
        clock: The time.
    """

    def __init__(
        self,
        node: nodes.Node,
        applied: Applied,
        held: tokens.Tokens | None = None,
        timed: schedules.Schedules | None = None,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self._tokens = held
        self._timed = timed
        self._node = node
        self._applied = applied
        self._clock = clock
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._wakes: dict[str, asyncio.Event] = {}
        self._standing: dict[str, Kept] = {}
        for name, record in applied.instances.items():
            self._set(name, record.plugin, "loading" if record.enabled else "disabled")
        for name, why in applied.unusable.items():
            self._set(name, name, "failed", {"code": "instance.options", "message": why})

    async def keep(self) -> None:
        """Load everything that is switched on, and again whatever goes away; until it is cancelled."""
        wanted = [name for name, record in self._applied.instances.items() if record.enabled]
        self._wakes = {name: asyncio.Event() for name in wanted}
        self._node.when_absent = self._wake
        async with asyncio.TaskGroup() as tasks:
            for name in wanted:
                tasks.create_task(self._keep(name))

    def standing(self) -> list[Kept]:
        """Return how each declared instance stands now, by name."""
        return [self._seen(self._standing[name]) for name in sorted(self._standing)]

    async def told(self) -> dict[str, Any] | None:
        """Return what is to be said of the document; None for a node without one."""
        if not self._applied.etag:
            return None
        return {
            "etag": self._applied.etag,
            "instances": [each.to_dict() for each in self.standing()],
            "schedules": [] if self._timed is None else self._timed.standing(),
            "local_not_applied": await self._not_applied(),
        }

    async def _not_applied(self) -> list[dict[str, str]]:
        """Return what was set on this node and does not count, because the document says otherwise."""
        rooms = self._node.rooms
        found = [("plugins", each) for each in await asyncio.to_thread(rooms.registry.overridden)]
        found += [("instances", each.name) for each in await rooms.records.overridden()]
        held = self._tokens
        if held is not None:
            found += [
                ("access.tokens", each.name) for each in await held.list() if held.state(each) == "overridden"
            ]
        reason = "the document declares one of this name"
        return [{"section": section, "key": key, "reason": reason} for section, key in found]

    async def _keep(self, name: str) -> None:
        wake, pause_s = self._wakes[name], _FIRST_S
        plugin = self._applied.instances[name].plugin
        while True:
            wake.clear()
            try:
                async with self._turns:
                    await self._bring(name, plugin)
            except (errors.NodeError, PluginError, OSError) as caught:
                error = caught if not isinstance(caught, OSError) else _of_system(caught)
                _log.warning("not_loaded", instance=name, error=str(error), again_s=pause_s)
                self._set(name, plugin, "failed", error.to_dict())
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(wake.wait(), pause_s)
                pause_s = min(2 * pause_s, _MOST_S)
                continue
            self._set(name, plugin, "loaded")
            began = self._clock.monotonic()
            await wake.wait()
            if self._clock.monotonic() - began > _MOST_S:
                pause_s = _FIRST_S
            found = self._node.find(name)
            if found is not None and found.state is states.State.CRASH_LOOP:
                # Its own restarts have been given up; it gets another round of them, ever more seldom.
                pause_s = min(2 * max(pause_s, _ROUND_S), _MOST_S)
                await asyncio.sleep(pause_s)

    async def _bring(self, name: str, plugin: str) -> None:
        """Load an instance as it is declared, or bring back one that died too often."""
        present = self._node.find(name)
        if present is not None and present.state is states.State.CRASH_LOOP:
            await present.reload()
            return
        loaded = await nodes.load_current(self._node, plugin, instance=name)
        if loaded is not None and loaded is not present:
            activities.watch(loaded, self._changed)

    def _changed(self, name: str) -> None:
        found = self._node.find(name)
        if found is not None and found.state is states.State.CRASH_LOOP:
            self._wake(name)

    def _wake(self, name: str) -> None:
        if name in self._wakes:
            self._wakes[name].set()

    def _set(self, name: str, plugin: str, state: str, error: Mapping[str, Any] | None = None) -> None:
        before = self._standing.get(name)
        since = before.since if before and before.state == state else self._clock.now()
        self._standing[name] = Kept(instance=name, plugin=plugin, state=state, since=since, error=error)

    def _seen(self, kept: Kept) -> Kept:
        """Return it with the state of what is loaded, which changes by itself."""
        found = self._node.find(kept.instance)
        if found is None:
            return replace(kept, state="loading") if kept.state == "loaded" else kept
        return replace(kept, state=str(found.state), error=None)


def _of_system(error: OSError) -> errors.NodeError:
    return errors.UnavailableError(
        str(error), code="daemon.os_error", blame="environment", details={"errno": error.errno}
    )
