"""What can be set on an instance, what it is set to, and whether a change would fit; nothing is started."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from toft.kernel import errors
from toft.plugins import instance as handles
from toft.plugins import node as nodes
from toft_sdk import errors as plugin_errors


@dataclass(frozen=True, kw_only=True)
class Check:
    """Whether a configuration fits.

    Attributes:
        config: All of it, defaults filled in; None when it does not fit.
        problems: What is wrong, by the path of the setting.
        message: What is wrong, in words.
    """

    config: Mapping[str, Any] | None = None
    problems: Mapping[str, str] = field(default_factory=dict)
    message: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-like values."""
        return {
            "valid": self.config is not None,
            "config": self.config,
            "problems": dict(self.problems),
            "message": self.message,
        }


async def describe(node: nodes.Node, plugin: str, *, instance: str | None = None) -> dict[str, Any]:
    """Return the schema of an instance's configuration, and what is remembered of it.

    Raises:
        NotFoundError: There is no such plugin, or the instance is another one's.
    """
    loaded = loaded_of(node, plugin, instance)
    manifest = await node.installed.get(plugin)
    record = await node.rooms.records.of(plugin, instance or plugin)
    drift = None if loaded is None else loaded.drift
    schema = manifest.code.config_schema if drift is None else drift.live_schema
    check = _checked(node.rooms.loader.validator(manifest), record.config)
    return {
        "plugin": plugin,
        "instance": instance or plugin,
        "schema": schema or None,
        "drift": drift is not None,
        "defaults": dict(manifest.runtime.config_defaults or {}),
        "given": dict(record.config),
        "config": check.config,
        "problems": dict(check.problems),
        "enabled": record.enabled if loaded is None else loaded.is_enabled,
        "loaded": loaded is not None,
    }


async def options(node: nodes.Node, plugin: str, *, instance: str | None = None) -> dict[str, Any]:
    """Return what each setting can be right now; only an instance that is loaded can say."""
    loaded = loaded_of(node, plugin, instance)
    if loaded is None:
        await node.installed.get(plugin)
    return {
        "plugin": plugin,
        "instance": instance or plugin,
        "loaded": loaded is not None,
        "options": {} if loaded is None else await loaded.config_options(),
    }


async def check(
    node: nodes.Node,
    plugin: str,
    changes: Mapping[str, Any],
    *,
    instance: str | None = None,
    replace: bool = False,
) -> Check:
    """Say whether a change would fit, as `Node.configure` would check it; nothing is changed."""
    loaded_of(node, plugin, instance)
    manifest = await node.installed.get(plugin)
    record = await node.rooms.records.of(plugin, instance or plugin)
    given = dict(changes) if replace else {**record.config, **changes}
    return _checked(node.rooms.loader.validator(manifest), given)


def loaded_of(node: nodes.Node, plugin: str, instance: str | None) -> handles.Instance | None:
    """Return a loaded instance of a plugin; None when it is not loaded.

    Raises:
        NotFoundError: The instance of that name is another plugin's.
    """
    loaded = node.find(instance or plugin)
    if loaded is not None and loaded.plugin != plugin:
        raise _another(plugin, loaded.id)
    return loaded


async def check_owner(node: nodes.Node, plugin: str, instance: str | None) -> None:
    """Refuse an instance that is another plugin's: who may see one plugin must not see others by its route.

    Raises:
        NotFoundError: It is another plugin's.
    """
    if loaded_of(node, plugin, instance) is not None or instance in (None, plugin):
        return
    name = str(instance)
    record = await node.rooms.records.find(name)
    if record is not None and record.plugin == plugin:
        return
    if record is None:
        try:
            await node.installed.get(name)
        except errors.NodeError:
            return  # nobody's yet
    raise _another(plugin, name)


def _another(plugin: str, name: str) -> errors.NotFoundError:
    return errors.NotFoundError(
        f"{plugin} has no instance {name}",
        code="instance.not_found",
        hint="toft plugin list shows the instances of each plugin",
    )


def _checked(validate: Callable[[Mapping[str, Any]], dict[str, Any]], given: Mapping[str, Any]) -> Check:
    try:
        return Check(config=validate(given))
    except plugin_errors.InputError as error:
        return Check(problems=dict(error.fields or {"": error.message}), message=error.message)
