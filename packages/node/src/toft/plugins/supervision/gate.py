"""How many calls run at once on one instance; the others wait in order, and not too many of them.

Nothing here awaits: a call that may run is started on the spot, so the fast path costs two comparisons.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

from toft.plugins import errors as faults

C = TypeVar("C")


class Gate(Generic[C]):
    """Lets calls through, first come first served.

    Args:
        instance: For messages.
        start: Starts a call that was let through; must not raise.
        cap: Calls that may run at once; None is unbounded.
        limit: Calls that may wait.
    """

    def __init__(self, instance: str, start: Callable[[C], None], *, cap: int | None, limit: int) -> None:
        self._instance = instance
        self._start = start
        self._limit = limit
        self._waiting: OrderedDict[C, None] = OrderedDict()
        self._is_open = False
        self.cap = cap
        self.running = 0

    @property
    def waiting(self) -> int:
        """Return how many calls wait."""
        return len(self._waiting)

    def enter(self, call: C) -> None:
        """Start a call now or when it is its turn.

        Raises:
            BusyError: As many calls wait as may.
        """
        if self._is_open and not self._waiting and (self.cap is None or self.running < self.cap):
            self.running += 1
            self._start(call)
            return
        if len(self._waiting) >= self._limit:
            raise faults.BusyError(
                f"{len(self._waiting)} calls already wait for instance {self._instance}",
                details={"running": self.running, "waiting": len(self._waiting), "cap": self.cap},
                hint="call again later, or raise its concurrency or queue_limit",
            )
        self._waiting[call] = None

    def leave(self) -> None:
        """Note that a call that was let through has ended."""
        self.running -= 1
        if self._waiting:
            self._admit()

    def withdraw(self, call: C) -> bool:
        """Forget a waiting call; False when it is not waiting (any more)."""
        if call not in self._waiting:
            return False
        del self._waiting[call]
        return True

    def open(self) -> None:
        """Let calls through from now on."""
        self._is_open = True
        self._admit()

    def close(self) -> None:
        """Let nobody through; those who wait keep their places."""
        self._is_open = False

    def drain(self) -> list[C]:
        """Take out everybody who waits, in order."""
        calls = list(self._waiting)
        self._waiting.clear()
        return calls

    def _admit(self) -> None:
        while self._is_open and self._waiting and (self.cap is None or self.running < self.cap):
            call, _ = self._waiting.popitem(last=False)
            self.running += 1
            self._start(call)
