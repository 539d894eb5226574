"""What is open because of a token: it ends with the token."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator

from toft.access.terms import Term
from toft.kernel import clock as clocks

_LOOK_S = 30.0


class Leases:
    """Requests under way, by the token they came with.

    Args:
        clock: The time, by which tokens expire.

    Attributes:
        when_over: Called with the id of what was open too long; each knows its own.
    """

    def __init__(self, clock: clocks.Clock) -> None:
        self._clock = clock
        self._open: dict[str, set[Callable[[], None]]] = {}
        self.when_over: list[Callable[[str], None]] = []

    @contextlib.contextmanager
    def hold(self, token: str, term: Term | None, end: Callable[[], None]) -> Iterator[None]:
        """Have `end` called when the token is revoked or expires while the `with` block lasts."""
        mine = self._open.setdefault(token, set())
        mine.add(end)
        timer: list[asyncio.TimerHandle] = []
        loop = asyncio.get_running_loop()

        def look() -> None:
            # The wall clock decides too, and it may be set while the loop's own does not move.
            left = 0.0 if term is None else term.left_s(self._clock)
            if left > 0:
                timer[:] = [loop.call_later(min(left, _LOOK_S), look)]
                return
            for tell in self.when_over:
                tell(token)
            end()

        if term is not None:
            look()
        try:
            yield
        finally:
            for each in timer:
                each.cancel()
            mine.discard(end)
            if not mine and self._open.get(token) is mine:
                del self._open[token]

    def end(self, token: str) -> int:
        """End what is open because of a token, and return how much that was."""
        found = list(self._open.get(token, ()))
        for each in found:
            each()
        return len(found)

    def count(self, token: str) -> int:
        """Return how much is open because of a token."""
        return len(self._open.get(token, ()))
