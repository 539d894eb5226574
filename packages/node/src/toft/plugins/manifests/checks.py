"""One check per parameter, compiled once from its schema, so that a call pays for two function calls only.

A check takes a value and returns it, converted where the type leaves no doubt (text for a path, a list for a
tuple), or raises `Misfit` with every problem inside the value. The schemas are what `toft_sdk.schema` makes
of annotations; `x-toft-type` marks what JSON cannot say. Keywords outside that vocabulary go to the JSON
Schema validator, which never meets a value that is not JSON.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Callable, Mapping
from typing import Any

from toft.kernel import schemas, suggestions
from toft.plugins.manifests import scalars, unseen
from toft.plugins.manifests.scalars import Check, Path

_MARK = "x-toft-type"
_KNOWN = frozenset(
    (
        "type",
        "kind",
        "default",
        "title",
        "description",
        "examples",
        "enum",
        "const",
        "minimum",
        "maximum",
        "exclusiveMinimum",
        "exclusiveMaximum",
        "minLength",
        "maxLength",
        "pattern",
        "items",
        "prefixItems",
        "minItems",
        "maxItems",
        "uniqueItems",
        "properties",
        "required",
        "additionalProperties",
        "anyOf",
        "oneOf",
        "$ref",
        "$defs",
        "$schema",
        "deprecated",
        "readOnly",
        "format",
    )
)


class _Seen(dict[str, Check]):
    """The checks that references lead to, by reference; whether they meet values that are not looked at."""

    meets_unseen = False


def compile_check(
    schema: Mapping[str, Any] | bool,
    root: Mapping[str, Any] | None = None,
    *,
    meets_unseen: bool = False,
) -> Check:
    """Make the check for one schema.

    Args:
        schema: The schema of one value.
        root: The document that `$ref` looks in; the schema itself when None.
        meets_unseen: Somewhere in the value may stand a `toft.plugins.manifests.unseen.Unseen`. Slower.
    """
    seen = _Seen()
    seen.meets_unseen = meets_unseen
    return _compile(schema, schema if root is None else root, seen)


def _compile(schema: Any, root: Any, seen: _Seen) -> Check:
    check = _compile_seen(schema, root, seen)
    return unseen.guarded(check, schema, root) if seen.meets_unseen else check


def _compile_seen(schema: Any, root: Any, seen: _Seen) -> Check:
    if schema is True or schema == {}:
        return scalars.anything
    if not isinstance(schema, Mapping):
        return scalars.nothing
    if "$ref" in schema:
        return _reference(str(schema["$ref"]), root, seen)
    if not all(word in _KNOWN or word.startswith("x-") for word in schema):
        return _foreign(schema, root)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return _union([_compile(each, root, seen) for each in schema[word]])
    kinds = schema.get("type")
    if isinstance(kinds, (list, tuple)):
        return _union([_compile(_only(schema, kind), root, seen) for kind in kinds])
    marker = schema.get(_MARK)
    if marker is not None:
        return _limited(_marked(str(marker), schema, root, seen), schema)
    return _limited(_typed(kinds, schema, root, seen), schema)


def _only(schema: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """Return the schema for one of its types; a marker never speaks of null."""
    left_out = (_MARK,) if kind == "null" else ()
    return {**{word: value for word, value in schema.items() if word not in left_out}, "type": kind}


def _typed(kind: Any, schema: Mapping[str, Any], root: Any, seen: _Seen) -> Check:
    if kind == "array":
        return _array(schema, root, seen, list)
    if kind == "object":
        return _object(schema, root, seen)
    return scalars.JSON.get(str(kind), scalars.anything)


def _reference(target: str, root: Any, seen: _Seen) -> Check:
    if target in seen:
        return lambda value: seen[target](value)
    node = schemas.resolve(root, target)
    if node is None:
        return scalars.anything
    # Put there first, so that a schema which contains itself finds this one instead of never ending.
    seen[target] = scalars.anything
    seen[target] = _compile(node, root, seen)
    return seen[target]


def _union(choices: list[Check]) -> Check:
    def check(value: Any) -> Any:
        misfits: list[scalars.Misfit] = []
        for choice in choices:
            try:
                return choice(value)
            except scalars.Misfit as misfit:
                misfits.append(misfit)
        deepest = max(misfits, key=lambda each: max(len(path) for path, _ in each.problems))
        if len(misfits) == 1 or any(path for path, _ in deepest.problems):
            raise deepest
        wanted = [_wanted(message) for each in misfits for _, message in each.problems]
        raise scalars.Misfit(
            [((), f"expected {' or '.join(dict.fromkeys(wanted))}, got {scalars.describe_value(value)}")]
        )

    return check


def _wanted(message: str) -> str:
    return message.removeprefix("expected ").rsplit(", got ", 1)[0]


def _limited(check: Check, schema: Mapping[str, Any]) -> Check:
    """Add the limits a schema puts on a single value; without any the check stays as it is."""
    limits = _limits(schema)
    if not limits:
        return check

    def limited(value: Any) -> Any:
        value = check(value)
        wrong = [text for holds, text in limits if not holds(value)]
        if wrong:
            raise scalars.Misfit(
                [((), f"must {text}, got {scalars.describe_value(value)}") for text in wrong]
            )
        return value

    return limited


def _limits(schema: Mapping[str, Any]) -> list[tuple[Callable[[Any], bool], str]]:
    limits: list[tuple[Callable[[Any], bool], str]] = []
    if "enum" in schema:
        options = list(schema["enum"])
        limits.append((lambda value: _among(value, options), f"be one of {', '.join(map(repr, options))}"))
    if "const" in schema:
        limits.append((lambda value: _among(value, [schema["const"]]), f"be {schema['const']!r}"))
    for word, (compare, text) in _BOUNDS.items():
        if word in schema:
            limits.append((_bound(compare, schema[word]), f"{text} {schema[word]}"))
    for word, (compare, text) in _LENGTHS.items():
        if word in schema:
            limits.append((_length(compare, schema[word]), f"{text} {schema[word]} long"))
    if "pattern" in schema:
        matches = schemas.pattern(str(schema["pattern"]))
        limits.append(
            (lambda value: not isinstance(value, str) or matches(value), f"match {schema['pattern']}")
        )
    if schema.get("uniqueItems"):
        limits.append((_unique, "not hold one value twice"))
    return limits


_BOUNDS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minimum": (operator.ge, "be at least"),
    "maximum": (operator.le, "be at most"),
    "exclusiveMinimum": (operator.gt, "be more than"),
    "exclusiveMaximum": (operator.lt, "be less than"),
}
_LENGTHS: dict[str, tuple[Callable[[Any, Any], bool], str]] = {
    "minLength": (operator.ge, "be at least"),
    "maxLength": (operator.le, "be at most"),
    "minItems": (operator.ge, "be at least"),
    "maxItems": (operator.le, "be at most"),
}


def _bound(compare: Callable[[Any, Any], bool], limit: Any) -> Callable[[Any], bool]:
    return lambda value: not isinstance(value, (int, float)) or compare(value, limit)


def _length(compare: Callable[[Any, Any], bool], limit: Any) -> Callable[[Any], bool]:
    return lambda value: not hasattr(value, "__len__") or compare(len(value), limit)


def _among(value: Any, options: list[Any]) -> bool:
    return any(type(value) is type(each) and value == each for each in options) or (
        isinstance(value, float) and any(type(each) is int and value == each for each in options)
    )


def _unique(value: Any) -> bool:
    try:
        return not isinstance(value, list) or len(set(value)) == len(value)
    except TypeError:
        return all(value[i] != value[j] for i in range(len(value)) for j in range(i))


_PLAIN_ITEMS: dict[str, frozenset[type]] = {
    "integer": frozenset([int]),
    "number": frozenset([int, float]),
    "string": frozenset([str]),
    "boolean": frozenset([bool]),
}


def _array(schema: Mapping[str, Any], root: Any, seen: _Seen, make: type[Any]) -> Check:
    items = schema.get("items", True)
    first = [_compile(each, root, seen) for each in schema.get("prefixItems", ())]
    rest = _compile(items, root, seen)
    # `type` may be a list, as of "text or null".
    is_plain = isinstance(items, Mapping) and set(items) == {"type"} and isinstance(items["type"], str)
    plain = _PLAIN_ITEMS.get(items["type"]) if is_plain else None
    accepted = (list, tuple) if make in (list, tuple) else (list, tuple, set, frozenset)

    def check(value: Any) -> Any:
        if not isinstance(value, accepted):
            raise scalars.expected(_ARRAY_NAMES[make], value)
        # A long list of numbers is one pass in C.
        if not first and (
            rest is scalars.anything or (plain is not None and plain.issuperset(map(type, value)))
        ):
            return value if isinstance(value, make) else _made(make, value)
        problems: list[tuple[Path, str]] = []
        kept: list[Any] = []
        for index, each in enumerate(value):
            _collect(first[index] if index < len(first) else rest, each, index, kept, problems)
        if problems:
            raise scalars.Misfit(problems)
        return _made(make, kept)

    return check


def _made(make: type[Any], items: Any) -> Any:
    try:
        return make(items)
    except TypeError:
        raise scalars.Misfit([((), "holds a value that cannot be in a set")]) from None


_ARRAY_NAMES: dict[Any, str] = {list: "a list", tuple: "a tuple", set: "a set", frozenset: "a set"}


def _collect(
    check: Check, value: Any, step: str | int, kept: list[Any], problems: list[tuple[Path, str]]
) -> None:
    try:
        kept.append(check(value))
    except scalars.Misfit as misfit:
        problems.extend(((step, *path), message) for path, message in misfit.problems)


def _object(schema: Mapping[str, Any], root: Any, seen: _Seen) -> Check:
    fields = {name: _compile(each, root, seen) for name, each in schema.get("properties", {}).items()}
    required = frozenset(schema.get("required", ()))
    extra = schema.get("additionalProperties", not fields)
    others = _compile(extra, root, seen) if extra is not False else None

    def check(value: Any) -> Any:
        if type(value) is dict:
            fitting = _fitting(value, fields, others)
            if fitting is not None and required <= fitting.keys():
                return fitting
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
        if not isinstance(value, Mapping):
            raise scalars.expected("an object", value)
        return _collected(value)

    def _collected(value: Mapping[Any, Any]) -> dict[Any, Any]:
        """Return the fields as they are sent, or say all that is wrong with them."""
        problems: list[tuple[Path, str]] = []
        kept: dict[Any, Any] = {}
        for name, each in value.items():
            field = fields.get(name, others)
            if field is None:
                problems.append(((str(name),), suggestions.unknown(str(name), fields)))
                continue
            one: list[Any] = []
            _collect(field, each, str(name), one, problems)
            kept.update((name, done) for done in one)
        problems.extend(((name,), "missing") for name in sorted(required - value.keys()))
        if problems:
            raise scalars.Misfit(problems)
        return kept

    return check


def _fitting(
    value: dict[Any, Any], fields: Mapping[str, Check], others: Check | None
) -> dict[Any, Any] | None:
    """Return the fields as they are sent; None when one does not fit. Nearly all that is sent fits."""
    kept = {}
    try:
        for name, each in value.items():
            field = fields.get(name, others)
            if field is None:
                return None
            kept[name] = field(each)
    except scalars.Misfit:
        return None
    return kept


def _foreign(schema: Mapping[str, Any], root: Any) -> Check:
    """Leave a schema with other keywords to the validator, together with the document its references need."""
    document = dict(schema)
    if isinstance(root, Mapping) and "$defs" in root:
        document.setdefault("$defs", root["$defs"])
    document.pop("kind", None)
    validator = schemas.Validator(document)

    def check(value: Any) -> Any:
        problems = validator.problems(value)
        if problems:
            raise scalars.Misfit([(each.path, each.message) for each in problems])
        return value

    return check


def _marked(marker: str, schema: Mapping[str, Any], root: Any, seen: _Seen) -> Check:
    if marker in _SEQUENCES:
        return _array(schema, root, seen, _SEQUENCES[marker])
    if marker == "dataclass":
        return _object(schema, root, seen)
    return scalars.MARKED.get(marker, scalars.anything)


_SEQUENCES: dict[str, type[Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
