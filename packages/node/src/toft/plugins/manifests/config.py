"""Configuration of an instance, checked on the host before anything is started.

`validate` gives the whole configuration, defaults filled in, or one error that lists everything wrong.
"""

from __future__ import annotations

import copy
import dataclasses
import datetime
import enum
import pathlib
from collections.abc import Mapping
from typing import Any

from toft.kernel import schemas
from toft_sdk import errors

# Where these stand, closing an object would refuse what a neighbour allows.
_COMPOSED = frozenset(
    (
        "allOf",
        "anyOf",
        "oneOf",
        "not",
        "if",
        "then",
        "else",
        "dependentSchemas",
        "patternProperties",
        "unevaluatedProperties",
        "additionalProperties",
        "$ref",
        "$dynamicRef",
    )
)


def validate(
    schema: Mapping[str, Any] | None,
    config: Mapping[str, Any] | None,
    defaults: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Check a configuration and fill in what it leaves out.

    Args:
        schema: The plugin's configuration schema; None or empty accepts nothing but an empty configuration
            when there are no defaults either.
        config: What the user gave.
        defaults: The plugin's own defaults; they win over `default` in the schema.

    Returns:
        A new dictionary: defaults, overlaid by what was given; objects that the schema describes are merged
        key by key, anything else is replaced.

    Raises:
        toft_sdk.errors.InputError: With every problem in `fields`, path to message.
        toft.kernel.schemas.SchemaError: The schema itself is unusable.
    """
    given = {name: plain(value) for name, value in dict(config or {}).items()}
    schemas.refuse_hostile(schema or {})
    document = closed(schema or {}, known=defaults or {})
    validator = schemas.Validator(document)
    base = merge(schema_defaults(schema or {}), dict(defaults or {}), schema)
    merged: dict[str, Any] = merge(base, given, schema)
    problems = [each for each in validator.problems(merged) if _is_the_users(each, given)]
    if problems:
        raise _misfit(problems)
    return merged


def plain(value: Any) -> Any:
    """Write what a Python caller may hand in the way JSON has it; anything else comes back as it is."""
    if isinstance(value, pathlib.PurePath):
        return str(value)
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, datetime.datetime):
        return value.isoformat()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted((plain(each) for each in value), key=repr)
    return value


def merge(base: Any, over: Any, schema: Any) -> Any:
    """Lay one value over another: objects with known properties key by key, everything else as a whole."""
    if not (isinstance(base, Mapping) and isinstance(over, Mapping)):
        return copy.deepcopy(over)
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    merged = copy.deepcopy(dict(base))
    for name, value in over.items():
        inner = properties.get(name) if isinstance(properties, Mapping) else None
        structured = isinstance(inner, Mapping) and isinstance(inner.get("properties"), Mapping)
        merged[name] = (
            merge(merged[name], value, inner) if structured and name in merged else copy.deepcopy(value)
        )
    return merged


def schema_defaults(schema: Any) -> dict[str, Any]:
    """Collect `default` from a schema's properties, inner objects included."""
    found: dict[str, Any] = {}
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    for name, inner in properties.items() if isinstance(properties, Mapping) else ():
        if not isinstance(inner, Mapping):
            continue
        if "default" in inner:
            found[name] = copy.deepcopy(inner["default"])
        else:
            below = schema_defaults(inner)
            if below:
                found[name] = below
    return found


def closed(schema: Mapping[str, Any], *, known: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema with unknown keys refused wherever it does not say what else it accepts.

    Args:
        schema: A schema of an object.
        known: Keys that are accepted although the schema does not name them: a plugin's defaults.
    """
    document: dict[str, Any] = _close(schema)
    if "properties" not in document and not _COMPOSED.intersection(document):
        document.update(properties={}, additionalProperties=False)
    if known and isinstance(document.get("properties"), dict):
        document["properties"] = {**dict.fromkeys(known, True), **document["properties"]}
    document.setdefault("type", "object")
    return document


def _close(node: Any) -> Any:
    if isinstance(node, list):
        return [_close(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    result = dict(node)
    properties = result.get("properties")
    if isinstance(properties, Mapping):
        result["properties"] = {name: _close(each) for name, each in properties.items()}
        if not _COMPOSED.intersection(result):
            result["additionalProperties"] = False
    for word in ("items", "additionalProperties"):
        if isinstance(result.get(word), Mapping):
            result[word] = _close(result[word])
    for word in ("anyOf", "oneOf"):
        # `Optional[...]` of a described object; an object's own alternatives stay open.
        if isinstance(result.get(word), list) and "properties" not in result:
            result[word] = _close(result[word])
    return result


def _is_the_users(problem: schemas.Problem, given: Any) -> bool:
    """Leave out what a plugin's own default breaks (`None` for text is common): the user cannot mend it."""
    if problem.keyword == "required":
        return True
    if not problem.path:
        return True
    here = given
    for step in problem.path:
        inside = (
            step in here if isinstance(here, Mapping) else isinstance(here, list) and step in range(len(here))
        )
        if not inside:
            return False
        here = here[step]
    return True


def _misfit(problems: list[schemas.Problem]) -> errors.InputError:
    fields: dict[str, str] = {}
    for each in problems:
        place = schemas.path_text(each.path) or "configuration"
        fields[place] = f"{fields[place]}; {each.message}" if place in fields else each.message
    listed = "; ".join(f"{place}: {message}" for place, message in fields.items())
    count = "1 setting does" if len(fields) == 1 else f"{len(fields)} settings do"
    return errors.InputError(f"{count} not fit: {listed}", fields=fields, code="config.invalid")
