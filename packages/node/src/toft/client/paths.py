"""Makes what a caller means by a relative path mean the same where the plugin runs."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Mapping
from typing import Any

from toft.kernel import errors


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


def of_the_node(schema: Any, arguments: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """Return arguments for another machine, on which a path of this one names nothing, or something else.

    Text in the place of a path is one of that machine, and so is a pure path; both must start at its root.

    Args:
        schema: The action's input schema; None when the plugin recorded none.
        arguments: By name.
        where: The other machine, for the error.

    Raises:
        UsageError: What is of this machine, each by its name.
    """
    parameters = schema.get("parameters", {}) if isinstance(schema, Mapping) else {}
    fields: dict[str, str] = {}
    for name, value in arguments.items():
        _find_local(parameters.get(name) if isinstance(parameters, Mapping) else None, value, name, fields)
    if fields:
        listed = "; ".join(f"{name}: {problem}" for name, problem in fields.items())
        raise errors.UsageError(
            f"{where} is another machine and cannot see files of this one: {listed}",
            code="remote.local_path",
            details={"url": where, "fields": fields},
            hint="give a path of that machine that starts with /; where the plugin takes bytes or text, "
            "NAME=@FILE sends what is in a file",
        )
    return dict(arguments)


def _find_local(schema: Any, value: Any, name: str, fields: dict[str, str]) -> None:
    if isinstance(value, pathlib.Path):
        fields[name] = f"{value} is a file of this machine"
    elif isinstance(value, pathlib.PurePath) or (isinstance(value, str) and _is_path(schema)):
        if str(value) and not str(value).startswith("/"):
            fields[name] = f"{value} does not start at the root"
    elif type(value) in (list, tuple):
        for index, each in enumerate(value):
            _find_local(_inside(schema, "items"), each, f"{name}.{index}", fields)
    elif type(value) is dict:
        for key, each in value.items():
            _find_local(_member(schema, key), each, f"{name}.{key}", fields)
    elif callable(getattr(value, "to_temp_file", None)):
        fields[name] = "would become a file of this machine"


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
