"""What a plugin says when it is asked whether it can do its work."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


def answer(health: Callable[[], Any] | None) -> dict[str, Any]:
    """Return what a plugin's `health()` says; `is_well` is None when there is none.

    Args:
        health: Returns some words or nothing, perhaps as a coroutine; raises when it is not well.
    """
    if not callable(health):
        return {"is_well": None, "message": "has no health()"}
    said = health()
    if hasattr(said, "__await__"):
        import asyncio  # noqa: PLC0415 - 60 ms that only a plugin with coroutines pays

        said = asyncio.run(said)
    if said is False:
        return {"is_well": False, "message": "says that it is not well"}
    return {"is_well": True, "message": "" if said in (None, True) else str(said)[:2000]}
