"""How a plugin's result is written: JSON for scripts, text for people, bytes and arrays to files.

What JSON cannot say is written as `toft.plugins.rendering` lists it. Bytes and arrays that are too large for
that are written whole by `--output FILE`.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sized
from typing import Any

from toft.plugins.rendering import LARGEST_INLINE_ARRAY, LONGEST_INLINE_BYTES, is_array, to_json


def to_text(value: Any) -> str:
    """Return a result as a person reads it: text as it is, anything else as indented JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(to_json(value), indent=2, ensure_ascii=False, allow_nan=False)


def to_line(value: Any) -> str:
    """Return a value as one line of JSON."""
    return json.dumps(to_json(value), ensure_ascii=False, allow_nan=False)


def file_content(value: Any) -> tuple[bytes, str]:
    """Return what `--output FILE` writes, and the word for it.

    Returns:
        Bytes as they are, text as UTF-8, an array as .npy, anything else as JSON.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), "bytes"
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass"), "text"
    if is_array(value) and not value.dtype.hasobject:
        return _npy(value), "npy"
    return (json.dumps(to_json(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(), "json"


def _npy(array: Any) -> bytes:
    """Write the format that numpy.load reads (NPY 1.0; 2.0 for a very long dtype), rows last to first."""
    description = array.dtype.descr if array.dtype.names else array.dtype.str
    header = repr({"descr": description, "fortran_order": False, "shape": tuple(map(int, array.shape))})
    narrow = len(header) < 60_000
    prefix = b"\x93NUMPY" + (b"\x01\x00" if narrow else b"\x02\x00")
    width = 2 if narrow else 4
    # The data starts at a multiple of 64, so that it can be mapped.
    length = -(-(len(prefix) + width + len(header) + 1) // 64) * 64 - len(prefix) - width
    data: bytes = array.tobytes()
    return (
        prefix + length.to_bytes(width, "little") + header.ljust(length - 1).encode("latin-1") + b"\n" + data
    )


def summary(value: Any) -> str:
    """Return one line that says what a value is, for where it cannot be shown."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"{len(bytes(value))} bytes"
    if is_array(value):
        return f"array {'x'.join(map(str, value.shape))} of {value.dtype}"
    if isinstance(value, (str, pathlib.PurePath)):
        return f"text of {len(str(value))} characters"
    if isinstance(value, Sized):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__


__all__ = [
    "LARGEST_INLINE_ARRAY",
    "LONGEST_INLINE_BYTES",
    "file_content",
    "is_array",
    "summary",
    "to_json",
    "to_line",
    "to_text",
]
