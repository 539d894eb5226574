"""The fields of a form: what each holds, how it is edited, what is wrong with it; no HTML in sight."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from toft.kernel import schemas
from toft.kernel.visible import visible

ABSENT: Any = type("Absent", (), {"__repr__": lambda _: "ABSENT", "__bool__": lambda _: False})()
"""Stands for a value that is not there, where None is one that is."""

Path = tuple[str, ...]
_LONG = 60


class Kind(enum.StrEnum):
    """How a value is shown and edited."""

    TEXT = "text"
    LONG_TEXT = "long_text"
    WHOLE = "whole"
    NUMBER = "number"
    SWITCH = "switch"
    CHOICE = "choice"
    SEVERAL = "several"
    LINES = "lines"
    JSON = "json"
    SECRET = "secret"
    GROUP = "group"


@dataclass(frozen=True)
class Choice:
    """One value a field can take; `text` is its JSON, which is what the form sends back."""

    text: str
    label: str
    detail: str = ""
    is_chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class Field:
    """One value of a configuration.

    Attributes:
        path: The keys that lead to it.
        kind: How it is edited.
        schema: What it may hold, references resolved.
        value: What it holds; `ABSENT` when nothing, not even a default.
        label: What a person calls it.
        text: What stands in its box.
        choices: What can be picked.
        rules: What it must keep to, in words.
        preset: What it holds when nobody sets it; `ABSENT` for none.
        error: Why it was refused.
        is_required: It has to be given.
        is_nullable: It may hold nothing.
        is_set: Of a secret: it holds something.
        reloads: What is let go when it changes.
        fields: Of a group.
    """

    path: Path
    kind: Kind
    schema: Mapping[str, Any]
    value: Any
    label: str
    description: str = ""
    text: str = ""
    choices: tuple[Choice, ...] = ()
    rules: str = ""
    preset: Any = ABSENT
    error: str = ""
    is_required: bool = False
    is_nullable: bool = False
    is_set: bool = False
    reloads: str = ""
    fields: tuple[Field, ...] = ()

    @property
    def name(self) -> str:
        """Name in the form: its path in plain ASCII, so that no page spells it another way."""
        return "".join(f"/{quote(step, safe='', errors='surrogatepass')}" for step in self.path)

    @property
    def default(self) -> str:
        """What it holds when nobody sets it, in words; empty when it holds that, or there is none."""
        has_box = self.kind not in (Kind.GROUP, Kind.SECRET)
        differs = self.preset is not ABSENT and self.preset != self.value
        return in_words(self.preset) if has_box and differs else ""

    @property
    def place(self) -> str:
        """The path as errors write it."""
        return schemas.path_text(self.path)


@dataclass(frozen=True)
class Form:
    """All fields of one configuration, and what is wrong with none of them in particular."""

    fields: tuple[Field, ...]
    problems: tuple[str, ...] = ()

    def leaves(self) -> Iterator[Field]:
        """Yield every field that holds a value, groups opened."""
        waiting = list(reversed(self.fields))
        while waiting:
            each = waiting.pop()
            if each.kind is Kind.GROUP:
                waiting.extend(reversed(each.fields))
            else:
                yield each


def with_errors(form: Form, errors: Mapping[str, str], submitted: Mapping[str, str] | None = None) -> Form:
    """Return a form with each error beside the field it is about, holding what was typed.

    Args:
        form: The form as it would be without.
        errors: Place to message; of a place inside a field the field tells it.
        submitted: What came, by field name; secrets are not shown again.
    """
    told: dict[str, list[str]] = {}
    places = sorted((each.place for each in _all(form.fields)), key=len, reverse=True)
    left = []
    for place, message in errors.items():
        owner = next((each for each in places if _is_inside(place, each)), None)
        if owner is None:
            left.append(f"{place}: {message}" if place and place != "configuration" else message)
        else:
            told.setdefault(owner, []).append(message if place == owner else f"{place}: {message}")
    fields = tuple(_marked(each, told, submitted) for each in form.fields)
    return Form(fields, (*form.problems, *left))


def shown(value: Any) -> str:
    """Return a value as JSON for a person to edit; characters that mislead are spelled the JSON way."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) > _LONG and isinstance(value, (dict, list)):
        text = json.dumps(value, ensure_ascii=False, indent=2)
    return text if visible(text) == text else json.dumps(value, indent=2 if "\n" in text else None)


def picked(value: Any) -> str:
    """Return the JSON that stands for a choice in a form."""
    return json.dumps(value, sort_keys=True)


def text_of(kind: Kind, value: Any) -> str:
    """Return what stands in the box of a field."""
    if value is ABSENT or (value is None and kind is not Kind.JSON):
        return ""
    if kind is Kind.LINES:
        return "\n".join(visible(each) for each in value)
    if kind in (Kind.TEXT, Kind.LONG_TEXT):
        return visible(value)
    return shown(value)


def in_words(value: Any) -> str:
    """Return a value as a person would say it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return value or "empty"
    return json.dumps(value, ensure_ascii=False)


def _all(fields: Iterable[Field]) -> Iterator[Field]:
    for each in fields:
        yield each
        yield from _all(each.fields)


def _is_inside(place: str, owner: str) -> bool:
    return place == owner or place.startswith((f"{owner}.", f"{owner}["))


def _marked(field: Field, told: Mapping[str, list[str]], submitted: Mapping[str, str] | None) -> Field:
    error = "; ".join(told.get(field.place, ()))
    if field.kind is Kind.GROUP:
        return replace(
            field, error=error, fields=tuple(_marked(each, told, submitted) for each in field.fields)
        )
    if submitted is None or field.kind is Kind.SECRET:
        return replace(field, error=error)
    typed = submitted.get(field.name)
    if field.kind is Kind.SWITCH:
        return replace(field, error=error, value=field.value if typed is None else "on" in typed)
    if field.kind in (Kind.CHOICE, Kind.SEVERAL):
        sent = set((typed or "").split("\n"))
        choices = tuple(replace(each, is_chosen=each.text in sent) for each in field.choices)
        return replace(field, error=error, choices=choices)
    return replace(field, error=error, text=field.text if typed is None else typed)
