"""Values to JSON and back, exactly: what JSON cannot say is tagged, bulk is taken out as buffers.

A tagged value is an object with the key `$`: {"$": "tuple", "v": [1, 2]}. An object of the user that has that
key itself travels as tagged pairs. Plain JSON values pass untouched, and that is the fast path.
Everything beyond the plain types lives in `toft_sdk.rich`, which a worker loads when it first needs it.
"""

from __future__ import annotations

from toft_sdk.errors import InputError
from toft_sdk.jsontext import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

TAG = "$"
MARK = '"$"'
MAX_DEPTH = 100
MAX_INT = (1 << 53) - 1  # beyond it JavaScript rounds
MAX_INT_BITS = 14_000  # Python itself refuses to write more than 4300 digits, and to read them
_PATH_ENDS = 100
_MAX_FLOAT = 1.7976931348623157e308
BIG_TEXT = 64 << 10
_CONSTANTS = frozenset((bool, type(None)))


class EncodeError(InputError):
    """A value cannot cross; `path` says which, `reason` why.

    Args:
        reason: What is wrong with it.
        path: Where it is, such as `$.items[3].model`.
    """

    code = "value.unencodable"

    def __init__(self, reason: str, path: str = "$") -> None:
        super().__init__(f"{path}: {reason}", fields={path: reason})
        self.reason = reason
        self.path = path


class Refused(Exception):
    """Inside the codec: the path grows on the way out, so that the way in costs nothing."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.parts: list[str] = []


class Record(dict):  # type: ignore[type-arg]
    """A dataclass whose class is not imported here: its fields, and the name of its type.

    Sent on, it becomes the dataclass again where the class is known.
    """

    __slots__ = ("type_name",)

    def __init__(self, type_name: str, fields: Any = ()) -> None:
        super().__init__(fields)
        self.type_name = type_name

    def __repr__(self) -> str:
        return f"Record({self.type_name!r}, {dict(self)!r})"


def _is_plain_list(values: list[Any], depth: int) -> bool:
    if depth > MAX_DEPTH:
        return False
    kinds = set(map(type, values))
    if len(kinds) == 1:
        kind = kinds.pop()
        if kind is str:
            return max(map(len, values)) < BIG_TEXT
        if kind is float:
            return min(values) >= -_MAX_FLOAT and max(values) <= _MAX_FLOAT and not _has_nan(values)
        if kind is int:
            return bool(min(values) >= -MAX_INT and max(values) <= MAX_INT)
        if kind in _CONSTANTS:
            return True
        if kind is dict:
            return all([_is_plain_dict(value, depth + 1) for value in values])
    for value in values:
        kind = type(value)
        if kind is dict:
            plain = _is_plain_dict(value, depth + 1)
        elif kind is list:
            plain = not value or _is_plain_list(value, depth + 1)
        else:
            plain = is_plain(value)
        if not plain:
            return False
    return True


def _has_nan(values: list[float]) -> bool:
    total = sum(values)  # a NaN anywhere makes the sum one; an overflow to infinity asks for the slow look
    return total - total != 0.0 and any(value != value for value in values)


def is_plain(value: Any) -> bool:
    """Say whether a value is JSON already, exactly."""
    kind = type(value)
    if kind is dict:
        return _is_plain_dict(value, 1)
    if kind is list:
        return not value or _is_plain_list(value, 1)
    if kind is str:
        return len(value) < BIG_TEXT
    if kind is int:
        return bool(-MAX_INT <= value <= MAX_INT)
    if kind is float:
        return bool(-_MAX_FLOAT <= value <= _MAX_FLOAT)
    return value is None or kind is bool


def _is_plain_dict(value: dict[Any, Any], depth: int) -> bool:
    # This runs for every message: a call for each leaf would take as long as all the rest.
    if TAG in value or depth > MAX_DEPTH:
        return False
    for key, item in value.items():
        if type(key) is not str:
            return False
        kind = type(item)
        if kind is str:
            plain = len(item) < BIG_TEXT
        elif kind is int:
            plain = -MAX_INT <= item <= MAX_INT
        elif kind is dict:
            plain = not item or _is_plain_dict(item, depth + 1)
        elif kind is list:
            plain = not item or _is_plain_list(item, depth + 1)
        elif kind is float:
            plain = -_MAX_FLOAT <= item <= _MAX_FLOAT
        else:
            plain = item is None or kind is bool
        if not plain:
            return False
    return True


def encode(value: Any) -> tuple[Any, list[Any]]:
    """Return a value as JSON-able tree and the buffers taken out of it.

    Raises:
        EncodeError: Something in it cannot cross; its path says what.
    """
    if is_plain(value):
        return value, []
    coder = Encoder()
    try:
        return coder.encode(value, 0), coder.buffers
    except Refused as refused:
        raise EncodeError(str(refused), _shortened("$" + "".join(reversed(refused.parts)))) from None


def _shortened(path: str) -> str:
    return path if len(path) <= 2 * _PATH_ENDS else f"{path[:_PATH_ENDS]}...{path[-_PATH_ENDS:]}"


def _big_int(value: int) -> dict[str, Any]:
    if value.bit_length() > MAX_INT_BITS:
        raise Refused(f"is a number of {value.bit_length()} bits, more than {MAX_INT_BITS}; use bytes")
    return {TAG: "int", "v": str(value)}


class Encoder:
    """One pass over a value that is not plain JSON."""

    __slots__ = ("_inside", "buffers")

    def __init__(self) -> None:
        self.buffers: list[Any] = []
        self._inside: set[int] = set()

    def buffer(self, data: Any) -> int:
        """Take out a buffer; return its number."""
        self.buffers.append(data)
        return len(self.buffers) - 1

    def encode(self, value: Any, depth: int) -> Any:
        """Return one value as a tree."""
        kind = type(value)
        if kind is str:
            return value if len(value) < BIG_TEXT else _big_text(self, value)
        if kind is bool or value is None:
            return value
        if kind is int:
            return value if -MAX_INT <= value <= MAX_INT else _big_int(value)
        if kind is float:
            return value if -_MAX_FLOAT <= value <= _MAX_FLOAT else {TAG: "float", "v": repr(value)}
        if kind is dict:
            return self.mapping(value, depth)
        if kind is list:
            return self.sequence(value, depth)
        return writer(kind)(self, value, depth)

    def enter(self, value: Any, depth: int) -> None:
        """Refuse a cycle, and what is too deep."""
        if id(value) in self._inside:
            raise Refused("refers to itself")
        if depth >= MAX_DEPTH:
            raise Refused(f"is deeper than {MAX_DEPTH} levels")
        self._inside.add(id(value))

    def leave(self, value: Any) -> None:
        """Say that everything inside a container is done."""
        self._inside.discard(id(value))

    def sequence(self, values: Any, depth: int) -> list[Any]:
        """Return the items of a list, tuple or set."""
        self.enter(values, depth)
        items: list[Any] = []
        try:
            for value in values:
                items.append(self.encode(value, depth + 1))
        except Refused as refused:
            refused.parts.append(f"[{len(items)}]")
            raise
        self.leave(values)
        return items

    def mapping(self, values: Any, depth: int) -> Any:
        """Return a dict: an object when all keys are plain text, else tagged pairs."""
        self.enter(values, depth)
        if all([type(key) is str and key != TAG for key in values]):
            tree: Any = self.fields(values, depth)
        else:
            pairs: list[Any] = []
            for key, value in values.items():
                try:
                    pairs.append([self.encode(key, depth + 1), self.encode(value, depth + 1)])
                except Refused as refused:
                    refused.parts.append(f"[{_shown(key)}]")
                    raise
            tree = {TAG: "dict", "v": pairs}
        self.leave(values)
        return tree

    def fields(self, values: Any, depth: int) -> dict[str, Any]:
        """Return named values as an object."""
        tree: dict[str, Any] = {}
        name = ""
        try:
            for name, value in values.items():
                tree[name] = self.encode(value, depth + 1)
        except Refused as refused:
            refused.parts.append(f".{name}" if name.isidentifier() else f"[{_shown(name)}]")
            raise
        return tree


def _shown(key: object) -> str:
    return ascii(key)[:60]


def _big_text(coder: Encoder, value: str) -> Any:
    return {TAG: "str", "b": coder.buffer(value.encode("utf-8", "surrogatepass"))}


def _rich() -> Any:
    # By name: it builds on this module, and most workers never need it.
    return __import__("toft_sdk.rich", fromlist=["find_writer"])


def writer(kind: type) -> Callable[[Encoder, Any, int], Any]:
    """Return what writes values of a type, or raise `Refused`."""
    found = _WRITERS.get(kind)
    if found is None:
        found = _WRITERS[kind] = _rich().find_writer(kind)
    return found


def register(kind: type, write: Callable[[Encoder, Any, int], Any]) -> None:
    """Say how values of a type that only this process has are written."""
    _WRITERS[kind] = write


def _write_bytes(coder: Encoder, value: Any, depth: int) -> Any:
    return {TAG: "bytes", "b": coder.buffer(value)}


def _write_bytearray(coder: Encoder, value: Any, depth: int) -> Any:
    return {TAG: "bytearray", "b": coder.buffer(value)}


def _write_tuple(coder: Encoder, value: Any, depth: int) -> Any:
    return {TAG: "tuple", "v": coder.sequence(value, depth)}


_WRITERS: dict[type, Callable[[Encoder, Any, int], Any]] = {
    bytes: _write_bytes,
    bytearray: _write_bytearray,
    tuple: _write_tuple,
}


def decode(tree: Any, buffers: list[Any] | tuple[Any, ...] = ()) -> Any:
    """Return the value of a tree that `encode` made.

    Args:
        tree: As it came out of the JSON text.
        buffers: Bytes, or leases on a segment, in the order of their numbers.

    Raises:
        ValueError: It is not such a tree.
    """
    try:
        return Decoder(buffers).decode(tree, 0)
    except ValueError:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"a tagged value is malformed: {type(error).__name__}: {error}") from None
    finally:
        for data in buffers:
            if hasattr(data, "is_taken"):
                data.release()  # only what no array lives in


class Decoder:
    """One pass over a tree that holds tags."""

    __slots__ = ("buffers",)

    def __init__(self, buffers: list[Any] | tuple[Any, ...]) -> None:
        self.buffers = buffers

    def decode(self, tree: Any, depth: int) -> Any:
        """Return one value."""
        kind = type(tree)
        if kind is list:
            kinds = set(map(type, tree))
            if list in kinds or dict in kinds:
                self._deeper(depth)
                return [self.decode(item, depth + 1) for item in tree]
            return tree
        if kind is not dict:
            return tree
        tag = tree.get(TAG)
        if tag is not None:
            return reader(tag)(self, tree, depth)
        self._deeper(depth)
        for name, item in tree.items():
            inner = type(item)
            if inner is dict or inner is list:
                tree[name] = self.decode(item, depth + 1)
        return tree

    def _deeper(self, depth: int) -> None:
        if depth > 3 * MAX_DEPTH:
            raise ValueError(f"a value is deeper than {3 * MAX_DEPTH} levels of JSON")

    def items(self, tree: Any, depth: int) -> list[Any]:
        """Return the decoded list under `v`."""
        values = tree["v"]
        if type(values) is not list:
            raise ValueError("a tagged value has no list")
        self._deeper(depth)
        return [self.decode(item, depth + 1) for item in values]

    def data(self, tree: Any) -> Any:
        """Return the buffer a tag names, as bytes-like or as a lease."""
        number = tree["b"]
        if type(number) is not int or number < 0:
            raise ValueError("a tagged value names no buffer")
        return self.buffers[number]

    def content(self, tree: Any) -> Any:
        """Return the buffer a tag names as something bytes-like; it must be copied."""
        data = self.data(tree)
        return data.view() if hasattr(data, "is_taken") else data


def _read_pairs(coder: Decoder, tree: Any, depth: int) -> Any:
    pairs = tree["v"]
    if type(pairs) is not list:
        raise ValueError("a tagged dict has no list of pairs")
    coder._deeper(depth)
    return {coder.decode(key, depth + 1): coder.decode(value, depth + 1) for key, value in pairs}


def _read_int(coder: Decoder, tree: Any, depth: int) -> int:
    return int(_text(tree["v"]))


def _read_float(coder: Decoder, tree: Any, depth: int) -> float:
    return float(_text(tree["v"]))


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError("a tagged value has no text")
    return value


_READERS: dict[str, Callable[[Decoder, Any, int], Any]] = {
    "int": _read_int,
    "float": _read_float,
    "dict": _read_pairs,
    "tuple": lambda coder, tree, depth: tuple(coder.items(tree, depth)),
    "bytes": lambda coder, tree, depth: bytes(coder.content(tree)),
    "bytearray": lambda coder, tree, depth: bytearray(coder.content(tree)),
    "str": lambda coder, tree, depth: str(coder.content(tree), "utf-8", "surrogatepass"),
}


def reader(tag: Any) -> Callable[[Decoder, Any, int], Any]:
    """Return what reads values of a tag, or raise ValueError."""
    found = _READERS.get(tag)
    if found is None:
        found = _rich().READERS.get(tag)
        if found is None:
            raise ValueError(f"unknown tag {ascii(tag)[:60]}")
        _READERS[tag] = found
    return found


__all__ = [
    "MARK",
    "MAX_DEPTH",
    "TAG",
    "EncodeError",
    "Record",
    "decode",
    "dumps",
    "encode",
    "is_plain",
    "loads",
    "register",
]
