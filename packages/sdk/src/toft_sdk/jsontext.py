"""JSON text, by the C halves of `json` alone: the package around them imports `re` 5 ms of a start."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable

_BLANKS = frozenset((" ", "\t", "\r", "\n"))


def _refuse(value: object) -> None:
    raise TypeError(f"{type(value).__name__} is not JSON")


def _constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class _Context:
    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_constant)


def _fast() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    from _json import encode_basestring_ascii, make_encoder, make_scanner  # noqa: PLC0415 - may be missing

    make: Any = make_encoder
    write = make(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, False)
    scan: Any = make_scanner(_Context())  # type: ignore[arg-type]

    def dumps(value: Any) -> str:
        return "".join(write(value, 0))

    def loads(text: str) -> Any:
        at = 0
        while text[at : at + 1] in _BLANKS:
            at += 1
        value, end = scan(text, at)
        if end != len(text) and text[end:].strip(" \t\r\n"):
            raise ValueError("text behind the JSON value")
        return value

    return dumps, loads


def _plain() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    import json  # noqa: PLC0415 - only where there are no C halves

    write = json.JSONEncoder(separators=(",", ":"), allow_nan=False)
    return write.encode, json.JSONDecoder(parse_constant=_constant).decode


try:
    dumps, loads = _fast()
except ImportError:
    dumps, loads = _plain()
