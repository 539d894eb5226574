"""From one configuration to another: what changed, what has to be let go of, what has to be made anew."""

from __future__ import annotations

import dataclasses

from toft_sdk.context import current
from toft_sdk.errors import classify

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def changed_fields(old: Any, new: Any) -> list[str]:
    """Return the names of the fields that differ, in the order the new configuration declares them.

    Values are compared by structure; a field one side lacks counts as None there.
    """
    before, after = _values(old), _values(new)
    return [name for name in {**after, **before} if before.get(name) != after.get(name)]


def _values(config: Any) -> dict[str, Any]:
    if config is None:
        return {}
    if isinstance(config, dict):
        return config
    return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}


def triggers(config: Any, fields: list[str]) -> list[str]:
    """Return the distinct `reload` names of these fields, in the order the dataclass declares them."""
    if not dataclasses.is_dataclass(config):
        return []
    named = (field.metadata.get("reload") for field in dataclasses.fields(config) if field.name in fields)
    return list(dict.fromkeys(name for name in named if name))


def reconfigure(plugin: Any, old: Any, new: Any) -> None:
    """Release what the changed fields name, then apply the new configuration.

    A release that fails is logged and the others still run: holding on to the rest would not help.
    """
    changed = changed_fields(old, new)
    for trigger in triggers(new, changed):
        release = getattr(plugin, f"release_{trigger}", None)
        if release is None:
            continue
        try:
            release()
        except Exception as error:  # noqa: BLE001 - the hook is the author's, it may raise anything
            current().log("warning", "release_failed", {"trigger": trigger, "error": classify(error).message})
    plugin.config = new
    if not changed:
        return
    apply = getattr(plugin, "apply_config", None)
    if apply is not None:
        apply(new)
    else:
        plugin.initialize()
