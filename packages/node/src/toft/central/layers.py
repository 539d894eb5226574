"""How layers become one document: the tenant's, then one group's, then the node's own. Pure."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from toft.kernel import errors

SCOPES = ("tenant", "group", "node")
"""From the weakest layer to the strongest."""

Selector = Mapping[str, Any]
_LABEL = re.compile(r"[a-z0-9][a-z0-9_./-]{0,62}", re.ASCII)
_VALUE = re.compile(r"[A-Za-z0-9_.:/@+-]{0,128}", re.ASCII)
MOST_LABELS = 64


def merge(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what layers say together: objects are merged, anything else replaces, null takes away."""
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer)
    return merged


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for name, value in over.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, Mapping):
            below = merged.get(name)
            merged[name] = _merge(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[name] = value
    return merged


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Say whether labels have all that a selector names; of a list, one is enough."""
    return all(
        labels.get(name) in (wanted if isinstance(wanted, list) else (wanted,))
        for name, wanted in selector.items()
    )


def check_labels(value: Any) -> dict[str, str]:
    """Return labels that a node may have.

    Raises:
        UsageError: They are none.
    """
    if not isinstance(value, Mapping) or len(value) > MOST_LABELS:
        raise _bad(f"labels are an object of at most {MOST_LABELS} texts")
    for name, text in value.items():
        if not isinstance(name, str) or not _LABEL.fullmatch(name):
            raise _bad(f"{str(name)[:80]!r} is no name of a label: 1 to 63 of a-z, 0-9, _, ., / and -")
        if not isinstance(text, str) or not _VALUE.fullmatch(text):
            raise _bad(
                f"the label {name} has no value that one can have: up to 128 letters, digits and _.:/@+-"
            )
    return dict(value)


def check_selector(value: Any) -> dict[str, Any]:
    """Return a selector: label to the value, or to the list of values, that nodes must have.

    Raises:
        UsageError: It is none.
    """
    if not isinstance(value, Mapping):
        raise _bad("a selector is an object of labels")
    for name, wanted in value.items():
        listed = wanted if isinstance(wanted, list) else [wanted]
        if not listed or len(listed) > MOST_LABELS:
            raise _bad(f"the selector names no value of {str(name)[:80]!r}, or too many")
        for each in listed:
            check_labels({name: each})
    return dict(value)


def called(number: int | None) -> str:
    """Return what a revision is called in a diff; None for where there was none."""
    return "nothing" if number is None else f"revision {number}"


def diff(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None, names: Sequence[str]) -> str:
    """Return what changes between two documents, line by line; empty when nothing does.

    Args:
        before: None where there was none.
        after: None where there is none any more.
        names: What the two are called.
    """
    lines = difflib.unified_diff(_lines(before), _lines(after), names[0], names[1], lineterm="", n=3)
    return "\n".join(lines)


def _lines(value: Mapping[str, Any] | None) -> list[str]:
    return (
        [] if value is None else json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False).split("\n")
    )


def _bad(message: str) -> errors.UsageError:
    return errors.UsageError(message, code="central.labels", hint="such as role=gpu")
