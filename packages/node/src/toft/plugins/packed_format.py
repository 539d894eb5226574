"""How a value is kept in one piece: what is told apart, checked and refused before anything is decoded.

    plain   the JSON text of the tree, when it names no buffers; nothing else starts with another byte than 0
    frame   magic, length of the header, header, buffers; header and buffers start at multiples of 64

The header is `[tree, [size, ...]]`. What lies on disk is not trusted more than what comes over a socket.
"""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any

from toft.kernel.errors import IntegrityError
from toft_sdk import codec

MAGIC = b"\x00toft\x00\x001"
_ALIGN = 64
_HEAD_BYTES = 12


def is_plain(view: memoryview) -> bool:
    """Say whether it is text alone."""
    return bytes(view[:1]) != MAGIC[:1]


def header(view: memoryview) -> tuple[Any, list[tuple[int, int]], bool]:
    """Return the tree, where each of its buffers starts and ends, and whether the tree may hold tags.

    Raises:
        IntegrityError: It is damaged.
    """
    if bytes(view[: len(MAGIC)]) != MAGIC or len(view) < _HEAD_BYTES:
        raise damaged("it starts like nothing this toft knows")
    length = int.from_bytes(view[len(MAGIC) : _HEAD_BYTES], "big")
    if _HEAD_BYTES + length > len(view):
        raise damaged("its header is longer than all of it")
    told, is_tagged = parsed(view[_HEAD_BYTES : _HEAD_BYTES + length])
    if type(told) is not list or len(told) != 2 or type(told[1]) is not list:
        raise damaged("its header is no tree with sizes")
    tree, sizes = told
    start = padded(_HEAD_BYTES + length)
    if any(type(size) is not int or size < 0 for size in sizes) or start + sum(map(padded, sizes)) != len(
        view
    ):
        raise damaged("its buffers do not fill it")
    spans = []
    for size in sizes:
        spans.append((start, start + size))
        start += padded(size)
    return tree, spans, is_tagged


def head(text: bytes) -> bytes:
    """Return what stands before the buffers, for the text of a header."""
    found = MAGIC + len(text).to_bytes(4, "big") + text
    return found.ljust(padded(len(found)), b"\0")


def parsed(view: memoryview) -> tuple[Any, bool]:
    """Return the tree that a text is, and whether it may hold tags.

    Raises:
        IntegrityError: It is no JSON.
    """
    try:
        text = str(view, "utf-8")
        return codec.loads(text), codec.MARK in text
    except (ValueError, RecursionError, StopIteration) as error:
        raise damaged(f"its text is not JSON: {type(error).__name__}: {str(error)[:200]}") from None


def padded(size: int) -> int:
    """Return where the next buffer starts after one of this size."""
    return -(-size // _ALIGN) * _ALIGN


def damaged(reason: str) -> IntegrityError:
    """Return the error for a stored value that cannot be read."""
    return IntegrityError(
        f"a stored value is damaged: {reason}", code="value.damaged", details={"reason": reason}
    )


class File:
    """A file that is opened whenever something of it is wanted: thousands may be parts of one value."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def map(self) -> memoryview:
        """Return its bytes; the file stays mapped as long as that is held."""
        with open(self._path, "rb") as file:
            if os.fstat(file.fileno()).st_size == 0:
                raise damaged("it is empty")
            return memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))

    def read_into(self, target: memoryview, start: int) -> None:
        """Read a part: no page of the file is mapped for it, and the interpreter is free meanwhile."""
        done = 0
        try:
            with open(self._path, "rb", buffering=0) as file:
                while done < len(target):
                    count = os.preadv(file.fileno(), [target[done:]], start + done)
                    if count == 0:
                        raise damaged("its file was cut off while it was read")
                    done += count
        except OSError as error:
            raise damaged(f"its file cannot be read: {error}") from error


class Slice:
    """A buffer that is still in its file."""

    __slots__ = ("_at", "_file", "nbytes")

    def __init__(self, file: File, at: int, size: int) -> None:
        self._file = file
        self._at = at
        self.nbytes = size

    def copy_into(self, target: memoryview) -> None:
        """Read all of it."""
        self.read_into(target[: self.nbytes], 0)

    def read_into(self, target: memoryview, start: int) -> None:
        """Read a part of it."""
        self._file.read_into(target, self._at + start)

    def to_bytes(self) -> bytes:
        """Return its bytes."""
        return bytes(self.view())

    def view(self) -> memoryview:
        """Return its bytes as the mapped file has them."""
        try:
            return self._file.map()[self._at : self._at + self.nbytes]
        except OSError as error:
            raise damaged(f"its file cannot be read: {error}") from error
