"""JSON Schema from Python: what a method takes and returns, what a configuration may hold.

Types JSON has no word for are marked with `x-toft-type`: `bytes`, `ndarray`, `path`, `tuple`, `set`,
`frozenset`, `enum`, `dataclass`, `complex`, `datetime`, `date`, `time`, `timedelta` (in seconds). What says
nothing, or nothing that can be read here, is no constraint. The result depends on the source alone, so that a
host can compare hashes of it.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import enum
import inspect
import math
import os
import typing

import toft_sdk.hints as hints
from toft_sdk.conversion import converter, is_union
from toft_sdk.errors import InputError
from toft_sdk.options import OPTION_KEYWORDS
from toft_sdk.validation import problems

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Mapping

    Schema = dict[str, Any]

_PLAIN: dict[Any, dict[str, Any]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    complex: {"x-toft-type": "complex"},
    bytes: {"x-toft-type": "bytes"},
    bytearray: {"x-toft-type": "bytes"},
    list: {"type": "array"},
    dict: {"type": "object"},
    tuple: {"type": "array", "x-toft-type": "tuple"},
    set: {"type": "array", "uniqueItems": True, "x-toft-type": "set"},
    frozenset: {"type": "array", "uniqueItems": True, "x-toft-type": "frozenset"},
}
# By name, so that `datetime` is imported by those who use it.
_MOMENTS = {
    "datetime": {"type": "string", "format": "date-time"},
    "date": {"type": "string", "format": "date"},
    "time": {"type": "string", "format": "time"},
    "timedelta": {"type": "number"},
}
_ARRAYS = (
    collections.abc.Sequence,
    collections.abc.Iterable,
    collections.abc.Collection,
    collections.abc.Iterator,
    collections.abc.Generator,
)
# What the `annotated_types` package and its likes call a constraint.
_ANNOTATED = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "min_length",
    "max_length": "max_length",
}
_UNSAYABLE: Any = object()


def signature_schema(function: Callable[..., Any], owner: type[Any] | None = None) -> Schema:
    """Describe what a callable takes and returns.

    Args:
        function: A function or a bound method.
        owner: The class it was found in, whose names its annotations may use.

    Returns:
        `parameters` (name to JSON Schema with `kind`, and `default` where JSON can say it), `required` names,
        `additional` (whether other names are taken too) and `returns` (JSON Schema).
    """
    resolved = hints.of_function(_innermost(function), owner)
    parameters: dict[str, Schema] = {}
    required = []
    additional = False
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            additional = True
            continue
        schema = type_schema(resolved.get(name, hints.UNKNOWN))
        if parameter.kind is parameter.VAR_POSITIONAL:
            schema = {"type": "array", "items": schema} if schema else {"type": "array"}
        elif parameter.default is parameter.empty:
            required.append(name)
        else:
            schema = _with_default(schema, parameter.default)
        parameters[name] = {**schema, "kind": parameter.kind.name.lower()}
    return {
        "parameters": parameters,
        "required": required,
        "additional": additional,
        "returns": type_schema(resolved.get("return", hints.UNKNOWN)),
    }


def _innermost(function: Any) -> Any:
    function = inspect.unwrap(function)
    return getattr(function, "__func__", function)


def type_schema(annotation: Any, inside: tuple[Any, ...] = ()) -> Schema:
    """Return the JSON Schema of a resolved annotation; `{}` where there is no constraint.

    Args:
        annotation: A type, or anything `typing` can build.
        inside: The dataclasses this one is being described inside of; one that contains itself stays open.
    """
    if hasattr(annotation, "__metadata__"):
        schema = type_schema(annotation.__origin__, inside)
        for extra in annotation.__metadata__:
            schema = {**schema, **_constraints(schema, _extra_constraints(extra))}
        return schema
    if hasattr(annotation, "__supertype__"):
        return type_schema(annotation.__supertype__, inside)
    if annotation is None:
        return {"type": "null"}
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if is_union(origin):
        return _any_of([type_schema(each, inside) for each in arguments])
    if _is_literal(origin):
        return {"enum": [_plain(each) for each in arguments]}
    if origin is not None:
        return _generic(origin, arguments, inside)
    return _class_schema(annotation, inside) if isinstance(annotation, type) else {}


def _is_literal(origin: Any) -> bool:
    # By name: typing_extensions brings its own for old Pythons.
    return origin is typing.Literal or str(origin).endswith(".Literal")


def _any_of(members: list[Schema]) -> Schema:
    if any(not each for each in members):
        return {}
    null = {"type": "null"}
    others = [each for each in members if each != null]
    unique = [each for index, each in enumerate(others) if each not in others[:index]]
    if len(unique) == len(members) == 1 or (len(unique) == 1 and len(others) == len(members)):
        return unique[0]
    closed = len(unique) == 1 and not {"enum", "x-toft-type"}.isdisjoint(unique[0])
    if len(unique) == 1 and isinstance(unique[0].get("type"), str) and not closed:
        return {**unique[0], "type": [unique[0]["type"], "null"]}
    return {"anyOf": [*unique, null] if len(others) < len(members) else unique}


def _generic(origin: Any, arguments: tuple[Any, ...], inside: tuple[Any, ...]) -> Schema:
    if not isinstance(origin, type):
        return {}
    if _is_array_type(origin):
        return {"x-toft-type": "ndarray"}
    if issubclass(origin, tuple):
        return _tuple(arguments, inside)
    if issubclass(origin, collections.abc.Mapping):
        values = type_schema(arguments[1], inside) if len(arguments) == 2 else {}
        return {"type": "object", "additionalProperties": values} if values else {"type": "object"}
    base = _PLAIN.get(origin)
    if base is None and issubclass(origin, collections.abc.Set):
        base = _PLAIN[set]
    elif base is None and issubclass(origin, _ARRAYS):
        base = {"type": "array"}
    if base is None:
        return _class_schema(origin, inside)
    items = type_schema(arguments[0], inside) if arguments else {}
    return {**base, "items": items} if items else dict(base)


def _tuple(arguments: tuple[Any, ...], inside: tuple[Any, ...]) -> Schema:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        items = type_schema(arguments[0], inside)
        return {**_PLAIN[tuple], "items": items} if items else dict(_PLAIN[tuple])
    # Python 3.8 to 3.10 say `((),)` for the empty tuple.
    members = [type_schema(each, inside) for each in arguments if each != ()]
    size = {"minItems": len(members), "maxItems": len(members)}
    return {**_PLAIN[tuple], **({"prefixItems": members} if members else {}), **size}


def _is_array_type(kind: type[Any]) -> bool:
    # By name: numpy is never imported for this.
    return kind.__name__ == "ndarray" and kind.__module__.split(".")[0] == "numpy"


def _class_schema(kind: type[Any], inside: tuple[Any, ...]) -> Schema:
    if kind in _PLAIN:
        return dict(_PLAIN[kind])
    if _is_array_type(kind):
        return {"x-toft-type": "ndarray"}
    if issubclass(kind, enum.Enum):
        values = [_plain(member.value) for member in kind]
        return {"x-toft-type": "enum"} if _UNSAYABLE in values else {"enum": values, "x-toft-type": "enum"}
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, inside)
    if issubclass(kind, os.PathLike) and kind.__module__.startswith("pathlib"):
        return {"type": "string", "x-toft-type": "path"}
    if kind.__module__ == "datetime" and kind.__name__ in _MOMENTS:
        return {**_MOMENTS[kind.__name__], "x-toft-type": kind.__name__}
    if issubclass(kind, dict) and hasattr(kind, "__total__"):
        return _typed_dict(kind, inside)
    if kind is collections.abc.Set:
        return dict(_PLAIN[set])
    if kind in _ARRAYS:
        return {"type": "array"}
    if kind in (collections.abc.Mapping, collections.abc.MutableMapping):
        return {"type": "object"}
    return {}


def _typed_dict(kind: type[Any], inside: tuple[Any, ...]) -> Schema:
    if kind in inside:
        return {"type": "object"}
    fields = hints.of_class(kind) or getattr(kind, "__annotations__", {})
    properties = {name: type_schema(_required_item(each), (*inside, kind)) for name, each in fields.items()}
    required = sorted(getattr(kind, "__required_keys__", fields if getattr(kind, "__total__", True) else ()))
    schema: Schema = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**schema, "required": required} if required else schema


def _required_item(annotation: Any) -> Any:
    # Required[X] and NotRequired[X] say nothing about X.
    marks = ("Required", "NotRequired", "ReadOnly")
    if getattr(typing.get_origin(annotation), "_name", None) in marks:
        return typing.get_args(annotation)[0]
    return annotation


def _dataclass(kind: type[Any], inside: tuple[Any, ...]) -> Schema:
    if kind in inside:
        return {"type": "object", "x-toft-type": "dataclass", "title": kind.__name__}
    resolved = hints.of_class(kind)
    properties: dict[str, Schema] = {}
    required = []
    for field in dataclasses.fields(kind):
        if not field.init:
            continue
        schema = type_schema(resolved.get(field.name, hints.UNKNOWN), (*inside, kind))
        schema = {**schema, **_constraints(schema, field.metadata)}
        if field.metadata.get("reload"):
            schema["x-toft-reload"] = field.metadata["reload"]
        default = _field_default(field)
        if default is dataclasses.MISSING:
            required.append(field.name)
        else:
            schema = _with_default(schema, default)
        properties[field.name] = schema
    return {
        "type": "object",
        "title": kind.__name__,
        **_description(kind),
        "properties": properties,
        **({"required": required} if required else {}),
        "additionalProperties": False,
        "x-toft-type": "dataclass",
    }


def _description(kind: type[Any]) -> Schema:
    text = inspect.getdoc(kind) or ""
    # A dataclass without a docstring gets its signature for one.
    if not text or text.startswith(kind.__name__ + "("):
        return {}
    return {"description": text.split("\n\n")[0].replace("\n", " ")}


def _field_default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _with_default(schema: Schema, default: Any) -> Schema:
    if default is None and schema and not _allows_null(schema):
        # `text: str = None` is common and means what it says.
        schema = _any_of([schema, {"type": "null"}])
    plain = _plain(default)
    return schema if plain is _UNSAYABLE else {**schema, "default": plain}


def _allows_null(schema: Schema) -> bool:
    return not problems(schema, None)


def _extra_constraints(extra: Any) -> Mapping[str, Any]:
    """Return the constraints that stand in `Annotated[...]`: an `option()`, a dictionary, or their like."""
    if isinstance(extra, dataclasses.Field):
        return extra.metadata
    if isinstance(extra, dict):
        return extra
    if isinstance(extra, str):
        return {"description": extra}
    return {
        keyword: getattr(extra, name)
        for name, keyword in _ANNOTATED.items()
        if isinstance(getattr(extra, name, None), (int, float))
    }


def _constraints(schema: Schema, given: Mapping[str, Any]) -> Schema:
    keywords = set(OPTION_KEYWORDS.values())
    found: Schema = {}
    for name, value in given.items():
        keyword = OPTION_KEYWORDS.get(name, name)
        if keyword not in keywords or value is None:
            continue
        if schema.get("type") == "array" and keyword in ("minLength", "maxLength"):
            keyword = keyword.replace("Length", "Items")
        if keyword == "pattern":
            # JSON Schema searches; an author means the whole text.
            value = f"^(?:{value})$"
        if keyword == "enum":
            value = [_plain(each) for each in value]
        found[keyword] = value
    return found


def _plain(value: Any) -> Any:
    """Return a value as JSON would say it, or `_UNSAYABLE`."""
    if isinstance(value, enum.Enum):
        return _plain(value.value)
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _UNSAYABLE
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, dict):
        if not all(isinstance(name, str) for name in value):
            return _UNSAYABLE
        pairs = {name: _plain(each) for name, each in value.items()}
        return _UNSAYABLE if any(each is _UNSAYABLE for each in pairs.values()) else pairs
    if isinstance(value, (list, tuple, set, frozenset)):
        items = [_plain(each) for each in value]
        if any(each is _UNSAYABLE for each in items):
            return _UNSAYABLE
        # A set has no order, and a schema must not change from one process to the next.
        return sorted(items, key=repr) if isinstance(value, (set, frozenset)) else items
    return _UNSAYABLE


def config_schema(kind: type[Any] | None) -> Schema:
    """Return the JSON Schema of a configuration dataclass; of none at all when `kind` is None."""
    if kind is None:
        return {"type": "object", "properties": {}, "additionalProperties": False}
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"{kind.__name__} is no dataclass; put @dataclass above it")
    return _dataclass(kind, ())


def config_defaults(kind: type[Any] | None) -> dict[str, Any]:
    """Return the default of every field that has one JSON can say."""
    properties = config_schema(kind)["properties"]
    return {name: schema["default"] for name, schema in properties.items() if "default" in schema}


def to_config(kind: type[Any] | None, values: Mapping[str, Any]) -> Any:
    """Build a configuration from some of its fields, the others at their defaults.

    Args:
        kind: The dataclass; None when the plugin has no configuration.
        values: JSON-like values by field name.

    Raises:
        InputError: Something does not fit; every bad field is named at once.
    """
    found = problems(config_schema(kind), dict(values))
    if found:
        text = "; ".join(f"{path} {problem}" if path else problem for path, problem in found.items())
        raise InputError(f"configuration: {text}", fields=found, code="config.invalid")
    if kind is None:
        return None
    build = converter(kind)
    try:
        return build(dict(values)) if build is not None else kind(**values)
    except (ValueError, TypeError) as error:
        raise InputError(f"configuration: {error}", code="config.invalid") from error
