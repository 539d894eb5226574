"""A second worker with the plugin imported but not initialised, ready to take over.

Kept all the time when the instance asks for it; otherwise made when a call does not stop at once although
somebody asked it to, and dropped again when that call ends by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Protocol, TypeVar

from toft.kernel import errors, log
from toft_sdk import errors as plugin_errors

_log = log.get_logger("plugins.spare")
W = TypeVar("W", bound="Ends")


class Ends(Protocol):
    """A worker that may end."""

    is_alive: bool

    async def end(self, error: Exception | None = None) -> None:
        """End it and everything it started."""
        ...


class Spare(Generic[W]):
    """At most one worker in waiting.

    Args:
        instance: For the log.
        make: Starts a worker that has the plugin imported.
    """

    def __init__(self, instance: str, make: Callable[[], Awaitable[W]]) -> None:
        self._instance = instance
        self._make = make
        self._making: asyncio.Task[W] | None = None

    def prepare(self) -> None:
        """Begin to make one, unless there is one or one is on its way."""
        if self._making is None or self._is_useless(self._making):
            self._making = asyncio.ensure_future(self._made())

    async def take(self) -> W | None:
        """Return the spare, waiting for one that is on its way; None when there is none or it failed."""
        making, self._making = self._making, None
        if making is None:
            return None
        try:
            worker = await making
        except (errors.NodeError, plugin_errors.PluginError, OSError) as error:
            _log.info("spare_failed", instance=self._instance, error=str(error))
            return None
        return worker if worker.is_alive else None

    async def drop(self) -> None:
        """End the spare, if any."""
        making, self._making = self._making, None
        if making is None:
            return
        making.cancel()
        done, _ = await asyncio.wait({making})
        for task in done:
            if not task.cancelled() and task.exception() is None:
                await task.result().end()

    async def _made(self) -> W:
        return await self._make()

    @staticmethod
    def _is_useless(making: asyncio.Task[Any]) -> bool:
        if not making.done():
            return False
        return making.cancelled() or making.exception() is not None or not making.result().is_alive
