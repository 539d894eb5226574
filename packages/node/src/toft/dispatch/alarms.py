"""Timers by name: of several wishes under one name the earliest counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Alarms:
    """Rings on the event loop.

    Args:
        ring: Called with the name of an alarm that is due.
    """

    def __init__(self, ring: Callable[[str], None]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def set(self, name: str, seconds: float) -> None:
        """Ring after so many seconds; one that rings earlier stays."""
        timer = self._timers.get(name)
        if timer is not None:
            if timer.when() <= self._loop.time() + seconds:
                return
            timer.cancel()
        self._timers[name] = self._loop.call_later(seconds, self._due, name)

    def _due(self, name: str) -> None:
        del self._timers[name]
        self._ring(name)

    def clear(self) -> None:
        """Let none ring any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
