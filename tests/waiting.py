"""Wait for a state, never for a time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE_S = 0.005


def eventually(predicate: Callable[[], T], within_s: float = 5, what: str = "") -> T:
    """Return the first true value of `predicate`, or fail with the last one after `within_s` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what or predicate!r}; last value {value!r}")
        time.sleep(PAUSE_S)


async def eventually_async(
    predicate: Callable[[], T] | Callable[[], Awaitable[T]], within_s: float = 5, what: str = ""
) -> T:
    """Do what `eventually` does without holding up the event loop; the predicate may be a coroutine."""
    deadline = asyncio.get_running_loop().time() + within_s
    while True:
        value = predicate()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {within_s:g} s: {what or predicate!r}; last value {value!r}")
        await asyncio.sleep(PAUSE_S)
