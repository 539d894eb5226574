"""What lasts longer than a connection does: events that go on where they broke off, waiting that goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from toft.client.connection import BROKEN, Connection
from toft.kernel import errors

_PATIENCE_S = 60.0
_FIRST_S = 0.1
_MOST_S = 5.0


class Patience:
    """Decides whether a connection that broke is tried again; only that to another machine ever is.

    Args:
        asked: The session.
        patience_s: Seconds for which nothing may work before the error is raised.
    """

    def __init__(self, asked: Connection, patience_s: float = _PATIENCE_S) -> None:
        self._is_here = asked.origin.is_here
        self._patience_s = patience_s
        self._pause_s = _FIRST_S
        self._until: float | None = None

    def is_well(self) -> None:
        """Take note that it works."""
        self._until = None
        self._pause_s = _FIRST_S

    async def again(self, error: errors.NodeError) -> None:
        """Return when it is time to try again.

        Raises:
            NodeError: The one that was given: trying again would not help, or has not for too long.
        """
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + self._patience_s
        if self._is_here or error.code not in BROKEN or now > self._until:
            raise error
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _MOST_S)


async def events(
    asked: Connection, query: Mapping[str, Any], *, after: int | None
) -> AsyncGenerator[dict[str, Any], None]:
    """Yield events as they come; over a connection that breaks each of them once, and none is missed.

    Args:
        asked: The session.
        query: What is watched.
        after: The last cursor that was seen; None is from now on.
    """
    patience = Patience(asked)
    if after is None and not asked.origin.is_here:
        after = await _newest(asked)
    while True:
        try:
            async for told in asked.lines("/v1/events/stream", {**query, "after": after}):
                patience.is_well()
                # That one stands for events which may still be read, by their cursor.
                if told["type"] != "lost":
                    after = told["cursor"]
                yield told
            if asked.origin.is_here:
                return
            error: errors.NodeError = asked.origin.broken(ConnectionError("the node ended the stream"))
        except errors.UnavailableError as broke:
            error = broke
        await patience.again(error)


async def _newest(asked: Connection) -> int | None:
    """Return where "from now on" begins: a second connection could not know. None when that is refused."""
    try:
        found = (await asked.ask("GET", "/v1/queue")).get("cursor")
    except errors.RefusedError:
        return None
    return found if isinstance(found, int) else None
