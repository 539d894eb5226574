"""One field of a configuration dataclass: its default, what it may hold, what to reload when it changes."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Callable, TypeVar, overload

    T = TypeVar("T")

_MISSING: Any = object()

# What `option` takes, and the JSON Schema keyword it becomes; `reload` stays with the field.
OPTION_KEYWORDS = {
    "minimum": "minimum",
    "maximum": "maximum",
    "above": "exclusiveMinimum",
    "below": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "min_length": "minLength",
    "max_length": "maxLength",
    "min_items": "minItems",
    "max_items": "maxItems",
    "pattern": "pattern",
    "format": "format",
    "choices": "enum",
    "title": "title",
    "description": "description",
}


if TYPE_CHECKING:

    @overload
    def option(default: T, **constraints: Any) -> T: ...
    @overload
    def option(*, factory: Callable[[], T], **constraints: Any) -> T: ...
    @overload
    def option(**constraints: Any) -> Any: ...


def option(default: Any = _MISSING, *, factory: Any = _MISSING, reload: str = "", **constraints: Any) -> Any:
    """Describe one field of a configuration dataclass.

    Args:
        default: The value when nobody gives one; without it (and without `factory`) the field is required.
        factory: Makes the default, for lists and dictionaries.
        reload: Name of what must be let go when the field changes; `reload="model"` calls `release_model()`.
        constraints: `minimum`, `maximum`, `above`, `below`, `multiple_of`, `min_length`, `max_length`,
            `min_items`, `max_items`, `pattern` (has to match the whole text), `format`, `choices`, `title`,
            `description`.

    Returns:
        A dataclass field.

    Raises:
        TypeError: A constraint of another name.
    """
    import dataclasses  # noqa: PLC0415 - 10 ms that a plugin without configuration does not pay

    unknown = sorted(set(constraints) - set(OPTION_KEYWORDS))
    if unknown:
        raise TypeError(f"option() knows no {', '.join(unknown)}; it knows {', '.join(OPTION_KEYWORDS)}")
    metadata = dict(constraints)
    if reload:
        metadata["reload"] = reload
    if factory is not _MISSING:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    if default is not _MISSING:
        return dataclasses.field(default=default, metadata=metadata)
    return dataclasses.field(metadata=metadata)
