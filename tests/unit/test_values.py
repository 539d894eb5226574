"""Values at rest: what is packed comes back with its types, damage is named, equal requests hash alike."""

from __future__ import annotations

import datetime
import json
import pathlib
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.test_wire_codec import Point, same, values

from toft.kernel import errors
from toft.plugins import packed_format
from toft.plugins import values as bytes_of
from toft.plugins.packed import Packed
from toft.plugins.paths import PathError
from toft_sdk import codec, wire


@given(values)
@settings(max_examples=300, deadline=None)
def test_every_value_comes_back_with_its_types(value: Any) -> None:
    assert same(bytes_of.unpack(bytes_of.pack(value)), value)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype="<i2").reshape(2, 3, 4),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 3)),
        np.array(["a", "bcd"]),
        np.arange(100_000, dtype="u1"),
    ],
    ids=["cube", "fortran", "empty", "texts", "large"],
)
def test_arrays_come_back_writable_and_alone(array: Any) -> None:
    value = {"a": array, "more": [b"x", array]}
    back = bytes_of.unpack(bytes_of.pack(value))
    for each in (back["a"], back["more"][1]):
        assert same(each, array)
        assert each.flags.writeable
    assert not np.shares_memory(back["a"], back["more"][1])


def test_a_value_without_buffers_is_plain_json_text() -> None:
    assert json.loads(bytes_of.pack({"pages": [1, 2.5, None, "ü"]})) == {"pages": [1, 2.5, None, "ü"]}
    assert json.loads(bytes_of.pack((1, 2))) == {"$": "tuple", "v": [1, 2]}
    assert bytes_of.pack(b"x")[:1] == b"\0"


def test_what_cannot_be_kept_is_refused_with_its_path() -> None:
    with pytest.raises(codec.EncodeError, match=r"\$\.a\[1\]"):
        bytes_of.pack({"a": [1, object()]})


def is_value_or_damage(data: bytes) -> bool:
    try:
        bytes_of.unpack(data)
    except errors.IntegrityError as error:
        return error.code == "value.damaged"
    return True


@given(st.binary(max_size=200) | st.binary(max_size=200).map(lambda data: packed_format.MAGIC + data))
@settings(max_examples=500, deadline=None)
def test_hostile_bytes_are_a_value_or_damage(data: bytes) -> None:
    assert is_value_or_damage(data)


def test_flipped_and_cut_bytes_are_a_value_or_damage() -> None:
    rolls = random.Random(7)
    good = bytes_of.pack({"a": np.arange(5), "b": [b"xyz", (1, {2: 3})], "c": datetime.date(2026, 1, 2)})
    for _ in range(3000):
        bad = bytearray(good[: rolls.randrange(len(good))] if rolls.random() < 0.3 else good)
        for _ in range(rolls.randrange(1, 4)):
            if bad:
                bad[rolls.randrange(len(bad))] = rolls.randrange(256)
        assert is_value_or_damage(bytes(bad))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[" * 100_000,
        b"NaN",
        packed_format.MAGIC,
        packed_format.MAGIC + b"\xff\xff\xff\xff",
        packed_format.MAGIC + (4).to_bytes(4, "big") + b"[1,2" + bytes(48),
        packed_format.MAGIC + (9).to_bytes(4, "big") + b"[1,[-64]]" + bytes(43),
        packed_format.MAGIC + (21).to_bytes(4, "big") + b"[1,[18446744073709551" + bytes(43),
    ],
    ids=["empty", "deep", "nan", "magic", "long", "cut", "negative", "huge"],
)
def test_damage_is_named(data: bytes) -> None:
    with pytest.raises(errors.IntegrityError) as caught:
        bytes_of.unpack(data)
    assert caught.value.code == "value.damaged"


def test_a_file_keeps_its_buffers_until_they_are_asked_for(tmp_path: pathlib.Path) -> None:
    array = np.arange(1_000_000, dtype="<f8")
    path = tmp_path / "value"
    path.write_bytes(bytes_of.pack({"image": array, "name": b"scan", "n": 3}))
    kept = Packed.open(path)
    assert kept.size_bytes == array.nbytes + 4
    assert same(kept.value(), {"image": array, "name": b"scan", "n": 3})
    assert kept.at(["n"]).to_bytes() != b""
    assert same(kept.at(["image"]).value(), array)
    assert kept.to_bytes() == path.read_bytes()


def test_a_carried_value_crosses_inside_arguments_as_itself(tmp_path: pathlib.Path) -> None:
    inner = {
        "lines": [{"text": "eins", "at": (1, 2)}],
        "image": np.arange(9).reshape(3, 3),
        5: {"x": Point(1)},
    }
    path = tmp_path / "value"
    path.write_bytes(bytes_of.pack(inner))
    kept = Packed.open(path)
    arguments = {
        "all": kept,
        "line": kept.at(["lines", 0, "text"]),
        "own": b"mine",
        "again": [kept.at(["image"])],
    }
    tree, buffers = wire.encode(arguments)
    inline = [data.to_bytes() if hasattr(data, "copy_into") else bytes(data) for data in buffers]
    back = wire.decode(json.loads(json.dumps(tree)), inline)
    assert same(back["all"], inner)
    assert back["line"] == "eins"
    assert back["own"] == b"mine"
    assert same(back["again"][0], inner["image"])
    assert same(kept.at([5, "x"]).value(), Point(1))
    assert same(kept.at(["lines", 0, "at", -1]).value(), 2)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        (["b"], "'a'"),
        (["a", 3], "has 2"),
        (["a", "x"], "has numbers"),
        (["a", 0, "deep"], "a number"),
        (["n", 0], "ndarray"),
        ([1], "'a'"),
    ],
)
def test_a_path_that_leads_nowhere_says_what_is_there(path: list[Any], said: str) -> None:
    with pytest.raises(PathError) as caught:
        Packed.of({"a": [1, 2], "n": np.zeros(2)}).at(path)
    assert caught.value.code == "value.path"
    assert said in caught.value.message
    assert caught.value.details["path"] == path


def test_items_are_those_of_a_list_or_a_tuple() -> None:
    assert [item.value() for item in Packed.of(((1, 2), [b"x"])).items()] == [(1, 2), [b"x"]]
    with pytest.raises(PathError, match="no list"):
        Packed.of({"a": 1}).items()


def test_what_nests_too_deep_with_what_it_carries_is_refused() -> None:
    deep: Any = 1
    for _ in range(95):
        deep = (deep,)
    outer: Any = Packed.of(deep)
    for _ in range(90):
        outer = [outer]
    with pytest.raises(codec.EncodeError, match="deeper"):
        wire.encode(outer)


@given(st.dictionaries(st.text(), values, max_size=5), st.randoms(use_true_random=False))
@settings(max_examples=150, deadline=None)
def test_equal_requests_hash_alike_whatever_the_order(
    arguments: dict[str, Any], rolls: random.Random
) -> None:
    shuffled = list(arguments.items())
    rolls.shuffle(shuffled)
    assert bytes_of.arguments_hash("a", arguments) == bytes_of.arguments_hash("a", dict(shuffled))
    assert bytes_of.arguments_hash("a", arguments) != bytes_of.arguments_hash("b", arguments)
    packed = bytes_of.pack(dict(shuffled))
    assert bytes_of.packed_hash("a", packed) == bytes_of.arguments_hash("a", arguments)


def test_different_requests_hash_differently() -> None:
    asked: list[dict[str, Any]] = [
        {},
        {"a": 1},
        {"a": 1.0},
        {"a": True},
        {"a": "1"},
        {"a": b"1"},
        {"a": bytearray(b"1")},
        {"a": (1,)},
        {"a": [1]},
        {"a": {1}},
        {"a": {1: {2: 3, 4: 5}}},
        {"a": {"1": {2: 3, 4: 5}}},
        {"a": np.arange(3)},
        {"a": np.arange(3, dtype="f4")},
        {"a": np.arange(4)},
    ]
    assert len({bytes_of.arguments_hash("execute", each) for each in asked}) == len(asked)
    turned = {"a": {1: {4: 5, 2: 3}}}
    assert bytes_of.arguments_hash("execute", turned) == bytes_of.arguments_hash("execute", asked[10])
