"""The decoder against everything a peer might send: whole frames or a `ProtocolError`, no third thing."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toft_sdk import codec, wire

GOOD = [
    wire.pack(["request", 1, "call", 0, {"action": "a", "arguments": {"x": [1, 2.5, None, "é"]}}]),
    wire.pack(
        ["result", 1, {"$": "tuple", "v": [{"$": "bytes", "b": 0}, {"$": "int", "v": "9" * 20}]}, [3]],
        [b"abc"],
    ),
    wire.pack(["chunk", 2, {"$": "ndarray", "d": "<i4", "s": [2], "b": 0}, [8]], [b"12345678"]),
    wire.pack(["result", 3, {"$": "dataclass", "c": "m:C", "v": [["a", {"$": "set", "v": [1]}]]}]),
    wire.pack(["result", 3, {"$": "datetime", "v": "2026-01-01T00:00:00", "fold": 0, "zone": [0, 60, 0]}]),
]


def feed(data: bytes) -> list[Any]:
    """Decode as both ends do: all whole frames and their values."""
    frames = wire.FrameBuffer()
    values = []
    at = 0
    while at < len(data):
        room = frames.room()
        part = data[at : at + len(room)]
        room[: len(part)] = part
        del room
        frames.filled(len(part))
        at += len(part)
        while (taken := frames.take()) is not None:
            header, tail, tagged = taken
            value = header[2] if len(header) > 2 else None
            if tagged or tail:
                places = header[3] if len(header) > 3 else []
                try:
                    value = wire.decode(value, wire.slices(places, tail, None))
                except ValueError as error:
                    raise wire.ProtocolError(str(error)) from None
            values.append(value)
    return values


@given(st.lists(st.sampled_from(GOOD), min_size=1, max_size=5), st.data())
@settings(max_examples=300, deadline=None)
def test_mutated_frames_raise_a_protocol_error_or_nothing(frames: list[bytes], data: st.DataObject) -> None:
    raw = bytearray(b"".join(frames))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(raw) - 1))
        how = data.draw(st.sampled_from("xdi"))
        if how == "x":
            raw[at] ^= data.draw(st.integers(1, 255))
        elif how == "d" and len(raw) > 1:
            del raw[at]
        else:
            raw.insert(at, data.draw(st.integers(0, 255)))
    with contextlib.suppress(wire.ProtocolError):
        feed(bytes(raw))


@given(st.binary(max_size=200))
@settings(max_examples=300, deadline=None)
def test_random_bytes_raise_a_protocol_error_or_nothing(raw: bytes) -> None:
    with contextlib.suppress(wire.ProtocolError):
        feed(raw)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["$", "v", "b", "d", "s", "c", "n", "zone"]), inner)
    ),
    max_leaves=15,
)
tags = st.sampled_from(
    [
        "int",
        "float",
        "dict",
        "tuple",
        "bytes",
        "bytearray",
        "str",
        "set",
        "frozenset",
        "datetime",
        "date",
        "time",
        "timedelta",
        "path",
        "dataclass",
        "enum",
        "ndarray",
        "scalar",
    ]
)


@given(tags, json_values, json_values, st.binary(max_size=20))
@settings(max_examples=500, deadline=None)
def test_any_tag_with_any_content_is_a_value_or_a_protocol_error(
    tag: str, v: Any, other: Any, tail: bytes
) -> None:
    tree = {"$": tag, "v": v, "b": 0, "d": other, "s": v, "c": other, "n": v, "zone": other, "fold": 0}
    with contextlib.suppress(wire.ProtocolError, wire.EncodeError):
        feed(wire.pack(["result", 1, json.loads(json.dumps(tree)), [len(tail)]], [tail]))


@pytest.mark.parametrize(
    "lengths", [(wire.MAX_HEADER + 1, 0), (2, wire.MAX_TAIL + 1), (2**32 - 1, 2**32 - 1)]
)
def test_a_length_beyond_the_limit_is_refused_at_once(lengths: tuple[int, int]) -> None:
    with pytest.raises(wire.ProtocolError, match="claims"):
        feed(wire.PREFIX.pack(*lengths) + b"[")


def test_a_claimed_length_takes_no_memory() -> None:
    frames = wire.FrameBuffer()
    claim = wire.PREFIX.pack(wire.MAX_HEADER, wire.MAX_TAIL) + b"x" * 1000
    frames.room()[: len(claim)] = claim
    frames.filled(len(claim))
    assert frames.take() is None
    assert len(frames.room()) < 1 << 20


@pytest.mark.parametrize(
    "header",
    [
        b"{}",
        b"[]",
        b"[1, 2]",
        b'["result"]',
        b'["result", "1"]',
        b'["result", true]',
        b'["result", 1, NaN]',
        b'["result", 1] x',
        b'["result", 1',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'["result", 1, ' + b"[" * 5000 + b"]" * 5000 + b"]",
        b'["result", 1, ' + b"9" * 100_000 + b"]",
    ],
    ids=lambda header: repr(header[:20]),
)
def test_a_header_that_is_none_is_a_protocol_error(header: bytes) -> None:
    with pytest.raises(wire.ProtocolError):
        feed(wire.PREFIX.pack(len(header), 0) + header)


@pytest.mark.parametrize("places", [[4], [2], [-3], ["3"], [[1, 3]], [1, 1], {}, [True, True, True]])
def test_places_that_do_not_fit_the_tail_are_refused(places: Any) -> None:
    text = codec.dumps(["result", 1, {"$": "bytes", "b": 0}, places]).encode()
    with pytest.raises(wire.ProtocolError):
        feed(
            wire.PREFIX.pack(
                len(text := codec.dumps(["result", 1, {"$": "bytes", "b": 0}, places]).encode()), 3
            )
            + text
            + b"abc"
        )


@pytest.mark.parametrize("dtype", ["U0", "S0", "V8", "O", "i4,i4", "(3,)i4", "nonsense", 7])
def test_an_array_of_a_type_that_cannot_be_is_refused(dtype: Any) -> None:
    tree = {"$": "ndarray", "d": dtype, "s": [2**50], "b": 0}
    with pytest.raises(wire.ProtocolError):
        feed(wire.pack(["result", 1, tree, [0]], [b""]))


def test_frames_arrive_in_any_pieces() -> None:
    data = b"".join(GOOD) * 50
    whole = feed(data)
    for size in (1, 7, 1000):
        frames = wire.FrameBuffer()
        count = 0
        for at in range(0, len(data), size):
            part = data[at : at + size]
            frames.room()[: len(part)] = part
            frames.filled(len(part))
            while frames.take() is not None:
                count += 1
        assert count == len(whole)
        assert frames.is_empty


def test_a_long_frame_is_taken_and_the_buffer_shrinks_again() -> None:
    values = feed(wire.pack(["result", 1, "x" * (5 << 20)]) + GOOD[0])
    assert len(values[0]) == 5 << 20


def test_what_is_larger_than_a_frame_is_refused_before_it_is_sent() -> None:
    with pytest.raises(wire.EncodeError, match="bytes"):
        wire.pack(["result", 1, None], [bytes(wire.MAX_TAIL + 1)])
