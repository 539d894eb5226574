"""Waiting for something slow as long as it shows signs of life.

Loading a model may take minutes. What ends it is silence: no progress, no line of output, no processor time.
A process that only burns processor time without a word gets longer, because a heavy import looks like that,
but not for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

# Processor time alone is a weaker sign than words.
_BUSY_FACTOR = 10.0
_BUSY_SHARE = 0.02


class StalledError(Exception):
    """Nothing was heard for the whole budget.

    Attributes:
        silent_s: How long.
    """

    def __init__(self, silent_s: float) -> None:
        super().__init__(f"no sign of progress for {silent_s:.1f} s")
        self.silent_s = silent_s


class Signs:
    """When the last sign of life was seen.

    Args:
        now: A monotonic clock.
        cpu_s: Returns the processor seconds used so far by everything that is watched; None when unknown.
    """

    def __init__(self, now: Callable[[], float], cpu_s: Callable[[], Awaitable[float | None]]) -> None:
        self._now = now
        self._cpu_s = cpu_s
        self._last_cpu_s: float | None = None
        self._last_looked = now()
        self.spoke_at = now()
        self.busy_at = now()

    def spoke(self) -> None:
        """Note a progress report or a line of output."""
        self.spoke_at = self._now()

    async def look(self) -> None:
        """Note whether processor time went by."""
        used = await self._cpu_s()
        now = self._now()
        if used is not None:
            before = self._last_cpu_s
            # The first look has nothing to compare with; one that comes late must not find silence.
            if before is None or used - before > _BUSY_SHARE * max(now - self._last_looked, 0.01):
                self.busy_at = now
            self._last_cpu_s = used
        self._last_looked = now

    def silent_s(self) -> float:
        """Return for how long nothing was heard and nothing was done."""
        return self._now() - max(self.spoke_at, self.busy_at)

    def speechless_s(self) -> float:
        """Return for how long nothing was heard."""
        return self._now() - self.spoke_at


async def watch(work: Coroutine[Any, Any, T], signs: Signs, budget_s: float) -> T:
    """Run something until it ends or falls silent.

    Args:
        work: What is waited for; cancelled when it stalls.
        signs: Its signs of life.
        budget_s: Seconds of silence that end it; 0 waits for ever.

    Raises:
        StalledError: It was silent for the whole budget.
    """
    if budget_s <= 0:
        return await work
    task = asyncio.ensure_future(work)
    signs.spoke()
    try:
        while True:
            done, _ = await asyncio.wait({task}, timeout=min(max(budget_s / 5, 0.02), 2.0))
            if done:
                return task.result()
            await signs.look()
            if signs.silent_s() > budget_s or signs.speechless_s() > budget_s * _BUSY_FACTOR:
                raise StalledError(min(signs.speechless_s(), budget_s * _BUSY_FACTOR))
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
