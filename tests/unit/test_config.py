import pytest

from toft.kernel import schemas
from toft.plugins.manifests import config
from toft_sdk import errors

SCHEMA = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "enum": ["small", "large"], "default": "small"},
        "threads": {"type": "integer", "minimum": 1, "maximum": 8},
        "name": {"type": "string", "pattern": "^[a-z]+\\Z"},
        "output": {
            "type": "object",
            "properties": {"format": {"type": "string"}, "quality": {"type": "integer", "default": 80}},
        },
        "labels": {"type": "object"},
    },
}
DEFAULTS = {"threads": 2, "output": {"format": "png", "quality": 90}, "labels": {"a": 1}}


def fields_of(given, schema=SCHEMA, defaults=DEFAULTS):
    with pytest.raises(errors.InputError) as caught:
        config.validate(schema, given, defaults)
    return caught.value.fields


def test_defaults_are_filled_in_and_described_objects_are_merged():
    assert config.validate(SCHEMA, {"output": {"format": "jpg"}, "labels": {"b": 2}}, DEFAULTS) == {
        "model": "small",
        "threads": 2,
        "output": {"format": "jpg", "quality": 90},
        "labels": {"b": 2},
    }


def test_the_result_shares_nothing_with_the_defaults():
    merged = config.validate(SCHEMA, {}, DEFAULTS)
    merged["output"]["format"] = "other"
    assert DEFAULTS["output"]["format"] == "png"


def test_unknown_and_ill_typed_settings_are_reported_all_at_once():
    fields = fields_of(
        {"modl": "small", "threads": 9, "name": "A", "output": {"formt": "x"}, "model": "huge"}
    )
    assert set(fields) == {"modl", "threads", "name", "output.formt", "model"}
    assert fields["model"] == "must be one of 'small', 'large', not 'huge'"
    assert fields["modl"] == "unknown; did you mean model?"
    assert fields["output.formt"] == "unknown; did you mean format?"


def test_a_required_setting_without_default_is_missing():
    schema = {"properties": {"key": {"type": "string"}}, "required": ["key"]}
    assert fields_of({}, schema, {}) == {"key": "missing"}


def test_a_schema_that_allows_other_keys_keeps_them():
    assert config.validate({"type": "object", "additionalProperties": True}, {"a": 1}) == {"a": 1}


def test_a_default_that_breaks_the_schema_does_not_blame_the_user():
    schema = {"properties": {"path": {"type": "string"}}}
    assert config.validate(schema, {}, {"path": None}) == {"path": None}
    assert set(fields_of({"path": None}, schema, {"path": None})) == {"path"}


@pytest.mark.parametrize("value", [b"x", {1}, float("nan"), {"a": object()}, {1: 2}, "\ud800"])
def test_a_value_that_json_cannot_say_is_a_problem_not_a_crash(value):
    assert any(path.startswith("labels") for path in fields_of({"labels": value}))


def deep_schema():
    schema = {}
    for _ in range(5000):
        schema = {"properties": {"a": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"properties": {"a": {"$ref": "http://example.invalid/x.json"}}}, "must stand alone"),
        ({"properties": {"a": {"$ref": "file:///etc/hostname"}}}, "must stand alone"),
        ({"properties": {"a": {"$ref": "#/properties/a"}}}, "without an end"),
        (
            {
                "$defs": {f"d{i}": {"anyOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 2} for i in range(40)},
                "properties": {"a": {"$ref": "#/$defs/d0"}},
            },
            "more work",
        ),
        ({"properties": {"a": {"enum": ["x" * 1000] * 2000}}}, "bytes"),
        (deep_schema(), "deeper"),
        ({"properties": {"a": {"pattern": "("}}}, "not valid"),
        ({"properties": {"a": {"type": "nonsense"}}}, "not valid"),
    ],
)
def test_a_hostile_schema_is_refused_as_the_plugins_mistake(schema, said):
    with pytest.raises(schemas.SchemaError, match=said) as caught:
        config.validate(schema, {"a": "x"})
    assert caught.value.blame == "plugin"


def test_a_pattern_that_backtracks_gives_up():
    schema = {"properties": {"a": {"type": "string", "pattern": "^(?=(a|aa)+$)(a|aa)+\\1b$"}}}
    assert set(fields_of({"a": "a" * 60}, schema, {})) == {"a"}


def test_a_schema_that_contains_itself_is_followed():
    schema = {"properties": {"below": {"$ref": "#"}, "x": {"type": "integer"}}}
    assert config.validate(schema, {"below": {"below": {"x": 1}}}) == {"below": {"below": {"x": 1}}}
    assert set(fields_of({"below": {"x": "1", "z": 2}}, schema, {})) == {"below.x", "below.z"}
