"""JSON Schemas that a plugin hands in, used without trusting them.

A schema may not fetch anything, may not be huge, may not unfold into more work than its size suggests, and
its patterns give up instead of running for hours. What breaks these rules is refused as the plugin's mistake.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jsonschema_rs

from toft.kernel import suggestions
from toft.kernel.errors import NodeError

MAX_BYTES = 1 << 20
MAX_DEPTH = 100
MAX_WORK = 200_000
_BACKTRACK_LIMIT = 100_000
_IN_PLACE = ("allOf", "anyOf", "oneOf")
_IN_PLACE_ONE = ("not", "if", "then", "else")


class SchemaError(NodeError):
    """A plugin's schema cannot be used."""

    code = "plugin.bad_schema"
    blame = "plugin"


@dataclass(frozen=True)
class Problem:
    """One thing that does not fit, and where."""

    path: tuple[str | int, ...]
    message: str
    keyword: str


class Validator:
    """A schema compiled once, under the rules of this module.

    Args:
        schema: Any JSON Schema, of any draft that names itself in `$schema`.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        refuse_hostile(schema)
        self._schema = schema
        try:
            self._validator = jsonschema_rs.validator_for(
                _portable(schema),
                retriever=_refuse_remote,
                pattern_options=jsonschema_rs.FancyRegexOptions(backtrack_limit=_BACKTRACK_LIMIT),
            )
        except jsonschema_rs.ValidationError as error:
            raise SchemaError(f"the schema is not valid: {error.message}") from error
        except (jsonschema_rs.ReferencingError, ValueError, TypeError, OverflowError) as error:
            raise SchemaError(f"the schema cannot be used: {error}") from error

    def problems(self, value: Any) -> list[Problem]:
        """Return everything about a value that does not fit; never raises for the value's sake."""
        strange = next(not_json(value), None)
        if strange is not None:
            path, found = strange
            return [Problem(path, f"{found} is not something JSON can say", "type")]
        found_problems: list[Problem] = []
        for error in self._validator.iter_errors(value):
            found_problems.extend(self._explain(error))
        return found_problems

    def accepts(self, value: Any) -> bool:
        """Tell whether a JSON value fits."""
        return not self.problems(value)

    def _explain(self, error: Any) -> Iterator[Problem]:
        path = tuple(error.instance_path)
        keyword = error.kind.name
        if keyword == "additionalProperties":
            known = self._names_beside(error.schema_path)
            for name in error.kind.unexpected:
                yield Problem((*path, name), suggestions.unknown(name, known), keyword)
        elif keyword == "required":
            yield Problem((*path, error.kind.property), "missing", keyword)
        elif keyword == "enum":
            yield Problem(path, suggestions.not_among(error.instance, error.kind.options), keyword)
        else:
            yield Problem(path, error.message, keyword)

    def _names_beside(self, schema_path: Iterable[str | int]) -> list[str]:
        """Return the properties of the object schema whose `additionalProperties` refused something."""
        node: Any = self._schema
        for step in list(schema_path)[:-1]:
            if isinstance(node, Mapping) and step == "$ref":
                node = resolve(self._schema, str(node.get("$ref")))
            elif isinstance(node, Mapping):
                node = node.get(str(step))
            elif isinstance(node, list) and isinstance(step, int) and step < len(node):
                node = node[step]
            else:
                return []
        while isinstance(node, Mapping) and "properties" not in node and "$ref" in node:
            node = resolve(self._schema, str(node["$ref"]))
        return sorted(node.get("properties", {})) if isinstance(node, Mapping) else []


def path_text(path: Iterable[str | int]) -> str:
    """Write a path as a person would: `pages[2].size`."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else (f".{step}" if text else step)
    return text


def resolve(root: Any, target: str) -> Any:
    """Return what a reference inside one document points to; None for anything else."""
    if target == "#":
        return root
    if not target.startswith("#/"):
        return None
    node = root
    for raw in target[2:].split("/"):
        step = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(node, Mapping):
            node = node.get(step)
        elif isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
        else:
            return None
    return node


@functools.lru_cache(maxsize=256)
def pattern(text: str) -> Callable[[str], bool]:
    """Return a matcher for a schema pattern that gives up (and says no) rather than backtrack for ever."""
    return Validator({"pattern": text}).accepts


def not_json(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield each part of a value that JSON cannot say, with its path."""
    kind = type(value)
    if value is None or kind in (bool, int):
        return
    if kind is float:
        # The validator would call it null, which only confuses.
        if value != value or value in (float("inf"), float("-inf")):
            yield path, repr(value)
    elif kind is str:
        if not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value):
            yield path, "text with a lone surrogate"
    elif kind in (list, tuple):
        if len(path) >= MAX_DEPTH:
            yield path, f"nesting deeper than {MAX_DEPTH}"
            return
        for index, each in enumerate(value):
            yield from not_json(each, (*path, index))
    elif kind is dict:
        yield from _not_json_object(value, path)
    else:
        yield path, f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def _not_json_object(
    value: dict[Any, Any], path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if len(path) >= MAX_DEPTH:
        yield path, f"nesting deeper than {MAX_DEPTH}"
        return
    for name, each in value.items():
        if type(name) is not str:
            yield path, f"the key {name!r}"
        else:
            yield from not_json(name, (*path, name))
            yield from not_json(each, (*path, name))


def refuse_malformed(schema: Mapping[str, Any]) -> None:
    """Raise `SchemaError` for what is no JSON Schema at all; much cheaper than making a `Validator`."""
    try:
        jsonschema_rs.meta.validate(dict(schema))
    except jsonschema_rs.ValidationError as error:
        raise SchemaError(f"the schema is not valid: {error.message}") from error
    except (jsonschema_rs.ReferencingError, ValueError, TypeError, OverflowError) as error:
        raise SchemaError(f"the schema cannot be used: {error}") from error


def _portable(node: Any) -> Any:
    """Write Python's own spellings in a pattern the way JSON Schema spells them; authors test with `re`."""
    if isinstance(node, list):
        return [_portable(each) for each in node]
    if not isinstance(node, Mapping):
        return node
    copied = {name: _portable(each) for name, each in node.items()}
    if isinstance(copied.get("pattern"), str):
        copied["pattern"] = _PYTHON_SPELLING.sub(
            lambda found: _SPELLINGS.get(found[0], found[0]), copied["pattern"]
        )
    return copied


_PYTHON_SPELLING = re.compile(r"\\\\|\\A|\\Z|\(\?P<")
_SPELLINGS = {"\\A": "^", "\\Z": "$", "(?P<": "(?<"}


def _refuse_remote(uri: str) -> Any:
    raise ValueError(f"it refers to {uri}; a plugin's schema must stand alone")


def refuse_hostile(schema: Mapping[str, Any]) -> None:
    """Raise `SchemaError` for a schema that is not JSON, too big, too deep, or unfolds without a bound."""
    strange = next(not_json(schema), None)
    if strange is not None:
        path, found = strange
        raise SchemaError(f"the schema is not JSON at {path_text(path) or 'its top'}: {found}")
    size = len(json.dumps(schema))
    if size > MAX_BYTES:
        raise SchemaError(f"the schema has {size} bytes; {MAX_BYTES} is the most")
    _Work(schema).measure()


class _Work:
    """Counts what checking one value against a schema can cost: alternatives multiply along references."""

    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._known: dict[int, int] = {}
        self._open: set[int] = set()

    def measure(self) -> None:
        for node in _subschemas(self._root):
            if self._of(node) > MAX_WORK:
                raise SchemaError("the schema's alternatives unfold into more work than is allowed")

    def _of(self, node: Any) -> int:
        if not isinstance(node, Mapping):
            return 1
        key = id(node)
        if key in self._known:
            return self._known[key]
        if key in self._open:
            raise SchemaError("the schema refers to itself without an end")
        if len(self._open) > MAX_DEPTH * 10:
            raise SchemaError("the schema's references form a chain that is too long")
        self._open.add(key)
        work = 1 + sum(self._of(each) for each in self._beside(node))
        self._open.discard(key)
        self._known[key] = work
        return work

    def _beside(self, node: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the schemas that look at the same value as this one."""
        for word in _IN_PLACE:
            each = node.get(word)
            if isinstance(each, list):
                yield from each
        for word in _IN_PLACE_ONE:
            if word in node:
                yield node[word]
        for word in ("$ref", "$dynamicRef"):
            if isinstance(node.get(word), str):
                yield resolve(self._root, node[word])


def _subschemas(root: Any) -> Iterator[Mapping[str, Any]]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Mapping):
            yield node
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)
