"""A value is measured against each keyword at its border, and a value of the real type needs no JSON form."""

import datetime
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toft_sdk.validation import problems


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int = 0


INTEGER = {"type": "integer"}
POINT = {
    "type": "object",
    "properties": {"x": INTEGER},
    "additionalProperties": False,
    "x-toft-type": "dataclass",
}


@pytest.mark.parametrize(
    ("schema", "fits", "misfits"),
    [
        ({"minimum": 2}, [2, 2.5, "x"], [1.9]),
        ({"maximum": 2}, [2, -1], [2.1]),
        ({"exclusiveMinimum": 2}, [2.1], [2]),
        ({"exclusiveMaximum": 2}, [1.9], [2]),
        ({"multipleOf": 0.1}, [0.3, 1], [0.35]),
        ({"minLength": 2}, ["ab"], ["a"]),
        ({"maxLength": 2}, ["ab", [1, 2, 3]], ["abc"]),
        ({"minItems": 1}, [[1]], [[]]),
        ({"maxItems": 1}, [[1], "ab"], [[1, 2]]),
        ({"pattern": "b"}, ["abc"], ["ac"]),
        ({"pattern": "^(?:b|c)$"}, ["b", "c"], ["abc", "b\n"]),
        ({"enum": [1, "a", None]}, [1, "a", None], [True, 2, "b"]),
        ({"type": ["integer", "null"]}, [1, 2.0, None], [True, "1", 1.5]),
        ({"type": "number"}, [1, 1.5], [True, "1"]),
        ({"type": "boolean"}, [True], [1]),
        ({"type": "array", "items": INTEGER}, [[1], (1,), {1}], [["a"], "a"]),
        ({"prefixItems": [INTEGER, {"type": "string"}]}, [[1, "a"], [1]], [["a"], [1, 2]]),
        ({"additionalProperties": INTEGER}, [{"a": 1}], [{"a": "b"}]),
        ({"required": ["a"]}, [{"a": 1}], [{}]),
        ({"anyOf": [INTEGER, {"type": "null"}]}, [1, None], ["a"]),
        ({"x-toft-type": "enum", "enum": ["red"]}, ["red", Colour.RED], ["blue"]),
        ({"x-toft-type": "path", "type": "string"}, ["a", Path("a")], [1]),
        (POINT, [{"x": 1}, Point()], [{"y": 1}, 3]),
        ({"x-toft-type": "datetime", "type": "string"}, ["x", datetime.datetime(2026, 1, 1)], [1]),  # noqa: DTZ001
        ({"x-toft-type": "timedelta", "type": "number"}, [1, datetime.timedelta(1)], ["a"]),
        ({"x-toft-type": "tuple", "type": "array", "items": INTEGER}, [(1,), [1]], [("a",)]),
    ],
    ids=str,
)
def test_a_keyword_holds_to_its_border(schema: dict[str, Any], fits: list[Any], misfits: list[Any]) -> None:
    assert [value for value in fits if problems(schema, value)] == []
    assert [value for value in misfits if not problems(schema, value)] == []


def test_bytes_and_arrays_are_known_by_their_type() -> None:
    assert problems({"x-toft-type": "bytes"}, b"a") == {}
    assert problems({"x-toft-type": "ndarray"}, np.zeros(2)) == {}


def test_of_several_choices_the_nearest_is_reported() -> None:
    schema = {"anyOf": [{"type": "null"}, POINT]}
    assert problems(schema, {"x": "a"}, "p") == {"p": "must be null, not dict"}
    far = {"anyOf": [{**POINT, "required": ["x", "z"]}, {"type": "object", "required": ["x"]}]}
    assert problems(far, {"a": 1}, "p") == {"p.x": "is missing"}


def test_places_are_named_inside_lists_and_objects() -> None:
    schema = {"properties": {"a": {"type": "array", "items": {"properties": {"b": INTEGER}}}}}
    assert problems(schema, {"a": [{}, {"b": "c"}]}) == {"a[1].b": "must be a whole number, not str"}
    assert problems({"type": "string"}, 1, "x") == {"x": "must be a string, not int"}
    assert problems({"type": ["array", "object"]}, 1) == {"": "must be a list or a dictionary, not int"}
