"""Text of strangers, made safe to look at: nothing in it drives a terminal or reads in another order."""

from __future__ import annotations

import re

# Control characters but newline and tab, and the marks that make text read in another order than it is.
_DRIVING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff\ud800-\udfff]"
)
_HIDDEN = 20


def visible(text: str) -> str:
    r"""Return text in which every character that could mislead its reader is spelled out, such as `\x1b`."""
    return _DRIVING.sub(_spell, text.replace("\r\n", "\n"))


def one_line(text: str, most: int = 200) -> str:
    """Return text as one visible line, shortened in the middle when it is long."""
    line = visible(" ".join(text.split()))
    if len(line) <= most:
        return line
    return f"{line[: most - _HIDDEN]} ... {line[-(_HIDDEN - 5) :]}"


def _spell(found: re.Match[str]) -> str:
    number = ord(found.group())
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
