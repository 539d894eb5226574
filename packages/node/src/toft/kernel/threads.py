"""Work in a thread that is waited for, whatever happens to whoever asked for it."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def finished(work: Callable[[], T]) -> T:
    """Return what comes out of work in a thread; a thread cannot be told to stop.

    Cancellation: Raised when the work has ended, so that nobody takes away what it still writes to.
    """
    # No task: the end of the loop cancels those, and leaves the thread alone.
    return await ended(asyncio.get_running_loop().run_in_executor(None, contextvars.copy_context().run, work))


async def ended(working: asyncio.Future[T]) -> T:
    """Return what comes out of something that is under way.

    Cancellation: Raised when that has ended.
    """
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            # Asked a second time, too.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((working,))
        if not working.cancelled():
            working.exception()  # seen: the cancellation is what counts
        raise
