"""The tags beyond plain values: sets, times, paths, dataclasses, enums, numpy, subclasses of plain types.

Nothing is ever imported because a peer named it: a dataclass or an enum is found only among modules that are
imported already. numpy is the one package looked for by its own name, when an array arrives.
"""

from __future__ import annotations

import datetime
import pathlib
import sys

from toft_sdk import arrays
from toft_sdk.codec import TAG, Decoder, Encoder, Record, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

    Writer = Callable[[Encoder, Any, int], Any]

_PATHS = {
    "path": pathlib.PosixPath if sys.platform != "win32" else pathlib.WindowsPath,
    "posix_path": pathlib.PurePosixPath,
    "windows_path": pathlib.PureWindowsPath,
}
_PLAIN = (str, bool, int, float, bytes, bytearray, list, tuple, set, frozenset, dict)
# What a peer may never have built here by naming it: the node's own records carry meaning.
_PRIVATE = ("toft", "toft_sdk", "builtins", "__builtin__")


def find_writer(kind: type) -> Writer:
    """Return what writes values of a type the codec does not know by itself."""
    found = _WRITERS.get(kind)
    if found is not None:
        return found
    if kind is Record:
        return _write_record
    root = kind.__module__.split(".", 1)[0]
    if root == "numpy":
        return arrays.find_writer(kind)
    if kind is arrays.Array:
        return arrays.write_plain
    enum = sys.modules.get("enum")
    if enum is not None and issubclass(kind, enum.Enum):
        return _write_enum
    if "__dataclass_fields__" in vars(kind):
        return _write_dataclass
    for plain in _PLAIN:
        if issubclass(kind, plain):
            return lambda coder, value, depth: coder.encode(_base_of(plain, value), depth)
    raise Refused(f"{_full_name(kind)} cannot cross; use plain values, bytes, a dataclass or an array")


def _base_of(plain: Any, value: Any) -> Any:
    """Return the plain value inside a subclass, never through a method that the subclass overrides."""
    if plain is str:
        return str.__str__(value)
    if plain in (int, float):
        return plain.__pos__(value)
    return plain(value)


def _full_name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _type_name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def find_type(name: Any) -> type | None:
    """Return a class by `module:qualified.name` among imported modules, or None."""
    if type(name) is not str:
        raise ValueError("a type name is not text")
    module_name, _, path = name.partition(":")
    if module_name.split(".", 1)[0] in _PRIVATE:
        return None
    found: Any = sys.modules.get(module_name)
    for part in path.split("."):
        if found is None:
            return None
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    if isinstance(found, type) and _type_name(found) == name:
        return found
    return None


def _write_set(coder: Encoder, value: Any, depth: int) -> Any:
    return {TAG: "set", "v": coder.sequence(value, depth)}


def _write_frozenset(coder: Encoder, value: Any, depth: int) -> Any:
    return {TAG: "frozenset", "v": coder.sequence(value, depth)}


def _write_memoryview(coder: Encoder, value: Any, depth: int) -> Any:
    return {TAG: "bytes", "b": coder.buffer(bytes(value))}


def _zone(zone: Any) -> Any:
    """Return how a time zone travels: None, [seconds, name], or the key of a region."""
    if zone is None:
        return None
    if type(zone) is datetime.timezone:
        offset, name = (*zone.__getinitargs__(), None)[:2]  # type: ignore[attr-defined]
        seconds = [offset.days, offset.seconds, offset.microseconds]
        return seconds if name is None else [*seconds, name]
    key = getattr(zone, "key", None)
    if type(zone).__module__.split(".", 1)[0] == "zoneinfo" and isinstance(key, str):
        return key
    raise Refused(f"has a time zone of type {_full_name(type(zone))}; use datetime.timezone or zoneinfo")


def _write_datetime(coder: Encoder, value: Any, depth: int) -> Any:
    text = value.replace(tzinfo=None).isoformat()
    return {TAG: "datetime", "v": text, "fold": value.fold, "zone": _zone(value.tzinfo)}


def _write_time(coder: Encoder, value: Any, depth: int) -> Any:
    text = value.replace(tzinfo=None).isoformat()
    return {TAG: "time", "v": text, "fold": value.fold, "zone": _zone(value.tzinfo)}


def _write_date(coder: Encoder, value: Any, depth: int) -> Any:
    return {TAG: "date", "v": value.isoformat()}


def _write_timedelta(coder: Encoder, value: Any, depth: int) -> Any:
    return {TAG: "timedelta", "v": [value.days, value.seconds, value.microseconds]}


def _path_writer(tag: str) -> Writer:
    return lambda coder, value, depth: {TAG: tag, "v": str(value)}


def _write_dataclass(coder: Encoder, value: Any, depth: int) -> Any:
    names = [name for name, field in type(value).__dataclass_fields__.items() if _is_field(field)]
    missing = [name for name in names if not hasattr(value, name)]
    if missing:
        raise Refused(f"its field {missing[0]} has no value")
    coder.enter(value, depth)
    tree = coder.fields({name: getattr(value, name) for name in names}, depth)
    coder.leave(value)
    return {
        TAG: "dataclass",
        "c": _type_name(type(value)),
        "v": [[name, item] for name, item in tree.items()],
    }


def _is_field(field: Any) -> bool:
    return bool(field._field_type.name == "_FIELD")  # neither a ClassVar nor an InitVar


def _write_record(coder: Encoder, value: Any, depth: int) -> Any:
    coder.enter(value, depth)
    tree = coder.fields(value, depth)
    coder.leave(value)
    return {TAG: "dataclass", "c": value.type_name, "v": [[name, item] for name, item in tree.items()]}


def _write_enum(coder: Encoder, value: Any, depth: int) -> Any:
    kind = _type_name(type(value))
    return {
        TAG: "enum",
        "c": kind,
        "n": value.name,
        "v": coder.encode(value.value, depth + 1),
    }


_WRITERS: dict[type, Writer] = {
    set: _write_set,
    frozenset: _write_frozenset,
    memoryview: _write_memoryview,
    datetime.datetime: _write_datetime,
    datetime.date: _write_date,
    datetime.time: _write_time,
    datetime.timedelta: _write_timedelta,
    **{kind: _path_writer(tag) for tag, kind in _PATHS.items()},
}


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("a tagged value has no text")
    return value


def _read_zone(zone: Any, text: str) -> Any:
    if zone is None:
        return None
    if type(zone) is str:
        try:
            from zoneinfo import ZoneInfo  # noqa: PLC0415 - not in Python 3.8

            return ZoneInfo(zone)
        except (ImportError, LookupError, OSError) as error:
            raise ValueError(f"the time zone {ascii(zone)[:60]} is not known here: {error}") from None
    days, seconds, micros, *name = zone
    offset = datetime.timedelta(days, seconds, micros)
    return (
        datetime.timezone(offset, _text(name[0]))
        if name
        else datetime.timezone(offset)
        if offset
        else datetime.timezone.utc
    )


def _read_datetime(coder: Decoder, tree: Any, depth: int) -> Any:
    text = _text(tree["v"])
    moment = datetime.datetime.fromisoformat(text)
    return moment.replace(tzinfo=_read_zone(tree["zone"], text), fold=tree["fold"])


def _read_time(coder: Decoder, tree: Any, depth: int) -> Any:
    text = _text(tree["v"])
    moment = datetime.time.fromisoformat(text)
    return moment.replace(tzinfo=_read_zone(tree["zone"], text), fold=tree["fold"])


def _path_reader(kind: Any) -> Callable[[Decoder, Any, int], Any]:
    return lambda coder, tree, depth: kind(_text(tree["v"]))


def _read_dataclass(coder: Decoder, tree: Any, depth: int) -> Any:
    kind = find_type(tree["c"])
    fields = {_text(name): coder.decode(value, depth + 1) for name, value in tree["v"]}
    declared = vars(kind).get("__dataclass_fields__") if kind is not None else None
    if kind is None or declared is None or fields.keys() != {n for n, f in declared.items() if _is_field(f)}:
        return Record(tree["c"], fields)
    # Past __init__ on purpose: the exact state is put back, and no code runs because a peer asked for it.
    value: Any = object.__new__(kind)
    for name, item in fields.items():
        object.__setattr__(value, name, item)
    return value


def _read_enum(coder: Decoder, tree: Any, depth: int) -> Any:
    value = coder.decode(tree["v"], depth + 1)
    kind: Any = find_type(tree["c"])
    enum = sys.modules.get("enum")
    if kind is None or enum is None or not issubclass(kind, enum.Enum):
        return value
    member = kind.__members__.get(tree["n"]) if tree["n"] is not None else None
    if member is not None and member.value == value:
        return member
    return kind(value) if issubclass(kind, enum.Flag) and type(value) is int else value


READERS: dict[str, Callable[[Decoder, Any, int], Any]] = {
    "set": lambda coder, tree, depth: set(coder.items(tree, depth)),
    "frozenset": lambda coder, tree, depth: frozenset(coder.items(tree, depth)),
    "datetime": _read_datetime,
    "date": lambda coder, tree, depth: datetime.date.fromisoformat(_text(tree["v"])),
    "time": _read_time,
    "timedelta": lambda coder, tree, depth: datetime.timedelta(*tree["v"]),
    "dataclass": _read_dataclass,
    "enum": _read_enum,
    "ndarray": arrays.read_array,
    "scalar": arrays.read_scalar,
    **{tag: _path_reader(kind) for tag, kind in _PATHS.items()},
}
