"""The codec: what goes in comes out, with its types; what cannot go in is refused by its path."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import json
import math
import pathlib
import zoneinfo
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toft_sdk import codec, wire


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Flags(enum.Flag):
    A = 1
    B = 2


@dataclasses.dataclass
class Point:
    x: int
    y: Any = None
    hidden: list[int] = dataclasses.field(default_factory=list, init=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    name: str
    inner: Point


def travel(value: Any) -> Any:
    """Send a value through a frame and back, as a worker and the host do."""
    tree, buffers = wire.encode(value)
    inline = [data.to_bytes() if hasattr(data, "copy_into") else bytes(data) for data in buffers]
    frame = wire.FrameBuffer()
    packed = wire.pack(["result", 1, tree, [len(data) for data in inline]], inline)
    assert_readable_by_javascript(packed)
    at = 0
    taken = None
    while taken is None:
        room = frame.room()
        part = packed[at : at + len(room)]
        room[: len(part)] = part
        frame.filled(len(part))
        at += len(part)
        taken = frame.take()
    header, tail, tagged = taken
    if not tagged and not tail:
        return header[2]
    return wire.decode(header[2], wire.slices(header[3], tail, None))


def assert_readable_by_javascript(packed: bytes) -> None:
    length, _ = wire.PREFIX.unpack_from(packed)

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    def safe(text: str) -> int:
        assert abs(int(text)) < 2**53, text
        return int(text)

    json.loads(packed[8 : 8 + length].decode("ascii"), parse_constant=no_constant, parse_int=safe)


def same(left: Any, right: Any) -> bool:
    """Equality that looks at types as well, and holds for NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, float):
        return (
            left == right
            and math.copysign(1, left) == math.copysign(1, right)
            or left != left
            and right != right
        )
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return len(left) == len(right) and all(
            same(a, b) and same(left[a], right[b]) for a, b in zip(left, right, strict=True)
        )
    if isinstance(left, (set, frozenset)):
        return left == right and sorted(map(repr, left)) == sorted(map(repr, right))
    if isinstance(left, Point):
        return same(vars(left), vars(right))
    if isinstance(left, datetime.datetime):
        return left == right and left.tzinfo == right.tzinfo and left.fold == right.fold
    if isinstance(left, np.ndarray):
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and np.array_equal(left, right, equal_nan=left.dtype.kind in "fc")
        )
    return bool(left == right)


zones = (
    st.none()
    | st.just(datetime.UTC)
    | st.builds(
        datetime.timezone,
        st.timedeltas(min_value=datetime.timedelta(hours=-23), max_value=datetime.timedelta(hours=23)),
    )
)
texts = st.text(st.characters(codec="utf-8") | st.characters(categories=["Cs"]) | st.sampled_from("$"))
hashable = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | texts
    | st.binary()
    | st.dates()
    | st.timedeltas()
    | st.datetimes(timezones=zones)
    | st.times()
    | st.sampled_from([*Colour, *Level])
)
keys = hashable | st.tuples(hashable, hashable) | st.just("$")
leaves = (
    hashable
    | st.floats()
    | st.binary().map(bytearray)
    | st.sampled_from([pathlib.Path("/a/b"), pathlib.PurePosixPath("c"), pathlib.PureWindowsPath("C:/d")])
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(texts, inner)
        | st.dictionaries(keys, inner)
        | st.sets(hashable)
        | st.frozensets(hashable)
        | st.builds(Point, st.integers(), inner)
    ),
    max_leaves=20,
)


@given(values)
@settings(max_examples=400, deadline=None)
def test_every_value_comes_back_with_its_types(value: Any) -> None:
    assert same(travel(value), value)


@pytest.mark.parametrize(
    "value",
    [
        math.nan,
        -math.inf,
        -0.0,
        2**53,
        -(2**53),
        10**30,
        "\ud800",
        "$",
        {"$": 1},
        {"$": "tuple", "v": []},
        {1: "a", "1": "b", None: 3, (1, 2): 4},
        [1.0] * 100 + [math.nan],
        [1e308] * 100,
        [1] * 100 + [2**60],
        [True] * 20,
        datetime.datetime(2026, 3, 29, 2, 30, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"), fold=1),
        datetime.timezone(datetime.timedelta(hours=1), "HERE").utcoffset(None),
        datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone(datetime.timedelta(hours=1), "HERE")),
        Frozen("a", Point(1, (2,))),
        Colour.RED,
        Level.HIGH,
        Flags.A | Flags.B,
        "x" * 100_000,
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_awkward_values_come_back(value: Any) -> None:
    assert same(travel(value), value)


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "<u2", ">i4", "f2", "f8", "c16", "S5", "U3", "M8[ns]", "m8[s]", "g"]
)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3)])
def test_arrays_come_back(dtype: str, shape: tuple[int, ...]) -> None:
    value = np.ones(shape, dtype="i1").astype(dtype)
    back = travel({"a": value})["a"]
    assert same(back, value)
    assert back.flags.writeable
    if shape == (3,):
        assert type(travel(value[0])) is type(value[0])


def test_the_order_of_an_array_is_kept_and_a_slice_becomes_contiguous() -> None:
    fortran = np.asfortranarray(np.arange(6).reshape(2, 3))
    assert travel(fortran).flags.f_contiguous
    assert same(travel(fortran), fortran)
    assert travel(np.arange(10)[::2]).flags.c_contiguous


@pytest.mark.parametrize(
    ("value", "path", "reason"),
    [
        ({"items": [1, 2, 3, {"model": object()}]}, "$.items[3].model", "object"),
        ([[{"a b": {1, 2, lambda: 0}}]], "$[0][0]['a b'][", "function"),
        ({(1, 2): object()}, "$[(1, 2)]", "object"),
        ((1, [print]), "$[1][0]", "builtin_function"),
        (Point(1, y=open), "$.y", "builtin_function"),
        ({"a": np.array([object()])}, "$.a", "object"),
        (np.zeros(2, dtype=[("x", "i4")]), "$", "type"),
        (np.ma.masked_array([1], [True]), "$", "MaskedArray"),
        (datetime.datetime(2026, 1, 1, tzinfo=type("Z", (datetime.tzinfo,), {})()), "$", "time zone"),
        ([Exception("x")], "$[0]", "Exception"),
        (int, "$", "type"),
        (1j, "$", "complex"),
    ],
)
def test_what_cannot_cross_is_refused_by_its_path(value: Any, path: str, reason: str) -> None:
    with pytest.raises(codec.EncodeError) as caught:
        wire.encode(value)
    assert caught.value.path.startswith(path)
    assert reason in caught.value.reason
    assert list(caught.value.fields) == [caught.value.path]
    assert caught.value.blame == "caller"


def test_a_cycle_is_refused_where_it_closes() -> None:
    value: dict[str, Any] = {"a": [1, {}]}
    value["a"][1]["b"] = value
    with pytest.raises(codec.EncodeError) as caught:
        wire.encode(value)
    assert caught.value.path == "$.a[1].b"
    assert "itself" in caught.value.reason


def test_the_same_value_twice_is_no_cycle() -> None:
    inner = (1, 2)
    assert travel([inner, inner, {"a": inner}]) == [inner, inner, {"a": inner}]


@pytest.mark.parametrize("wrap", [list, tuple])
def test_a_depth_of_a_hundred_is_the_limit(wrap: Any) -> None:
    value: Any = 1
    for _ in range(100):
        value = wrap([value])
    assert same(travel(value), value)
    with pytest.raises(codec.EncodeError, match="deeper than 100"):
        wire.encode(wrap([value]))


def test_a_subclass_of_a_plain_type_arrives_as_the_plain_type() -> None:
    class Text(str):
        def __str__(self) -> str:
            return "lies"

    pair = collections.namedtuple("pair", "a b")
    value = [Text("x"), pair(1, 2), collections.OrderedDict(a=1), collections.defaultdict(list, b=[2])]
    back = travel(value)
    assert back == ["x", (1, 2), {"a": 1}, {"b": [2]}]
    assert [type(each) for each in back] == [str, tuple, dict, dict]


def test_a_dataclass_that_is_not_imported_here_is_a_record_and_goes_back_as_it_came() -> None:
    tree = {"$": "dataclass", "c": "not_imported.mod:Thing", "v": [["x", 1], ["y", {"$": "tuple", "v": [2]}]]}
    record = wire.decode(tree)
    assert isinstance(record, wire.Record)
    assert record == {"x": 1, "y": (2,)}
    assert record.type_name == "not_imported.mod:Thing"
    assert wire.encode(record)[0] == tree


@pytest.mark.parametrize(
    "name", ["os:system", "toft.plugins.wire.frames:Welcome", "subprocess:Popen", "builtins:object", "x", ":"]
)
def test_a_peer_cannot_have_a_class_built_that_is_no_dataclass_of_its_own(name: str) -> None:
    assert type(wire.decode({"$": "dataclass", "c": name, "v": [["module", "x"]]})) is wire.Record
    assert wire.decode({"$": "enum", "c": name, "n": "A", "v": 3}) == 3


def test_a_dataclass_is_restored_without_running_its_code() -> None:
    back = travel(Point(1, 2))
    assert back == Point(1, 2)
    fields = {"$": "dataclass", "c": f"{__name__}:Point", "v": [["x", 1]]}
    assert type(wire.decode(fields)) is wire.Record  # not all fields: not that class


def test_a_number_nobody_can_write_down_is_refused_on_the_way_in() -> None:
    assert codec.encode(1 << 13_999)[0] == {"$": "int", "v": str(1 << 13_999)}
    with pytest.raises(codec.EncodeError, match="bits"):
        codec.encode([1 << 20_000])
