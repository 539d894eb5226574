"""The installed plugins as people and scripts see them: can it run, where, with what; nothing is started."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from toft.plugins.environments.environments import Environments
from toft.plugins.instances import InstanceRecord, Instances
from toft.plugins.manifests.manifest import Manifest, schema_hash
from toft.plugins.manifests.registry import Registry
from toft.secrets.store import SecretStore

READY = "ready"
DISABLED = "disabled"
INCOMPLETE = "incomplete"
BROKEN = "broken"


@dataclass(frozen=True)
class Variable:
    """An environment variable a plugin declares, and whether it has a value; never the value."""

    name: str
    secret: bool
    required: bool
    satisfied: bool
    label: str = ""
    description: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the variable as JSON-like values."""
        return asdict(self)


@dataclass(frozen=True)
class Secret(Variable):
    """A variable of a plugin, declared or only stored, and whether it has a value; never the value."""

    plugin: str = ""
    declared: bool = True
    stored: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return what may be shown of it."""
        told = asdict(self)
        return {"plugin": told.pop("plugin"), "key": told.pop("name"), **told}


@dataclass(frozen=True)
class Entry:
    """One installed plugin.

    Attributes:
        state: `ready`; `disabled` by somebody; `incomplete` without a required variable; `broken` without its
            environment.
        environment: Hash of its environment; empty for one that toft did not make.
        python: Version of its interpreter.
        drift: The configuration schema of its code was found to differ from the manifest's.
        instances: Names of the instances that are remembered.
    """

    name: str
    version: str
    state: str
    environment: str
    python: str
    drift: bool
    instances: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the row that scripts rely on."""
        return {**asdict(self), "instances": list(self.instances)}


class Catalog:
    """Reads the registry, the environments, the remembered instances and the names of the secrets."""

    def __init__(
        self, registry: Registry, environments: Environments, instances: Instances, secrets: SecretStore
    ) -> None:
        self._registry = registry
        self._environments = environments
        self._instances = instances
        self._secrets = secrets

    async def rows(self, *, drifted: Collection[str] = ()) -> list[Entry]:
        """Return every plugin, by name.

        Args:
            drifted: Plugins whose code was found to have another configuration schema.
        """
        manifests = await asyncio.to_thread(self._registry.list)
        remembered: dict[str, list[InstanceRecord]] = {}
        for record in await self._instances.list():
            remembered.setdefault(record.plugin, []).append(record)
        return [
            await asyncio.to_thread(self._entry, each, remembered.get(each.name, []), each.name in drifted)
            for each in manifests
        ]

    async def row(self, name: str) -> Entry:
        """Return one plugin; the others are not looked at.

        Raises:
            NotFoundError: There is no such plugin.
        """
        manifest = await asyncio.to_thread(self._registry.get, name)
        records = await self._instances.list(manifest.name)
        return await asyncio.to_thread(self._entry, manifest, records, False)

    async def variables(self, name: str) -> list[Variable]:
        """Return what a plugin declares.

        Raises:
            NotFoundError: There is no such plugin.
        """
        record = await self._instances.find(name)
        manifest = await asyncio.to_thread(self._registry.get, name)
        return await asyncio.to_thread(self._variables, manifest, record)

    async def secrets(self, plugin: str | None = None) -> list[Secret]:
        """Return what plugins declare, and what is stored for them, by plugin.

        Args:
            plugin: Of this one only, installed or not.

        Raises:
            NotFoundError: It is not installed, and nothing is stored for it.
        """
        records = {each.name: each for each in await self._instances.list()}
        return await asyncio.to_thread(self._states, plugin, records)

    def _states(self, plugin: str | None, records: Mapping[str, InstanceRecord]) -> list[Secret]:
        manifests = {each.name: each for each in self._registry.list()}
        names = [plugin] if plugin is not None else sorted({*manifests, *self._secrets.list_plugins()})
        found: list[Secret] = []
        for name in names:
            keys = self._secrets.list_keys(name)
            if name not in manifests and not keys:
                self._registry.get(name)
            manifest = manifests.get(name)
            declared = [] if manifest is None else self._variables(manifest, records.get(name))
            known = {each.name for each in declared}
            found += [Secret(**asdict(each), plugin=name, stored=each.name in keys) for each in declared]
            found += [
                Secret(key, True, False, True, plugin=name, declared=False, stored=True)
                for key in keys
                if key not in known
            ]
        return found

    def _entry(self, manifest: Manifest, records: list[InstanceRecord], drift: bool) -> Entry:
        own = next((each for each in records if each.name == manifest.name), None)
        return Entry(
            name=manifest.name,
            version=manifest.code.version,
            state=self._state(manifest, own),
            environment=manifest.runtime.environment,
            python=manifest.runtime.python_version,
            drift=drift or _is_stale(manifest),
            instances=tuple(sorted(each.name for each in records)),
        )

    def _state(self, manifest: Manifest, own: InstanceRecord | None) -> str:
        digest = manifest.runtime.environment
        if digest and self._environments.find_readable(digest) is None:
            return BROKEN
        if not os.access(manifest.install.python_path, os.X_OK):
            return BROKEN
        if own is not None and not own.enabled:
            return DISABLED
        needs = (each for each in self._variables(manifest, own) if each.required and not each.satisfied)
        return INCOMPLETE if any(needs) else READY

    def _variables(self, manifest: Manifest, own: InstanceRecord | None) -> list[Variable]:
        declared = manifest.code.worker_env
        stored = set(self._secrets.list_keys(manifest.name)) if any(map(_is_secret, declared)) else set()
        given: Mapping[str, str] = own.options.env if own is not None else {}
        return [
            Variable(
                name=str(each["name"]),
                secret=_is_secret(each),
                required=bool(each.get("required", True)) and each.get("default") is None,
                satisfied=str(each["name"]) in stored
                if _is_secret(each)
                else str(each["name"]) in {**manifest.install.env_vars, **given}
                or each.get("default") is not None,
                label=str(each.get("label") or ""),
                description=str(each.get("description") or ""),
            )
            for each in declared
        ]


def _is_stale(manifest: Manifest) -> bool:
    """Tell whether the schema in a manifest is not the one its hash was taken of."""
    recorded = manifest.config_schema_hash
    return recorded is not None and recorded != schema_hash(manifest.code.config_schema)


def _is_secret(declared: Mapping[str, Any]) -> bool:
    return bool(declared.get("secret"))
