"""Forms from schemas and values from forms: what is not touched stays, every mistake has its place."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from toft.web import fields, forms, submissions
from toft.web.fields import Kind
from toft_sdk import option
from toft_sdk.schema import config_schema


@dataclass
class Model:
    name: str = option("small", choices=["small", "large"], description="Which weights")
    threads: int = option(4, minimum=1, maximum=64, reload="model")
    scale: float = 0.5


@dataclass
class Everything:
    folder: Path
    title: str = option("hello", max_length=40, title="The title")
    note: str | None = None
    count: int | None = None
    exact: bool = False
    maybe: bool | None = None
    mode: Literal["fast", 2, None] = "fast"
    words: list[str] = field(default_factory=lambda: ["one", "two"])
    grid: list[list[int]] = field(default_factory=lambda: [[1, 2], [3]])
    labels: dict[str, str] = field(default_factory=dict)
    model: Model = field(default_factory=Model)


SCHEMA = config_schema(Everything)
CONFIG: dict[str, Any] = {
    "folder": "/data",
    **{name: each["default"] for name, each in SCHEMA["properties"].items() if "default" in each},
}


def form_of(schema: Any = SCHEMA, config: Any = CONFIG, **more: Any) -> fields.Form:
    return forms.build(schema, config, **more)


def named(form: fields.Form, name: str) -> fields.Field:
    return next(each for each in form.leaves() if each.name == name)


def filled(form: fields.Form, **changes: str) -> dict[str, str]:
    """Return what a browser sends of a form, some of it edited."""
    pairs: list[tuple[str, str]] = []
    for each in form.leaves():
        if each.kind is Kind.SWITCH:
            pairs += [(each.name, ""), *([(each.name, "on")] if each.value else [])]
        elif each.kind is Kind.SEVERAL:
            pairs += [(each.name, ""), *((each.name, one.text) for one in each.choices if one.is_chosen)]
        elif each.kind is Kind.CHOICE:
            pairs += [(each.name, one.text) for one in each.choices if one.is_chosen]
        else:
            pairs.append((each.name, each.text.replace("\n", "\r\n")))
    sent = submissions.gathered(pairs)
    sent.update({name.replace("__", "/"): text for name, text in changes.items()})
    return sent


def test_each_type_has_the_field_that_a_person_expects() -> None:
    assert {each.name: each.kind for each in form_of().leaves()} == {
        "/folder": Kind.TEXT,
        "/title": Kind.TEXT,
        "/note": Kind.TEXT,
        "/count": Kind.WHOLE,
        "/exact": Kind.SWITCH,
        "/maybe": Kind.CHOICE,
        "/mode": Kind.CHOICE,
        "/words": Kind.LINES,
        "/grid": Kind.JSON,
        "/labels": Kind.JSON,
        "/model/name": Kind.CHOICE,
        "/model/threads": Kind.WHOLE,
        "/model/scale": Kind.NUMBER,
    }


def test_a_field_says_what_it_is_what_it_may_hold_and_what_it_would_hold_by_itself() -> None:
    config = {**CONFIG, "model": {"name": "large", "threads": 8, "scale": 0.5}}
    form = form_of(config=config, defaults={"title": "good day"})
    title, threads, name = (named(form, each) for each in ("/title", "/model/threads", "/model/name"))
    assert (title.label, title.rules, title.default) == ("The title", "at most 40 characters", "good day")
    assert (threads.rules, threads.default, threads.text) == ("1 to 64", "4", "8")
    assert (name.description, name.default) == ("Which weights", "small")
    assert [(each.label, each.is_chosen) for each in name.choices] == [("small", False), ("large", True)]
    assert named(form, "/folder").is_required


def test_what_nobody_touched_is_not_changed() -> None:
    form = form_of()
    assert submissions.read(form, filled(form)) == submissions.Reading({}, {})
    assert submissions.read(form, {}) == submissions.Reading({}, {})


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("title", "", ""),
        ("title", "  two  spaces ", "  two  spaces "),
        ("note", "a\nb", "a\nb"),
        ("count", " 12 ", 12),
        ("exact", "\non", True),
        ("maybe", "false", False),
        ("mode", "2", 2),
        ("mode", "null", None),
        ("words", "one\n\n three \n", ["one", "three"]),
        ("words", "", []),
        ("grid", "[]", []),
        ("labels", '{"a": "b"}', {"a": "b"}),
    ],
)
def test_a_change_has_the_type_that_the_schema_wants(name: str, text: str, value: Any) -> None:
    form = form_of()
    read = submissions.read(form, filled(form, **{f"__{name}": text}))
    assert read == submissions.Reading({name: value}, {})
    assert type(read.changes[name]) is type(value)


def test_a_change_inside_an_object_sends_the_whole_object() -> None:
    form = form_of()
    read = submissions.read(form, filled(form, __model__threads="6", __model__scale="1e-3"))
    assert read.changes == {"model": {"name": "small", "threads": 6, "scale": 0.001}}


def test_an_emptied_field_is_nothing_where_nothing_is_allowed_and_its_default_elsewhere() -> None:
    form = form_of(config={**CONFIG, "count": 3, "model": {**CONFIG["model"], "threads": 9}})
    read = submissions.read(form, filled(form, __count="", __model__threads=""))
    assert read == submissions.Reading({"count": None, "model": {**CONFIG["model"], "threads": 4}}, {})


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("count", "1.5", "must be a whole number, such as 12"),
        ("count", "9" * 5000, "must be a whole number, such as 12"),
        ("count", "\u0661", "must be a whole number, such as 12"),
        ("model__scale", "0,5", "must be a number, such as 0.5"),
        ("model__scale", "nan", "must be a number, such as 0.5"),
        ("model__scale", "1e9999", "is larger than a number can be"),
        ("grid", "[1, ", "is not JSON: line 1, column 5: Expecting value"),
        ("grid", "[NaN]", "is not JSON: NaN"),
        ("labels", '{"a": "1", "a": "2"}', "is not JSON: a key stands there twice"),
        ("grid", "[" * 100_000, "is nested too deeply"),
        ("mode", "fast", "is not JSON: line 1, column 1: Expecting value"),
    ],
)
def test_what_cannot_be_read_is_told_at_its_place_and_changes_nothing(
    name: str, text: str, says: str
) -> None:
    form = form_of()
    sent = filled(form, **{f"__{name}": text})
    read = submissions.read(form, sent)
    place = name.replace("__", ".")
    assert read.problems == {place: says}
    again = named(fields.with_errors(form, read.problems, sent), "/" + name.replace("__", "/"))
    assert again.error == says
    if again.kind is not Kind.CHOICE:
        assert again.text == text


def test_an_unknown_field_is_refused_and_other_words_of_the_form_are_not_settings() -> None:
    read = submissions.read(form_of(), {"/nothing": "1", "etag": "x", "/model": "{}"})
    assert read == submissions.Reading(
        {}, {"/nothing": "there is no such setting", "/model": "there is no such setting"}
    )


def test_an_error_stands_beside_the_nearest_field_and_else_above_all() -> None:
    errors = {
        "grid[1][0]": "must be a number",
        "model.threads": "too many",
        "configuration": "odd",
        "x.y": "no",
    }
    form = fields.with_errors(form_of(), errors)
    assert named(form, "/grid").error == "grid[1][0]: must be a number"
    assert named(form, "/model/threads").error == "too many"
    assert form.problems == ("odd", "x.y: no")


def test_live_options_are_what_can_be_picked_and_what_is_set_stays_among_them() -> None:
    live = {
        "title": {
            "options": [{"value": "a", "label": "First", "metadata": {"size": "3 GB"}}, {"value": "b"}],
            "constraints": {"maxLength": 3},
        },
        "words": {"options": [{"value": "one"}, {"value": "three"}]},
        "count": "nonsense",
        "exact": {"options": "nonsense", "constraints": []},
    }
    form = form_of(live=live)
    title, words = named(form, "/title"), named(form, "/words")
    assert [(each.label, each.detail, each.is_chosen) for each in title.choices] == [
        ("First", "size 3 GB", False),
        ("b", "", False),
        ("hello", "not offered now", True),
    ]
    assert title.rules == "at most 3 characters"
    assert words.kind is Kind.SEVERAL
    assert [(each.label, each.is_chosen) for each in words.choices] == [
        ("one", True),
        ("three", False),
        ("two", True),
    ]
    assert named(form, "/count").kind is Kind.WHOLE
    read = submissions.read(form, filled(form, __title='"b"', __words='\n"three"\n"one"'))
    assert read == submissions.Reading({"title": "b", "words": ["one", "three"]}, {})


def test_a_secret_setting_is_never_shown_and_stays_unless_another_is_typed() -> None:
    schema = {
        "properties": {
            "key": {"type": "string", "writeOnly": True},
            "pin": {"type": "string", "format": "password"},
        }
    }
    form = form_of(schema, {"key": "hunter2"})
    key, pin = form.fields
    assert (key.kind, key.text, key.is_set, pin.is_set) == (Kind.SECRET, "", True, False)
    assert submissions.read(form, {"/key": "", "/pin": ""}).changes == {}
    sent = {"/key": "new", "/pin": "1"}
    assert submissions.read(form, sent).changes == {"key": "new", "pin": "1"}
    assert "new" not in repr([each.text for each in fields.with_errors(form, {"key": "no"}, sent).fields])


def test_references_and_optional_objects_are_followed_and_endless_ones_are_json() -> None:
    schema = {
        "$defs": {
            "size": {"enum": ["s", "m"]},
            "node": {
                "type": "object",
                "properties": {"next": {"$ref": "#/$defs/node"}, "at": {"type": "integer"}},
            },
            "loop": {"$ref": "#/$defs/loop"},
        },
        "properties": {
            "size": {"$ref": "#/$defs/size", "description": "How big"},
            "sizes": {"type": "array", "items": {"$ref": "#/$defs/size"}},
            "node": {"$ref": "#/$defs/node"},
            "loop": {"$ref": "#/$defs/loop"},
            "far": {"$ref": "https://example.org/schema"},
        },
    }
    form = form_of(schema, {"size": "m", "node": {"at": 1}})
    kinds = {each.name: each.kind for each in form.leaves()}
    assert kinds["/size"] is Kind.CHOICE
    assert kinds["/sizes"] is Kind.SEVERAL
    assert kinds["/node/at"] is Kind.WHOLE
    assert kinds["/loop"] is kinds["/far"] is Kind.JSON
    assert named(form, "/size").description == "How big"
    deepest = max(kinds, key=lambda name: name.count("/"))
    assert deepest.count("/") <= 5


@pytest.mark.parametrize(
    "schema", [None, {}, {"properties": 3}, {"properties": {"a": 5, "b": True}}, {"type": 3}]
)
def test_a_schema_that_says_nothing_still_leaves_everything_editable(schema: Any) -> None:
    form = form_of(schema, {"a": {"b": [1]}, "b": "x"})
    assert {each.name for each in form.leaves()} == {"/a", "/b"}
    assert submissions.read(form, {**filled(form), "/a": '{"b": []}'}).changes == {"a": {"b": []}}


def test_a_value_that_does_not_fit_its_schema_is_shown_as_it_is() -> None:
    schema = {
        "properties": {
            "n": {"type": "integer"},
            "s": {"type": "string"},
            "o": {"type": "object", "properties": {}},
        }
    }
    form = form_of(schema, {"n": "many", "s": 3, "o": [1]})
    assert [(each.kind, each.text) for each in form.fields][:2] == [(Kind.JSON, '"many"'), (Kind.JSON, "3")]
    assert submissions.read(form, filled(form)).changes == {}


def test_what_misleads_is_spelled_out_and_comes_back_as_it_was() -> None:
    tricky = {
        "title": "a\x1b[2Jb\u202e",
        "words": ["\u2066x"],
        "labels": {"\u202e": "\x07"},
        "note": "1\r\n2",
    }
    form = form_of(config={**CONFIG, **tricky})
    for each in form.leaves():
        assert not {"\x1b", "\u202e", "\u2066", "\x07"}.intersection(each.text)
    assert submissions.read(form, filled(form)).changes == {}


def test_another_configuration_has_another_etag() -> None:
    assert submissions.etag({"a": 1, "b": 2}) == submissions.etag({"b": 2, "a": 1})
    assert len({submissions.etag({"a": each}) for each in (1, 1.0, True, "1", None)}) == 5


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
SCHEMAS = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(
                ["string", "integer", "number", "boolean", "object", "array", "null", ["integer", "null"], 7]
            ),
            "enum": st.lists(JSON, max_size=3),
            "const": JSON,
            "title": JSON,
            "format": st.sampled_from(["date", "password", 3]),
            "minimum": JSON,
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {"type": st.sampled_from(["object", "array"])},
        optional={
            "properties": st.dictionaries(st.text(max_size=4), inner, max_size=3),
            "items": inner,
            "anyOf": st.lists(inner, max_size=2),
            "required": st.lists(st.text(max_size=4), max_size=2),
        },
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None)
@example({"": {"type": "array", "items": {"type": "string", "enum": []}}}, {"": None})
@example({"": {"type": "object", "properties": {"": {"type": "boolean"}}}}, {"": {}})
@example(
    {"": {"type": "object", "properties": {"": {"type": "array", "items": {"type": "string"}}}}}, {"": {}}
)
@example({"": {"type": "object", "properties": {"": {"type": "array", "items": {"enum": ["a"]}}}}}, {"": {}})
@example({"": {"type": "array", "items": {"enum": ["a", "b"]}}}, {"": ["b", "a"]})
@given(
    st.dictionaries(st.text(max_size=4), SCHEMAS, max_size=4),
    st.dictionaries(st.text(max_size=4), JSON, max_size=4),
)
def test_any_schema_with_any_configuration_makes_a_form_that_changes_nothing_by_itself(
    properties: dict[str, Any], config: dict[str, Any]
) -> None:
    form = forms.build({"type": "object", "properties": properties}, config)
    read = submissions.read(form, filled(form))
    names = [each.name for each in form.leaves()]
    assert len(set(names)) == len(names)
    assert set(config) <= {each.path[0] for each in form.fields}
    assert {name: value for name, value in read.changes.items() if name in config} == {}
