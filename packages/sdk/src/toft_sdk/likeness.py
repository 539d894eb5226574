"""Are two results the same, also when one of them has crossed a process boundary?"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def same(one: Any, other: Any) -> bool:
    """Tell whether two results are equal, NaN and numpy arrays included."""
    # The other side of a process boundary has no such class; fields are what counts.
    one, other = _fields(one), _fields(other)
    if hasattr(one, "dtype") or hasattr(other, "dtype"):
        return _same_arrays(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other))
    return bool(one == other) or (one != one and other != other)


def _same_arrays(one: Any, other: Any) -> bool:
    if getattr(one, "shape", None) != getattr(other, "shape", None) or not hasattr(one, "tobytes"):
        return False
    return bool(one.dtype == other.dtype) and bool(one.tobytes() == other.tobytes())


def _fields(value: Any) -> Any:
    if hasattr(value, "__dataclass_fields__") and not isinstance(value, type):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    return value
