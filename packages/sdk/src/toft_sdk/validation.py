"""Does a value fit a schema? Covers the keywords this package writes; the host validates in full."""

from __future__ import annotations

import enum
import os
import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Iterator, Mapping

_TYPES: dict[str, tuple[type[Any], ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "array": (list, tuple, set, frozenset),
    "object": (dict,),
    "null": (type(None),),
}
_NAMES = {"array": "a list", "object": "a dictionary", "integer": "a whole number", "null": "null"}


def problems(schema: Mapping[str, Any], value: Any, path: str = "") -> dict[str, str]:
    """Return what does not fit, by path of the place; empty when all does.

    Args:
        schema: A JSON Schema as this package writes them.
        value: JSON-like, or already of the type that `x-toft-type` names.
        path: Where the value stands in something larger, such as `model.layers[2]`.
    """
    return dict(_problems(schema, value, path))


def _problems(schema: Mapping[str, Any], value: Any, path: str) -> Iterator[tuple[str, str]]:
    special = schema.get("x-toft-type")
    if special is not None and _is_already(special, value):
        return
    if "anyOf" in schema:
        branches = [problems(each, value, path) for each in schema["anyOf"]]
        if all(branches):
            # The branch that fits best says most.
            yield from min(branches, key=len).items()
        return
    wrong = _type_problem(schema.get("type"), value)
    if wrong:
        yield path, wrong
        return
    if "enum" in schema and not any(_same(value, each) for each in schema["enum"]):
        yield path, f"must be one of {', '.join(map(repr, schema['enum']))}, not {value!r}"
        return
    if isinstance(value, str):
        yield from ((path, text) for text in _text_problems(schema, value))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield from ((path, text) for text in _number_problems(schema, value))
    elif isinstance(value, dict):
        yield from _object_problems(schema, value, path)
    elif isinstance(value, (list, tuple, set, frozenset)):
        yield from _array_problems(schema, list(value), path)


def _is_already(special: str, value: Any) -> bool:
    """Tell whether a value is what the mark names, so that the JSON form of it is not asked for."""
    name = type(value).__name__
    if special == "path":
        return isinstance(value, os.PathLike)
    if special == "enum":
        return isinstance(value, enum.Enum)
    if special == "dataclass":
        return hasattr(value, "__dataclass_fields__")
    if special == "bytes":
        return isinstance(value, (bytes, bytearray, memoryview))
    return name == special and special in ("ndarray", "datetime", "date", "time", "timedelta", "complex")


def _same(value: Any, other: Any) -> bool:
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def _type_problem(wanted: Any, value: Any) -> str:
    if wanted is None:
        return ""
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        fits = isinstance(value, _TYPES[name])
        if fits and isinstance(value, bool) and name in ("integer", "number"):
            fits = False
        if fits or (name == "integer" and isinstance(value, float) and value.is_integer()):
            return ""
    said = " or ".join(_NAMES.get(name, f"a {name}") for name in names)
    return f"must be {said}, not {type(value).__name__}"


def _text_problems(schema: Mapping[str, Any], value: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield f"must have at least {schema['minLength']} characters"
    if "maxLength" in schema and len(value) > schema["maxLength"]:
        yield f"must have at most {schema['maxLength']} characters"
    pattern = schema.get("pattern")
    if pattern is None:
        return
    whole = pattern.startswith("^(?:") and pattern.endswith(")$")
    # Python's `$` also stops before a last newline; a whole match does not.
    if not (re.fullmatch(pattern[4:-2], value) if whole else re.search(pattern, value)):
        yield f"must match {pattern[4:-2] if whole else pattern}"


_LIMITS: tuple[tuple[str, Callable[[Any, Any], bool], str], ...] = (
    ("minimum", lambda value, limit: value >= limit, "at least"),
    ("maximum", lambda value, limit: value <= limit, "at most"),
    ("exclusiveMinimum", lambda value, limit: value > limit, "more than"),
    ("exclusiveMaximum", lambda value, limit: value < limit, "less than"),
)


def _number_problems(schema: Mapping[str, Any], value: float) -> Iterator[str]:
    for keyword, fits, said in _LIMITS:
        if keyword in schema and not fits(value, schema[keyword]):
            yield f"must be {said} {schema[keyword]}, not {value}"
    step = schema.get("multipleOf")
    if step and abs(value / step - round(value / step)) > 1e-9:
        yield f"must be a multiple of {step}, not {value}"


def _object_problems(
    schema: Mapping[str, Any], value: dict[Any, Any], path: str
) -> Iterator[tuple[str, str]]:
    properties = schema.get("properties", {})
    others = schema.get("additionalProperties", True)
    for name in schema.get("required", ()):
        if name not in value:
            yield _join(path, name), "is missing"
    for name, each in value.items():
        if name in properties:
            yield from _problems(properties[name], each, _join(path, name))
        elif others is False:
            yield _join(path, name), _unknown(str(name), properties)
        elif isinstance(others, dict):
            yield from _problems(others, each, _join(path, name))


def _array_problems(schema: Mapping[str, Any], value: list[Any], path: str) -> Iterator[tuple[str, str]]:
    if len(value) < schema.get("minItems", 0):
        yield path, f"must have at least {schema['minItems']} items"
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        yield path, f"must have at most {schema['maxItems']} items"
    first = schema.get("prefixItems", ())
    for index, each in enumerate(value):
        wanted = first[index] if index < len(first) else schema.get("items", {})
        if isinstance(wanted, dict):
            yield from _problems(wanted, each, f"{path}[{index}]")


def _join(path: str, name: Any) -> str:
    return f"{path}.{name}" if path else str(name)


def _unknown(name: str, accepted: Mapping[str, Any]) -> str:
    import difflib  # noqa: PLC0415 - only for the text of an error

    close = difflib.get_close_matches(name, list(accepted), 1)
    if close:
        return f"is unknown; did you mean {close[0]}?"
    return f"is unknown; there are: {', '.join(accepted) or 'none'}"
