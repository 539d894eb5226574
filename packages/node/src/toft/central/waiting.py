"""Nodes that wait for their next document: each in one place, woken when something changed, else by time."""

from __future__ import annotations

import asyncio

SLOTS = 20_000


class Waiting:
    """Who waits.

    Args:
        slots: How many may.
    """

    def __init__(self, slots: int = SLOTS) -> None:
        self._slots = slots
        self._waiting: dict[str, asyncio.Future[bool]] = {}
        self._is_open = True
        self.changes = 0
        """How often something changed for somebody; whoever looks before waiting takes note of it first."""

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._waiting)

    def may(self, node: str) -> bool:
        """Say whether there is a place for a node."""
        return self._is_open and (node in self._waiting or len(self._waiting) < self._slots)

    def holds(self, node: str) -> bool:
        """Say whether a node waits."""
        return node in self._waiting

    async def wait(self, node: str, timeout_s: float, *, since: int | None = None) -> bool:
        """Say whether something may have changed for a node meanwhile; False after so long.

        A node that asks a second time has given up what it asked first: for that, nothing has changed.

        Args:
            node: Which.
            timeout_s: So long.
            since: What `changes` was when it looked; None for now.
        """
        if since is not None and since != self.changes:
            return True
        loop = asyncio.get_running_loop()
        if (before := self._waiting.get(node)) is not None:
            _end(before, False)
        waiting: asyncio.Future[bool] = loop.create_future()
        self._waiting[node] = waiting
        timer = loop.call_later(timeout_s, _end, waiting, False)
        try:
            return await waiting
        finally:
            timer.cancel()
            if self._waiting.get(node) is waiting:
                del self._waiting[node]

    def wake(self, node: str) -> None:
        """Let a node look again, if it waits."""
        self.changes += 1
        waiting = self._waiting.get(node)
        if waiting is not None:
            _end(waiting, True)

    def close(self) -> None:
        """Let all go, and nobody wait any more."""
        self._is_open = False
        for each in list(self._waiting.values()):
            _end(each, False)


def _end(waiting: asyncio.Future[bool], has_changed: bool) -> None:
    if not waiting.done():
        waiting.set_result(has_changed)
