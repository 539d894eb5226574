"""Long lists, gone through without holding up whoever else uses the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import TypeVar

T = TypeVar("T")
_AT_ONCE = 200


async def sharing(items: Iterable[T]) -> AsyncIterator[T]:
    """Yield every item; after some hundred, others have a turn."""
    for number, item in enumerate(items, 1):
        yield item
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
