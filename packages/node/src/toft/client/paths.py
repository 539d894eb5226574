"""Makes what a caller means by a relative path mean the same where the plugin runs."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any


def absolute(schema: Any, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments in which paths start at the root: those typed as paths, and path objects anywhere.

    Args:
        schema: The action's input schema; None when the plugin recorded none.
        arguments: By name.
    """
    parameters = schema.get("parameters", {}) if isinstance(schema, Mapping) else {}
    return {
        name: _value(parameters.get(name) if isinstance(parameters, Mapping) else None, value)
        for name, value in arguments.items()
    }


def _value(schema: Any, value: Any) -> Any:
    if isinstance(value, pathlib.PurePath):
        return type(value)(os.path.abspath(value))
    if isinstance(value, str):
        return os.path.abspath(value) if value and _is_path(schema) else value
    if type(value) in (list, tuple):
        return type(value)(_value(_inside(schema, "items"), each) for each in value)
    if type(value) is dict:
        return {key: _value(_member(schema, key), each) for key, each in value.items()}
    to_file = getattr(value, "to_temp_file", None)
    return to_file() if callable(to_file) else value


def _is_path(schema: Any) -> bool:
    return any(each.get("x-toft-type") == "path" for each in _ways(schema))


def _ways(schema: Any) -> list[Mapping[str, Any]]:
    """Return the alternatives of a schema."""
    if not isinstance(schema, Mapping):
        return []
    found = [schema]
    for word in ("anyOf", "oneOf"):
        ways = schema.get(word)
        found += [each for each in ways if isinstance(each, Mapping)] if isinstance(ways, list) else []
    return found


def _inside(schema: Any, word: str) -> Any:
    return next((each[word] for each in _ways(schema) if word in each), None)


def _member(schema: Any, key: Any) -> Any:
    members = _inside(schema, "properties")
    if isinstance(members, Mapping) and key in members:
        return members[key]
    return _inside(schema, "additionalProperties")
