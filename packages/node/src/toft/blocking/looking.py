"""Secrets, configurations and the document of a node elsewhere, for programs that do not use asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toft.client.configuration import RemoteConfiguration
from toft.client.documents import RemoteDocuments
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


class Documents:
    """See `toft.client.documents.RemoteDocuments` for what each method promises."""

    def __init__(self, thread: LoopThread, documents: RemoteDocuments) -> None:
        self._thread = thread
        self._documents = documents

    def describe(self) -> dict[str, Any]:
        """Return which document runs, its trial and gates, who is asked for the next one, what happened."""
        return self._thread.run(self._documents.describe())

    def text(self, which: str = "running") -> dict[str, Any]:
        """Return a document: `running`, `lkg` for the one before it, or `served` by the central."""
        return self._thread.run(self._documents.text(which))

    def diff(self, against: str = "lkg") -> list[str]:
        """Return how the running document differs from another one: `lkg` or `served`."""
        return self._thread.run(self._documents.diff(against))

    def effective(self) -> dict[str, Any]:
        """Return what the node is, all layers together; what is secret is `<set>`."""
        return self._thread.run(self._documents.effective())

    def explain(self, key: str) -> dict[str, Any]:
        """Return which layer says what of a key, and which one wins."""
        return self._thread.run(self._documents.explain(key))

    def drift(self) -> list[dict[str, str]]:
        """Return how the machine differs from what its document says."""
        return self._thread.run(self._documents.drift())

    def validate(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return everything that is wrong with a document; changes nothing."""
        return self._thread.run(self._documents.validate(document))

    def apply(self, document: str, *, signatures: str = "", source: str = "") -> dict[str, Any]:
        """Put a document in the place of the one that runs, on trial; the daemon starts again with it."""
        return self._thread.run(self._documents.apply(document, signatures=signatures, source=source))

    def roll_back(self, reason: str = "") -> dict[str, Any]:
        """Go back to the document before; nothing new is taken until somebody unpins."""
        return self._thread.run(self._documents.roll_back(reason))

    def pin(self, reason: str = "") -> dict[str, Any]:
        """Take nothing new from anybody but a person who asks for it there."""
        return self._thread.run(self._documents.pin(reason))

    def unpin(self) -> dict[str, Any]:
        """Take new documents again."""
        return self._thread.run(self._documents.unpin())

    def acknowledge(self) -> dict[str, Any]:
        """Take note of the last way back."""
        return self._thread.run(self._documents.acknowledge())
