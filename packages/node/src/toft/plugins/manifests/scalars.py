"""The checks of single values: what JSON has, and the types that a marker in the schema names.

Each takes a value and returns it, converted where the type leaves no doubt, or raises `Misfit`.
"""

from __future__ import annotations

import datetime
import enum
import operator
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from toft.kernel import suggestions

Check = Callable[[Any], Any]
Path = tuple[str | int, ...]


class Misfit(Exception):
    """A value does not fit; `problems` are (path inside the value, what is wrong)."""

    def __init__(self, problems: Sequence[tuple[Path, str]]) -> None:
        super().__init__("; ".join(message for _, message in problems))
        self.problems = list(problems)


def describe_value(value: Any) -> str:
    """Name a value shortly, for a message: its type, and itself when that is short."""
    kind = type(value)
    name = (
        kind.__name__ if kind.__module__ in ("builtins", "datetime") else f"{kind.__module__}.{kind.__name__}"
    )
    if value is None:
        return "null"
    if kind in (bool, int, float, str):
        text = suggestions.shown(value)
        return f"{name} {text}" if len(text) <= 60 else f"{name} {text[:57]}..."
    return name


def anything(value: Any) -> Any:
    return value


def nothing(value: Any) -> Any:
    raise expected("nothing", value)


def expected(what: str, value: Any) -> Misfit:
    return Misfit([((), f"expected {what}, got {describe_value(value)}")])


def _integer(value: Any) -> Any:
    if type(value) is int:
        return value
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise expected("an integer", value)
    return value if isinstance(value, int) else _index(value)


def _index(value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise expected("an integer", value) from None


def _number(value: Any) -> Any:
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return _scalar(value)
    return value


def _scalar(value: Any) -> Any:
    # A numpy scalar is a number to its user; one that numpy calls `bool_` or `complex64` is not.
    if type(value).__module__ == "numpy" and getattr(value, "ndim", 1) == 0 and value.dtype.kind in "iuf":
        return value.item()
    raise expected("a number", value)


def _string(value: Any) -> Any:
    if type(value) is str or isinstance(value, str):
        return value
    raise expected("text", value)


def _boolean(value: Any) -> Any:
    if value is True or value is False:
        return value
    raise expected("true or false", value)


def _null(value: Any) -> Any:
    if value is None:
        return value
    raise expected("null", value)


JSON: dict[str, Check] = {
    "integer": _integer,
    "number": _number,
    "string": _string,
    "boolean": _boolean,
    "null": _null,
}
"""The check of each JSON type that holds nothing else."""


def _bytes(value: Any) -> Any:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value
    raise expected("bytes", value)


def _array_of_numpy(value: Any) -> Any:
    # By name: the node does not need numpy to pass an array on.
    for kind in type(value).__mro__:
        if kind.__name__ == "ndarray" and kind.__module__.partition(".")[0] == "numpy":
            return value
    raise expected("a numpy array", value)


def _path(value: Any) -> Any:
    if isinstance(value, pathlib.PurePath):
        return value
    if isinstance(value, str) and value and "\0" not in value:
        return pathlib.Path(value)
    raise expected("a path", value)


def _moment(kind: Any, what: str) -> Check:
    def check(value: Any) -> Any:
        if isinstance(value, kind) and not (kind is datetime.date and isinstance(value, datetime.datetime)):
            return value
        if isinstance(value, str):
            try:
                return kind.fromisoformat(value)
            except ValueError:
                pass
        raise expected(what, value)

    return check


def _enum(value: Any) -> Any:
    return value.value if isinstance(value, enum.Enum) else value


def _timedelta(value: Any) -> Any:
    if isinstance(value, datetime.timedelta):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return datetime.timedelta(seconds=value)
    raise expected("a length of time", value)


def _complex(value: Any) -> Any:
    if isinstance(value, (complex, float, int)) and not isinstance(value, bool):
        return value
    raise expected("a complex number", value)


MARKED: dict[str, Check] = {
    "bytes": _bytes,
    "enum": _enum,
    "ndarray": _array_of_numpy,
    "path": _path,
    "datetime": _moment(datetime.datetime, "a date and time"),
    "date": _moment(datetime.date, "a date"),
    "time": _moment(datetime.time, "a time of day"),
    "timedelta": _timedelta,
    "complex": _complex,
}
"""The check of each type that `x-toft-type` marks and that holds nothing else."""
