"""A submitted form read back: the values that differ from what is set, each of the type its schema wants.

What nobody touched is not sent on, so that a default stays a default. What cannot be read is told beside its
field, all of it at once.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toft.web.fields import ABSENT, Field, Form, Kind, picked, text_of

_WHOLE = re.compile(r"[+-]?[0-9]{1,400}")
_NUMBER = re.compile(r"[+-]?([0-9]{1,400}(\.[0-9]{0,400})?|\.[0-9]{1,400})([eE][+-]?[0-9]{1,4})?")
_BOXES = (Kind.TEXT, Kind.LONG_TEXT, Kind.WHOLE, Kind.NUMBER, Kind.LINES, Kind.JSON)


@dataclass(frozen=True)
class Reading:
    """What a form said.

    Attributes:
        changes: Top-level setting to its whole new value.
        problems: Place to what is wrong there.
    """

    changes: Mapping[str, Any]
    problems: Mapping[str, str]


def gathered(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return what was sent by name; several values of one name as lines, as JSON choices contain none."""
    found: dict[str, str] = {}
    for name, text in pairs:
        plain = text.replace("\r\n", "\n")
        found[name] = f"{found[name]}\n{plain}" if name in found else plain
    return found


def etag(config: Mapping[str, Any]) -> str:
    """Return what tells one configuration from another; a form made for another one is not taken."""
    return hashlib.sha256(picked(config).encode()).hexdigest()[:32]


def read(form: Form, sent: Mapping[str, str]) -> Reading:
    """Return what a form changes.

    Args:
        form: The form of the configuration as it is.
        sent: What came, by field name; what did not come stays as it is.
    """
    problems: dict[str, str] = {}
    known = {each.name for each in form.leaves()}
    for name in sent:
        if name.startswith("/") and name not in known:
            problems[name[:80]] = "there is no such setting"
    changes = {}
    for field in form.fields:
        value = _value(field, sent, problems)
        if value is not ABSENT and not _same(value, field.value):
            changes[field.path[0]] = value
    return Reading(changes, problems)


def _same(one: Any, other: Any) -> bool:
    return other is not ABSENT and picked(one) == picked(other)


def _value(field: Field, sent: Mapping[str, str], problems: dict[str, str]) -> Any:
    """Return the value of a field; `ABSENT` when it has none or something is wrong with it."""
    if field.kind is Kind.GROUP:
        inner = {each.path[-1]: _value(each, sent, problems) for each in field.fields}
        given = {name: value for name, value in inner.items() if value is not ABSENT}
        return given if given or field.value is not ABSENT else ABSENT
    text = sent.get(field.name)
    if text is None:
        return field.value
    try:
        return _read(field, text)
    except ValueError as error:
        problems[field.place] = str(error)
        return ABSENT


def _read(field: Field, text: str) -> Any:
    if field.kind is Kind.SWITCH:
        return "on" in text.split("\n") or (False if field.value is not ABSENT else ABSENT)
    if field.kind is Kind.SEVERAL:
        return _several(field, [each for each in text.split("\n") if each])
    if field.kind is Kind.SECRET:
        return text or field.value
    if (
        field.kind in _BOXES
        and text == text_of(field.kind, field.value)
        and (text or field.value is not ABSENT)
    ):
        return field.value
    if field.kind is Kind.LINES:
        return [each.strip() for each in text.split("\n") if each.strip()] or _none_of(field)
    if not text.strip() and not (field.kind in (Kind.TEXT, Kind.LONG_TEXT) and text):
        return _empty(field)
    if field.kind in (Kind.TEXT, Kind.LONG_TEXT):
        return text
    if field.kind is Kind.WHOLE:
        return _whole(text.strip())
    return _number(text.strip()) if field.kind is Kind.NUMBER else _json(text)


def _several(field: Field, chosen: list[str]) -> Any:
    """Return what was picked: what was set before stays in its order, what is new comes after it."""
    before = [] if field.value is ABSENT else [picked(each) for each in field.value]
    kept = [each for each in before if each in chosen]
    return [_json(each) for each in [*kept, *(new for new in chosen if new not in before)]] or _none_of(field)


def _none_of(field: Field) -> Any:
    """Return what an empty list means: that, unless there was nothing before."""
    return ABSENT if field.value is ABSENT else []


def _empty(field: Field) -> Any:
    """Return what an empty box means: nothing where that is allowed, else the default."""
    if field.value is ABSENT:
        if field.is_required:
            raise ValueError("missing")
        return ABSENT
    if field.is_nullable:
        return None
    if field.kind in (Kind.TEXT, Kind.LONG_TEXT):
        return ""
    if field.preset is not ABSENT:
        return field.preset
    raise ValueError("missing")


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError("must be a whole number, such as 12")
    return int(text)


def _number(text: str) -> int | float:
    if not _NUMBER.fullmatch(text):
        raise ValueError("must be a number, such as 0.5")
    if _WHOLE.fullmatch(text):
        return int(text)
    found = float(text)
    if found in (float("inf"), float("-inf")):
        raise ValueError("is larger than a number can be")
    return found


def _json(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error


def _refuse(word: str) -> Any:
    raise ValueError(f"is not JSON: {word}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("is not JSON: a key stands there twice")
    return found
