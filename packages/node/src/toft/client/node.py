"""The node of a home that a daemon has, with the words of one that is open here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toft.client import connection as connections
from toft.client.configuration import RemoteConfiguration
from toft.client.connection import Connection
from toft.client.documents import RemoteDocuments
from toft.client.installed import RemoteInstalled
from toft.client.instance import RemoteInstance
from toft.client.jobs import RemoteJobs
from toft.client.secrets import RemoteSecrets
from toft.plugins import batches
from toft.plugins.catalog import Entry
from toft.plugins.instances import InstanceOptions
from toft.plugins.manifests.manifest import Manifest


class RemoteNode:
    """See `toft.plugins.node.Node` for what each method promises.

    Args:
        asked: The session with the daemon.

    Attributes:
        jobs: Its durable jobs.
        installed: The plugins that are installed there.
        secrets: Which of them have which secrets.
        configuration: What their settings may be.
        documents: Its document.
    """

    def __init__(self, asked: Connection) -> None:
        self._asked = asked
        self.jobs = RemoteJobs(asked)
        self.installed = RemoteInstalled(asked)
        self.secrets = RemoteSecrets(asked)
        self.configuration = RemoteConfiguration(asked)
        self.documents = RemoteDocuments(asked)

    async def plugins(self) -> list[Entry]:
        """Return every installed plugin, by name, with the state of what is loaded there."""
        return list(await self.installed.list())

    async def manifest(self, plugin: str) -> Mapping[str, Any]:
        """Return what is known of a plugin, as it is written down."""
        found: Mapping[str, Any] = await self._asked.ask("GET", connections.path("plugins", plugin))
        return found

    async def remove(self, plugin: str, *, keep_environment: bool = False) -> bool:
        """Unload a plugin's instances, forget them, and take the plugin away."""
        return await self.installed.remove(plugin, keep_environment=keep_environment)

    async def refresh(self, plugin: str, *, on_step: Callable[[str], None] | None = None) -> Manifest:
        """Build a plugin's environment anew and swap."""
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
    ) -> RemoteInstance:
        """Load a plugin, ready to be called."""
        body = {
            "plugin": plugin,
            "config": None if config is None else dict(config),
            "instance": instance,
            "new": new,
            "options": self._asked.origin.options(options),
        }
        return RemoteInstance(self._asked, await self._asked.ask("POST", "/v1/instances", body))

    async def load_many(
        self,
        wanted: Sequence[batches.Wanted],
        *,
        at_once: int = 4,
        fail_fast: bool = False,
    ) -> dict[str, RemoteInstance | Exception]:
        """Load several plugins side by side; an error stands in the place of what did not load."""
        present = {each.id for each in await self.instances()} if fail_fast else None
        return await batches.load_many(self, wanted, at_once=at_once, undo_but=present)

    async def instances(self) -> list[RemoteInstance]:
        """Return what is loaded there, by name."""
        return [RemoteInstance(self._asked, each) for each in await self._asked.ask("GET", "/v1/instances")]

    async def instance(self, name: str) -> RemoteInstance:
        """Return a loaded instance."""
        return RemoteInstance(self._asked, await self._asked.ask("GET", connections.path("instances", name)))

    async def unload(self, name: str) -> None:
        """End an instance."""
        await self._asked.ask("DELETE", connections.path("instances", name))

    async def unload_many(self, names: Sequence[str]) -> None:
        """End several instances side by side; the first error is raised when all have had their turn."""
        for ended in await asyncio.gather(*map(self.unload, names), return_exceptions=True):
            if ended is not None:
                raise ended

    # What is remembered of instances

    async def config(self, plugin: str, *, instance: str | None = None) -> dict[str, Any]:
        """Return the configuration an instance has or would be loaded with."""
        found: dict[str, Any] = await self._asked.ask(
            "GET", connections.path("plugins", plugin, "config"), query={"instance": instance}
        )
        return found

    async def configure(
        self,
        plugin: str,
        changes: Mapping[str, Any],
        *,
        instance: str | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Change what an instance is configured with, and remember it."""
        body = {"changes": dict(changes), "instance": instance, "replace": replace}
        found: dict[str, Any] = await self._asked.ask(
            "POST", connections.path("plugins", plugin, "config"), body
        )
        return found

    async def set_enabled(self, plugin: str, enabled: bool, *, instance: str | None = None) -> None:
        """Switch an instance on or off, and remember it."""
        body = {"enabled": enabled, "instance": instance}
        await self._asked.ask("POST", connections.path("plugins", plugin, "enabled"), body)

    async def set_options(
        self,
        plugin: str,
        changes: Mapping[str, Any],
        *,
        instance: str | None = None,
        replace: bool = False,
    ) -> InstanceOptions:
        """Change how an instance is run from its next load on, and remember it."""
        body = {"changes": self._asked.origin.options(changes), "instance": instance, "replace": replace}
        told = await self._asked.ask("POST", connections.path("plugins", plugin, "options"), body)
        return InstanceOptions.from_dict(told)

    async def logs(self, plugin: str, count: int = 50, *, instance: str | None = None) -> list[str]:
        """Return the last lines of an instance's log, loaded or not."""
        found: list[str] = await self._asked.ask(
            "GET", connections.path("plugins", plugin, "logs"), query={"count": count, "instance": instance}
        )
        return found

    async def set_secret(self, plugin: str, key: str, value: str) -> None:
        """Store a secret and replace the workers that were started without it."""
        await self._asked.ask("PUT", connections.path("plugins", plugin, "secrets", key), {"value": value})

    async def status(self) -> dict[str, Any]:
        """Return what the node is doing: its process, the queue, memory, GPUs, what is loaded."""
        found: dict[str, Any] = await self._asked.ask("GET", "/v1/status")
        return found

    async def system(self, what: str = "status") -> Any:
        """Return what the machine is doing."""
        return await self._asked.ask("GET", "/v1/system", query={"what": what})
