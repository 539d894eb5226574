"""Hands documents over, one at a time, without keeping the questions to the central waiting.

What takes long goes on by itself until the central wants something else. What the node, not the document,
kept from being applied is tried again on a ladder of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from toft.kernel import clock as clocks
from toft.kernel import log
from toft.kernel.errors import NodeError, UnavailableError
from toft.managed import retrying
from toft.managed.staging import Staged

_log = log.get_logger("managed.polling")
_PATIENCE_S = 60.0
# Most documents are staged by then. One whose wheels come slowly keeps nobody from sending another one.
_NO_HURRY = float("inf")


@dataclass(frozen=True, kw_only=True)
class _Held:
    """A document that is tried again later."""

    etag: str
    tries: int
    until: float
    error: NodeError


class Handover:
    """What is handed over, and what waits to be.

    Args:
        wake: Called when what took long is done.
        clock: Times the pauses.
        draw: From 0 up to 1, for jitter.
    """

    def __init__(self, wake: Callable[[], None], *, clock: clocks.Clock, draw: retrying.Draw) -> None:
        self._wake = wake
        self._clock = clock
        self._draw = draw
        self._held: _Held | None = None
        self._under_way: tuple[tuple[str, int], asyncio.Task[Staged]] | None = None

    @property
    def tasks(self) -> set[asyncio.Task[Staged]]:
        """Return what is under way, for whoever gives it some time to end."""
        return {self._under_way[1]} if self._under_way is not None else set()

    def holds_back(self, etag: str) -> NodeError | None:
        """Return why a document is tried again later; None for one that is not."""
        return self._held.error if self._held is not None and self._held.etag == etag else None

    async def offer(
        self,
        begin: Callable[[], Coroutine[Any, Any, Staged]],
        *,
        etag: str,
        attempt: int,
        revision: int | None,
    ) -> float:
        """Hand over what the central serves, unless that is under way or held back.

        Args:
            begin: Checks the document and commits it.
            etag: Its name.
            attempt: The central's count of its own tries.
            revision: What it says the number is.

        Returns:
            How long at most to wait for the next question.
        """
        wanted = (etag, attempt)
        if self._under_way is not None and self._under_way[0] != wanted:
            await self.give_up()
        if self._held is not None and self._held.etag == etag:
            left_s = self._held.until - self._clock.monotonic()
            if left_s > 0:
                return left_s
        is_new = self._under_way is None
        if self._under_way is None:
            self._under_way = wanted, asyncio.create_task(begin())
        task = self._under_way[1]
        done, _ = await asyncio.wait({task}, timeout=_PATIENCE_S if is_new else 0)
        if done:
            self._under_way = None
            return self._learn(etag, revision, task)
        if is_new:
            _log.info("takes long", etag=etag, revision=revision)
            task.add_done_callback(self._done_late)
        return _NO_HURRY

    async def give_up(self) -> None:
        """Break off what is under way: the central wants something else by now, or nobody asks any more."""
        if self._under_way is None:
            return
        _, task = self._under_way
        self._under_way = None
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # it was over already

    def _done_late(self, task: asyncio.Task[Staged]) -> None:
        if task in self.tasks:
            self._wake()

    def _learn(self, etag: str, revision: int | None, task: asyncio.Task[Staged]) -> float:
        """Take note of what became of a document."""
        try:
            staged = task.result()
        except OSError as error:
            return self._hold_back(etag, UnavailableError(f"nothing can be kept: {error}"))
        except NodeError as error:
            # The registry, the disk, the time: none of them is the document's fault, and it comes again.
            if isinstance(error, UnavailableError) or error.retry_after_s is not None:
                return self._hold_back(etag, error)
            _log.warning("not taken", etag=etag, code=error.code, error=str(error))
        else:
            _log.info("offered", etag=etag, revision=revision, action=staged.action)
        self._held = None
        return _NO_HURRY

    def _hold_back(self, etag: str, error: NodeError) -> float:
        tries = self._held.tries + 1 if self._held is not None and self._held.etag == etag else 1
        pause_s = retrying.upward(retrying.ladder_s(tries, retrying.INSTALL_LADDER_S), self._draw)
        until = self._clock.monotonic() + pause_s
        self._held = _Held(etag=etag, tries=tries, until=until, error=error)
        _log.warning("not applied yet", etag=etag, tries=tries, again_in_s=round(pause_s), error=str(error))
        return pause_s
