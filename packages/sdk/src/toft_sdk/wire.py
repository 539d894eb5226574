"""Frames between host and worker: a prefix, a JSON header, and inline buffers behind it.

    frame  = prefix header tail
    prefix = length of the header, length of the tail; two 32-bit numbers, most significant byte first
    header = one JSON list: [kind, call, ...]
    tail   = the inline buffers named in the header, back to back

`docs/reference/wire.md` lists every kind. What a peer sends is never trusted: a frame that breaks a rule is
a `ProtocolError`, and memory grows with the bytes that arrived, never with a length that was claimed.
"""

from __future__ import annotations

from toft_sdk.codec import MARK, EncodeError, Record, decode, dumps, encode, loads

try:  # The C module alone: `struct` itself is one more file to find at each start of a worker.
    from _struct import Struct
except ImportError:
    from struct import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, Sequence

PROTOCOL = 1
MAX_HEADER = 32 << 20  # parsed it may take twenty times as much, and the peer is not trusted
MAX_TAIL = 256 << 20
INLINE_BYTES = 64 << 10  # a buffer of this size or more goes through a segment, when there are segments
_READ_AHEAD = 64 << 10
_KEEP = 1 << 20
_NOTHING = bytearray()

PREFIX = Struct("!II")


class ProtocolError(Exception):
    """The other end broke the protocol; nothing it sends afterwards means anything."""


def pack(header: list[Any], inline: Sequence[Any] = ()) -> bytes:
    """Return one frame as bytes.

    Args:
        header: The JSON list, already free of values that need tags.
        inline: Buffers for the tail, in the order in which the header names them.

    Raises:
        EncodeError: It is larger than a frame may be.
    """
    text = dumps(header).encode("ascii")
    if not inline:
        if len(text) > MAX_HEADER:
            raise EncodeError(
                f"takes {len(text)} bytes as JSON, more than {MAX_HEADER}; use bytes or an array"
            )
        return PREFIX.pack(len(text), 0) + text
    tail = b"".join(inline)
    if len(text) > MAX_HEADER or len(tail) > MAX_TAIL:
        raise EncodeError(f"takes {len(text) + len(tail)} bytes in one frame, more than {MAX_TAIL}")
    return PREFIX.pack(len(text), len(tail)) + text + tail


def parse(raw: bytes | bytearray) -> tuple[list[Any], bool]:
    """Return the header list of one frame and whether it may hold tags, or refuse it."""
    try:
        text = raw.decode("utf-8")
        header = loads(text)
    except (ValueError, RecursionError, StopIteration) as error:
        raise ProtocolError(f"a header is not JSON: {type(error).__name__}: {str(error)[:200]}") from None
    if (
        type(header) is not list
        or len(header) < 2
        or type(header[0]) is not str
        or type(header[1]) is not int
    ):
        raise ProtocolError("a header is not a list that starts with a kind and a call number")
    return header, MARK in text


def slices(places: Any, tail: bytes | bytearray, lease: Callable[[int, int], Any] | None) -> list[Any]:
    """Return the buffers at the places a header gives: a size in the tail, or [segment, size].

    Args:
        places: From the header.
        tail: Of the frame.
        lease: Returns what lies in a segment; None where there are no segments.
    """
    cut: list[Any] = []
    if type(places) is not list:
        raise ProtocolError("the places of the buffers are not a list")
    at = 0
    for place in places:
        if type(place) is int:
            if place < 0 or at + place > len(tail):
                raise ProtocolError("the buffers of a frame do not fit into its tail")
            cut.append(tail[at : at + place])
            at += place
        elif type(place) is list and len(place) == 2 and type(place[0]) is int and type(place[1]) is int:
            if lease is None:
                raise ProtocolError("a buffer is in a segment, and there are none")
            cut.append(lease(place[0], place[1]))
        else:
            raise ProtocolError("a place of a buffer is neither a size nor a segment and a size")
    if at != len(tail):
        raise ProtocolError("a frame has bytes in its tail that no buffer names")
    return cut


class FrameBuffer:
    """Bytes as they arrive, cut into frames.

    Receive into `room()`, say `filled(n)`, then take frames with `take()` until it gives None.
    """

    __slots__ = ("_data", "_end", "_start", "_view")

    def __init__(self) -> None:
        self._data = bytearray(2 * _READ_AHEAD)
        self._view = memoryview(self._data)
        self._start = 0
        self._end = 0

    def room(self) -> memoryview:
        """Return free space to receive into, never empty."""
        if self._start == self._end:
            self._start = self._end = 0
            if len(self._data) > _KEEP:
                self._resize(2 * _READ_AHEAD)
        free = len(self._data) - self._end
        if free < _READ_AHEAD:
            held = self._end - self._start
            # Twice of what is held: a long frame costs few moves, and a lying length costs nothing.
            self._resize(
                max(2 * _READ_AHEAD, 2 * held + _READ_AHEAD) if held >= _READ_AHEAD else len(self._data)
            )
        return self._view[self._end :]

    def _resize(self, size: int) -> None:
        held = self._end - self._start
        data = bytearray(max(size, held + _READ_AHEAD))
        data[:held] = self._view[self._start : self._end]
        self._view.release()
        self._data = data
        self._view = memoryview(data)
        self._start, self._end = 0, held

    def filled(self, count: int) -> None:
        """Say that so many bytes were received into the last `room()`."""
        self._end += count

    def take(self) -> tuple[list[Any], bytearray, bool] | None:
        """Return the next whole frame as (header, tail, has tags), or None until more has arrived."""
        start = self._start
        have = self._end - start
        if have < 8:
            return None
        head, tail = PREFIX.unpack_from(self._data, start)
        if head > MAX_HEADER or tail > MAX_TAIL:
            raise ProtocolError(f"a frame claims {head} bytes of header and {tail} of tail")
        if have < 8 + head + tail:
            return None
        middle = start + 8 + head
        header, tagged = parse(self._data[start + 8 : middle])
        self._start = middle + tail
        return header, self._data[middle : middle + tail] if tail else _NOTHING, tagged

    @property
    def is_empty(self) -> bool:
        """Whether no part of a frame is waiting."""
        return self._start == self._end


__all__ = [
    "INLINE_BYTES",
    "MAX_HEADER",
    "MAX_TAIL",
    "PREFIX",
    "PROTOCOL",
    "EncodeError",
    "FrameBuffer",
    "ProtocolError",
    "Record",
    "decode",
    "encode",
    "pack",
    "parse",
    "slices",
]
