"""A form from a JSON Schema: which fields, of which kind, holding what.

A schema is its author's and says less, or more, than a form can show. What no kind of field fits is edited as
JSON; nothing that is configured is ever left out of the form.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from toft.kernel import schemas
from toft.web.fields import ABSENT, Choice, Field, Form, Kind, Path, in_words, picked, text_of

_DEEPEST = 4
_MOST_CHOICES = 500
_LONG = 80


def build(
    schema: Mapping[str, Any] | None,
    config: Mapping[str, Any],
    *,
    defaults: Mapping[str, Any] | None = None,
    live: Mapping[str, Any] | None = None,
) -> Form:
    """Return the form of a configuration.

    Args:
        schema: The plugin's; anything that cannot be read in it makes a field that is edited as JSON.
        config: The whole configuration, defaults filled in.
        defaults: The plugin's own; they win over those in the schema.
        live: What the plugin says each setting can be right now: name to `options` and `constraints`.
    """
    root = schema if isinstance(schema, Mapping) else {}
    return Form(tuple(_Builder(root, live or {}).members(root, (), config, defaults or {})))


class _Builder:
    """Walks a schema; never deeper than a person would follow."""

    def __init__(self, root: Mapping[str, Any], live: Mapping[str, Any]) -> None:
        self._root = root
        self._live = live

    def members(self, schema: Mapping[str, Any], path: Path, values: Any, defaults: Any) -> Iterator[Field]:
        properties = schema.get("properties")
        known = (
            {str(name): each for name, each in properties.items()} if isinstance(properties, Mapping) else {}
        )
        required = schema.get("required")
        needed = set(map(str, required)) if isinstance(required, list) else set()
        held = values if isinstance(values, Mapping) else {}
        usual = defaults if isinstance(defaults, Mapping) else {}
        for name in [*known, *(name for name in held if name not in known)]:
            resolved = self._resolved(known.get(name, {}))
            default = usual.get(name, resolved.get("default", ABSENT))
            value = held.get(name, ABSENT)
            yield self._field((*path, name), resolved, value, default, is_required=name in needed)

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        """Return what a schema means: references followed, and what an optional one is when it is there."""
        for _ in range(_DEEPEST):
            if not isinstance(schema, Mapping):
                return {}
            if isinstance(schema.get("$ref"), str):
                target = schemas.resolve(self._root, schema["$ref"])
                if not isinstance(target, Mapping):
                    return {}
                schema = {**target, **{key: each for key, each in schema.items() if key != "$ref"}}
                continue
            members = schema.get("anyOf", schema.get("oneOf"))
            if isinstance(members, list) and len(members) == 2 and {"type": "null"} in members:
                inner = members[1] if members[0] == {"type": "null"} else members[0]
                if isinstance(inner, Mapping):
                    rest = {key: each for key, each in schema.items() if key not in ("anyOf", "oneOf")}
                    schema = {**inner, **rest, "x-nullable": True}
                    continue
            return schema
        return {}

    def _field(
        self, path: Path, schema: Mapping[str, Any], value: Any, default: Any, *, is_required: bool
    ) -> Field:
        types = _types(schema)
        if "items" in schema:
            schema = {**schema, "items": self._resolved(schema["items"])}
        live = self._live.get(path[0]) if len(path) == 1 else None
        options, constraints = _live(live)
        is_nullable = "null" in types or schema.get("x-nullable") is True
        bare = Field(
            path=path,
            kind=Kind.JSON,
            schema=schema,
            value=value,
            label=_text(schema, "title") or path[-1].replace("_", " "),
            description=_text(schema, "description"),
            rules=rules({**schema, **constraints}),
            preset=default,
            is_required=is_required and default is ABSENT,
            is_nullable=is_nullable,
            reloads=_text(schema, "x-toft-reload"),
        )
        kind = self._kind(bare, types - {"null"}, options)
        if kind is Kind.GROUP:
            inner = tuple(self.members(schema, path, value, default))
            return replace(bare, kind=kind, fields=inner)
        if kind is Kind.SECRET:
            return replace(bare, kind=kind, is_set=value not in (ABSENT, None, ""))
        if kind in (Kind.CHOICE, Kind.SEVERAL):
            return replace(bare, kind=kind, choices=_choices(bare, kind, options))
        return replace(bare, kind=kind, text=text_of(kind, value))

    def _kind(self, field: Field, types: set[str], options: list[Mapping[str, Any]]) -> Kind:
        schema, value = field.schema, field.value
        if schema.get("writeOnly") is True or schema.get("format") == "password":
            return Kind.SECRET
        if "object" in types or (not types and isinstance(schema.get("properties"), Mapping)):
            is_open = not isinstance(schema.get("properties"), Mapping) or field.is_nullable
            fits = value is ABSENT or isinstance(value, Mapping)
            return Kind.JSON if is_open or not fits or len(field.path) >= _DEEPEST else Kind.GROUP
        if types == {"array"}:
            return self._kind_of_array(field, options)
        if options or isinstance(schema.get("enum"), list) or "const" in schema:
            return Kind.CHOICE
        if types == {"boolean"}:
            # A switch that is off says no; of one that must be set, nobody has said so yet.
            may_be_off = isinstance(value, bool) or (value is ABSENT and not field.is_required)
            return Kind.SWITCH if may_be_off and not field.is_nullable else Kind.CHOICE
        if field.is_nullable and field.is_required and value is ABSENT:
            return Kind.JSON  # an empty box could mean nothing, or that nobody has said it yet
        return _kind_of_scalar(types, value)

    def _kind_of_array(self, field: Field, options: list[Mapping[str, Any]]) -> Kind:
        value = [] if field.value is ABSENT and not field.is_required else field.value
        if field.is_nullable or not isinstance(value, list) or "prefixItems" in field.schema:
            return Kind.JSON
        items = field.schema.get("items", {})
        if options or isinstance(items.get("enum"), list):
            return Kind.SEVERAL if len(set(map(picked, value))) == len(value) else Kind.JSON
        fits = all(
            isinstance(each, str) and each.strip() == each != "" and "\n" not in each for each in value
        )
        return Kind.LINES if _types(items) == {"string"} and fits else Kind.JSON


def rules(schema: Mapping[str, Any]) -> str:
    """Say in words what a value must keep to."""
    found = [
        _range(schema, "exclusiveMinimum", "exclusiveMaximum", "", is_open=True),
        _range(schema, "minimum", "maximum", ""),
        _range(schema, "minLength", "maxLength", " characters"),
        _range(schema, "minItems", "maxItems", " values"),
    ]
    if schema.get("multipleOf"):
        found.append(f"a multiple of {in_words(schema['multipleOf'])}")
    if _text(schema, "pattern"):
        found.append(f"like {_text(schema, 'pattern').removeprefix('^(?:').removesuffix(')$')}")
    if _text(schema, "format") not in ("", "password"):
        found.append(f"a {_text(schema, 'format')}")
    return ", ".join(filter(None, found))


def _range(schema: Mapping[str, Any], low: str, high: str, unit: str, *, is_open: bool = False) -> str:
    least, most = schema.get(low), schema.get(high)
    if is_open:
        parts = [f"above {_figure(least)}" if _is_number(least) else ""]
        parts.append(f"below {_figure(most)}" if _is_number(most) else "")
        return ", ".join(filter(None, parts))
    if _is_number(least) and _is_number(most):
        return f"{_figure(least)} to {_figure(most)}{unit}"
    if _is_number(least):
        return f"at least {_figure(least)}{unit}"
    return f"at most {_figure(most)}{unit}" if _is_number(most) else ""


def _figure(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else in_words(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _kind_of_scalar(types: set[str], value: Any) -> Kind:
    if types == {"string"} and (value in (ABSENT, None) or isinstance(value, str)):
        return (
            Kind.LONG_TEXT if isinstance(value, str) and ("\n" in value or len(value) > _LONG) else Kind.TEXT
        )
    if value in (ABSENT, None) or _is_number(value):
        if types == {"integer"} and not isinstance(value, float):
            return Kind.WHOLE
        if types in ({"number"}, {"number", "integer"}):
            return Kind.NUMBER
    return Kind.JSON


def _types(schema: Mapping[str, Any]) -> set[str]:
    found = schema.get("type")
    if isinstance(found, list):
        return set(map(str, found))
    return {found} if isinstance(found, str) else set()


def _text(schema: Mapping[str, Any], key: str) -> str:
    found = schema.get(key)
    return found if isinstance(found, str) else ""


def _live(found: Any) -> tuple[list[Mapping[str, Any]], Mapping[str, Any]]:
    """Return the options and constraints a plugin told; what is not of the right form is nothing."""
    if not isinstance(found, Mapping):
        return [], {}
    options, constraints = found.get("options"), found.get("constraints")
    usable = (
        [each for each in options if isinstance(each, Mapping) and "value" in each]
        if isinstance(options, list)
        else []
    )
    return usable[:_MOST_CHOICES], constraints if isinstance(constraints, Mapping) else {}


def _choices(field: Field, kind: Kind, options: Iterable[Mapping[str, Any]]) -> tuple[Choice, ...]:
    """Return what can be picked; what is set stays among it, also when it could not be picked any more."""
    offered: dict[str, Choice] = {}
    if kind is Kind.CHOICE and field.value is ABSENT:
        offered[""] = Choice("", "choose")
    if kind is Kind.CHOICE and field.is_nullable:
        offered[picked(None)] = Choice(picked(None), "nothing")
    for value, label, detail in _offers(field, options):
        offered.setdefault(picked(value), Choice(picked(value), label, detail))
    held = field.value if kind is Kind.SEVERAL else [field.value]
    chosen = {"" if each is ABSENT else picked(each) for each in (() if held in (ABSENT, None) else held)}
    for each in sorted(chosen - offered.keys()):
        if each:
            offered[each] = Choice(each, in_words(json.loads(each)), "not offered now")
    return tuple(replace(each, is_chosen=each.text in chosen) for each in offered.values())


def _offers(field: Field, options: Iterable[Mapping[str, Any]]) -> Iterator[tuple[Any, str, str]]:
    told = list(options)
    for each in told:
        label = each.get("label")
        metadata = each.get("metadata")
        details = metadata.items() if isinstance(metadata, Mapping) else ()
        detail = ", ".join(f"{key} {in_words(value)}" for key, value in details)
        yield each["value"], label if isinstance(label, str) and label else in_words(each["value"]), detail
    if told:
        return
    items = field.schema.get("items")
    schema = (
        items if isinstance(items, Mapping) and _types(field.schema) - {"null"} == {"array"} else field.schema
    )
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if not isinstance(values, list):
        values = [True, False] if "boolean" in _types(schema) else []
    for value in values[:_MOST_CHOICES]:
        yield value, in_words(value), ""
