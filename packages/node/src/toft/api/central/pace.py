"""How often each node may ask: some at once, then one every few seconds; memory is bounded."""

from __future__ import annotations

from collections import OrderedDict

from toft.kernel import clock as clocks
from toft.kernel import errors

AT_ONCE = 12
EACH_S = 4.0
_KEPT = 50_000


class Pace:
    """A bucket for each node.

    Args:
        clock: The time.
        at_once: How many questions may come in a row.
        each_s: Seconds after which one more may come.
        enough: Tells whoever comes too often how to do with less.
    """

    def __init__(
        self,
        clock: clocks.Clock = clocks.SYSTEM,
        *,
        at_once: int = AT_ONCE,
        each_s: float = EACH_S,
        enough: str = "once in 5 s is enough; waiting for a change costs nothing: Prefer: wait=55",
    ) -> None:
        self._clock = clock
        self._at_once = at_once
        self._each_s = each_s
        self._enough = enough
        # When the bucket of a node would be empty again.
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def step(self, node: str, weight: int = 1) -> None:
        """Count a question.

        Args:
            node: Who asks.
            weight: As how many it counts.

        Raises:
            UnavailableError: There were too many.
        """
        now = self._clock.monotonic()
        empty_at = max(self._empty_at.pop(node, now), now)
        too_soon_s = empty_at + weight * self._each_s - (now + self._at_once * self._each_s)
        if too_soon_s <= 0:
            empty_at += weight * self._each_s
        self._empty_at[node] = empty_at
        if len(self._empty_at) > _KEPT:
            self._empty_at.popitem(last=False)
        if too_soon_s > 0:
            raise errors.UnavailableError(
                "this node asks too often",
                code="too_many_requests",
                blame="caller",
                retry_after_s=max(1.0, too_soon_s),
                hint=self._enough,
            )

    def give_back(self, node: str) -> None:
        """Count a question less: it was none that this is about."""
        if node in self._empty_at:
            self._empty_at[node] -= self._each_s
