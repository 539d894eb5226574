"""Mapped memory that bulk values travel in."""

from __future__ import annotations


class SegmentPool:
    """Segments for the bulk values of all workers, bounded in total.

    Args:
        max_bytes: What all segments together may take.
        idle_bytes: What is kept for reuse while nothing is in it.
    """

    def __init__(self, *, max_bytes: int = 8 << 30, idle_bytes: int = 512 << 20) -> None:
        self.max_bytes = max_bytes
        self.idle_bytes = idle_bytes
