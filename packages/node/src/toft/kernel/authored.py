"""What people write by hand, in TOML, YAML or JSON, as one JSON value; what only looks harmless is refused.

A name given twice, a number that JSON has not, and a few lines of YAML that unfold into gigabytes are
mistakes here, whatever the languages say.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any

from toft.kernel.errors import UsageError

LANGUAGES = ("toml", "yaml", "json")
_MOST_VALUES = 1_000_000
_KINDS = "Give a file that ends with .json, .yaml or .toml, or - for standard input."


def parse(data: bytes, name: str, *, language: str | None = None, longest: int = 64 << 20) -> Any:
    """Return what a text says.

    Args:
        data: The text as bytes.
        name: Where it is from, for the message; its ending tells the language.
        language: One of `LANGUAGES`; when None by the name, else by the first character.
        longest: The most bytes it may have.

    Raises:
        UsageError: It is too long, not text, or not in its language; says where.
    """
    if len(data) > longest:
        raise unreadable(name, f"is longer than {longest} bytes", hint="Say less in one file.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise unreadable(name, f"is not UTF-8 text: byte {error.start}") from None
    language = language or _language(name, text)
    try:
        value = _PARSERS[language](text)
    except ValueError as error:
        raise unreadable(name, f"is not {language.upper()}: {error}", hint="Mend it there.") from None
    except RecursionError:
        hint = "Close what is open, or say it with fewer levels: some hundred are read."
        raise unreadable(name, "is nested too deep to be read", hint=hint) from None
    if language == "yaml" and _is_huge(value):
        raise unreadable(name, f"unfolds into more than {_MOST_VALUES} values", hint="Mend its aliases.")
    return value


def unreadable(name: str, problem: str, *, hint: str = _KINDS) -> UsageError:
    """Return the error for a text that cannot be used."""
    shown = "standard input" if name == "-" else name
    return UsageError(f"{shown} {problem}", code="request.document", details={"path": name}, hint=hint)


def _language(name: str, text: str) -> str:
    for ending, language in ((".toml", "toml"), (".json", "json"), (".yaml", "yaml"), (".yml", "yaml")):
        if name.endswith(ending):
            return language
    return "json" if text.lstrip()[:1] in ("{", "[") else "yaml"


def _json(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the name {_twice(name for name, _ in pairs)!r} is there twice in one object")
    return found


def _twice(names: Iterable[Any]) -> Any:
    seen = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is no JSON number")


def _yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415 - 25 ms that only YAML pays

    class Loader(yaml.SafeLoader):
        """Refuses what YAML lets pass: of two equal names the last would win."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            merge = "tag:yaml.org,2002:merge"
            written = [key.value for key, _ in node.value if key.tag != merge and isinstance(key.value, str)]
            twice = _twice(written)
            if twice is not None:
                raise ValueError(f"line {node.start_mark.line + 1}: the name {twice!r} is there twice")
            made: dict[Hashable, Any] = super().construct_mapping(node, deep)
            return made

    try:
        return yaml.load(text, Loader)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def _is_huge(value: Any) -> bool:
    """Say whether aliases make it more than anybody can have written; an alias to itself never ends."""
    waiting, count = [value], 0
    while waiting:
        each = waiting.pop()
        count += 1
        if count + len(waiting) > _MOST_VALUES:
            return True
        if isinstance(each, Mapping):
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return False


_PARSERS: Mapping[str, Callable[[str], Any]] = {"toml": tomllib.loads, "yaml": _yaml, "json": _json}
