"""What crosses between a client and the daemon: exact values, one by one or as a sequence of frames.

body   = packed value; plain JSON text when nothing in it is more than JSON can say
stream = frame frame ...; frame = length, 8 bytes, most significant first, then a packed value
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from struct import Struct
from typing import Any

from toft.kernel import errors
from toft.plugins.packed import Packed

LENGTH = Struct(">Q")
MEDIA_TYPE = "application/vnd.toft.frames"
VALUE_TYPE = "application/vnd.toft.value"
JSON_TYPE = "application/json"
LINES_TYPE = "application/x-ndjson"
EVENTS_TYPE = "text/event-stream"
BYTES_TYPE = "application/octet-stream"
SESSION_HEADER = "toft-session"
LARGE = 1 << 20


def frame(value: Any) -> Iterator[Any]:
    """Yield one frame, piece by piece; what is large in it is not copied together."""
    packed = Packed.of(value)
    pieces = packed.parts()
    if packed.size_bytes < LARGE:
        body = b"".join(pieces)
        yield LENGTH.pack(len(body)) + body
        return
    # The length stands in front of what is made piece by piece, so the first piece is looked at.
    held = list(pieces)
    yield LENGTH.pack(sum(map(len, held)))
    yield from held


class Frames:
    """Bytes as they arrive, cut into values."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._needed = LENGTH.size

    def feed(self, data: bytes) -> Iterator[Any]:
        """Take bytes and yield the values that are whole now."""
        self._data += data
        while len(self._data) >= self._needed:
            (length,) = LENGTH.unpack_from(self._data)
            self._needed = LENGTH.size + length
            if len(self._data) < self._needed:
                return
            if len(self._data) == self._needed:
                # The usual case, and the one of a gigabyte: nothing follows, so nothing is copied.
                body, self._data = memoryview(self._data)[LENGTH.size :], bytearray()
            else:
                body = memoryview(self._data[LENGTH.size : self._needed])
                del self._data[: self._needed]
            self._needed = LENGTH.size
            yield Packed.read(body).take()


def pack(value: Any) -> bytes:
    """Return a value as a body."""
    return Packed.of(value).to_bytes()


def text(value: Any) -> str:
    """Return JSON text that everybody can read, also of what a plugin has put into an error or a report.

    What is no number becomes null, half of a pair its escape; what JSON has no word for is described.
    """
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(_sayable(value), separators=(",", ":"), default=repr)


def _sayable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(name): _sayable(each) for name, each in value.items()}
    return [_sayable(each) for each in value] if isinstance(value, (list, tuple)) else value


def unpack(body: bytes | bytearray) -> Any:
    """Return the value of a body.

    Raises:
        UsageError: It is not one.
    """
    try:
        return Packed.read(body).take()
    except errors.IntegrityError as error:
        reason = error.details.get("reason") or error.message
        raise errors.UsageError(f"the body cannot be read: {reason}", code="request.body") from error
