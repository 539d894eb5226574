"""The plugins that a node elsewhere has installed: looked at and changed from here."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from toft.api import schemas
from toft.client import connection as connections
from toft.client import faults, uploading
from toft.client.connection import Connection
from toft.kernel import ids
from toft.plugins import listed
from toft.plugins.catalog import Entry, Secret, Variable
from toft.plugins.environments import provisioning, sources, wishes
from toft.plugins.environments.provisioning import Progress
from toft.plugins.findings import Finding
from toft.plugins.manifests import manifest as manifests
from toft.plugins.manifests import taxonomy
from toft.plugins.manifests.manifest import Manifest

_AT_ONCE = 8
V = TypeVar("V", bound=Variable)


class RemoteEnvironment:
    """An environment as the node told of it.

    Attributes:
        hash: Its name.
        size_bytes: What it takes on that machine's disk.
    """

    def __init__(self, told: Mapping[str, Any]) -> None:
        self._told = dict(told)
        self.hash = str(told["hash"])
        self.size_bytes = int(told["size_bytes"])

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return dict(self._told)


class RemoteInstalled:
    """See `toft.plugins.installed.Installed` for what each method promises.

    Args:
        asked: The session with the node.
    """

    def __init__(self, asked: Connection) -> None:
        self._asked = asked

    async def list(self) -> Sequence[Entry]:
        """Return every plugin, by name, with its state."""
        found = await self._asked.ask("GET", "/v1/plugins")
        return [Entry(**{**each, "instances": tuple(each["instances"])}) for each in found]

    async def get(self, name: str) -> Manifest:
        """Return what is known of a plugin."""
        told = await self._asked.ask("GET", connections.path("plugins", name))
        return manifests.parse(told, what=f"the manifest of {name}")

    async def find(
        self,
        task: str = "",
        *,
        category: str | None = None,
        role: str | None = None,
        domain: str | None = None,
        platform: str | None = None,
        takes: Sequence[str] = (),
        gives: str | None = None,
    ) -> Sequence[Manifest]:
        """Return the plugins that fit, the best first; `here` as a platform is this machine's."""
        return taxonomy.find(
            await self._all(),
            task,
            category=category,
            role=role,
            domain=domain,
            platform=platform,
            takes=takes,
            gives=gives,
        )

    async def canonical(self, role: str) -> Manifest | None:
        """Return the only plugin of a role."""
        return taxonomy.canonical(await self._all(), role)

    async def categories(self) -> Sequence[str]:
        """Return the categories there are, sorted."""
        return taxonomy.categories(await self._all())

    async def _all(self) -> Sequence[Manifest]:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str) -> Manifest:
            async with gate:
                return await self.get(name)

        return await asyncio.gather(*(one(each.name) for each in await self.list()))

    async def remove(self, name: str, *, keep_environment: bool = False) -> bool:
        """Unload a plugin's instances, forget them, and take the plugin away."""
        query = {"keep_environment": "true" if keep_environment else None}
        told = await self._asked.ask("DELETE", connections.path("plugins", name), query=query)
        return bool(told["removed"])

    async def variables(self, name: str) -> Sequence[Variable]:
        """Return the environment variables a plugin declares, and whether each has a value."""
        rows = await self._asked.ask("GET", connections.path("plugins", name, "secrets"))
        return [_read(Variable, each) for each in rows if each["declared"]]

    async def secrets(self, plugin: str | None = None) -> Sequence[Secret]:
        """Return what plugins declare, and what is stored for them; names and states, never a value."""
        route = "/v1/secrets" if plugin is None else connections.path("plugins", plugin, "secrets")
        return [_read(Secret, each) for each in await self._asked.ask("GET", route)]

    async def environments(self) -> Sequence[RemoteEnvironment]:
        """Return every environment."""
        return [RemoteEnvironment(each) for each in await self._asked.ask("GET", "/v1/environments")]

    async def collect_environments(self) -> Sequence[RemoteEnvironment]:
        """Remove the environments that no plugin names and no worker runs from."""
        told = await self._asked.ask("POST", "/v1/environments/collect")
        # Their sizes are told together.
        rows = [{"hash": each, "size_bytes": 0} for each in told["removed"]]
        if rows:
            rows[0]["size_bytes"] = told["freed_bytes"]
        return [RemoteEnvironment(each) for each in rows]

    async def remove_environment(self, digest: str) -> RemoteEnvironment:
        """Remove one environment that nothing uses, and return what it was."""
        told = await self._asked.ask("DELETE", connections.path("environments", digest))
        return RemoteEnvironment({"hash": digest, "size_bytes": told["freed_bytes"]})

    async def add(
        self, source: str, *, force: bool = False, on_step: Progress | None = None, **wish: Any
    ) -> Sequence[Manifest]:
        """Install the plugins of a directory, wheel or list of this machine, or of a requirement."""
        return await self._add(wishes.Wish.of(source, wish), force, on_step or provisioning.silent)

    async def _add(self, wish: wishes.Wish, force: bool, told: Progress) -> Sequence[Manifest]:
        if wish.name:
            ids.check_name(wish.name, "plugin name")
        source = await asyncio.to_thread(sources.Source.parse, wish.source)
        if source.kind == "plugins_file" and source.path:
            return await listed.add(source.path, wish, lambda each: self._add(each, force, told), told)
        body = {**await uploading.Uploads(self._asked, told).body(wish), "force": force}
        done = await self._asked.work("/v1/plugins", body, on_step=told)
        return [manifests.parse(each, what="the manifest of a new plugin") for each in done["plugins"]]

    async def refresh(self, name: str, *, on_step: Progress | None = None) -> Manifest:
        """Build a plugin's environment anew beside the old one, then swap."""
        return await self._renewed(name, "refresh", on_step)

    async def regenerate(self, name: str) -> Manifest:
        """Ask the code again what it is; the environment stays."""
        return await self._renewed(name, "regenerate", None)

    async def _renewed(self, name: str, how: str, on_step: Progress | None) -> Manifest:
        route = connections.path("plugins", name, how)
        told = await self._asked.work(route, on_step=on_step or provisioning.silent)
        return manifests.parse(told, what=f"the manifest of {name}")

    async def size(
        self, source: str, *, on_step: Progress | None = None, **wish: Any
    ) -> provisioning.SizeEstimate:
        """Say what installing would take, without installing; an installed plugin's name will do, too."""
        told = on_step or provisioning.silent
        body: Mapping[str, Any] = {"source": source}
        if not ids.is_name(source) or all(each.name != source for each in await self.list()):
            sent = await uploading.Uploads(self._asked, told).body(wishes.Wish.of(source, wish))
            body = {name: sent[name] for name in schemas.SIZE.members}
        found = await self._asked.work("/v1/environments/size", body, on_step=told)
        return provisioning.SizeEstimate(
            download_bytes=found["download_bytes"],
            installed_bytes=found["installed_bytes"],
            packages=found["packages"],
            exists=found["exists"],
        )

    async def check(self, name: str) -> Sequence[Finding]:
        """Look whether a plugin can still run: manifest, environment, import, drift, variables."""
        found = await self._asked.ask("POST", connections.path("plugins", name, "check"))
        return [Finding(**each) for each in found]

    # What is about that machine itself, or for an author at his own.

    async def test(self, source: str, **_: Any) -> NoReturn:
        """Refused."""
        self._refuse(f"testing {source}")

    async def setup_conda(self, **_: Any) -> NoReturn:
        """Refused."""
        self._refuse("setting up micromamba")

    def _refuse(self, what: str) -> NoReturn:
        raise faults.local_only(what, self._asked.origin.base)


def _read(kind: type[V], told: Mapping[str, Any]) -> V:
    """Return a variable as the node told of it; what a newer node tells beside is left out."""
    values = {**told, "name": told["key"]}
    return kind(**{each.name: values[each.name] for each in dataclasses.fields(kind) if each.name in values})
