"""The environments of pins, in the store where all environments of a node are."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from toft.kernel import errors
from toft.managed.bundled import Bundled
from toft.managed.pins import Pin
from toft.plugins import install
from toft.plugins.environments import environments, pinned_wheels
from toft.plugins.environments.provisioning import EnvironmentRequest, PinnedWheel
from toft.plugins.manifests.manifest import Manifest

IMPORT_S = 30.0


class PinnedEnvironments:
    """See `toft.managed.installing.Environments` and `toft.managed.collecting.Store`.

    Args:
        installer: Makes them, and tries plugins in them.
        store: Where they are.
        import_s: Seconds that the import of a plugin may take.
    """

    def __init__(
        self, installer: install.Installer, store: environments.Environments, *, import_s: float = IMPORT_S
    ) -> None:
        self._installer = installer
        self._store = store
        self._import_s = import_s

    @contextlib.asynccontextmanager
    async def build(self, pin: Pin, wheels: Sequence[PinnedWheel]) -> AsyncGenerator[tuple[Manifest, bool]]:
        """Make an environment and import the plugin in it, in a process that sees nothing else."""
        request = EnvironmentRequest(
            wheels=tuple(wheels), python=pin.python or None, origin=f"document:{pin.wheel.filename}"
        )
        async with self._installer.pinned(pin.plugin, request, stall_s=self._import_s) as (
            environment,
            manifest,
        ):
            # What is recorded of it does not depend on when, so that it can be recorded again.
            install = replace(manifest.install, installed_at="")
            yield replace(manifest, install=install), environment.is_new

    async def ask(self, own: Bundled) -> Manifest:
        """Ask a plugin that came with this toft what it is, in a process of its own."""
        async with asyncio.timeout(self._import_s):
            return await self._installer.own(own.name, own.module, own.class_name or None)

    def discard(self, digest: str) -> bool:
        """Take an environment away; False while somebody uses it."""
        try:
            return self._store.remove(digest)
        except errors.ConflictError:
            return False

    def pinned(self) -> Sequence[str]:
        """Return the hashes of those that were made of pins."""
        return [each.hash for each in self._store.list() if each.kind == pinned_wheels.PinnedProvisioner.kind]
