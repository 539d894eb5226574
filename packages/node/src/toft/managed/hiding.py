"""What the schema of a plugin's configuration marks as secret, taken out of what is shown. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

SET = "<set>"
Schemas = Callable[[str], Mapping[str, Any] | None]
"""Returns the schema of a plugin's configuration, by its name; None where it is not known."""
_DEEPEST = 64


def nothing_known(plugin: str) -> None:
    """Know no plugin."""


def masked(value: Any, schema: Mapping[str, Any]) -> Any:
    """Return a value with `<set>` wherever a schema says `format: password` or `writeOnly`.

    Args:
        value: A configuration, whether it fits or not.
        schema: Of it.
    """
    return _masked(value, schema, schema, 0)


def _masked(value: Any, schema: Any, root: Mapping[str, Any], depth: int) -> Any:
    if not isinstance(schema, Mapping) or value is None:
        return value
    # A schema that refers to itself without end says nothing: better too little is shown than too much.
    if depth > _DEEPEST or schema.get("writeOnly") is True or schema.get("format") == "password":
        return SET
    for each in _also(schema, root):
        value = _masked(value, each, root, depth + 1)
    if isinstance(value, Mapping):
        named, further = schema.get("properties") or {}, schema.get("additionalProperties")
        return {
            name: _masked(each, named.get(name, further), root, depth + 1) for name, each in value.items()
        }
    if isinstance(value, list):
        first, further = schema.get("prefixItems") or [], schema.get("items")
        return [
            _masked(each, first[index] if index < len(first) else further, root, depth + 1)
            for index, each in enumerate(value)
        ]
    return value


def _also(schema: Mapping[str, Any], root: Mapping[str, Any]) -> list[Any]:
    """Return the schemas that may hold beside one; which of several does is not looked at."""
    found = [each for name in ("anyOf", "oneOf", "allOf") for each in schema.get(name) or []]
    found += [schema[name] for name in ("if", "then", "else") if name in schema]
    if isinstance(reference := schema.get("$ref"), str) and reference.startswith("#"):
        target: Any = root
        for step in reference[1:].split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            target = target.get(step) if isinstance(target, Mapping) else None
        found.append(target)
    return found
