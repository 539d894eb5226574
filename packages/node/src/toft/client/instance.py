"""A plugin that is loaded in the daemon, with the words of one that is loaded here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toft.client import connection as connections
from toft.client.calls import RemoteCall, RemoteChunks
from toft.client.connection import Connection
from toft.kernel import errors
from toft.plugins import errors as faults
from toft.plugins.instances import InstanceOptions
from toft.plugins.manifests.drift import Drift
from toft.plugins.supervision.calls import OnLog, OnProgress
from toft.plugins.supervision.states import State

DEFAULT_ACTION = "execute"


class RemoteInstance:
    """A handle on an instance; see `toft.plugins.instance.Instance` for what each method promises.

    Attributes:
        id: Its name, as this client knows it.
        plugin: The plugin's name.
        config: The whole configuration, as it was told last.
        options: How it is run.
    """

    def __init__(self, asked: Connection, told: Mapping[str, Any]) -> None:
        self.id: str = told["instance"]
        self.plugin: str = told["plugin"]
        self.options = InstanceOptions.from_dict(told["options"])
        self.config: Mapping[str, Any] = told["config"]
        self.drift = _drift(told["drift"])
        self._actions: Mapping[str, Any] = told["actions"]
        self._asked = asked
        self._is_unloaded = False

    # Calling

    async def call_with(
        self,
        action: str | None,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        grace_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Run an action to its end; cancelling the one who waits cancels the call."""
        call = await self.start_with(
            action, arguments, timeout_s=timeout_s, grace_s=grace_s, on_progress=on_progress
        )
        try:
            return await call.result()
        finally:
            call.drop()

    async def start_with(
        self,
        action: str | None,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        grace_s: float | None = None,
        on_progress: OnProgress | None = None,
        on_log: OnLog | None = None,
        stream: bool = False,
    ) -> RemoteCall:
        """Begin a call."""
        if self._is_unloaded:
            raise faults.down(self.id, "stopped", {}, "it was unloaded")
        call = RemoteCall(self._asked, self.id, on_progress=on_progress, on_log=on_log)
        body = {
            "action": action,
            "arguments": self._asked.origin.arguments(self.signature(action), arguments),
            "timeout_s": timeout_s,
            "grace_s": grace_s,
            "stream": stream,
            "quiet": on_progress is None and on_log is None and not stream,
        }
        await call.begin(body)
        return call

    async def stream_with(
        self, action: str | None, arguments: Mapping[str, Any], **more: Any
    ) -> RemoteChunks:
        """Begin a streaming call."""
        return RemoteChunks(await self.start_with(action, arguments, stream=True, **more))

    def signature(self, action: str | None = None) -> Mapping[str, Any] | None:
        """Return the input schema of an action; None when the plugin recorded none."""
        described = self._actions.get(action or DEFAULT_ACTION)
        return described.get("input") if isinstance(described, Mapping) else None

    # Configuring and looking

    async def reconfigure(self, changes: Mapping[str, Any], *, replace: bool = False) -> None:
        """Change the configuration between two calls and remember it."""
        told = await self._ask("POST", "reconfigure", {"changes": dict(changes), "replace": replace})
        self.config = told["config"]

    async def enable(self) -> None:
        """Take calls again, and remember it."""
        await self._ask("POST", "enable")

    async def disable(self) -> None:
        """Refuse calls, and remember it."""
        await self._ask("POST", "disable")

    async def reload(self) -> None:
        """Replace the worker between calls."""
        await self._ask("POST", "reload")

    async def prefetch(self) -> None:
        """Let the plugin fetch what it will need."""
        await self._ask("POST", "prefetch")

    async def config_options(self) -> dict[str, Any]:
        """Return the values each setting can take right now."""
        found: dict[str, Any] = await self._ask("GET", "config_options")
        return found

    async def stats(self) -> dict[str, Any]:
        """Return what it has done and what its process tree uses now."""
        found: dict[str, Any] = await self._ask("GET", "stats")
        return found

    async def logs(self, count: int = 50) -> list[str]:
        """Return the last lines of its log."""
        found: list[str] = await self._ask("GET", "logs", query={"count": count})
        return found

    async def look(self) -> tuple[State, bool]:
        """Return its state, and whether it is switched on."""
        if self._is_unloaded:
            return State.STOPPED, False
        told = await self._asked.ask("GET", connections.path("instances", self.id))
        self.config, self.drift = told["config"], _drift(told["drift"])
        return State(told["state"]), bool(told["enabled"])

    async def unload(self) -> None:
        """End it; a second time does nothing."""
        if self._is_unloaded:
            return
        self._is_unloaded = True
        try:
            await self._asked.ask("DELETE", connections.path("instances", self.id))
        except errors.NotFoundError:
            return

    async def _ask(
        self,
        method: str,
        what: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        route = connections.path("instances", self.id, what)
        return await self._asked.ask(method, route, body, query=query)


def _drift(told: Mapping[str, Any] | None) -> Drift | None:
    if told is None:
        return None
    return Drift(
        expected=told["expected"],
        live=told["live"],
        changes=tuple(told["changes"]),
        live_schema=told["live_schema"],
    )
