"""From a name to a running instance: what is remembered, checked, started; all of it, or nothing is left."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from toft.kernel import clock as clocks
from toft.kernel import errors, settings, traces
from toft.plugins import instance as handles
from toft.plugins import instances, logs
from toft.plugins.environments import environments
from toft.plugins.manifests import arguments, config
from toft.plugins.manifests.manifest import Manifest
from toft.plugins.manifests.registry import Registry
from toft.plugins.supervision import calls, launch, nursery, orders, restart, states, supervisor, worker
from toft.plugins.supervision import crew as crews
from toft.plugins.supervision.redacted import ErrorRedactor
from toft.plugins.wire.frames import LogLine
from toft.secrets.redaction import Redactor
from toft_sdk import errors as plugin_errors

T = TypeVar("T")
_DRIFT_AFTER_S = 0.5
_DOWN = (states.State.CRASH_LOOP, states.State.STOPPING, states.State.STOPPED)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What somebody wants loaded.

    Attributes:
        plugin: The plugin.
        instance: What the instance is called; the plugin's name when None.
        config: Keys that win over what is remembered.
        options: How it is run; keys that win over what is remembered.
    """

    plugin: str
    instance: str | None = None
    config: Mapping[str, Any] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return what the instance is called."""
        return self.instance or self.plugin


class _Start(Protocol):
    def __call__(
        self, order: launch.Launch, *, numbers: Iterator[int], on_line: Callable[[LogLine], None]
    ) -> Coroutine[Any, Any, worker.Worker]: ...


class _Starts:
    """Starts the workers of one instance, one after another, each with the secrets that are stored by then.

    Attributes:
        secrets: What the last one was given.
        hears: Told every line of each.
    """

    def __init__(
        self, order: Callable[[], Awaitable[launch.Launch]], start: _Start, numbers: Iterator[int]
    ) -> None:
        self.secrets: dict[str, str] = {}
        self.hears: Callable[[LogLine], None] = lambda line: None
        self._order = order
        self._start = start
        self._numbers = numbers

    async def worker(self) -> worker.Worker:
        """Start one; see `toft.plugins.supervision.crew.Crew.start`."""
        order = await self._order()
        self.secrets.clear()
        self.secrets.update(order.secrets)
        return await self._start(order, numbers=self._numbers, on_line=lambda line: self.hears(line))


class Loader:
    """Makes instances.

    Args:
        settings: The node's.
        registry: Where manifests are.
        store: Where environments are.
        records: What is remembered of instances.
        orders: Writes what workers are started with.
        crew: Starts workers.
        writer: Writes their logs.
        redactor: Takes secrets out of what is shown.

    Attributes:
        called: Told of each call that somebody makes on what it loads; None where nobody collects that.
    """

    def __init__(
        self,
        settings: settings.Settings,
        registry: Registry,
        store: environments.Environments,
        records: instances.Instances,
        *,
        orders: orders.Orders,
        crew: crews.Crew,
        writer: logs.LogWriter,
        redactor: Redactor,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._store = store
        self._records = records
        self._orders = orders
        self._crew = crew
        self._writer = writer
        self._redactor = redactor
        self._redact_error = ErrorRedactor(redactor)
        self._clock: clocks.Clock = clocks.SYSTEM
        self.called: Callable[[handles.Instance, calls.Call], object] | None = None

    async def load(self, request: Request, forget: Callable[[str], None]) -> handles.Instance:
        """Load one instance.

        Args:
            request: What is wanted.
            forget: Takes it out of the node when it is unloaded.

        Raises:
            NotFoundError: No such plugin or interpreter.
            InputError: The configuration does not fit; nothing was started.
            PluginError: The plugin could not be imported or initialised.
            WorkerLostError: Its process died or stalled; the last lines it printed are in the error.
        """
        with traces.collect() as steps:
            loaded = await self._load(request, forget)
        loaded.steps = tuple(steps)
        return loaded

    async def _load(self, request: Request, forget: Callable[[str], None]) -> handles.Instance:
        with traces.step("environment"):
            manifest = await asyncio.to_thread(self._registry.get, request.plugin)
            record = await self._record(request)
        validate = self.validator(manifest)
        given = {**record.config, **(request.config or {})}
        effective = validate(given)
        async with contextlib.AsyncExitStack() as stack:
            held = await stack.enter_async_context(contextlib.AsyncExitStack())
            interpreter = self._hold(manifest, held)
            data = self._orders.place.data_directory(manifest.name)
            if not data.exists():
                # A callback, not a context manager: pop_all forgets it, and nothing runs it by accident.
                stack.callback(_remove_empty, data)
            parts = self._parts(request.name, manifest, interpreter, record, validate, held)
            parts.given, parts.forget = given, forget
            try:
                with traces.step("worker"):
                    await parts.supervisor.start(effective)
            except (errors.NodeError, plugin_errors.PluginError) as error:
                self._redact_error(error)
                raise
            parts.supervisor.enabled = record.enabled
            # Everything is there: nothing is taken back any more.
            stack.pop_all()
            loaded = handles.Instance(request.name, parts)
        await self._look_for_drift(loaded, manifest)
        return loaded

    async def is_current(self, loaded: handles.Instance, plugin: str) -> bool:
        """Say whether loading an instance now would give what is loaded under its name."""
        parts = loaded.loaded_from
        record = await self._records.of(plugin, loaded.id)
        return (
            record.options == parts.options
            and dict(record.secrets) == dict(parts.references)
            and dict(record.config) == dict(parts.given)
            and record.enabled == loaded.is_enabled
            and loaded.state not in _DOWN
            and not await self.is_outdated(loaded)
        )

    async def is_outdated(self, loaded: handles.Instance) -> bool:
        """Say whether its plugin was installed anew or given another secret since it was loaded."""
        parts = loaded.loaded_from
        manifest = await asyncio.to_thread(self._registry.get, parts.manifest.name)
        secrets = await asyncio.to_thread(self._orders.secret_values, manifest, parts.references)
        return bool(manifest != parts.manifest or secrets != parts.secrets)

    async def _look_for_drift(self, loaded: handles.Instance, manifest: Manifest) -> None:
        if not self._settings.detect_drift:
            return
        if not manifest.runtime.environment:
            # Somebody else's environment may have changed since; whoever loads it should hear that at once.
            await loaded.check_drift()
        elif (manifest.code.config_schema or {}).get("properties"):
            # Our own environments never change, but a schema can depend on where it is made.
            loaded.drift_check = asyncio.ensure_future(loaded.check_drift(after_s=_DRIFT_AFTER_S))

    async def _record(self, request: Request) -> instances.InstanceRecord:
        found = await self._records.of(request.plugin, request.name)
        given = _checked_options(request.options)
        options = instances.InstanceOptions.from_dict({**found.options.to_dict(), **given})
        return dataclasses.replace(found, options=options)

    def validator(self, manifest: Manifest) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        """Return what checks a configuration of a plugin and fills in its defaults."""

        def validate(given: Mapping[str, Any]) -> dict[str, Any]:
            return config.validate(manifest.code.config_schema, given, manifest.runtime.config_defaults)

        return validate

    def _hold(self, manifest: Manifest, held: contextlib.AsyncExitStack) -> orders.Interpreter:
        digest = manifest.runtime.environment
        if digest:
            return held.enter_context(self._store.hold(digest))
        return orders.ForeignEnvironment.of(manifest.install.python_path, manifest.runtime.python_version)

    def _parts(
        self,
        name: str,
        manifest: Manifest,
        interpreter: orders.Interpreter,
        record: instances.InstanceRecord,
        validate: Callable[[Mapping[str, Any]], dict[str, Any]],
        held: contextlib.AsyncExitStack,
    ) -> handles.Parts:
        options = record.options
        output = self.log_of(name)
        numbers = itertools.count(1)
        starts = _Starts(
            lambda: self._orders.for_instance(name, manifest, interpreter, options, record.secrets),
            self._start(manifest, options, output, held),
            numbers,
        )
        supervised = supervisor.Supervisor(
            name,
            starts.worker,
            binders(manifest),
            policy=self._policy(manifest, options),
            numbers=numbers,
            redact=self._redact_error,
        )
        starts.hears = supervised.heard
        return handles.Parts(
            supervisor=supervised,
            manifest=manifest,
            options=options,
            output=output,
            held=held,
            save=self._save,
            validate=validate,
            forget=lambda name: None,
            given={},
            secrets=starts.secrets,
            references=record.secrets,
            check=functools.partial(self._records.check_free, name),
            called=self.called,
        )

    def _start(
        self,
        manifest: Manifest,
        options: instances.InstanceOptions,
        output: logs.InstanceLog,
        held: contextlib.AsyncExitStack,
    ) -> _Start:
        """Return what starts a worker: anew, or by a fork of one that has the plugin's imports."""
        stall_s = _or(options.load_stall_s, self._settings.load_stall_s)
        if not options.zygote:
            return functools.partial(self._crew.start, output=output, stall_s=stall_s)
        if manifest.runtime.environment and not manifest.runtime.fork_safe:
            raise errors.UsageError(
                f"{manifest.name} does not say that it may be forked after its import",
                code="plugin.not_fork_safe",
                hint="set fork_safe = True on its class if that is so, and refresh it; or leave zygote out",
            )
        forked = nursery.Nursery(self._crew, output, stall_s=stall_s)
        held.push_async_callback(forked.close)
        return forked.start

    async def _save(self, record: instances.InstanceRecord) -> None:
        await self._records.put(record)

    def log_of(self, name: str) -> logs.InstanceLog:
        """Return the log of an instance, loaded or not."""
        return logs.InstanceLog(
            self._settings.home / "logs" / f"{name}.log",
            self._writer,
            max_bytes=self._settings.log_bytes,
            files=self._settings.log_files,
            redact=self._redactor.text,
        )

    def _policy(self, manifest: Manifest, options: instances.InstanceOptions) -> supervisor.Policy:
        chosen = self._settings
        return supervisor.Policy(
            concurrency=concurrency(manifest, options),
            queue_limit=_or(options.queue_limit, chosen.queue_limit),
            cancel_grace_s=_or(options.cancel_grace_s, chosen.cancel_grace_s),
            cleanup_s=chosen.cleanup_s,
            call_stall_s=_or(options.call_stall_s, chosen.call_stall_s),
            keep_spare=options.spare,
            restarts=restart.RestartPolicy(
                first_s=chosen.restart_first_s,
                most_s=chosen.restart_most_s,
                healthy_s=chosen.restart_healthy_s,
                limit=chosen.crash_limit,
            ),
        )


def _or(value: T | None, default: T) -> T:
    return default if value is None else value


def _checked_options(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return options a program gave, or one error that names everything wrong with them."""
    if not given:
        return given
    options = dict(given)
    if isinstance(options.get("writable"), (list, tuple)):
        options["writable"] = [os.path.abspath(path) for path in options["writable"]]
    return instances.checked_options(options)


def _remove_empty(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.rmdir()


def concurrency(manifest: Manifest, options: instances.InstanceOptions) -> int | None:
    """Return how many calls may run at once: what the instance says, else what the plugin declares."""
    if options.concurrency is not None:
        return options.concurrency or None
    return manifest.runtime.concurrency


def binders(manifest: Manifest) -> dict[str, supervisor.Binds]:
    """Return what checks the arguments of each action; a manifest that names none takes anything."""
    actions = manifest.runtime.actions or {handles.DEFAULT_ACTION: {}}
    return {
        action: arguments.Binder(described.get("input") if isinstance(described, Mapping) else None)
        for action, described in actions.items()
    }
