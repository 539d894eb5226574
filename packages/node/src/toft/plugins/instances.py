"""What is remembered of an instance: its plugin, configuration, options and whether it is enabled.

One row in `node.db`; a row is there once somebody configured, enabled or disabled the instance. Loading alone
remembers nothing, so a load that fails has nothing to take back. What the document of the node declares wins
over a row, which stays as it is: once the document is gone, it holds again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toft.kernel import clock as clocks
from toft.kernel import errors, log
from toft.plugins.manifests import config
from toft.store import database
from toft_sdk import errors as plugin_errors

_log = log.get_logger("plugins.instances")
_QUERIES = database.read_queries("toft.plugins")


@dataclass(frozen=True, kw_only=True)
class InstanceOptions:
    """How one instance is run, beside its configuration.

    Attributes:
        concurrency: Calls at once; 0 is unbounded, None is what the plugin declares.
        queue_limit: Calls that may wait; None is the node's setting.
        memory_bytes: The most its process tree may hold, where the machine can limit it.
        processes: The most processes and threads it may have.
        spare: Keep a second worker with the plugin imported, ready to take over.
        zygote: Start workers by forking one that has the plugin imported; the plugin must be fork-safe.
        network: False gives it a network of its own with nothing on it.
        writable: Directories it may write to, beside its own.
        env: Values of declared environment variables, for this instance only.
        cancel_grace_s: Seconds a cancelled call may take to end by itself; None is the node's setting.
        load_stall_s: Seconds without a sign of progress that end its loading; None is the node's setting.
        call_stall_s: The same for a call; 0 lets it be silent for ever; None is the node's setting.
        is_monitor: Ask this instance, not the node, what the machine is doing.
        pinned: Never unload it to make room for another one.
    """

    concurrency: int | None = None
    queue_limit: int | None = None
    memory_bytes: int | None = None
    processes: int | None = None
    spare: bool = False
    zygote: bool = False
    network: bool = True
    writable: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cancel_grace_s: float | None = None
    load_stall_s: float | None = None
    call_stall_s: float | None = None
    is_monitor: bool = False
    pinned: bool = False

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> InstanceOptions:
        """Build options from JSON-like values.

        Raises:
            UsageError: A key is unknown.
        """
        known = {option.name for option in dataclasses.fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise errors.UsageError(
                f"unknown instance options: {', '.join(unknown)}",
                code="instance.options",
                details={"unknown": unknown, "known": sorted(known)},
            )
        given = dict(values)
        if "writable" in given:
            given["writable"] = tuple(str(path) for path in given["writable"])
        if "env" in given:
            given["env"] = {str(key): str(value) for key, value in dict(given["env"]).items()}
        return cls(**given)

    def to_dict(self) -> dict[str, Any]:
        """Return what differs from the defaults, as JSON-like values."""
        default = InstanceOptions()
        values = {}
        for option in dataclasses.fields(self):
            value = getattr(self, option.name)
            if value != getattr(default, option.name):
                values[option.name] = list(value) if isinstance(value, tuple) else value
        return values


def _option(title: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"title": title, "description": description, **schema}


_COUNT = {"type": ["integer", "null"], "minimum": 0, "maximum": 1_000_000}
_SECONDS = {"type": ["number", "null"], "minimum": 0, "maximum": 1_000_000_000}
_YES = {"type": "boolean"}
# What goes to a new process ends at a zero byte, and one in the middle cuts it off.
_UNCUT = "^[^\\u0000]*$"
OPTIONS_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "concurrency": _option(
            "Calls at once", "0 is no limit; empty is what the plugin declares.", **_COUNT
        ),
        "queue_limit": _option("Calls that may wait", "Empty is the setting of the node.", **_COUNT),
        "memory_bytes": _option(
            "Most memory, in bytes",
            "Of all its processes together: 2000000000 is 2 GB; empty is no limit of its own.",
            type=["integer", "null"],
            minimum=1_000_000,
            maximum=1 << 53,
        ),
        "processes": _option(
            "Most processes and threads",
            "Empty is no limit of its own.",
            type=["integer", "null"],
            minimum=1,
            maximum=1_000_000,
        ),
        "spare": _option(
            "Keep a spare worker", "A second one with the plugin imported, ready to take over.", **_YES
        ),
        "zygote": _option(
            "Fork workers", "From one that has the plugin imported; it must bear being forked.", **_YES
        ),
        "network": _option("Use the network", "Off: it has a network of its own with nothing on it.", **_YES),
        "writable": _option(
            "May write to",
            "Directories beside its own, one a line, from the root on.",
            type="array",
            items={"type": "string", "pattern": "^/[^\\u0000]*$"},
        ),
        "env": _option(
            "Variables",
            "Values of the variables that the plugin declares.",
            type="object",
            propertyNames={"pattern": "^[^=\\u0000]+$"},
            additionalProperties={"type": "string", "pattern": _UNCUT},
        ),
        "cancel_grace_s": _option(
            "Time to end when cancelled, in seconds", "Empty is the setting of the node.", **_SECONDS
        ),
        "load_stall_s": _option(
            "Silence that ends its loading, in seconds", "Empty is the setting of the node.", **_SECONDS
        ),
        "call_stall_s": _option(
            "Silence that ends a call, in seconds",
            "0 is never; empty is the setting of the node.",
            **_SECONDS,
        ),
        "is_monitor": _option(
            "Measures the machine", "This instance is asked what the machine is doing, not the node.", **_YES
        ),
        "pinned": _option("Stay loaded", "Never unloaded to make room for another one.", **_YES),
    },
}
"""What `InstanceOptions` accepts, for whoever takes options from a person."""


def checked_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options a person or a program gave, or one error that names everything wrong with them.

    Raises:
        InputError: They do not fit (`instance.options`).
    """
    try:
        return config.validate(OPTIONS_SCHEMA, given)
    except plugin_errors.InputError as error:
        listed = "; ".join(f"{name}: {problem}" for name, problem in error.fields.items())
        raise plugin_errors.InputError(
            f"the options do not fit: {listed}", fields=error.fields, code="instance.options"
        ) from None


@dataclass(frozen=True, kw_only=True)
class InstanceRecord:
    """One row, or what a document says of an instance.

    Attributes:
        secrets: References to the secrets it is given, by the variable they go into; `store:KEY`, or
            `store:PLUGIN/KEY` for one that is kept for another plugin. Only a document names them.
        declared_by: The document that it is from; empty for a row.
    """

    name: str
    plugin: str
    config: Mapping[str, Any] = field(default_factory=dict)
    options: InstanceOptions = field(default_factory=InstanceOptions)
    enabled: bool = True
    updated_at: str = ""
    secrets: Mapping[str, str] = field(default_factory=dict)
    declared_by: str = ""


class Instances:
    """The rows of `node.db`.

    Args:
        store: The open database.
        clock: For `updated_at`.
        declared: What the document of the node says, by name; nobody else changes that.
    """

    def __init__(
        self,
        store: database.Database,
        clock: clocks.Clock = clocks.SYSTEM,
        *,
        declared: Mapping[str, InstanceRecord] | None = None,
    ) -> None:
        self._store = store
        self._clock = clock
        self.declared: Mapping[str, InstanceRecord] = dict(declared or {})

    def check_free(self, name: str) -> None:
        """Refuse a change of what the document of the node declares.

        Raises:
            DeclaredError: It declares this instance.
        """
        found = self.declared.get(name)
        if found is not None:
            raise errors.DeclaredError.of("instance", name, found.declared_by)

    async def find(self, name: str) -> InstanceRecord | None:
        """Return what is declared or remembered of an instance, if anything."""
        if name in self.declared:
            return self.declared[name]
        row = await self._store.read(
            lambda c: c.execute(_QUERIES["find_instance"], {"name": name}).fetchone()
        )
        return None if row is None else _record(row)

    async def of(self, plugin: str, name: str) -> InstanceRecord:
        """Return what is remembered of a plugin's instance; a new record when that is nothing.

        Raises:
            ConflictError: Another plugin's instance has the name.
        """
        found = await self.find(name)
        if found is not None and found.plugin != plugin:
            raise another_plugins(name, found.plugin, plugin)
        return found or InstanceRecord(name=name, plugin=plugin)

    async def list(self, plugin: str | None = None) -> list[InstanceRecord]:
        """Return every declared or remembered instance, of one plugin or of all."""
        found = {name: each for name, each in self.declared.items() if plugin in (None, each.plugin)}
        for row in await self._rows(plugin):
            if row["name"] not in self.declared:
                found[row["name"]] = _record(row)
        return [found[name] for name in sorted(found)]

    async def overridden(self) -> Sequence[InstanceRecord]:
        """Return the rows that do not count, because the document declares an instance of their name."""
        return [_record(row) for row in await self._rows(None) if row["name"] in self.declared]

    async def _rows(self, plugin: str | None) -> Sequence[database.Row]:
        return await self._store.read(
            lambda c: c.execute(_QUERIES["list_instances"], {"plugin": plugin}).fetchall()
        )

    async def put(self, record: InstanceRecord) -> InstanceRecord:
        """Remember an instance.

        Raises:
            DeclaredError: The document of the node declares it.

        Durability: Committed before returning.
        """
        self.check_free(record.name)
        stamped = dataclasses.replace(record, updated_at=clocks.rfc3339(self._clock.now()))
        row = {
            "name": stamped.name,
            "plugin": stamped.plugin,
            "config": json.dumps(dict(stamped.config), sort_keys=True),
            "options": json.dumps(stamped.options.to_dict(), sort_keys=True),
            "enabled": int(stamped.enabled),
            "updated_at": stamped.updated_at,
        }
        await self._store.write(lambda c: c.execute(_QUERIES["put_instance"], row).close())
        return stamped

    async def remove(self, name: str) -> bool:
        """Forget an instance; False when nothing was remembered."""
        return await self._store.write(
            lambda c: c.execute(_QUERIES["remove_instance"], {"name": name}).rowcount > 0
        )

    async def remove_all(self, plugin: str) -> int:
        """Forget every instance of a plugin; return how many there were."""
        return await self._store.write(
            lambda c: c.execute(_QUERIES["remove_instances"], {"plugin": plugin}).rowcount
        )


def another_plugins(name: str, owner: str, plugin: str) -> errors.ConflictError:
    """Return the error for an instance that was taken for one of another plugin than it is."""
    return errors.ConflictError(
        f"instance {name} belongs to plugin {owner}, not to {plugin}", code="instance.other_plugin"
    )


def _record(row: database.Row) -> InstanceRecord:
    return InstanceRecord(
        name=row["name"],
        plugin=row["plugin"],
        config=_object(row, "config"),
        options=InstanceOptions.from_dict(_object(row, "options")),
        enabled=bool(row["enabled"]),
        updated_at=row["updated_at"],
    )


def _object(row: database.Row, column: str) -> dict[str, Any]:
    try:
        value = json.loads(row[column])
    except ValueError:
        value = None
    if isinstance(value, dict):
        return value
    # A damaged row must not make the plugin unusable; its defaults still are.
    _log.warning("instance_row_damaged", instance=row["name"], column=column)
    return {}
