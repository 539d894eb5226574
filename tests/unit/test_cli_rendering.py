"""Every value a plugin can return has one documented JSON form, and it is strict JSON."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import enum
import io
import json
import pathlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toft.cli import rendering


class Colour(enum.IntEnum):
    RED = 3


@dataclasses.dataclass
class Point:
    x: int
    data: bytes


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (None, None),
        (True, True),
        (2**70, 2**70),
        ("text \ud800", "text \ud800"),
        (b"\x00\xff", {"bytes_base64": "AP8="}),
        (bytearray(b"a"), {"bytes_base64": "YQ=="}),
        (memoryview(b"a"), {"bytes_base64": "YQ=="}),
        (float("nan"), {"float": "nan"}),
        (float("-inf"), {"float": "-inf"}),
        (np.float32("inf"), {"float": "inf"}),
        ((1, (2,)), [1, [2]]),
        ({3, 1}, [1, 3]),
        (frozenset({"b", "a"}), ["a", "b"]),
        ({1: "a", "b": {2.5: None}}, {"pairs": [[1, "a"], ["b", {"pairs": [[2.5, None]]}]]}),
        (datetime.datetime(2026, 3, 12, 1, 2, tzinfo=datetime.UTC), "2026-03-12T01:02:00+00:00"),
        (datetime.date(2026, 3, 12), "2026-03-12"),
        (datetime.timedelta(seconds=1.5), 1.5),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Colour.RED, 3),
        (Point(1, b"a"), {"x": 1, "data": {"bytes_base64": "YQ=="}}),
        (complex(1, float("nan")), {"complex": [1.0, {"float": "nan"}]}),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array([1.0, np.nan]), [1.0, {"float": "nan"}]),
        (np.int64(7), 7),
        (np.array(5), 5),
        (np.bool_(True), True),
    ],
)
def test_each_type_has_its_form(value: Any, wanted: Any) -> None:
    shown = rendering.to_json(value)
    assert shown == wanted
    assert json.loads(json.dumps(shown, allow_nan=False)) == wanted


def test_what_is_too_long_to_print_is_described_and_said_by_its_hash() -> None:
    data = bytes(rendering.LONGEST_INLINE_BYTES + 1)
    assert rendering.to_json(data)["bytes_size"] == len(data)
    array = np.zeros((101, 100), "<f4")
    shown = rendering.to_json({"image": array})["image"]
    assert shown["array_shape"] == [101, 100]
    assert shown["dtype"] == "float32"
    assert len(shown["sha256"]) == 64


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner, inner)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_any_value_becomes_strict_json(value: Any) -> None:
    json.loads(json.dumps(rendering.to_json(value), allow_nan=False))


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=">i2").reshape(3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 3), bool),
        np.array([("a", 1.5)], dtype=[("name", "U4"), ("value", "f8")]),
        np.arange(10)[::2],
    ],
)
def test_an_array_is_written_as_numpy_reads_it(array: Any) -> None:
    data, kind = rendering.file_content(array)
    assert kind == "npy"
    read = np.load(io.BytesIO(data))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_other_results_are_written_as_what_they_are() -> None:
    assert rendering.file_content(b"\x00\x01") == (b"\x00\x01", "bytes")
    assert rendering.file_content("ü") == ("ü".encode(), "text")
    data, kind = rendering.file_content({"a": b"x"})
    assert kind == "json"
    assert json.loads(data) == {"a": {"bytes_base64": base64.b64encode(b"x").decode()}}


def test_a_person_sees_text_as_it_is_and_structure_as_json() -> None:
    assert rendering.to_text("as it is") == "as it is"
    assert rendering.to_text({"ü": (1,)}) == '{\n  "ü": [\n    1\n  ]\n}'
    assert rendering.summary(np.zeros((2, 3), "f4")) == "array 2x3 of float32"
    assert rendering.summary(b"abc") == "3 bytes"
