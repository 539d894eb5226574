"""The node, for programs that do not use asyncio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

from toft.blocking.embedded import EmbeddedInstance
from toft.blocking.installed import Installed
from toft.blocking.instance import Instance
from toft.blocking.jobs import Jobs
from toft.plugins import batches
from toft.plugins.loop_thread import LoopThread

if TYPE_CHECKING:
    from toft.dispatch import node as nodes
    from toft.plugins import catalog
    from toft.plugins import instance as handles
    from toft.plugins.environments import provisioning
    from toft.plugins.instances import InstanceOptions
    from toft.plugins.manifests.manifest import Manifest
    from toft.plugins.node import Rooms


class Node:
    """The node; see `toft.plugins.node.Node` for what each method promises.

    Attributes:
        installed: The plugins that are installed.
        jobs: Its durable jobs; nothing is opened before something is asked of them.
        is_embedded: It is open in this process; jobs are run as long as it is.
    """

    def __init__(
        self, thread: LoopThread, opening: AbstractAsyncContextManager[nodes.Node], node: nodes.Node
    ) -> None:
        self.installed = Installed(thread, node.installed)
        self.jobs = Jobs(thread, node.jobs)
        self.is_embedded = True
        self._thread = thread
        self._opening: AbstractAsyncContextManager[Any] | None = opening
        self._node = node

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every instance and everything the node started; bounded. A second close does nothing."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        try:
            self._thread.run(_leave(opening))
        finally:
            self._thread.stop()

    @property
    def rooms(self) -> Rooms:
        """Return what it is composed of."""
        return self._node.rooms

    def plugins(self) -> list[catalog.Entry]:
        """Return every installed plugin, by name, with the state of what is loaded here."""
        return self._thread.run(self._node.plugins())

    def refresh(self, plugin: str, *, on_step: provisioning.Progress | None = None) -> Manifest:
        """Build a plugin's environment anew and swap."""
        return self._thread.run(self._node.refresh(plugin, on_step=on_step))

    def remove(self, plugin: str, *, keep_environment: bool = False) -> bool:
        """Unload a plugin's instances, forget them, and take the plugin away."""
        return self._thread.run(self._node.remove(plugin, keep_environment=keep_environment))

    def load(
        self,
        plugin: str,
        config: Mapping[str, Any] | None = None,
        *,
        instance: str | None = None,
        new: bool = False,
        **options: Any,
    ) -> Instance:
        """Load a plugin, ready to be called."""
        loading = self._node.load(plugin, config, instance=instance, new=new, **options)
        return self._handle(self._thread.run(loading))

    def load_many(
        self,
        wanted: Sequence[batches.Wanted],
        *,
        at_once: int = 4,
        fail_fast: bool = False,
    ) -> dict[str, Instance | Exception]:
        """Load several plugins side by side; an error stands in the place of what did not load."""
        loaded = self._thread.run(self._node.load_many(wanted, at_once=at_once, fail_fast=fail_fast))
        return {
            name: got if isinstance(got, Exception) else self._handle(got) for name, got in loaded.items()
        }

    def _handle(self, loaded: handles.Instance) -> Instance:
        return EmbeddedInstance(self._thread, loaded)

    def instances(self) -> list[Instance]:
        """Return what is loaded here, by name."""
        return [self._handle(each) for each in self._thread.do(self._node.instances)]

    def instance(self, name: str) -> Instance:
        """Return a loaded instance."""
        return self._handle(self._thread.do(partial(self._node.instance, name)))

    def unload(self, name: str) -> None:
        """End an instance."""
        self._thread.run(self._node.unload(name))

    def unload_many(self, names: Sequence[str]) -> None:
        """End several instances side by side."""
        self._thread.run(self._node.unload_many(names))

    def config(self, plugin: str, *, instance: str | None = None) -> dict[str, Any]:
        """Return the configuration an instance has or would be loaded with."""
        return self._thread.run(self._node.config(plugin, instance=instance))

    def configure(
        self,
        plugin: str,
        changes: Mapping[str, Any],
        *,
        instance: str | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Change what an instance is configured with, and remember it."""
        return self._thread.run(self._node.configure(plugin, changes, instance=instance, replace=replace))

    def set_enabled(self, plugin: str, enabled: bool, *, instance: str | None = None) -> None:
        """Switch an instance on or off, and remember it."""
        self._thread.run(self._node.set_enabled(plugin, enabled, instance=instance))

    def set_options(
        self,
        plugin: str,
        changes: Mapping[str, Any],
        *,
        instance: str | None = None,
        replace: bool = False,
    ) -> InstanceOptions:
        """Change how an instance is run from its next load on, and remember it."""
        return self._thread.run(self._node.set_options(plugin, changes, instance=instance, replace=replace))

    def logs(self, plugin: str, count: int = 50, *, instance: str | None = None) -> list[str]:
        """Return the last lines of an instance's log, loaded or not."""
        return self._thread.run(self._node.logs(plugin, count, instance=instance))

    def system(self, what: str = "status") -> Any:
        """Return what the machine is doing: `status`, or `processes` on its GPUs."""
        return self._thread.run(self._node.system(what))

    def set_secret(self, plugin: str, key: str, value: str) -> None:
        """Store a secret and replace the workers that were started without it."""
        self._thread.run(self._node.set_secret(plugin, key, value))


async def _leave(opening: AbstractAsyncContextManager[Any]) -> None:
    await opening.__aexit__(None, None, None)
