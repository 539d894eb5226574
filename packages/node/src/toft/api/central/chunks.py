"""How much nodes may send in rows: one chunk each at a time, some nodes at once, so many bytes a second."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from toft.api.central.pace import Pace
from toft.kernel import clock as clocks
from toft.kernel import errors

NODES = 64
"""So many chunks are under way at a time; each takes up to 4 MiB of memory."""
_PART_BYTES = 64 << 10
_PARTS_AT_ONCE = 128


class Chunks:
    """What is under way, and how fast each node is.

    Args:
        clock: The time.
    """

    def __init__(self, clock: clocks.Clock = clocks.SYSTEM) -> None:
        self._under_way: set[str] = set()
        self._pace = Pace(
            clock,
            at_once=_PARTS_AT_ONCE,
            each_s=1.0,
            enough=f"{_PART_BYTES} bytes in a second, in one chunk or less, are taken in the long run",
        )

    @contextlib.contextmanager
    def coming(self, node: str) -> Iterator[None]:
        """Keep a place for the chunk of a node while the `with` block lasts.

        Raises:
            UnavailableError: Another one of it is under way, or those of many others.
        """
        if node in self._under_way or len(self._under_way) >= NODES:
            raise errors.UnavailableError(
                "another chunk of this node is under way"
                if node in self._under_way
                else f"{NODES} other nodes send rows at this moment",
                code="ingest.busy",
                retry_after_s=2.0,
                hint="nothing to do: a node sends the same chunk again by itself",
            )
        self._under_way.add(node)
        try:
            yield
        finally:
            self._under_way.discard(node)

    def count(self, node: str, size_bytes: int) -> None:
        """Count a chunk that is new.

        Raises:
            UnavailableError: This node has sent too much of late.
        """
        self._pace.step(node, max(1, -(-size_bytes // _PART_BYTES)))
