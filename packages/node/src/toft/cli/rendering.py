"""How a plugin's result is written: JSON for scripts, text for people, bytes and arrays to files.

What JSON cannot say is written as an object with one telling key:

| value | in JSON |
|---|---|
| bytes up to 1 MiB | `{"bytes_base64": "..."}` |
| longer bytes | `{"bytes_size": 5000000, "sha256": "..."}`; `--output FILE` writes them |
| NaN, infinities | `{"float": "nan"}`, `{"float": "inf"}`, `{"float": "-inf"}` |
| array up to 10,000 numbers | nested lists |
| larger array | `{"array_shape": [...], "dtype": "...", "sha256": "..."}`; `--output FILE` writes .npy |
| dictionary with keys that are not text | `{"pairs": [[key, value], ...]}` |
| tuple, set | list; a set in sorted order |
| date, time, path | text |
| dataclass | object of its fields |
| complex | `{"complex": [real, imaginary]}` |
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import hashlib
import json
import math
import pathlib
from collections.abc import Mapping, Sized
from typing import Any

LONGEST_INLINE_BYTES = 1 << 20
LARGEST_INLINE_ARRAY = 10_000


def to_json(value: Any) -> Any:
    """Return a value of which `json.dumps(..., allow_nan=False)` makes strict JSON."""
    if value is None or isinstance(value, (str, bool, int)):
        return value if type(value) in (str, bool, int, type(None)) else _plain(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(float(value))}
    if isinstance(value, Mapping):
        return _mapping(value)
    if isinstance(value, (set, frozenset)):
        return sorted((to_json(item) for item in value), key=_sort_key)
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _bytes(bytes(value))
    return _other(value)


def _plain(value: Any) -> Any:
    """An IntEnum or a str subclass says what it is worth, not what it is called."""
    if isinstance(value, enum.Enum):
        return to_json(value.value)
    return str(value) if isinstance(value, str) else int(value)


def _other(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return to_json(value.value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, (datetime.datetime, datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return value.total_seconds()
    if isinstance(value, complex):
        return {"complex": [to_json(value.real), to_json(value.imag)]}
    if is_array(value):
        return _array(value)
    if hasattr(value, "dtype") and hasattr(value, "item"):
        return to_json(value.item())
    return str(value)


def _mapping(value: Mapping[Any, Any]) -> Any:
    if all(isinstance(key, str) for key in value):
        return {str(key): to_json(item) for key, item in value.items()}
    return {"pairs": [[to_json(key), to_json(item)] for key, item in value.items()]}


def _bytes(data: bytes) -> dict[str, Any]:
    if len(data) <= LONGEST_INLINE_BYTES:
        return {"bytes_base64": base64.b64encode(data).decode("ascii")}
    return {"bytes_size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def is_array(value: Any) -> bool:
    """Tell an array by what it can do: this process may have no numpy of its own."""
    return all(hasattr(value, name) for name in ("shape", "dtype", "tolist", "tobytes")) and value.shape != ()


def _array(value: Any) -> Any:
    shape = [int(length) for length in value.shape]
    if math.prod(shape) <= LARGEST_INLINE_ARRAY:
        return to_json(value.tolist())
    return {
        "array_shape": shape,
        "dtype": str(value.dtype),
        "sha256": hashlib.sha256(value.tobytes()).hexdigest(),
    }


def _sort_key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


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
