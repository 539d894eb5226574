"""The node inside this process: what is installed, what is loaded, and what can be asked of it.

`toft.open_node()` makes one; `toft.connect()` is the same for programs that do not use asyncio.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets as randomness
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from toft.kernel import errors, ids, log, settings
from toft.plugins import environments, install, instances, loading, logs, manifest, registry
from toft.plugins import instance as handles
from toft.secrets.redaction import Redactor
from toft.secrets.store import SecretStore
from toft_sdk import errors as plugin_errors

_log = log.get_logger("plugins.node")
_STOP_S = 15.0


class Monitor(Protocol):
    """What looks at the machine when no plugin does."""

    def status(self) -> dict[str, Any]:
        """Return processor, memory and GPU figures; blocks."""
        ...

    def processes(self) -> list[dict[str, Any]]:
        """Return what uses the GPUs; blocks."""
        ...


class Closes(Protocol):
    """Something that is closed with the node."""

    async def close(self) -> None:
        """Give everything back."""
        ...


@dataclass(frozen=True, kw_only=True)
class PluginView:
    """One installed plugin, for lists.

    Attributes:
        name: What it is called.
        version: Its version.
        state: `ready`, `disabled`, another state of its instance, or `installed` when it is not loaded here;
            `broken` when its environment is not there.
        environment: Hash of its environment; empty for one that toft did not make.
        python: Version of its interpreter.
        drift: Whether the running code says something else than its manifest; None when nobody looked.
        instances: Loaded here, or remembered.
        manifest: Everything that is known.
    """

    name: str
    version: str
    state: str
    environment: str
    python: str
    drift: bool | None
    instances: tuple[str, ...]
    manifest: manifest.Manifest = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """What a node is composed of; `toft.wiring` fills it in."""

    settings: settings.Settings
    registry: registry.Registry
    environments: environments.Environments
    installer: install.Installer
    records: instances.Instances
    loader: loading.Loader
    secrets: SecretStore
    redactor: Redactor
    monitor: Monitor
    isolation: Any = None


class Node:
    """The node.

    Attributes:
        rooms: What it is composed of; for whoever needs more than the methods here.
    """

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self._instances: dict[str, handles.Instance] = {}
        self._loading: dict[str, asyncio.Lock] = {}

    # Installed plugins

    async def plugins(self) -> list[PluginView]:
        """Return every installed plugin, by name."""
        found = await asyncio.to_thread(self.rooms.registry.list)
        records = await self.rooms.records.list()
        remembered: dict[str, list[instances.InstanceRecord]] = {}
        for record in records:
            remembered.setdefault(record.plugin, []).append(record)
        return await asyncio.to_thread(
            lambda: [self._view(each, remembered.get(each.name, [])) for each in found]
        )

    def _view(self, found: manifest.Manifest, records: Sequence[instances.InstanceRecord]) -> PluginView:
        loaded = [each for each in self._instances.values() if each.plugin == found.name]
        own = next((each for each in loaded if each.id == found.name), None)
        record = next((each for each in records if each.name == found.name), None)
        digest = found.runtime.environment
        is_there = (
            self.rooms.environments.find(digest) if digest else Path(found.install.python_path).is_file()
        )
        if own is not None:
            state = str(own.state) if own.is_enabled else "disabled"
        elif not is_there:
            state = "broken"
        else:
            state = "disabled" if record is not None and not record.enabled else "installed"
        return PluginView(
            name=found.name,
            version=found.code.version,
            state=state,
            environment=digest,
            python=found.runtime.python_version,
            drift=None if own is None else own.drift is not None,
            instances=tuple(dict.fromkeys([each.id for each in loaded] + [each.name for each in records])),
            manifest=found,
        )

    async def manifest(self, name: str) -> manifest.Manifest:
        """Return what is known of a plugin.

        Raises:
            NotFoundError: It is not installed; says which name is near.
        """
        return await asyncio.to_thread(self.rooms.registry.get, name)

    async def find(
        self,
        task: str = "",
        *,
        category: str | None = None,
        role: str | None = None,
        domain: str | None = None,
    ) -> list[manifest.Manifest]:
        """Return the installed plugins that fit, the best first; nothing is imported for it."""
        found = await asyncio.to_thread(
            lambda: self.rooms.registry.find(task, category=category, role=role, domain=domain)
        )
        return list(found)

    async def add(
        self, source: str, *, force: bool = False, on_step: environments.Progress | None = None, **wish: Any
    ) -> list[manifest.Manifest]:
        """Install the plugins of a directory, wheel, requirement or `plugins.yaml`.

        Args:
            source: What to install.
            force: Replace a plugin of the same name from elsewhere.
            on_step: Told each step.
            wish: The other fields of `toft.plugins.install.Wish`.
        """
        wanted = install.Wish(source=source, **{key: value for key, value in wish.items() if value})
        return await self.rooms.installer.add(wanted, force=force, progress=on_step or environments.silent)

    async def refresh(self, name: str, *, on_step: environments.Progress | None = None) -> manifest.Manifest:
        """Build a plugin's environment anew and swap; instances that run here are reloaded by nobody."""
        return await self.rooms.installer.refresh(name, progress=on_step or environments.silent)

    async def remove(self, name: str, *, keep_environment: bool = False) -> bool:
        """Unload a plugin's instances, forget them, and take the plugin away; False when there was none."""
        await self.unload_many([each.id for each in self._instances.values() if each.plugin == name])
        removed = await asyncio.to_thread(
            lambda: self.rooms.installer.remove(name, keep_environment=keep_environment)
        )
        await self.rooms.records.remove_all(name)
        return removed

    # Instances

    async def load(
        self,
        plugin: str,
        config: Mapping[str, Any] | None = None,
        *,
        instance: str | None = None,
        new: bool = False,
        **options: Any,
    ) -> handles.Instance:
        """Load a plugin, ready to be called.

        Args:
            plugin: Its name.
            config: Settings that win over what is remembered, which wins over the plugin's defaults.
            instance: What to call it; the plugin's name when None.
            new: Make up a name, for one more instance.
            options: How it is run, as `toft.plugins.instances.InstanceOptions` names it.

        Returns:
            The instance; the one that is loaded already when nothing else is asked of it.

        Raises:
            NotFoundError: No such plugin.
            InputError: The configuration does not fit; nothing was started.
            PluginError: The plugin could not be imported or initialised; nothing is left of it.
            WorkerLostError: Its process died or stalled; the last lines it printed are in the error.
            ConflictError: It is loaded already with another configuration.
        """
        ids.check_name(plugin, "plugin name")
        name = self._fresh_name(plugin) if new else ids.check_name(instance or plugin, "instance name")
        request = loading.Request(plugin=plugin, instance=name, config=config, options=options)
        async with self._loading.setdefault(name, asyncio.Lock()):
            present = self._instances.get(name)
            if present is not None:
                return self._the_same(present, request)
            loaded = await self.rooms.loader.load(request, self._forget)
            self._instances[name] = loaded
            return loaded

    def _the_same(self, present: handles.Instance, request: loading.Request) -> handles.Instance:
        asked = {**(request.config or {})}
        differs = [key for key, value in asked.items() if present.config.get(key) != value]
        if present.plugin != request.plugin or differs or request.options:
            raise errors.ConflictError(
                f"instance {present.id} of plugin {present.plugin} is loaded already",
                code="instance.loaded",
                details={"instance": present.id, "differs": differs},
                hint="reconfigure it, unload it first, or load another one under a name of its own",
            )
        return present

    def _fresh_name(self, plugin: str) -> str:
        for _ in range(16):
            name = f"{plugin[:57]}-{randomness.token_hex(3)}"
            if name not in self._instances:
                return name
        raise errors.UnavailableError(f"no free name for another instance of {plugin}")

    def _forget(self, name: str) -> None:
        self._instances.pop(name, None)

    async def load_many(
        self,
        wanted: Sequence[str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]],
        *,
        at_once: int = 4,
        fail_fast: bool = False,
    ) -> dict[str, handles.Instance | Exception]:
        """Load several plugins side by side.

        Args:
            wanted: Names, (name, config) pairs, or mappings with `plugin` (or `name`), `config`, `instance`
                and options.
            at_once: How many are started at the same time.
            fail_fast: Raise the first error and unload what this call loaded; else errors are values.

        Returns:
            Instance name to the instance, or to the error that kept it from loading.
        """
        gate = asyncio.Semaphore(at_once)
        results: dict[str, handles.Instance | Exception] = {}

        async def one(request: loading.Request) -> None:
            async with gate:
                try:
                    results[request.name] = await self.load(
                        request.plugin, request.config, instance=request.instance, **request.options
                    )
                except (errors.NodeError, plugin_errors.PluginError) as error:
                    if fail_fast:
                        raise
                    results[request.name] = error

        try:
            async with asyncio.TaskGroup() as group:
                for each in wanted:
                    group.create_task(one(_request(each)))
        except* (errors.NodeError, plugin_errors.PluginError) as group_error:
            await self.unload_many([name for name, got in results.items() if not isinstance(got, Exception)])
            raise group_error.exceptions[0] from None
        return results

    def instances(self) -> list[handles.Instance]:
        """Return what is loaded here, by name."""
        return [self._instances[name] for name in sorted(self._instances)]

    def instance(self, name: str) -> handles.Instance:
        """Return a loaded instance.

        Raises:
            NotFoundError: None of that name is loaded here.
        """
        found = self._instances.get(name)
        if found is None:
            raise errors.NotFoundError(
                f"no instance {name[:80]!r} is loaded here",
                code="instance.not_found",
                details={"loaded": sorted(self._instances)},
                hint="load it first",
            )
        return found

    async def unload(self, name: str) -> None:
        """End an instance; returns within seconds whatever the plugin does."""
        await self.instance(name).unload()

    async def unload_many(self, names: Sequence[str]) -> None:
        """End several instances side by side."""
        await asyncio.gather(*(self.unload(name) for name in names))

    # What is remembered of instances, loaded or not

    async def config(self, plugin: str, *, instance: str | None = None) -> dict[str, Any]:
        """Return the configuration an instance has or would be loaded with."""
        found = self._instances.get(instance or plugin)
        if found is not None:
            return dict(found.config)
        known = await self.manifest(plugin)
        record = await self._record(plugin, instance)
        return self.rooms.loader.validator(known)(record.config)

    async def configure(
        self,
        plugin: str,
        changes: Mapping[str, Any],
        *,
        instance: str | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Change what an instance is configured with, now if it is loaded, and remember it.

        Args:
            plugin: The plugin.
            changes: Keys to change.
            instance: Which instance; the plugin's own when None.
            replace: Forget all other keys, so that they have their defaults again.

        Returns:
            The whole configuration.

        Raises:
            InputError: It does not fit; nothing changed.
        """
        loaded = self._instances.get(instance or plugin)
        if loaded is not None:
            await loaded.reconfigure(changes, replace=replace)
            return dict(loaded.config)
        known = await self.manifest(plugin)
        record = await self._record(plugin, instance)
        given = dict(changes) if replace else {**record.config, **changes}
        effective = self.rooms.loader.validator(known)(given)
        await self.rooms.records.put(dataclasses.replace(record, config=given))
        return effective

    async def set_enabled(self, plugin: str, enabled: bool, *, instance: str | None = None) -> None:
        """Switch an instance on or off, now if it is loaded, and remember it."""
        loaded = self._instances.get(instance or plugin)
        if loaded is not None:
            await (loaded.enable() if enabled else loaded.disable())
            return
        await self.manifest(plugin)
        record = await self._record(plugin, instance)
        await self.rooms.records.put(dataclasses.replace(record, enabled=enabled))

    async def logs(self, plugin: str, count: int = 50, *, instance: str | None = None) -> list[str]:
        """Return the last lines of an instance's log, loaded or not."""
        loaded = self._instances.get(instance or plugin)
        if loaded is not None:
            return await loaded.logs(count)
        name = ids.check_name(instance or plugin, "instance name")
        path = self.rooms.settings.home / "logs" / f"{name}.log"
        return await asyncio.to_thread(logs.read_tail, path, count, self.rooms.settings.log_files)

    async def set_secret(self, plugin: str, key: str, value: str) -> None:
        """Store a secret and replace the workers that were started without it; settings stay."""
        await asyncio.to_thread(self.rooms.secrets.set, plugin, key, value)
        self.rooms.redactor.add([(key, value)])
        for each in self.instances():
            if each.plugin == plugin:
                try:
                    await each.reload()
                except (errors.NodeError, plugin_errors.PluginError) as error:
                    _log.warning("reload_failed", instance=each.id, error=str(error))

    async def _record(self, plugin: str, instance: str | None) -> instances.InstanceRecord:
        name = ids.check_name(instance or plugin, "instance name")
        found = await self.rooms.records.find(name)
        return found or instances.InstanceRecord(name=name, plugin=plugin)

    # The machine

    async def system(self, what: str = "status") -> Any:
        """Return what the machine is doing: `status`, or `processes` on its GPUs.

        A loaded instance with the option `is_monitor` is asked first.
        """
        for each in self.instances():
            if each.options.is_monitor:
                try:
                    return await each.monitor(what)
                except (errors.NodeError, plugin_errors.PluginError) as error:
                    _log.warning("monitor_failed", instance=each.id, error=str(error))
        monitor = self.rooms.monitor
        return await asyncio.to_thread(monitor.processes if what == "processes" else monitor.status)

    async def close(self) -> None:
        """End every instance side by side; bounded."""
        await self.unload_many(list(self._instances))


def _request(wanted: str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]) -> loading.Request:
    if isinstance(wanted, str):
        return loading.Request(plugin=wanted)
    if isinstance(wanted, tuple):
        return loading.Request(plugin=wanted[0], config=wanted[1])
    rest = dict(wanted)
    plugin = str(rest.pop("plugin", None) or rest.pop("name"))
    return loading.Request(
        plugin=plugin,
        config=rest.pop("config", None),
        instance=rest.pop("instance", None),
        options=rest,
    )
