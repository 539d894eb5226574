"""Where two threads run that hand the interpreter to each other."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

_FEW = 4
"""On more processors than these nobody has measured what following costs."""


def _finder() -> Callable[[], int] | None:
    try:
        found: Callable[[], int] = ctypes.CDLL(None).sched_getcpu
    except (AttributeError, OSError):
        return None
    return found


_find = _finder()


class Follower:
    """Keeps one thread on the processor that another one was last seen on.

    Two threads of one interpreter never run at once for long. On two processors each hand-over wakes one that
    sleeps, and finds nothing of what it needs in its cache: a sixth of the jobs a second, where it was
    measured. Where it is not allowed or not known how, the threads stay where the system puts them.
    """

    def __init__(self) -> None:
        few = len(os.sched_getaffinity(0)) <= _FEW
        self._find = _find if few else None
        self._seen = self._on = -1

    def see(self) -> None:
        """Remember where the thread is that is followed; called by it."""
        if self._find is not None:
            self._seen = self._find()

    def go(self) -> None:
        """Go there; called by the thread that follows."""
        if self._find is None or self._on == self._seen:
            return
        try:
            os.sched_setaffinity(0, {self._seen})
        except OSError:
            self._find = None
        self._on = self._seen
