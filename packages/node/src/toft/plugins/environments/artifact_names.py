"""How what was uploaded is named where a path may be: `artifact:SHA256/FILE`, perhaps with extras.

The file says what the bytes are: a wheel, a Python file, text, or a directory as `NAME.tar`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from toft.plugins.environments import environment_errors

_START = "artifact:"
_NAME = re.compile(
    r"artifact:(?P<digest>[0-9a-f]{64})/(?P<file>[A-Za-z0-9_][A-Za-z0-9._+!-]{0,199})"
    r"(?P<extras>\[[A-Za-z0-9._,\s-]+\])?"
)
_UNSAFE = re.compile(r"[^A-Za-z0-9._+!-]+")


@dataclass(frozen=True)
class Named:
    """One name, taken apart.

    Attributes:
        digest: The sha256 of the bytes.
        file: What the bytes are called.
        extras: Of the project or wheel, in brackets; empty without.
    """

    digest: str
    file: str
    extras: str = ""

    def __str__(self) -> str:
        return f"{_START}{self.digest}/{self.file}{self.extras}"


def is_named(text: str | None) -> bool:
    """Say whether a text is meant to name something that was uploaded."""
    return text is not None and text.startswith(_START)


def parse(text: str) -> Named:
    """Take a name apart.

    Raises:
        SourceError: It is none.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        raise environment_errors.SourceError(
            f"{text[:200]!r} does not name an uploaded file",
            hint="artifact:SHA256/FILE, such as artifact:9f86…/hello-1.0-py3-none-any.whl",
        )
    return Named(found["digest"], found["file"], found["extras"] or "")


def file_name(text: str) -> str:
    """Return a file's name as it may stand in the name of an upload."""
    return (_UNSAFE.sub("-", text).lstrip("-.+!") or "upload")[-200:]
