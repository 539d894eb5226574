"""Finds secrets that were written where a reference belongs: by their names, and by how they look."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from toft.kernel import schemas

SET = "<set>"
_NAME = re.compile(
    r"(?i)(?:^|[_.-])(?:password|passwd|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|"
    r"credentials?|auth)$"
)
_LOOKS = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}|\bglpat-[\w-]{20}|"
    r"\bxox[abprs]-[\w-]{10,}|\bsk-[A-Za-z0-9_-]{20,}|\bhf_[A-Za-z0-9]{30,}|\bhvs\.[\w-]{20,}|"
    r"\btoft_[a-z2-7]{32}\b|\b(?:jt_\w{8}_|nt_)[\w-]{43}|\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}|"
    r"://[^/\s:@]+:[^/\s:@]+@"
)
_REFERENCE = re.compile(r"(?:store|openbao):\S+")
_REFERENCES = ("secrets",)
_HINT = "looks like a secret: name it by reference, under `secrets` of its instance"


def found_in(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[schemas.Problem]:
    """Yield each text that looks like a secret, with its place and without the text itself."""
    if isinstance(value, Mapping):
        for name, each in value.items():
            if name in _REFERENCES and len(path) == 2 and path[0] == "instances":
                continue
            if isinstance(each, str) and _is_secret(name, each):
                yield schemas.Problem((*path, name), _HINT, "secret")
            else:
                yield from found_in(each, (*path, name))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            yield from found_in(each, (*path, index))
    elif isinstance(value, str) and _LOOKS.search(value):
        yield schemas.Problem(path, _HINT, "secret")


def redacted(value: Any) -> Any:
    """Return a value with every text that looks like a secret left out."""
    if isinstance(value, Mapping):
        return {
            name: SET if isinstance(each, str) and each != SET and _is_secret(name, each) else redacted(each)
            for name, each in value.items()
        }
    if isinstance(value, list):
        return [redacted(each) for each in value]
    return SET if isinstance(value, str) and _LOOKS.search(value) else value


def _is_secret(name: str, text: str) -> bool:
    if not text or _REFERENCE.fullmatch(text):
        return False
    return bool(_NAME.search(name)) or bool(_LOOKS.search(text))
