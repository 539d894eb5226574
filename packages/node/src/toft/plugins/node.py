"""The node inside this process: what is installed, what is loaded, and what can be asked of it.

`toft.open_node()` makes one; `toft.connect()` is the same for programs that do not use asyncio.
"""

from __future__ import annotations

import asyncio
import dataclasses
import secrets as randomness
import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toft.host.keeper import Isolation
from toft.host.monitor import Monitor
from toft.kernel import errors, ids, log, settings
from toft.plugins import activity as activities
from toft.plugins import batches, catalog, install, installed, loading, logs
from toft.plugins import instance as handles
from toft.plugins.environments import provisioning
from toft.plugins.environments.environments import Environments
from toft.plugins.instances import (
    InstanceOptions,
    InstanceRecord,
    Instances,
    another_plugins,
    checked_options,
)
from toft.plugins.manifests import registry
from toft.plugins.manifests.manifest import Manifest
from toft.plugins.supervision import launch
from toft.secrets.redaction import Redactor
from toft.secrets.store import SecretStore
from toft_sdk import errors as plugin_errors

_log = log.get_logger("plugins.node")


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """What a node is composed of; `toft.wiring` fills it in."""

    settings: settings.Settings
    environments: Environments
    registry: registry.Registry
    installed: installed.Installed
    installer: install.Installer
    records: Instances
    loader: loading.Loader
    secrets: SecretStore
    redactor: Redactor
    monitor: Callable[[], Awaitable[Monitor]]
    isolation: Isolation


class Node:
    """The node.

    Attributes:
        installed: The plugins that are installed.
        rooms: What it is composed of; for whoever needs more than the methods here.
        when_absent: Told an instance that was unloaded, or that is not loaded and may be able to be now.
    """

    def __init__(self, rooms: Rooms) -> None:
        self.rooms = rooms
        self.installed = rooms.installed
        self._instances: dict[str, handles.Instance] = {}
        self._apart: set[handles.Instance] = set()
        self.when_absent: Callable[[str], object] = lambda name: None
        # Weak: a lock is there as long as somebody loads under its name.
        self._loading: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    # Installed plugins

    async def plugins(self) -> list[catalog.Entry]:
        """Return every installed plugin, by name, with the state of what is loaded here."""
        return [self._with_loaded(each) for each in await self.installed.list()]

    def _with_loaded(self, entry: catalog.Entry) -> catalog.Entry:
        loaded = [each for each in self.instances() if each.plugin == entry.name]
        own = next((each for each in loaded if each.id == entry.name), None)
        state = entry.state
        if own is not None:
            state = str(own.state) if own.is_enabled else catalog.DISABLED
        names = sorted({*entry.instances, *(each.id for each in loaded)})
        drift = entry.drift or any(each.drift is not None for each in loaded)
        return dataclasses.replace(entry, state=state, drift=drift, instances=tuple(names))

    async def remove(self, plugin: str, *, keep_environment: bool = False) -> bool:
        """Unload a plugin's instances, forget them, and take the plugin away; False when there was none."""
        self.rooms.registry.check_free(plugin)
        for each in await self.rooms.records.list(plugin):
            self.rooms.records.check_free(each.name)
        await self.unload_many([each.id for each in self.instances() if each.plugin == plugin])
        removed = await self.installed.remove(plugin, keep_environment=keep_environment)
        await self.rooms.records.remove_all(plugin)
        return removed

    async def refresh(self, plugin: str, *, on_step: provisioning.Progress | None = None) -> Manifest:
        """Build a plugin's environment anew and swap; what is loaded here stays."""
        return await self.installed.refresh(plugin, on_step=on_step)

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
            ConflictError: It is loaded already with another configuration, or the document of the node
                declares it (`generation.declared`).
        """
        ids.check_name(plugin, "plugin name")
        name = self.fresh_name(plugin) if new else ids.check_name(instance or plugin, "instance name")
        request = loading.Request(plugin=plugin, instance=name, config=config, options=options)
        async with self._loading.setdefault(name, asyncio.Lock()):
            present = self._instances.get(name)
            if present is not None:
                return handles.the_same(present, plugin, config, options)
            if config or options:
                self.rooms.records.check_free(name)
            loaded = await self.rooms.loader.load(request, self._forget)
            self._instances[name] = loaded
            return loaded

    def fresh_name(self, plugin: str) -> str:
        """Make up a name that no loaded instance has."""
        for _ in range(16):
            name = f"{plugin[:57]}-{randomness.token_hex(3)}"
            if name not in self._instances:
                return name
        raise errors.UnavailableError(f"no free name for another instance of {plugin}")

    def _forget(self, name: str) -> None:
        self._instances.pop(name, None)
        self.when_absent(name)

    async def load_apart(
        self,
        plugin: str,
        config: Mapping[str, Any] | None = None,
        *,
        instance: str,
        options: Mapping[str, Any],
    ) -> handles.Instance:
        """Load an instance that only its caller knows and ends; another of that name may be loaded."""
        request = loading.Request(plugin=plugin, instance=instance, config=config, options=options)
        loaded: list[handles.Instance] = []

        def forget(name: str) -> None:
            self._apart.difference_update(loaded)

        loaded.append(await self.rooms.loader.load(request, forget))
        self._apart.update(loaded)
        return loaded[0]

    async def load_many(
        self,
        wanted: Sequence[batches.Wanted],
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

        Raises:
            UsageError: A mapping names no plugin; nothing was loaded.
        """
        present = set(self._instances) if fail_fast else None
        return await batches.load_many(self, wanted, at_once=at_once, undo_but=present)

    def instances(self) -> list[handles.Instance]:
        """Return what is loaded here, by name."""
        return [self._instances[name] for name in sorted(self._instances)]

    def find(self, name: str) -> handles.Instance | None:
        """Return a loaded instance, if there is one of that name."""
        return self._instances.get(name)

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
        """End an instance; returns within seconds whatever the plugin does.

        Raises:
            NotFoundError: None of that name is loaded here.
            DeclaredError: The document of the node declares it; it stays.
        """
        found = self.instance(name)
        self.rooms.records.check_free(name)
        await found.unload()

    async def unload_many(self, names: Sequence[str]) -> None:
        """End several instances side by side; the first error is raised when all have had their turn."""
        for ended in await asyncio.gather(*map(self.unload, names), return_exceptions=True):
            if ended is not None:
                raise ended

    # What is remembered of instances, loaded or not

    async def config(self, plugin: str, *, instance: str | None = None) -> dict[str, Any]:
        """Return the configuration an instance has or would be loaded with."""
        found = self._loaded(plugin, instance)
        if found is not None:
            return dict(found.config)
        known = await self.installed.get(plugin)
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
            ConflictError: The instance is another plugin's; nothing changed.
        """
        loaded = self._loaded(plugin, instance)
        self.rooms.records.check_free(instance or plugin)
        if loaded is not None:
            await loaded.reconfigure(changes, replace=replace)
            return dict(loaded.config)
        known = await self.installed.get(plugin)
        record = await self._record(plugin, instance)
        given = dict(changes) if replace else {**record.config, **changes}
        effective = self.rooms.loader.validator(known)(given)
        await self.rooms.records.put(dataclasses.replace(record, config=given))
        return effective

    async def set_enabled(self, plugin: str, enabled: bool, *, instance: str | None = None) -> None:
        """Switch an instance on or off, now if it is loaded, and remember it."""
        self.rooms.records.check_free(instance or plugin)
        loaded = self._loaded(plugin, instance)
        if loaded is not None:
            await (loaded.enable() if enabled else loaded.disable())
            return
        await self.installed.get(plugin)
        record = await self._record(plugin, instance)
        await self.rooms.records.put(dataclasses.replace(record, enabled=enabled))

    async def set_options(
        self,
        plugin: str,
        changes: Mapping[str, Any],
        *,
        instance: str | None = None,
        replace: bool = False,
    ) -> InstanceOptions:
        """Change how an instance is run from its next load on, and remember it.

        Args:
            plugin: The plugin.
            changes: Options as `InstanceOptions` names them; none to look only.
            instance: Which instance; the plugin's own when None.
            replace: Forget all other options, so that they have their defaults again.

        Returns:
            All options.

        Raises:
            InputError: They do not fit; nothing changed.
            ConflictError: The instance is another plugin's; nothing changed.
        """
        self._loaded(plugin, instance)
        known = await self.installed.get(plugin)
        record = await self._record(plugin, instance)
        if changes or replace:
            self.rooms.records.check_free(record.name)
        values = {**({} if replace else record.options.to_dict()), **changes}
        options = InstanceOptions.from_dict(checked_options(values))
        launch.declared_values(known.code.worker_env, known.install.env_vars, options.env)
        if options != record.options:
            await self.rooms.records.put(dataclasses.replace(record, options=options))
        return options

    async def logs(self, plugin: str, count: int = 50, *, instance: str | None = None) -> list[str]:
        """Return the last lines of an instance's log, loaded or not.

        Raises:
            NotFoundError: There is no such plugin, and nothing is left of one.
        """
        loaded = self._instances.get(instance or plugin)
        if loaded is not None:
            return await loaded.logs(count)
        name = ids.check_name(instance or plugin, "instance name")
        path = self.rooms.settings.home / "logs" / f"{name}.log"
        lines = await asyncio.to_thread(logs.read_tail, path, count, self.rooms.settings.log_files)
        if not lines:
            await self.installed.get(plugin)
        return lines

    async def set_secret(self, plugin: str, key: str, value: str) -> None:
        """Store a secret and replace the workers that were started without it; settings stay."""
        await asyncio.to_thread(self.rooms.secrets.set, plugin, key, value)
        self.rooms.redactor.add([(key, value)])
        for each in (*self.instances(), *self._apart):
            if each.plugin == plugin or each.loaded_from.references:
                try:
                    await each.reload()
                except (errors.NodeError, plugin_errors.PluginError) as error:
                    _log.warning("reload_failed", instance=each.id, error=str(error))
        for name in self.rooms.records.declared:
            if name not in self._instances:
                self.when_absent(name)

    def _loaded(self, plugin: str, instance: str | None) -> handles.Instance | None:
        found = self._instances.get(instance or plugin)
        if found is not None and found.plugin != plugin:
            raise another_plugins(found.id, found.plugin, plugin)
        return found

    async def _record(self, plugin: str, instance: str | None) -> InstanceRecord:
        name = ids.check_name(instance or plugin, "instance name")
        return await self.rooms.records.of(plugin, name)

    async def system(self, what: str = "status") -> Any:
        """Return what the machine is doing.

        A loaded instance with the option `is_monitor` is asked; the node itself when there is none, or when
        that one cannot say.

        Args:
            what: `status`, or `processes` for what holds GPU memory.
        """
        for each in self.instances():
            if each.options.is_monitor:
                try:
                    return await each.monitor(what)
                except (errors.NodeError, plugin_errors.PluginError) as error:
                    _log.warning("monitor_failed", instance=each.id, error=str(error))
        built_in = await self.rooms.monitor()
        return await (built_in.list_processes() if what == "processes" else built_in.get_system_status())

    async def close(self) -> None:
        """End every instance side by side; bounded."""
        ending = [each.unload() for each in (*self._instances.values(), *self._apart)]
        for ended in await asyncio.gather(*ending, return_exceptions=True):
            if ended is not None:
                raise ended


async def load_current(node: Node, plugin: str, *, instance: str | None = None) -> handles.Instance | None:
    """Load an instance as it is remembered, and replace one that was loaded as something else.

    A node that lives for weeks has instances loaded before somebody refreshed the plugin, changed its
    options or stored a secret; a command that came later must not meet them.

    Returns:
        The instance; None when a call still runs on the one that should be replaced.

    Raises:
        ConflictError: Another plugin's instance has the name; it stays.
    """
    name = ids.check_name(instance or plugin, "instance name")
    present = node.find(name)
    is_its_own = present is not None and present.plugin == plugin
    if present is not None and is_its_own and not await node.rooms.loader.is_current(present, plugin):
        if activities.is_busy(present):
            return None
        _log.info("replaced", instance=name)
        await present.unload()
    loaded = await node.load(plugin, instance=name)
    loaded.is_shared = True
    return loaded
