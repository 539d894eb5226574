"""The installed plugins of a node: added, looked at, renewed and removed; nothing here runs a call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toft.kernel import ids
from toft.plugins import catalog, findings, install, trial
from toft.plugins.environments import micromamba, provisioning, wishes
from toft.plugins.environments.environments import Environments
from toft.plugins.environments.record import Environment
from toft.plugins.manifests import registry, taxonomy
from toft.plugins.manifests.manifest import Manifest

if TYPE_CHECKING:
    from toft_sdk.conformance import Finding


class Installed:
    """What `node.installed` is.

    Args:
        registry: Where manifests are.
        catalog: Shows them with their state.
        store: Where environments are.
        installer: Adds and removes.
        trial: Tries what is not installed.
        conda: Sets up the node's own micromamba.
    """

    def __init__(
        self,
        registry: registry.Registry,
        catalog: catalog.Catalog,
        store: Environments,
        installer: install.Installer,
        *,
        trial: trial.Trial,
        conda: micromamba.Micromamba,
    ) -> None:
        self._registry = registry
        self._catalog = catalog
        self._store = store
        self._installer = installer
        self._trial = trial
        self._conda = conda

    async def list(self) -> list[catalog.Entry]:
        """Return every plugin, by name, with its state."""
        return await self._catalog.rows()

    async def get(self, name: str) -> Manifest:
        """Return what is known of a plugin.

        Raises:
            NotFoundError: It is not installed; says which name is near.
        """
        return await asyncio.to_thread(self._registry.get, name)

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
        """Return the plugins that fit, the best first; nothing is imported for it."""
        return await asyncio.to_thread(
            self._registry.find,
            task,
            category=category,
            role=role,
            domain=domain,
            platform=platform,
            takes=takes,
            gives=gives,
        )

    async def canonical(self, role: str) -> Manifest | None:
        """Return the only plugin of a role; None when there is none, or several and nobody can say which."""
        return taxonomy.canonical(await asyncio.to_thread(self._registry.list), role)

    async def categories(self) -> Sequence[str]:
        """Return the categories there are, sorted."""
        return taxonomy.categories(await asyncio.to_thread(self._registry.list))

    async def variables(self, name: str) -> Sequence[catalog.Variable]:
        """Return the environment variables a plugin declares, and whether each has a value."""
        return await self._catalog.variables(name)

    async def secrets(self, plugin: str | None = None) -> Sequence[catalog.Secret]:
        """Return what plugins declare, and what is stored for them; names and states, never a value."""
        return await self._catalog.secrets(plugin)

    async def add(
        self,
        source: str,
        *,
        force: bool = False,
        on_step: provisioning.Progress | None = None,
        **wish: Any,
    ) -> Sequence[Manifest]:
        """Install the plugins of a directory, wheel, requirement or `plugins.yaml`.

        Args:
            source: What to install.
            force: Replace a plugin of the same name from elsewhere.
            on_step: Told each step.
            wish: The other fields of `toft.plugins.environments.wishes.Wish`.
        """
        return await self._installer.add(
            wishes.Wish.of(source, wish), force=force, progress=on_step or provisioning.silent
        )

    async def refresh(self, name: str, *, on_step: provisioning.Progress | None = None) -> Manifest:
        """Build a plugin's environment anew beside the old one, then swap."""
        return await self._installer.refresh(name, progress=on_step or provisioning.silent)

    async def regenerate(self, name: str) -> Manifest:
        """Ask the code again what it is; the environment stays."""
        return await self._installer.regenerate(name)

    async def remove(self, name: str, *, keep_environment: bool = False) -> bool:
        """Take a plugin away; False when there was none."""
        return await asyncio.to_thread(
            lambda: self._installer.remove(name, keep_environment=keep_environment)
        )

    async def size(
        self, source: str, *, on_step: provisioning.Progress | None = None, **wish: Any
    ) -> provisioning.SizeEstimate:
        """Say what installing would take, without installing; an installed plugin's name will do, too."""
        asked = await asyncio.to_thread(self._remembered, source) or wishes.Wish.of(source, wish)
        return await self._installer.size(asked, on_step or provisioning.silent)

    async def check(self, name: str) -> Sequence[findings.Finding]:
        """Look whether a plugin can still run: manifest, environment, import, drift, variables."""
        found = [await asyncio.to_thread(self._look_at_manifest, name), *await self._installer.check(name)]
        variables = await self._catalog.variables(name)
        missing = [each for each in variables if each.required and not each.satisfied]
        if not missing:
            return [*found, findings.Finding("variables", True, f"{len(variables)} declared, none missing")]
        evidence = f"missing: {', '.join(each.name for each in missing)}"
        secret = next((each.name for each in missing if each.secret), None)
        hint = (
            f"toft secret set {name} {secret}"
            if secret
            else f"toft plugin options {name} --env {missing[0].name}=VALUE"
        )
        return [*found, findings.Finding("variables", False, evidence, hint)]

    async def test(
        self, source: str, *, python: str | None = None, on_step: provisioning.Progress | None = None
    ) -> Sequence[Finding]:
        """Run the conformance kit on an author's plugin without installing it."""
        return await self._trial.run(source, python=python, on_step=on_step)

    async def environments(self) -> Sequence[Environment]:
        """Return every environment."""
        return await asyncio.to_thread(self._store.list)

    async def collect_environments(self) -> Sequence[Environment]:
        """Remove the environments that no plugin names and no worker runs from; return them."""
        return await asyncio.to_thread(self._installer.collect)

    async def remove_environment(self, digest: str) -> Environment:
        """Remove one environment and return what it was.

        Raises:
            NotFoundError: There is none of this hash.
            ConflictError: A plugin names it, a worker runs from it, or somebody builds it.
        """
        return await asyncio.to_thread(self._installer.remove_environment, digest)

    async def setup_conda(self, *, force: bool = False, on_step: provisioning.Progress | None = None) -> Path:
        """Set up a micromamba of the node's own; nothing to do when it is there, unless forced."""
        return await self._conda.set_up(force=force, progress=on_step or provisioning.silent)

    def _look_at_manifest(self, name: str) -> findings.Finding:
        self._registry.get(name)
        looked = self._registry.find_name(name)
        odd = looked.warnings if looked else ()
        where = str(looked.path) if looked else ""
        # Odd is not wrong: the plugin runs all the same.
        return findings.Finding("manifest", True, "; ".join((where, *odd)))

    def _remembered(self, name: str) -> wishes.Wish | None:
        found = self._registry.find_name(name) if ids.is_name(name) else None
        requested = found.manifest.runtime.requested if found else {}
        return wishes.Wish.remembered(requested) if requested.get("source") else None


async def entry(installed: Installed, name: str) -> catalog.Entry:
    """Return one plugin with its state; the others are not looked at.

    Raises:
        NotFoundError: It is not installed.
    """
    return await installed._catalog.row(name)
