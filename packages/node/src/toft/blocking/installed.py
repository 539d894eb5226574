"""The installed plugins, for programs that do not use asyncio."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toft.plugins.loop_thread import LoopThread

if TYPE_CHECKING:
    from toft.client.installed import RemoteEnvironment, RemoteInstalled
    from toft.plugins import catalog, findings
    from toft.plugins import installed as installed_plugins
    from toft.plugins.conformance import Finding
    from toft.plugins.environments import provisioning
    from toft.plugins.environments.record import Environment
    from toft.plugins.manifests.manifest import Manifest


class Installed:
    """The installed plugins; see `toft.plugins.installed.Installed` for what each method promises."""

    def __init__(self, thread: LoopThread, installed: installed_plugins.Installed | RemoteInstalled) -> None:
        self._thread = thread
        self._installed = installed

    def list(self) -> Sequence[catalog.Entry]:
        """Return every plugin, by name, with its state."""
        return self._thread.run(self._installed.list())

    def get(self, name: str) -> Manifest:
        """Return what is known of a plugin."""
        return self._thread.run(self._installed.get(name))

    def find(
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
        """Return the plugins that fit, the best first."""
        found = self._installed.find(
            task, category=category, role=role, domain=domain, platform=platform, takes=takes, gives=gives
        )
        return self._thread.run(found)

    def canonical(self, role: str) -> Manifest | None:
        """Return the only plugin of a role."""
        return self._thread.run(self._installed.canonical(role))

    def categories(self) -> Sequence[str]:
        """Return the categories there are."""
        return self._thread.run(self._installed.categories())

    def variables(self, name: str) -> Sequence[catalog.Variable]:
        """Return the environment variables a plugin declares, and whether each has a value."""
        return self._thread.run(self._installed.variables(name))

    def secrets(self, plugin: str | None = None) -> Sequence[catalog.Secret]:
        """Return what plugins declare, and what is stored for them; names and states, never a value."""
        return self._thread.run(self._installed.secrets(plugin))

    def add(
        self,
        source: str,
        *,
        force: bool = False,
        on_step: provisioning.Progress | None = None,
        **wish: Any,
    ) -> Sequence[Manifest]:
        """Install the plugins of a directory, wheel, requirement or `plugins.yaml`."""
        return self._thread.run(self._installed.add(source, force=force, on_step=on_step, **wish))

    def refresh(self, name: str, *, on_step: provisioning.Progress | None = None) -> Manifest:
        """Build a plugin's environment anew beside the old one, then swap."""
        return self._thread.run(self._installed.refresh(name, on_step=on_step))

    def regenerate(self, name: str) -> Manifest:
        """Ask the code again what it is; the environment stays."""
        return self._thread.run(self._installed.regenerate(name))

    def remove(self, name: str, *, keep_environment: bool = False) -> bool:
        """Take a plugin away."""
        return self._thread.run(self._installed.remove(name, keep_environment=keep_environment))

    def size(
        self, source: str, *, on_step: provisioning.Progress | None = None, **wish: Any
    ) -> provisioning.SizeEstimate:
        """Say what installing would take, without installing."""
        return self._thread.run(self._installed.size(source, on_step=on_step, **wish))

    def check(self, name: str) -> Sequence[findings.Finding]:
        """Look whether a plugin can still run."""
        return self._thread.run(self._installed.check(name))

    def test(
        self, source: str, *, python: str | None = None, on_step: provisioning.Progress | None = None
    ) -> Sequence[Finding]:
        """Run the conformance kit on an author's plugin without installing it."""
        return self._thread.run(self._installed.test(source, python=python, on_step=on_step))

    def environments(self) -> Sequence[Environment | RemoteEnvironment]:
        """Return every environment."""
        return self._thread.run(self._installed.environments())

    def collect_environments(self) -> Sequence[Environment | RemoteEnvironment]:
        """Remove the environments that no plugin names and no worker runs from."""
        return self._thread.run(self._installed.collect_environments())

    def remove_environment(self, digest: str) -> Environment | RemoteEnvironment:
        """Remove one environment that nothing uses, and return what it was."""

        async def removing() -> Environment | RemoteEnvironment:
            return await self._installed.remove_environment(digest)

        return self._thread.run(removing())

    def setup_conda(self, *, force: bool = False, on_step: provisioning.Progress | None = None) -> Path:
        """Set up a micromamba of the node's own."""
        return self._thread.run(self._installed.setup_conda(force=force, on_step=on_step))
