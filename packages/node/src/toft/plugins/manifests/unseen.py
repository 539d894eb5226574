"""Values that are not here yet, or not to be looked at: what is known of their kind is checked anyway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from toft.kernel import schemas
from toft.plugins.manifests import scalars

_MARK = "x-toft-type"
MARKED_KINDS = {"tuple": "array", "set": "array", "frozenset": "array", "dataclass": "object"}
JSON_KINDS = {str: "string", bool: "boolean", int: "integer", float: "number", type(None): "null"}
"""The words for kinds of values: of what a marker in a schema names, and of Python's own."""

# What a parameter of one kind takes beside that kind itself: the checks convert it.
_TAKES = {
    "number": {"integer"},
    "path": {"string"},
    "datetime": {"string"},
    "date": {"string"},
    "time": {"string"},
    "timedelta": {"integer", "number"},
    "complex": {"integer", "number"},
}


class Unseen:
    """A value nobody looks at here."""

    def kinds(self) -> frozenset[str]:
        """Return the words for what it may be, JSON types and markers; empty when that is not known."""
        return frozenset()


class Promised(Unseen):
    """A value that will be there later, of which a schema may be known.

    Args:
        schema: What is known of it; None is nothing.
        root: The document that `$ref` looks in.
        what: What it is called in a message, such as `what step ocr gives`.
    """

    def __init__(self, schema: Mapping[str, Any] | None, root: Mapping[str, Any], what: str) -> None:
        self.schema = schema
        self.root = root
        self.what = what

    def kinds(self) -> frozenset[str]:
        """Return what the schema says it may be."""
        return frozenset() if self.schema is None else kinds_of(self.schema, self.root)


def misfit(value: Unseen, schema: Any, root: Mapping[str, Any]) -> str | None:
    """Say why a value cannot fit a schema whatever it turns out to be; None when it may."""
    given = value.kinds()
    wanted = kinds_of(schema, root)
    if not given or not wanted:
        return None
    accepted = set(wanted).union(*(_TAKES.get(kind, ()) for kind in wanted))
    if given & accepted:
        return None
    what = value.what if isinstance(value, Promised) else "a value"
    return f"expected {_listed(wanted)}, got {what}: {_listed(given)}"


def _listed(kinds: frozenset[str]) -> str:
    return " or ".join(sorted(kinds))


def kinds_of(schema: Any, root: Mapping[str, Any], depth: int = 0) -> frozenset[str]:
    """Return the words for what a schema takes: JSON types and markers; empty when that may be anything."""
    if not isinstance(schema, Mapping) or depth > 8:
        return frozenset()
    if "$ref" in schema:
        return kinds_of(schemas.resolve(root, str(schema["$ref"])), root, depth + 1)
    for word in ("anyOf", "oneOf"):
        choices = schema.get(word)
        if isinstance(choices, (list, tuple)) and choices:
            found = [kinds_of(each, root, depth + 1) for each in choices]
            return frozenset().union(*found) if all(found) else frozenset()
    listed = schema.get("type")
    kinds = (
        set(listed) if isinstance(listed, (list, tuple)) else {listed} if isinstance(listed, str) else set()
    )
    marker = schema.get(_MARK)
    if isinstance(marker, str) and marker != "enum":
        return frozenset({MARKED_KINDS.get(marker, marker)} | (kinds & {"null"}))
    if "enum" in schema and not kinds:
        kinds = {JSON_KINDS.get(type(each), "string") for each in schema["enum"]}
    return frozenset(kinds)


class NoSuchPart(Exception):
    """A schema says that a value has no part of that name; `at` counts the steps that went well."""

    def __init__(self, at: int, reason: str) -> None:
        super().__init__(reason)
        self.at = at
        self.reason = reason


def part(schema: Any, path: Sequence[str | int], root: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of a part of a value; None when it is not known.

    Raises:
        NoSuchPart: The value will have no such part.
    """
    for count, step in enumerate(path):
        while isinstance(schema, Mapping) and "$ref" in schema:
            schema = schemas.resolve(root, str(schema["$ref"]))
        if not isinstance(schema, Mapping) or "anyOf" in schema or "oneOf" in schema:
            return None
        kinds = kinds_of(schema, root)
        if kinds and not kinds & {"array", "object"}:
            raise NoSuchPart(count, f"is {_listed(kinds)}, which has no parts")
        if kinds == {"array"} and isinstance(step, str):
            raise NoSuchPart(count, "is a list, whose items have numbers")
        schema = _item(schema, step) if isinstance(step, int) else _field(schema, step, count)
    return schema if isinstance(schema, Mapping) else None


def _item(schema: Mapping[str, Any], step: int) -> Any:
    first = schema.get("prefixItems", ())
    if isinstance(first, (list, tuple)) and 0 <= step < len(first):
        return first[step]
    return schema.get("items") if step >= len(first) or not first else None


def _field(schema: Mapping[str, Any], step: str, count: int) -> Any:
    fields = schema.get("properties")
    if not isinstance(fields, Mapping):
        return schema.get("additionalProperties")
    if step in fields:
        return fields[step]
    extra = schema.get("additionalProperties", False if schema.get(_MARK) == "dataclass" else None)
    if extra is False:
        raise NoSuchPart(count, f"has {', '.join(map(str, fields))}")
    return extra


def guarded(check: scalars.Check, schema: Any, root: Any) -> scalars.Check:
    """Return a check that lets pass what is not looked at, when it may fit."""

    def guard(value: Any) -> Any:
        if not isinstance(value, Unseen):
            return check(value)
        problem = misfit(value, schema, root if isinstance(root, Mapping) else {})
        if problem is not None:
            raise scalars.Misfit([((), problem)])
        return value

    return guard
