"""A value that is carried: the text of its tree, and its buffers behind it, never decoded unless asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from toft.plugins import packed_format
from toft.plugins.manifests.unseen import Unseen
from toft.plugins.paths import PathError, find
from toft_sdk import codec
from toft_sdk.codec import TAG

_MAX_TREE_DEPTH = 3 * codec.MAX_DEPTH
_CHUNK_BYTES = 4 << 20
_JSON_KINDS = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    list: "array",
}
_KINDS = {
    **{
        tag: frozenset({tag}) for tag in ("bytes", "ndarray", "path", "datetime", "date", "time", "timedelta")
    },
    **{tag: frozenset({"array"}) for tag in ("tuple", "set", "frozenset")},
    **{tag: frozenset({"object"}) for tag in ("dict", "dataclass")},
    "bytearray": frozenset({"bytes"}),
    "str": frozenset({"string"}),
    "int": frozenset({"integer"}),
    "float": frozenset({"number"}),
}


Replaces = Callable[[dict[str, Any]], "Packed | None"]


class Packed(Unseen):
    """A value that is carried, not looked at.

    It may stand anywhere in the arguments of a call: the worker gets the value, and its buffers go from
    where they are to the worker without being read here.

    Args:
        tree: As the codec makes it.
        buffers: What the tree names by number: bytes, leases on a segment, parts of a file.
        is_tagged: Whether the tree may hold tags.
    """

    __slots__ = ("buffers", "is_tagged", "tree")

    def __init__(self, tree: Any, buffers: Sequence[Any] = (), *, is_tagged: bool = True) -> None:
        self.tree = tree
        self.buffers = buffers
        self.is_tagged = is_tagged

    @classmethod
    def of(cls, value: Any) -> Packed:
        """Take a value apart.

        Raises:
            EncodeError: Something in it cannot be kept; its path says what.
        """
        tree, buffers = codec.encode(value)
        return cls(tree, buffers, is_tagged=tree is not value)

    @classmethod
    def read(cls, data: Any) -> Packed:
        """Take what `to_bytes` or `parts` gave; the buffers are views of it.

        Raises:
            IntegrityError: It is not that.
        """
        view = memoryview(data)
        if packed_format.is_plain(view):
            return _plain(cls, view)
        tree, spans, is_tagged = packed_format.header(view)
        return cls(tree, [view[start:end] for start, end in spans], is_tagged=is_tagged)

    @classmethod
    def open(cls, path: Path) -> Packed:
        """Take a file that holds one; its buffers stay in it.

        Raises:
            FileNotFoundError: There is none.
            IntegrityError: It holds something else.
        """
        file = packed_format.File(path)
        view = file.map()
        if packed_format.is_plain(view):
            return _plain(cls, view)
        tree, spans, is_tagged = packed_format.header(view)
        return cls(
            tree, [packed_format.Slice(file, start, end - start) for start, end in spans], is_tagged=is_tagged
        )

    def value(self) -> Any:
        """Return the value itself; each call gives one of its own.

        Raises:
            IntegrityError: It is damaged.
        """
        # Decoding works in place, and the tree may be shared with the value that this is a part of.
        tree = codec.loads(codec.dumps(self.tree))
        return Packed(tree, self.buffers, is_tagged=self.is_tagged).take()

    def take(self) -> Any:
        """Return the value itself, once; the tree is spent with it.

        Raises:
            IntegrityError: It is damaged.
        """
        if not self.is_tagged and not self.buffers:
            return self.tree
        try:
            return codec.decode(self.tree, [_bytes_of(buffer) for buffer in self.buffers])
        except ValueError as error:
            raise packed_format.damaged(str(error)) from None

    @property
    def size_bytes(self) -> int:
        """Return what its buffers take; of a plain value 0."""
        return sum(map(_size_of, self.buffers))

    def to_bytes(self) -> bytes:
        """Return it as it is kept, in one piece."""
        return b"".join(self.parts())

    def parts(self) -> Iterator[Any]:
        """Return it as it is kept, piece by piece; what was given is read and out of memory again."""
        if not self.buffers:
            yield codec.dumps(self.tree).encode("ascii")
            return
        sizes = list(map(_size_of, self.buffers))
        yield packed_format.head(codec.dumps([self.tree, sizes]).encode("ascii"))
        for size, buffer in zip(sizes, self.buffers, strict=True):
            yield from _chunks(buffer, size)
            if rest := packed_format.padded(size) - size:
                yield bytes(rest)

    def at(self, path: Sequence[str | int]) -> Packed:
        """Return a part of it, without decoding anything.

        Raises:
            PathError: There is nothing of that name; it says what there is.
        """
        return Packed(find(self.tree, path), self.buffers, is_tagged=self.is_tagged)

    def items(self) -> list[Packed]:
        """Return the items of a list or tuple.

        Raises:
            PathError: It is neither.
        """
        tree = self.tree
        if type(tree) is dict and tree.get(TAG) == "tuple":
            tree = tree.get("v")
        if type(tree) is not list:
            raise PathError((), "is no list")
        return [Packed(item, self.buffers, is_tagged=self.is_tagged) for item in tree]

    def kinds(self) -> frozenset[str]:
        """Return the word for what it is, as schemas name it."""
        if type(self.tree) is dict and TAG in self.tree:
            return _KINDS.get(str(self.tree[TAG]), frozenset())
        return frozenset({_JSON_KINDS.get(type(self.tree), "object")})

    def replaced(self, by: Replaces | None = None) -> Packed:
        """Return it with other values in the place of plain objects, and only the buffers it names.

        Args:
            by: Returns what stands in the place of an object, or None where it stays. What it returns is not
                looked into.
        """
        coder = _Buffers()
        try:
            tree = _Grafting(coder, self.buffers, by).tree(self.tree, 0)
        except codec.Refused as refused:
            raise codec.EncodeError(str(refused)) from None
        return Packed(tree, coder.buffers, is_tagged=True)

    def fields(self, *, heavy_bytes: int) -> dict[str, Any]:
        """Return the values of a mapping by name; those with so many bytes of buffers stay packed.

        Raises:
            IntegrityError: It is no mapping with names, or damaged.
        """
        tree = self.tree
        if type(tree) is not dict:
            raise packed_format.damaged("arguments are no mapping")
        if TAG in tree:
            value = self.value()
            if not isinstance(value, dict):
                raise packed_format.damaged("arguments are no mapping")
            return value
        found: dict[str, Any] = {}
        for name, part in tree.items():
            each = Packed(part, self.buffers, is_tagged=self.is_tagged).replaced()
            found[name] = each if each.size_bytes >= heavy_bytes else each.take()
        return found

    def release(self) -> None:
        """Give back the segments its buffers lie in; only on the event loop, and it is used no more."""
        for buffer in self.buffers:
            if hasattr(buffer, "is_taken"):
                buffer.release()
        self.buffers = ()


class _Buffers:
    """Where buffers get their numbers in a new value."""

    def __init__(self) -> None:
        self.buffers: list[Any] = []

    def buffer(self, data: Any) -> int:
        self.buffers.append(data)
        return len(self.buffers) - 1


def _write_packed(coder: codec.Encoder, packed: Packed, depth: int) -> Any:
    return _Grafting(coder, packed.buffers).tree(packed.tree, 3 * depth)


class _Grafting:
    """Puts the tree of one value into that of another: its buffers get new numbers."""

    def __init__(
        self, coder: codec.Encoder | _Buffers, buffers: Sequence[Any], by: Replaces | None = None
    ) -> None:
        self._coder = coder
        self._buffers = buffers
        self._by = by
        self._numbers: dict[int, int] = {}

    def tree(self, tree: Any, level: int) -> Any:
        kind = type(tree)
        if kind is not dict and kind is not list:
            return tree
        if level > _MAX_TREE_DEPTH:
            raise codec.Refused(f"is deeper than {codec.MAX_DEPTH} levels")
        if kind is list:
            return [self.tree(item, level + 1) for item in tree]
        if TAG in tree and "b" in tree:
            return {**tree, "b": self._number(tree["b"])}
        if self._by is not None and TAG not in tree:
            found = self._by(tree)
            if found is not None:
                return _Grafting(self._coder, found.buffers).tree(found.tree, level)
        return {name: self.tree(item, level + 1) for name, item in tree.items()}

    def _number(self, number: Any) -> int:
        if type(number) is not int or not 0 <= number < len(self._buffers):
            raise codec.Refused("names a buffer that is not there")
        if number not in self._numbers:
            self._numbers[number] = self._coder.buffer(self._buffers[number])
        return self._numbers[number]


codec.register(Packed, _write_packed)


def _size_of(buffer: Any) -> int:
    for name in ("nbytes", "size"):
        if hasattr(buffer, name):
            return int(getattr(buffer, name))
    return len(buffer)


def _bytes_of(buffer: Any) -> Any:
    if hasattr(buffer, "is_taken"):
        return buffer  # the codec knows leases
    if isinstance(buffer, packed_format.Slice):
        return buffer.view()
    return buffer.to_bytes() if hasattr(buffer, "copy_into") else buffer


def _chunks(buffer: Any, size: int) -> Iterator[Any]:
    if hasattr(buffer, "is_taken"):
        for start in range(0, size, _CHUNK_BYTES):
            end = min(start + _CHUNK_BYTES, size)
            yield buffer.view()[start:end]
            buffer.forget_pages(start, end)
        return
    data = _bytes_of(buffer)
    view = memoryview(data) if not isinstance(data, memoryview) else data
    for start in range(0, size, _CHUNK_BYTES):
        yield view[start : start + _CHUNK_BYTES]


def _plain(cls: type[Packed], view: memoryview) -> Packed:
    tree, is_tagged = packed_format.parsed(view)
    return cls(tree, (), is_tagged=is_tagged)
