"""A loaded plugin, as the person who calls it sees it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toft.host.usage import Usage, cpu_percent
from toft.kernel import clock as clocks
from toft.kernel import errors, log, traces
from toft.plugins import instances, logs
from toft.plugins.manifests import drift
from toft.plugins.manifests.manifest import Manifest
from toft.plugins.supervision import calls, chunks, states, supervisor
from toft_sdk import errors as plugin_errors

_log = log.get_logger("plugins.instance")
DEFAULT_ACTION = "execute"
_HOOK_S = 30.0

OnProgress = calls.OnProgress


@dataclass(kw_only=True)
class Parts:
    """What an instance is made of.

    Attributes:
        supervisor: Runs its calls.
        manifest: What is known about its plugin.
        options: How it is run.
        output: Its log.
        held: Gives back what it holds: the claim on its environment, its zygote.
        save: Persists what somebody changed.
        check: Refuses that somebody changes it, where that is not theirs.
        validate: Fills in and checks a configuration.
        forget: Takes it out of the node.
        secrets: What its worker was given last.
        references: Where they are from, as far as a document says that.
        called: Told of each call that somebody makes, where that is collected.
    """

    supervisor: supervisor.Supervisor
    manifest: Manifest
    options: instances.InstanceOptions
    output: logs.InstanceLog
    held: contextlib.AsyncExitStack
    save: Callable[[instances.InstanceRecord], Awaitable[object]]
    validate: Callable[[Mapping[str, Any]], dict[str, Any]]
    forget: Callable[[str], None]
    given: Mapping[str, Any]
    clock: clocks.Clock = clocks.SYSTEM
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    references: Mapping[str, str] = field(default_factory=dict)
    check: Callable[[], object] = lambda: None
    called: Callable[[Instance, calls.Call], object] | None = None


class Instance:
    """A handle on one loaded plugin.

    Attributes:
        id: Its name in this node; the plugin's own unless another was given.
        plugin: The plugin's name.
        config: The whole configuration the plugin has.
        options: How it is run.
        drift: How the running code differs from what the manifest recorded; None when it does not.
        drift_check: Who looks for that, when it was not done while loading.
        loaded_from: What it is made of.
        loaded_at: When, by the monotonic clock.
        is_shared: Whether it is nobody's own: loaded as it is remembered, for whoever comes.
        steps: What took how long while it was loaded.
    """

    def __init__(self, name: str, parts: Parts) -> None:
        self.id = name
        self.plugin = parts.manifest.name
        self.config: Mapping[str, Any] = parts.supervisor.config
        self.options = parts.options
        self.drift: drift.Drift | None = None
        self._parts = self.loaded_from = parts
        self.is_shared = False
        self.steps: Sequence[traces.Step] = ()
        self._supervisor = parts.supervisor
        self.drift_check: asyncio.Task[drift.Drift | None] | None = None
        self.loaded_at = parts.clock.monotonic()
        self._measured = (Usage(), self.loaded_at)

    async def __aenter__(self) -> Instance:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.unload()

    # Calling

    async def call(self, action: str | None = None, /, **arguments: Any) -> Any:
        """Run an action to its end and return its result.

        Args:
            action: Which; `execute` when none is named.
            arguments: Whatever the action takes, under any name.

        Raises:
            PluginError: What the plugin raised; `InputError` when the arguments do not fit.
            WorkerLostError: Its process died; the call is not repeated.
            NodeError: Disabled, busy, stopped.

        Cancellation: Cancelling the awaiting task cancels the call.
        """
        return await self._begin(action, arguments)

    async def call_with(
        self,
        action: str | None,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        grace_s: float | None = None,
        on_progress: OnProgress | None = None,
    ) -> Any:
        """Do what `call` does, with everything that can be said about a call.

        Args:
            action: Which; None is `execute`.
            arguments: By name.
            timeout_s: Seconds after which it is ended with `CallTimeoutError`.
            grace_s: Seconds it may take to end by itself once it is cancelled or has timed out.
            on_progress: Called with a fraction (-1: no telling) and a message, on the event loop.
        """
        return await self.start_with(
            action, arguments, timeout_s=timeout_s, grace_s=grace_s, on_progress=on_progress
        )

    def start(self, action: str | None = None, /, **arguments: Any) -> calls.Call:
        """Begin a call and return a handle to wait on, watch and cancel."""
        call: calls.Call = self._begin(action, arguments)
        return call

    def start_with(
        self,
        action: str | None,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        grace_s: float | None = None,
        on_progress: OnProgress | None = None,
        on_log: calls.OnLog | None = None,
    ) -> calls.Call:
        """Begin a call with everything that can be said about it; see `call_with`."""
        call: calls.Call = self._begin(action, arguments, timeout_s=timeout_s, grace_s=grace_s)
        call.listen(on_progress, on_log)
        return call

    def stream(self, action: str | None = None, /, **arguments: Any) -> chunks.Chunks:
        """Run an action and return its chunks as they come; read them with `async for`."""
        return self.stream_with(action, arguments)

    def stream_with(
        self,
        action: str | None,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        grace_s: float | None = None,
        on_progress: OnProgress | None = None,
        on_log: calls.OnLog | None = None,
    ) -> chunks.Chunks:
        """Stream with everything that can be said about it; see `call_with`."""
        call = self._begin(action, arguments, timeout_s=timeout_s, grace_s=grace_s, kind=chunks.StreamingCall)
        call.listen(on_progress, on_log)
        return chunks.Chunks(call)

    def _begin(self, action: str | None, arguments: Mapping[str, Any], **more: Any) -> Any:
        call = self._supervisor.begin(action or DEFAULT_ACTION, arguments, **more)
        if self._parts.called is not None:
            self._parts.called(self, call)
        return call

    def signature(self, action: str | None = None) -> Mapping[str, Any] | None:
        """Return the input schema of an action; None when the plugin recorded none."""
        described = self._parts.manifest.runtime.actions.get(action or DEFAULT_ACTION)
        return described.get("input") if isinstance(described, Mapping) else None

    # Configuring

    async def reconfigure(self, changes: Mapping[str, Any], *, replace: bool = False) -> None:
        """Change the configuration between two calls and remember it.

        Args:
            changes: Keys to change; the others stay.
            replace: Take `changes` as the whole configuration, defaults filled in.

        Raises:
            InputError: It does not fit; every key is named and nothing changed.
            DeclaredError: The document of the node declares this instance.
            PluginError: The plugin refused; it has the old configuration.
        """
        parts = self._parts
        parts.check()
        given = dict(changes) if replace else {**parts.given, **changes}
        config = parts.validate(given)
        before = self.config
        await self._supervisor.reconfigure(config)
        try:
            await self._save(config=given)
        except errors.NodeError:
            await self._supervisor.reconfigure(before)
            raise
        parts.given, self.config = given, config
        self._supervisor.workers.tell_watchers()

    async def config_options(self) -> dict[str, Any]:
        """Return the values each setting can take right now; empty when the plugin cannot say."""
        try:
            found = await self._supervisor.request("config_options", timeout_s=_HOOK_S)
        except (errors.NodeError, plugin_errors.PluginError) as error:
            _log.warning("config_options_failed", instance=self.id, error=str(error))
            return {}
        return dict(found or {})

    async def prefetch(self) -> None:
        """Let the plugin fetch what it will need."""
        await self._supervisor.request("prefetch")

    async def enable(self) -> None:
        """Take calls again, and remember it; also brings back an instance that died too often."""
        await self._set_enabled(True)

    async def disable(self) -> None:
        """Refuse calls, and remember it; the worker stays, running calls end."""
        await self._set_enabled(False)

    async def _set_enabled(self, enabled: bool) -> None:
        self._parts.check()
        # Remembered first: what the disk did not take must not hold until the next start alone.
        await self._save(enabled=enabled)
        await self._supervisor.set_enabled(enabled)
        self._supervisor.workers.tell_watchers()

    async def _save(self, *, config: Mapping[str, Any] | None = None, enabled: bool | None = None) -> None:
        parts = self._parts
        record = instances.InstanceRecord(
            name=self.id,
            plugin=self.plugin,
            config=parts.given if config is None else config,
            options=parts.options,
            enabled=self._supervisor.enabled if enabled is None else enabled,
        )
        await parts.save(record)

    async def reload(self) -> None:
        """Replace the worker between calls; every setting stays."""
        await self._supervisor.respawn("somebody asked for a reload")

    async def unload(self) -> None:
        """End it; returns within seconds whatever the plugin does."""
        self._parts.forget(self.id)
        if self.drift_check is not None:
            self.drift_check.cancel()
        try:
            await self._supervisor.stop()
        finally:
            await self._parts.held.aclose()

    # Looking

    @property
    def state(self) -> states.State:
        """Return what it is doing."""
        return self._supervisor.state

    @property
    def is_enabled(self) -> bool:
        """Say whether it takes calls when it is ready."""
        return self._supervisor.enabled

    async def stats(self) -> dict[str, Any]:
        """Return what it has done and what its process tree uses now."""
        supervised = self._supervisor
        totals, worker = supervised.totals, supervised.workers.worker
        usage = await asyncio.to_thread(worker.measure) if worker is not None else Usage()
        return {
            "instance": self.id,
            "plugin": self.plugin,
            "state": str(self.state),
            "reason": supervised.workers.lifecycle.reason,
            "enabled": self.is_enabled,
            "pid": worker.pid if worker is not None else None,
            "uptime_s": self._parts.clock.monotonic() - self.loaded_at,
            "running": supervised.gate.running,
            "waiting": supervised.gate.waiting,
            "calls": totals.ended,
            "failures": totals.failures,
            "cancelled": totals.cancelled,
            "busy_s": totals.busy_s,
            "usage": dict(totals.usage),
            "restarts": supervised.workers.restarts.total,
            "cpu_s": usage.cpu_s,
            "cpu_percent": self._cpu_percent(usage),
            "memory_bytes": usage.rss_bytes,
            "peak_memory_bytes": usage.peak_rss_bytes,
            "gpu_memory_bytes": dict(usage.gpu_memory_bytes or {}),
            "processes": len(usage.pids),
            "log_lines": self._parts.output.lines,
        }

    def _cpu_percent(self, usage: Usage) -> float:
        """Return the processor use since this was last asked."""
        now = self._parts.clock.monotonic()
        (before, then), self._measured = self._measured, (usage, now)
        return cpu_percent(before, usage, now - then) if before.pids[:1] == usage.pids[:1] else 0.0

    async def logs(self, count: int = 50) -> list[str]:
        """Return the last lines of its log, earlier runs included."""
        return await self._parts.output.tail(count)

    async def monitor(self, what: str) -> Any:
        """Ask a system monitor plugin: `status` or `processes`."""
        return await self._supervisor.request("monitor", {"what": what}, timeout_s=5.0)

    async def check_drift(self, *, after_s: float = 0.0) -> drift.Drift | None:
        """Compare what the code says of its configuration with what the manifest recorded.

        Args:
            after_s: Seconds to leave the worker to its first calls.
        """
        await asyncio.sleep(after_s)
        try:
            described = await self._supervisor.request("describe", timeout_s=_HOOK_S)
        except (errors.NodeError, plugin_errors.PluginError) as error:
            _log.debug("drift_unknown", instance=self.id, error=str(error))
            return None
        self.drift = drift.detect(self._parts.manifest, described.get("config_schema"))
        if self.drift is not None:
            _log.warning("schema_drift", instance=self.id, changes=self.drift.changes)
        return self.drift


def start_raw(
    instance: Instance,
    action: str | None,
    arguments: Mapping[str, Any],
    *,
    timeout_s: float | None = None,
    grace_s: float | None = None,
    on_progress: OnProgress | None = None,
    on_log: calls.OnLog | None = None,
) -> calls.Call:
    """Begin a call whose result is a `toft.plugins.packed.Packed`, to be kept or sent on undecoded.

    Whoever gets it releases it. Anywhere in the arguments may stand such values too.
    """
    call: calls.Call = instance._supervisor.begin(
        action or DEFAULT_ACTION, arguments, timeout_s=timeout_s, grace_s=grace_s, is_raw=True
    )
    call.listen(on_progress, on_log)
    return call


def the_same(
    present: Instance, plugin: str, config: Mapping[str, Any] | None, options: Mapping[str, Any]
) -> Instance:
    """Return a loaded instance to somebody who asked for one of that name.

    Raises:
        ConflictError: What was asked for is something else.
    """
    differs = [key for key, value in (config or {}).items() if present.config.get(key) != value]
    if present.plugin != plugin or differs or options:
        raise errors.ConflictError(
            f"instance {present.id} of plugin {present.plugin} is loaded already",
            code="instance.loaded",
            details={"instance": present.id, "differs": differs},
            hint="reconfigure it, unload it first, or load another one under a name of its own",
        )
    return present
