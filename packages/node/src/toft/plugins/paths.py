"""Ways into a value: `lines[0].text` as `("lines", 0, "text")`, walked on its tree without decoding it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from toft_sdk import codec
from toft_sdk.codec import TAG
from toft_sdk.errors import InputError

_SHOWN = 12


class PathError(InputError):
    """A way into a value ends before it arrives.

    Args:
        path: As far as it went, and the step that failed.
        reason: What is there instead.
    """

    code = "value.path"

    def __init__(self, path: Sequence[str | int], reason: str) -> None:
        self.path = tuple(path)
        self.reason = reason
        super().__init__(f"{text(path)} {reason}", details={"path": list(path), "reason": reason})

    def of(self, owner: str, *, code: str, **details: Any) -> PathError:
        """Return it as it is told of a value that has an owner."""
        told = PathError(self.path, self.reason)
        told.message = f"{owner}: {self.message}"
        told.args = (told.message,)
        told.code = code
        told.details.update(details)
        return told


def text(path: Sequence[str | int]) -> str:
    """Return a path as a person writes it: `$.lines[0].text`."""
    shown = ["$"]
    for part in path:
        if isinstance(part, str) and part.isidentifier():
            shown.append(f".{part}")
        else:
            shown.append(f"[{ascii(part)[:60]}]")
    return "".join(shown)


def find(tree: Any, path: Sequence[str | int]) -> Any:
    """Return the tree of a part of a value.

    Raises:
        PathError: There is no such part; it says how far it went and what is there.
    """
    for count, part in enumerate(path, start=1):
        try:
            tree = _step(tree, part)
        except _Missing as missing:
            raise PathError(path[:count], str(missing)) from None
    return tree


class _Missing(Exception):
    """Why there is nothing of that name."""


def _step(tree: Any, part: str | int) -> Any:
    if type(tree) is list:
        return _item(tree, part, "list")
    if type(tree) is not dict:
        raise _Missing(f"does not exist: before it is {_kind(tree)}")
    tag = tree.get(TAG)
    if tag is None:
        return _member(tree, part)
    inner = tree.get("v")
    if tag == "tuple" and type(inner) is list:
        return _item(inner, part, "tuple")
    if tag in ("dict", "dataclass") and type(inner) is list:
        return _member(dict(_named(inner)), part)
    raise _Missing(f"does not exist: before it is a value of type {ascii(tag)[:40]}, which has no parts")


def _named(pairs: list[Any]) -> list[tuple[Any, Any]]:
    found = []
    for pair in pairs:
        if type(pair) is list and len(pair) == 2:
            key = pair[0]
            if type(key) is dict and "b" not in key:
                key = codec.decode(key)
            if isinstance(key, (str, int)):
                found.append((key, pair[1]))
    return found


def _item(items: list[Any], part: str | int, what: str) -> Any:
    if type(part) is not int:
        raise _Missing(f"does not exist: before it is a {what} of {len(items)}, which has numbers")
    if not -len(items) <= part < len(items):
        raise _Missing(f"does not exist: the {what} has {len(items)}")
    return items[part]


def _member(fields: dict[Any, Any], part: str | int) -> Any:
    for key, value in fields.items():
        if key == part and type(key) is type(part):
            return value
    names = [ascii(key)[:40] for key in list(fields)[:_SHOWN]]
    more = f" and {len(fields) - _SHOWN} more" if len(fields) > _SHOWN else ""
    raise _Missing(f"does not exist: there is {', '.join(names) or 'nothing'}{more}")


def _kind(tree: Any) -> str:
    if tree is None:
        return "null"
    return {bool: "a truth value", int: "a number", float: "a number", str: "text"}.get(
        type(tree), type(tree).__name__
    )
