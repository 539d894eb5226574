"""Values as strict JSON, for scripts and for HTTP; the same everywhere.

What JSON cannot say is written as an object with one telling key:

| value | in JSON |
|---|---|
| bytes up to 1 MiB | `{"bytes_base64": "..."}` |
| longer bytes | `{"bytes_size": 5000000, "sha256": "..."}` |
| NaN, infinities | `{"float": "nan"}`, `{"float": "inf"}`, `{"float": "-inf"}` |
| array up to 10,000 numbers | nested lists |
| larger array | `{"array_shape": [...], "dtype": "...", "sha256": "..."}` |
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
from collections.abc import Mapping
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
