"""From what a caller can write down to what an annotation promises: dictionary to dataclass, text to path.

A converter takes a value and returns it as its annotation says; None stands for "take it as it is". What
already has the right type is never touched.
"""

from __future__ import annotations

import collections.abc
import enum
import os
import typing

import toft_sdk.hints as hints

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Converter = Callable[[Any], Any]

# An abstract set is given as a set; of an abstract sequence a list is one already.
_SEQUENCES = {list: list, set: set, frozenset: frozenset, collections.abc.Set: set}


def parameter_converters(function: Any, owner: type[Any] | None = None) -> dict[str, Converter]:
    """Return a converter for each parameter of a function that needs one."""
    found = {}
    code = getattr(function, "__code__", None)
    count = code.co_argcount + code.co_kwonlyargcount if code is not None else 0
    rest = code.co_varnames[count] if code is not None and code.co_flags & 0x04 else None
    for name, annotation in hints.of_function(function, owner).items():
        convert = converter(annotation) if name != "return" else None
        if convert is not None:
            found[name] = _each(list, convert) if name == rest else convert
    return found


def converter(annotation: Any) -> Converter | None:
    """Return what turns a JSON-like value into the annotated type, or None when nothing has to be done."""
    annotation = bare(annotation)
    origin = typing.get_origin(annotation)
    arguments = typing.get_args(annotation)
    if is_union(origin):
        # Of several types, which one a text was meant for is a guess; only "this or None" is clear.
        members = [each for each in arguments if each is not type(None)]
        return _optional(converter(members[0])) if len(members) == 1 else None
    kind = origin if isinstance(origin, type) else annotation
    if not isinstance(kind, type):
        return None
    if issubclass(kind, tuple) and not hasattr(kind, "_fields"):
        return _tuple(arguments)
    for plain, build in _SEQUENCES.items():
        if kind is plain:
            inner = converter(arguments[0]) if arguments else None
            return None if kind is list and inner is None else _each(build, inner)
    if kind is dict:
        return _mapping(converter(arguments[1])) if len(arguments) == 2 else None
    return _scalar(kind)


def bare(annotation: Any) -> Any:
    """Return an annotation without `Annotated` and `NewType` around it."""
    while True:
        if hasattr(annotation, "__metadata__"):
            annotation = annotation.__origin__
        elif hasattr(annotation, "__supertype__"):
            annotation = annotation.__supertype__
        else:
            return annotation


def is_union(origin: Any) -> bool:
    """Tell whether the origin of an annotation is `Union` or the `|` of types."""
    return origin is typing.Union or getattr(origin, "__name__", "") == "UnionType"


def _scalar(kind: type[Any]) -> Converter | None:
    if hasattr(kind, "__dataclass_fields__"):
        return _dataclass(kind)
    if issubclass(kind, enum.Enum):
        return _enum(kind)
    if issubclass(kind, os.PathLike) and kind.__module__.startswith("pathlib"):
        build: Any = kind
        return lambda value: build(value) if isinstance(value, str) else value
    if kind.__module__ == "datetime" and kind.__name__ in ("datetime", "date", "time"):
        return lambda value: kind.fromisoformat(_offset(value)) if isinstance(value, str) else value
    if (kind.__module__, kind.__name__) == ("datetime", "timedelta"):
        return lambda value: kind(seconds=value) if isinstance(value, (int, float)) else value
    return None


def _offset(text: str) -> str:
    # Python before 3.11 reads "+00:00" only.
    return text[:-1] + "+00:00" if text.endswith(("Z", "z")) else text


def _enum(kind: type[Any]) -> Converter:
    return lambda value: value if isinstance(value, kind) else kind(value)


def _dataclass(kind: type[Any]) -> Converter:
    inner: dict[str, Converter] | None = None

    def build(value: Any) -> Any:
        nonlocal inner
        if not isinstance(value, dict):
            return value
        if inner is None:
            # On first use: a dataclass may contain itself.
            found = ((name, converter(each)) for name, each in hints.of_class(kind).items())
            inner = {name: each for name, each in found if each is not None}
        ready = {name: inner[name](each) if name in inner else each for name, each in value.items()}
        return kind(**ready)

    return build


def _optional(convert: Converter | None) -> Converter | None:
    if convert is None:
        return None
    return lambda value: None if value is None else convert(value)


def _each(build: Callable[[Any], Any], convert: Converter | None) -> Converter:
    def all_of(value: Any) -> Any:
        if not isinstance(value, (list, tuple, set, frozenset)):
            return value
        return build(value if convert is None else [convert(each) for each in value])

    return all_of


def _tuple(arguments: tuple[Any, ...]) -> Converter:
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        return _each(tuple, converter(arguments[0]))
    inner = [converter(each) for each in arguments if each != ()]

    def build(value: Any) -> Any:
        if not isinstance(value, (list, tuple)):
            return value
        if len(value) != len(inner):
            return tuple(value)
        return tuple(each if convert is None else convert(each) for convert, each in zip(inner, value))

    return build


def _mapping(convert: Converter | None) -> Converter | None:
    if convert is None:
        return None

    def build(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: convert(each) for name, each in value.items()}

    return build
