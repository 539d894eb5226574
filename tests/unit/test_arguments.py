import contextlib
import dataclasses
import datetime as dt
import enum
import pathlib
import typing
from datetime import UTC, datetime

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toft.kernel import schemas
from toft.plugins.manifests import unseen
from toft.plugins.manifests.arguments import Binder, parse_cli
from toft.plugins.packed import Packed
from toft_sdk import errors, schema

SCHEMA = {
    "parameters": {
        "text": {"type": "string", "kind": "positional_or_keyword"},
        "count": {"type": "integer", "default": 1, "minimum": 1},
        "ratio": {"type": "number"},
        "strict": {"type": "boolean"},
        "words": {"type": "array", "items": {"type": "string"}},
        "where": {"x-toft-type": "path"},
        "data": {"x-toft-type": "bytes"},
        "size": {
            "type": "object",
            "properties": {"width": {"type": "integer"}, "height": {"type": "integer"}},
            "required": ["width"],
        },
        "maybe": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        "array": {"x-toft-type": "ndarray"},
        "when": {"x-toft-type": "datetime"},
        "pair": {
            "x-toft-type": "tuple",
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "string"}],
        },
        "tags": {"x-toft-type": "set", "type": "array", "items": {"type": "string"}},
    },
    "required": ["text"],
    "additional": False,
}


def fields_of(arguments):
    with pytest.raises(errors.InputError) as caught:
        Binder(SCHEMA).bind(arguments)
    return caught.value.fields


def one(schema, value):
    return Binder({"parameters": {"x": schema}}).bind({"x": value})["x"]


def test_arguments_that_fit_come_back_as_they_were():
    array = numpy.arange(3)
    arguments = {
        "text": "a",
        "count": 2,
        "ratio": 1,
        "strict": True,
        "words": ["a"],
        "where": pathlib.Path("x"),
        "data": b"\xff",
        "size": {"width": 3},
        "maybe": None,
        "array": array,
        "when": datetime(2026, 1, 1, tzinfo=UTC),
        "pair": (1, "a"),
        "tags": {"a"},
    }
    bound = Binder(SCHEMA).bind(arguments)
    assert bound.pop("array") is array
    arguments.pop("array")
    assert bound == arguments


def test_every_problem_is_reported_at_once_with_its_path():
    fields = fields_of(
        {"count": 0, "ratio": "much", "strict": 1, "words": ["a", 2], "size": {"hight": 1}, "txt": "a"}
    )
    assert fields == {
        "count": "must be at least 1, got int 0",
        "ratio": "expected a number, got str 'much'",
        "strict": "expected true or false, got int 1",
        "words[1]": "expected text, got int 2",
        "size.hight": "unknown; did you mean height?",
        "size.width": "missing",
        "txt": "unknown; did you mean text?",
        "text": "missing",
    }


@pytest.mark.parametrize("value", [True, 1.0, "1", None, numpy.float64(1)])
def test_an_integer_is_not_a_truth_value_nor_a_float(value):
    assert "count" in fields_of({"text": "a", "count": value})


def test_an_integer_is_a_number():
    assert one({"type": "number"}, 3) == 3
    assert one({"type": "integer"}, numpy.int64(3)) == 3


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"x-toft-type": "path"}, "a/b", pathlib.Path("a/b")),
        ({"x-toft-type": "tuple", "type": "array"}, [1], (1,)),
        ({"x-toft-type": "set", "type": "array"}, [1, 1], {1}),
        ({"x-toft-type": "datetime"}, "2026-01-01T00:00:00+00:00", datetime(2026, 1, 1, tzinfo=UTC)),
    ],
)
def test_json_spellings_become_the_declared_type(schema, value, expected):
    bound = one(schema, value)
    assert bound == expected
    assert type(bound) is type(expected)


def test_a_set_of_what_cannot_be_in_one_is_refused():
    with pytest.raises(errors.InputError, match="cannot be in a set"):
        one({"x-toft-type": "set", "type": "array"}, [{}])


@pytest.mark.parametrize(
    "described",
    [
        {"parameters": []},
        {"parameters": {"x": 3}},
        {"parameters": {"x": {"enum": 3}}},
        {"parameters": {"x": {"type": "nonsense"}}},
        {"parameters": {"x": {"$ref": "#/parameters/x"}}},
        {"parameters": {}, "required": "x"},
        {"parameters": {}, "required": [1]},
    ],
)
def test_a_malformed_signature_is_the_plugins_mistake(described):
    with pytest.raises(schemas.SchemaError):
        Binder(described)


def test_numbers_that_json_cannot_say_pass():
    assert one({"type": "array", "items": {"type": "number"}}, [float("inf"), 1])[0] == float("inf")


@pytest.mark.parametrize("name", ["self", "action", "timeout", "arguments", "name", "schema"])
def test_an_argument_may_have_any_name(name):
    assert Binder({"parameters": {name: {"type": "integer"}}}).bind({name: 1}) == {name: 1}


def test_unknown_names_pass_where_the_signature_takes_any():
    assert Binder({"parameters": {}, "additional": True}).bind({"anything": object}) == {"anything": object}
    assert Binder(None).bind({"x": b""}) == {"x": b""}


@given(
    st.recursive(
        st.one_of(
            st.none(), st.booleans(), st.integers(), st.floats(), st.binary(), st.text(), st.complex_numbers()
        ),
        lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.one_of(st.text(), st.integers()), inner)),
    )
)
def test_no_value_breaks_a_check(value):
    foreign = {"type": "array", "contains": {"type": "integer"}}
    binder = Binder({"parameters": {**SCHEMA["parameters"], "foreign": foreign}})
    for name in binder._checks:
        with contextlib.suppress(errors.InputError):
            binder.bind({name: value})


def test_a_schema_that_contains_itself_ends():
    tree = {"type": "object", "properties": {"below": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}}
    binder = Binder({"parameters": {"tree": {"$ref": "#/$defs/tree"}}, "$defs": {"tree": tree}})
    assert binder.bind({"tree": {"below": [{"below": []}]}})
    with pytest.raises(errors.InputError) as caught:
        binder.bind({"tree": {"below": [{"below": 3}]}})
    assert caught.value.fields == {"tree.below[0].below": "expected a list, got int 3"}


def test_words_are_read_as_the_schema_says(tmp_path):
    (tmp_path / "data.bin").write_bytes(b"\x00\xff")
    (tmp_path / "words.json").write_text('["x", "y"]')
    (tmp_path / "note.txt").write_text("hello\n")
    arguments = parse_cli(
        SCHEMA,
        [
            "text=12",
            "count=3",
            "ratio=0.5",
            "strict=no",
            "words=@words.json",
            "where=a.png",
            "data=@data.bin",
        ],
        directory=tmp_path,
    )
    assert arguments == {
        "text": "12",
        "count": 3,
        "ratio": 0.5,
        "strict": False,
        "words": ["x", "y"],
        "where": tmp_path / "a.png",
        "data": b"\x00\xff",
    }
    assert parse_cli(SCHEMA, ["text=@note.txt"], directory=tmp_path) == {"text": "hello\n"}
    assert parse_cli(SCHEMA, ["text=@@me", "maybe=null"]) == {"text": "@me", "maybe": None}


@pytest.mark.parametrize(
    ("annotation", "word", "expected"),
    [
        (dt.timedelta, "1.5", dt.timedelta(seconds=1.5)),
        (dt.date, "2026-01-02", dt.date(2026, 1, 2)),
        (dt.datetime | None, "2026-01-02T03:04:05", dt.datetime(2026, 1, 2, 3, 4, 5)),  # noqa: DTZ001
        (dt.datetime | None, "null", None),
        (complex, "1+2j", 1 + 2j),
        (typing.Literal["a", 1], "1", 1),
        (typing.Literal["a", 1], "a", "a"),
        (tuple[int, str], '[1, "x"]', (1, "x")),
        (int | str, "7", 7),
        (int | str, "x", "x"),
        (dict, '{"a": 1}', {"a": 1}),
        (typing.Any, "x", "x"),
        (typing.Any, "[1]", [1]),
        (bytes, "x", b"x"),
    ],
)
def test_a_word_becomes_what_the_annotation_says(annotation, word, expected):
    def takes(x): ...

    takes.__annotations__ = {"x": annotation}
    assert parse_cli(schema.signature_schema(takes), [f"x={word}"]) == {"x": expected}


def test_explicit_json_and_input_are_read_and_words_win(tmp_path):
    (tmp_path / "input.json").write_text('{"text": "a", "count": 2}')
    arguments = parse_cli(SCHEMA, ["count:=5", 'size:={"width": 1}'], "@input.json", directory=tmp_path)
    assert arguments == {"text": "a", "count": 5, "size": {"width": 1}}


def test_every_bad_word_is_listed():
    with pytest.raises(errors.InputError) as caught:
        parse_cli(SCHEMA, ["nonsense", "count=many", "words=[1", "data=@absent", "txt=1"])
    assert set(caught.value.fields) == {"nonsense", "count", "words", "data", "txt", "text"}
    assert caught.value.fields["txt"] == "unknown; did you mean text?"


def test_input_that_is_no_object_is_refused():
    with pytest.raises(errors.InputError) as caught:
        parse_cli(None, [], "[1]")
    assert caught.value.fields == {"input": "expected a JSON object, got list"}


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Box:
    width: int
    tags: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class Writable:
    path: str

    def to_temp_file(self):
        return self.path


def action(
    self,
    count: int,
    box: Box | None = None,
    colour: Colour = Colour.RED,
    pair: tuple[int, str] = (1, "a"),
    names: frozenset[str] | None = None,
    gaps: list[int | None] = [],  # noqa: B006
    *rest: float,
    **more: object,
): ...


def test_the_schema_of_a_real_signature_is_understood():
    binder = Binder(schema.signature_schema(action.__get__(object())))
    bound = binder.bind(
        {
            "count": 1,
            "box": Box(2, {"a"}),
            "colour": Colour.RED,
            "pair": [2, "b"],
            "names": ["x"],
            "gaps": [1, None],
            "rest": [1, 2.5],
            "anything": object,
        }
    )
    assert bound == {
        "count": 1,
        "box": {"width": 2, "tags": {"a"}},
        "colour": "red",
        "pair": (2, "b"),
        "names": frozenset(["x"]),
        "gaps": [1, None],
        "rest": [1, 2.5],
        "anything": object,
    }
    assert binder.bind({"count": 1, "box": None, "names": None})
    with pytest.raises(errors.InputError) as caught:
        binder.bind({"box": {"widht": 1}, "colour": "green", "pair": [1], "rest": ["x"]})
    assert set(caught.value.fields) == {"count", "box.widht", "box.width", "colour", "pair", "rest[0]"}


def test_an_object_that_writes_itself_to_a_file_is_passed_as_that_file_where_asked_for():
    described = {"parameters": {}, "additional": True, "x-toft-file-backed": True}
    assert Binder(described).bind({"clip": Writable("/tmp/clip")}) == {"clip": "/tmp/clip"}


SCALED = {
    "parameters": {
        "image": {"x-toft-type": "ndarray", "kind": "positional_or_keyword"},
        "names": {"type": "array", "items": {"type": "string"}, "kind": "positional_or_keyword"},
        "scale": {
            "anyOf": [{"type": "number", "minimum": 1}, {"type": "null"}],
            "kind": "positional_or_keyword",
        },
    },
    "required": ["image"],
}


def promised(schema: dict[str, typing.Any] | None, what: str = "what step ocr gives") -> unseen.Promised:
    return unseen.Promised(schema, {}, what)


def test_what_is_not_here_yet_fits_when_its_kind_may() -> None:
    binder = Binder(SCALED)
    for image in (
        promised({"x-toft-type": "ndarray"}),
        promised(None),
        Packed.of(numpy.zeros(3)),
        promised({}),
    ):
        for scale in (promised({"type": "integer"}), promised({"type": ["null", "string"]}), 2.0):
            bound = binder.bind(
                {"image": image, "names": ["a", promised({"type": "string"})], "scale": scale}
            )
            assert bound["image"] is image
            assert bound["scale"] is scale


def test_what_is_not_here_yet_is_refused_when_its_kind_cannot_fit() -> None:
    asked = {
        "image": promised({"type": "string"}),
        "names": ["a", Packed.of(b"x")],
        "scale": promised({"anyOf": [{"type": "string"}, {"type": "array"}]}),
    }
    with pytest.raises(errors.InputError) as caught:
        Binder(SCALED).bind(asked)
    assert caught.value.fields == {
        "image": "expected ndarray, got what step ocr gives: string",
        "names[1]": "expected string, got a value: bytes",
        "scale": "expected null or number, got what step ocr gives: array or string",
    }


def test_the_part_of_a_schema_is_found_or_said_to_be_missing() -> None:
    line = {"type": "object", "properties": {"text": {"type": "string"}}, "x-toft-type": "dataclass"}
    root = {"$defs": {"Line": line}}
    pages = {"type": "array", "items": {"$ref": "#/$defs/Line"}}
    assert unseen.part(pages, [0, "text"], root) == {"type": "string"}
    assert unseen.part({}, ["a", 1], root) is None
    assert unseen.part({"type": "object"}, ["a", 1], root) is None
    pair = {"type": "array", "prefixItems": [{"type": "integer"}, {"type": "string"}], "x-toft-type": "tuple"}
    assert unseen.part(pair, [1], root) == {"type": "string"}
    for path, at, reason in (
        ([0, "size"], 1, "has text"),
        ([0, "text", 0], 2, "is string, which has no parts"),
        (["a"], 0, "is a list, whose items have numbers"),
    ):
        with pytest.raises(unseen.NoSuchPart) as caught:
            unseen.part(pages, path, root)
        assert (caught.value.at, caught.value.reason) == (at, reason)
