"""Signatures and configurations become JSON Schema: what is said is kept, what is not is no constraint."""

import collections.abc
import datetime
import enum
import json
import os
import pathlib
import typing
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional, TypedDict, Union

import jsonschema_rs
import numpy as np
import numpy.typing as npt
import pytest

from toft_sdk import InputError, option
from toft_sdk.schema import config_defaults, config_schema, signature_schema, to_config, type_schema
from toft_sdk.validation import problems


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Point:
    """A place.

    With more words.
    """

    x: int
    y: int = 0


@dataclass
class Tree:
    name: str
    children: "list[Tree]" = field(default_factory=list)


class Options(TypedDict, total=False):
    width: int


Metres = typing.NewType("Metres", float)

POINT = {
    "type": "object",
    "title": "Point",
    "description": "A place.",
    "properties": {"x": {"type": "integer"}, "y": {"type": "integer", "default": 0}},
    "required": ["x"],
    "additionalProperties": False,
    "x-toft-type": "dataclass",
}
COLOUR = {"enum": ["red", "blue"], "x-toft-type": "enum"}
PATH = {"type": "string", "x-toft-type": "path"}


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        (Any, {}),
        (object, {}),
        (typing.TypeVar("T"), {}),
        (None, {"type": "null"}),
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (bytes, {"x-toft-type": "bytes"}),
        (Metres, {"type": "number"}),
        (Optional[str], {"type": ["string", "null"]}),  # noqa: UP045 - what old Pythons write
        (str | None, {"type": ["string", "null"]}),
        (bytes | None, {"anyOf": [{"x-toft-type": "bytes"}, {"type": "null"}]}),
        (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}),  # noqa: UP007
        (int | str | None, {"anyOf": [{"type": "integer"}, {"type": "string"}, {"type": "null"}]}),
        (int | Any, {}),
        (pathlib.Path | None, {"anyOf": [PATH, {"type": "null"}]}),
        (Literal["a", 2, None], {"enum": ["a", 2, None]}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (typing.List[Any], {"type": "array"}),  # noqa: UP006
        (collections.abc.Sequence[str], {"type": "array", "items": {"type": "string"}}),
        (collections.abc.Iterator[str], {"type": "array", "items": {"type": "string"}}),
        (collections.abc.Generator[int, None, None], {"type": "array", "items": {"type": "integer"}}),
        (dict, {"type": "object"}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (collections.abc.Mapping[str, Any], {"type": "object"}),
        (collections.abc.Mapping, {"type": "object"}),
        (collections.abc.Sequence, {"type": "array"}),
        (collections.abc.Callable[[int], int], {}),
        (
            collections.abc.Set[int],
            {"type": "array", "uniqueItems": True, "x-toft-type": "set", "items": {"type": "integer"}},
        ),
        (tuple[int, ...], {"type": "array", "x-toft-type": "tuple", "items": {"type": "integer"}}),
        (
            tuple[int, str],
            {
                "type": "array",
                "x-toft-type": "tuple",
                "prefixItems": [{"type": "integer"}, {"type": "string"}],
                "minItems": 2,
                "maxItems": 2,
            },
        ),
        (tuple[()], {"type": "array", "x-toft-type": "tuple", "minItems": 0, "maxItems": 0}),
        (
            set[str],
            {"type": "array", "uniqueItems": True, "x-toft-type": "set", "items": {"type": "string"}},
        ),
        (frozenset, {"type": "array", "uniqueItems": True, "x-toft-type": "frozenset"}),
        (Colour, {"enum": ["red", "blue"], "x-toft-type": "enum"}),
        (Point, POINT),
        (list[Point], {"type": "array", "items": POINT}),
        (pathlib.Path, PATH),
        (os.PathLike, {}),
        (datetime.datetime, {"type": "string", "format": "date-time", "x-toft-type": "datetime"}),
        (datetime.date, {"type": "string", "format": "date", "x-toft-type": "date"}),
        (datetime.timedelta, {"type": "number", "x-toft-type": "timedelta"}),
        (complex, {"x-toft-type": "complex"}),
        (np.ndarray, {"x-toft-type": "ndarray"}),
        (npt.NDArray[np.float32], {"x-toft-type": "ndarray"}),
        (
            Options,
            {"type": "object", "properties": {"width": {"type": "integer"}}, "additionalProperties": False},
        ),
        (Annotated[int, option(minimum=1, maximum=9)], {"type": "integer", "minimum": 1, "maximum": 9}),
        (Annotated[str, {"pattern": "[a-z]+"}], {"type": "string", "pattern": "^(?:[a-z]+)$"}),
        (
            Annotated[list[int], {"min_length": 2}],
            {"type": "array", "items": {"type": "integer"}, "minItems": 2},
        ),
        (Annotated[str, "what it is"], {"type": "string", "description": "what it is"}),
        (
            Annotated[str, option(choices=["a", "b"])] | None,
            {"anyOf": [{"type": "string", "enum": ["a", "b"]}, {"type": "null"}]},
        ),
    ],
    ids=str,
)
def test_an_annotation_becomes_a_schema(annotation: Any, expected: dict[str, Any]) -> None:
    schema = type_schema(annotation)
    assert schema == expected
    # Every validator accepts it, and it survives JSON.
    jsonschema_rs.validator_for(json.loads(json.dumps(schema)))


def test_a_dataclass_that_contains_itself_stays_open_inside() -> None:
    children = type_schema(Tree)["properties"]["children"]
    assert children["items"] == {"type": "object", "x-toft-type": "dataclass", "title": "Tree"}


def test_constraints_of_other_packages_are_read_by_their_names() -> None:
    class Interval:
        ge = 1
        lt = 5

    assert type_schema(Annotated[int, Interval()]) == {
        "type": "integer",
        "minimum": 1,
        "exclusiveMaximum": 5,
    }


def takes_everything(
    first: int,
    /,
    second: "Missing | None",  # noqa: F821
    third: str = None,
    *rest: int,
    last: Colour = Colour.RED,
    **more: int,
) -> "Gone":  # type: ignore[name-defined,assignment]  # noqa: F821
    """Have one of each kind of parameter."""


def test_a_signature_says_kinds_defaults_and_what_is_required() -> None:
    assert signature_schema(takes_everything) == {
        "parameters": {
            "first": {"type": "integer", "kind": "positional_only"},
            "second": {"kind": "positional_or_keyword"},
            "third": {"type": ["string", "null"], "default": None, "kind": "positional_or_keyword"},
            "rest": {"type": "array", "items": {"type": "integer"}, "kind": "var_positional"},
            "last": {
                "enum": ["red", "blue"],
                "x-toft-type": "enum",
                "default": "red",
                "kind": "keyword_only",
            },
        },
        "required": ["first", "second"],
        "additional": True,
        "returns": {},
    }


def test_a_default_json_cannot_say_is_left_out() -> None:
    def function(a: float = float("inf"), b: Any = object(), c: Any = (1, {2})) -> None:  # noqa: B008
        """Have odd defaults."""

    parameters = signature_schema(function)["parameters"]
    assert "default" not in parameters["a"]
    assert "default" not in parameters["b"]
    assert parameters["c"]["default"] == [1, [2]]


@dataclass
class Settings:
    """How it works."""

    model: str = option(choices=["base", "large"], reload="model", title="Model")
    beam: int = option(5, minimum=1, maximum=10)
    share: float = option(0.5, above=0, below=1)
    tag: str = option("v1", pattern="v[0-9]+", min_length=2, max_length=4)
    words: list[str] = option(factory=list, max_items=3)
    place: pathlib.Path = pathlib.Path("/tmp")
    corner: Point = field(default_factory=lambda: Point(1))
    colour: Colour = Colour.BLUE
    limit: Optional[int] = option(None, minimum=1)  # noqa: UP045
    seen: set[str] = field(default_factory=lambda: {"b", "a"})
    cache: Any = field(default=None, init=False)


def test_a_configuration_says_its_constraints_defaults_and_reloads() -> None:
    schema = config_schema(Settings)
    assert schema["required"] == ["model"]
    assert schema["additionalProperties"] is False
    assert schema["description"] == "How it works."
    assert "cache" not in schema["properties"]
    assert schema["properties"]["model"] == {
        "type": "string",
        "enum": ["base", "large"],
        "title": "Model",
        "x-toft-reload": "model",
    }
    assert schema["properties"]["share"] == {
        "type": "number",
        "exclusiveMinimum": 0,
        "exclusiveMaximum": 1,
        "default": 0.5,
    }
    assert schema["properties"]["limit"]["type"] == ["integer", "null"]
    jsonschema_rs.validator_for(schema)
    assert config_defaults(Settings) == {
        "beam": 5,
        "share": 0.5,
        "tag": "v1",
        "words": [],
        "place": "/tmp",
        "corner": {"x": 1, "y": 0},
        "colour": "blue",
        "limit": None,
        "seen": ["a", "b"],
    }


def test_defaults_satisfy_their_own_schema() -> None:
    defaults = {**config_defaults(Settings), "model": "base"}
    assert problems(config_schema(Settings), defaults) == {}
    jsonschema_rs.validator_for(config_schema(Settings)).validate(defaults)


def test_a_configuration_is_built_with_the_types_it_declares() -> None:
    built = to_config(Settings, {**config_defaults(Settings), "model": "large"})
    assert built == Settings(model="large")
    assert isinstance(built.place, pathlib.Path)
    assert built.corner == Point(1)
    assert built.seen == {"a", "b"}


BAD: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {"model": "is missing"}),
    ({"model": "huge"}, {"model": "must be one of 'base', 'large', not 'huge'"}),
    ({"model": "base", "beam": 0}, {"beam": "must be at least 1, not 0"}),
    ({"model": "base", "beam": True}, {"beam": "must be a whole number, not bool"}),
    ({"model": "base", "beam": 2.5}, {"beam": "must be a whole number, not float"}),
    ({"model": "base", "share": 1}, {"share": "must be less than 1, not 1"}),
    ({"model": "base", "tag": "v1\n"}, {"tag": "must match v[0-9]+"}),
    ({"model": "base", "tag": "xv1"}, {"tag": "must match v[0-9]+"}),
    ({"model": "base", "words": ["a", 2]}, {"words[1]": "must be a string, not int"}),
    ({"model": "base", "words": list("abcd")}, {"words": "must have at most 3 items"}),
    (
        {"model": "base", "corner": {"y": "1"}},
        {"corner.x": "is missing", "corner.y": "must be a whole number, not str"},
    ),
    (
        {"model": "base", "beem": 3, "place": 3},
        {"beem": "is unknown; did you mean beam?", "place": "must be a string, not int"},
    ),
    ({"model": "base", "limit": 0}, {"limit": "must be at least 1, not 0"}),
]


@pytest.mark.parametrize(("values", "expected"), BAD, ids=str)
def test_a_configuration_that_does_not_fit_names_every_field(
    values: dict[str, Any], expected: dict[str, str]
) -> None:
    with pytest.raises(InputError) as caught:
        to_config(Settings, values)
    assert caught.value.fields == expected
    assert caught.value.code == "config.invalid"


@pytest.mark.parametrize("values", [values for values, _ in BAD], ids=str)
def test_the_full_validator_of_the_host_refuses_the_same(values: dict[str, Any]) -> None:
    assert not jsonschema_rs.validator_for(config_schema(Settings)).is_valid(values)


def test_a_configuration_class_may_refuse_by_itself() -> None:
    @dataclass
    class Range:
        low: int = 0
        high: int = 1

        def __post_init__(self) -> None:
            if self.low > self.high:
                raise ValueError("low is above high")

    with pytest.raises(InputError, match="low is above high"):
        to_config(Range, {"low": 5})


def test_an_option_of_an_unknown_name_is_refused_where_it_is_written() -> None:
    with pytest.raises(TypeError, match="option\\(\\) knows no minimun"):
        option(1, minimun=2)


def test_a_plugin_without_configuration_takes_none() -> None:
    assert to_config(None, {}) is None
    with pytest.raises(InputError):
        to_config(None, {"a": 1})
