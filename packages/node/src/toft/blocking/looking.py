"""Secrets and configurations of a node elsewhere, for programs that do not use asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toft.client.configuration import RemoteConfiguration
from toft.client.secrets import RemoteSecrets
from toft.plugins.loop_thread import LoopThread


class Secrets:
    """See `toft.client.secrets.RemoteSecrets` for what each method promises."""

    def __init__(self, thread: LoopThread, secrets: RemoteSecrets) -> None:
        self._thread = thread
        self._secrets = secrets

    def list(self, plugin: str | None = None) -> list[dict[str, Any]]:
        """Return the variables that plugins declare and the secrets that are stored, of one plugin or all."""
        return self._thread.run(self._secrets.list(plugin))

    def remove(self, plugin: str, key: str) -> None:
        """Remove a secret for good."""
        self._thread.run(self._secrets.remove(plugin, key))


class Configuration:
    """See `toft.client.configuration.RemoteConfiguration` for what each method promises."""

    def __init__(self, thread: LoopThread, configuration: RemoteConfiguration) -> None:
        self._thread = thread
        self._configuration = configuration

    def schema(self, plugin: str, *, instance: str | None = None) -> dict[str, Any]:
        """Return the JSON Schema, the defaults, what is remembered and what is wrong with that."""
        return self._thread.run(self._configuration.schema(plugin, instance=instance))

    def options(self, plugin: str, *, instance: str | None = None) -> dict[str, Any]:
        """Return the values each setting can take right now."""
        return self._thread.run(self._configuration.options(plugin, instance=instance))

    def validate(
        self,
        plugin: str,
        changes: Mapping[str, Any],
        *,
        instance: str | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Say whether changes would be taken, and what is wrong with them; changes nothing."""
        asking = self._configuration.validate(plugin, changes, instance=instance, replace=replace)
        return self._thread.run(asking)
