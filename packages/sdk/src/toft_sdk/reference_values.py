"""How values go into a plugin of the reference system and come out of it."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def plain(value: Any) -> Any:
    """Write dataclasses as dictionaries and times as text, which is what callers of these plugins expect.

    Everything else stays what it is, although that system could not have sent it.
    """
    kind = type(value)
    if kind in (str, int, float, bool, bytes, type(None)):
        return value
    if kind is dict:
        return {name: plain(each) for name, each in value.items()}
    if kind is list:
        return [plain(each) for each in value]
    if kind is tuple:
        return tuple(plain(each) for each in value)
    if hasattr(kind, "__dataclass_fields__"):
        return {name: plain(getattr(value, name)) for name in kind.__dataclass_fields__}
    if kind.__module__ == "datetime" and kind.__name__ == "datetime":
        return value.isoformat()
    return value


def as_text(value: Any) -> Any:
    """Give a path as text, the only form these plugins ever saw one in."""
    kind = type(value)
    return str(value) if kind.__module__.split(".")[0] == "pathlib" else value
