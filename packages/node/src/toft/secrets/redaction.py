"""Takes every known secret out of what is shown: log lines, events, errors, status.

A value is found as it is and as other programs print it: base64 (also inside a longer text, as in an
Authorization header), hexadecimal, percent-quoted, JSON- and Python-escaped, shell-quoted. A secret of
several lines is also found line by line, because logs are read in lines.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

SHORTEST_IN_TEXT = 4
"""A shorter value would black out ordinary words; it is replaced only where it stands alone
or after its name."""

_SHORTEST_LINE = 8
_SHORTEST_ENCODED = 6
_ARMOUR = re.compile(r"-----(BEGIN|END) [A-Z0-9 ]+-----")


class Redactor:
    """Replaces known secret values; made anew or added to when a secret changes.

    Args:
        secrets: Pairs of a name, which may be shown, and its value, which may not.
    """

    def __init__(self, secrets: Iterable[tuple[str, str]] = ()) -> None:
        self._marks: dict[str, str] = {}
        self._short: dict[str, set[str]] = {}
        self._pattern: re.Pattern[str] | None = None
        self._assignments: re.Pattern[str] | None = None
        self.add(secrets)

    def add(self, secrets: Iterable[tuple[str, str]]) -> None:
        """Learn more values; one that is known already keeps its first name."""
        for name, value in secrets:
            if not value:
                continue
            if len(value) < SHORTEST_IN_TEXT:
                self._short.setdefault(value, set()).add(name)
                continue
            for form in _forms(value):
                self._marks.setdefault(form, f"[secret {name}]")
        self._compile()

    def text(self, text: str) -> str:
        """Return the text with every known value replaced by `[secret NAME]`."""
        names = self._short.get(text)
        if names is not None:
            return f"[secret {min(names)}]"
        if self._pattern is not None:
            text = self._pattern.sub(lambda found: self._marks[found.group()], text)
        if self._assignments is not None:
            text = self._assignments.sub(self._hide_assigned, text)
        return text

    def value(self, value: Any) -> Any:
        """Return a JSON-like value with its texts and keys redacted; other types stay as they are."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.value(key): self._under(key, item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return (
                type(value)(map(self.value, value))
                if type(value) in (list, tuple)
                else [*map(self.value, value)]
            )
        return value

    def _under(self, key: Any, item: Any) -> Any:
        """A short secret that is a number in JSON is still recognised under its own name."""
        if isinstance(item, int) and key in self._short.get(str(item), ()):
            return f"[secret {key}]"
        return self.value(item)

    def _compile(self) -> None:
        if self._marks:
            # Longest first: an encoded form may begin with another secret's value.
            longest_first = sorted(self._marks, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))
        if self._short:
            pairs = sorted({(name, value) for value, names in self._short.items() for name in names})
            self._assignments = re.compile(
                "|".join(
                    rf"(?<![A-Za-z0-9_]){re.escape(name)}[\"']?\s*[=:]\s*[\"']?{re.escape(value)}(?![A-Za-z0-9_])"
                    for name, value in pairs
                )
            )

    def _hide_assigned(self, found: re.Match[str]) -> str:
        text = found.group()
        for value, names in self._short.items():
            for name in names:
                if text.startswith(name) and text.endswith(value):
                    return f"{text[: -len(value)]}[secret {name}]"
        return text


def _forms(value: str) -> Iterator[str]:
    """Yield the value and what other programs make of it."""
    yield value
    yield from (form for form in _encoded(value) if len(form) >= _SHORTEST_ENCODED and form != value)
    lines = value.splitlines()
    if len(lines) > 1:
        for line in (line.strip() for line in lines):
            if len(line) >= _SHORTEST_LINE and not _ARMOUR.fullmatch(line):
                yield line
                yield json.dumps(line)[1:-1]


def _encoded(value: str) -> Iterator[str]:
    raw = value.encode("utf-8", "surrogateescape")
    yield json.dumps(value)[1:-1]
    yield json.dumps(value, ensure_ascii=False)[1:-1]
    yield repr(value)[1:-1]
    yield repr(raw)[2:-1]
    yield shlex.quote(value)
    yield raw.hex()
    yield raw.hex().upper()
    for quoted in (urllib.parse.quote(raw, safe=""), urllib.parse.quote(raw), urllib.parse.quote_plus(raw)):
        yield quoted
        yield re.sub(r"%[0-9A-F]{2}", lambda found: found.group().lower(), quoted)
    yield from _base64_anywhere(raw)


def _base64_anywhere(raw: bytes) -> Iterator[str]:
    """Yield the part of base64 text that the value alone decides, for each of three places it can start."""
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw).decode("ascii")
        first = (before * 8 + 5) // 6
        whole_bits = (before + len(raw)) * 8
        core = text[first : whole_bits // 6]
        yield core
        yield core.replace("+", "-").replace("/", "_")
    text = base64.b64encode(raw).decode("ascii")
    yield text
    yield text.replace("+", "-").replace("/", "_")
