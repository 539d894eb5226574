"""Schemas as people read them: `execute(text: text = "world") -> text`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_WORDS = {
    "string": "text",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "null": "null",
}
_SHOWN = 60


def action(name: str, described: Mapping[str, Any]) -> str:
    """Return the signature of an action from its input and output schema."""
    given = described.get("input") or {}
    required = set(given.get("required", ()))
    parts = [
        parameter(key, schema, is_required=key in required)
        for key, schema in given.get("parameters", {}).items()
    ]
    if given.get("additional"):
        parts.append("...")
    gives = kind(described.get("chunk") if described.get("stream") else described.get("output"))
    arrow = "yields" if described.get("stream") else "->"
    return f"{name}({', '.join(parts)}) {arrow} {gives}"


def parameter(name: str, schema: Mapping[str, Any], *, is_required: bool) -> str:
    """Return one parameter with its type and default."""
    text = f"{name}: {kind(schema)}"
    if is_required:
        return text
    return f"{text} = {_shortened(schema['default'])}" if "default" in schema else f"{text} = ..."


def kind(schema: Any) -> str:
    """Return the type a schema stands for, in one or two words."""
    if not isinstance(schema, Mapping) or not schema:
        return "any"
    if "enum" in schema:
        return " | ".join(json.dumps(each) for each in schema["enum"])
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return " | ".join(dict.fromkeys(kind(each) for each in schema[word]))
    marker = schema.get("x-toft-type")
    if marker:
        return str(marker)
    types = schema.get("type")
    if isinstance(types, list):
        return " | ".join(_WORDS.get(each, str(each)) for each in types)
    if types == "array" and isinstance(schema.get("items"), Mapping):
        return f"list of {kind(schema['items'])}"
    return _WORDS.get(str(types), str(types)) if types else "any"


def setting(name: str, schema: Mapping[str, Any], value: Any) -> tuple[str, str, str, str]:
    """Return one configuration field as name, type with its bounds, value, and what it is for."""
    bounds = [f"{word} {schema[word]}" for word in _BOUNDS if word in schema]
    typed = f"{kind(schema)} ({', '.join(bounds)})" if bounds else kind(schema)
    return name, typed, _shortened(value), str(schema.get("description", ""))


_BOUNDS = (
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
)


def _shortened(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."
