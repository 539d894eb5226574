"""Questions to a worker's reader thread that are answered even while a call runs."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

from toft.plugins.wire.answers import resolve
from toft.plugins.wire.frames import Beat, read_beat

_PATIENCE_S = 0.5


class Pings:
    """At most two open at a time, one of each kind: a worker that does not answer is not sent more and more.

    Args:
        send: Sends a header.
        on_beat: Told every answer.
    """

    def __init__(self, send: Callable[[list[Any]], None], on_beat: Callable[[Beat], None] | None) -> None:
        self._send = send
        self._on_beat = on_beat
        self._tokens = itertools.count(1)
        self._open: dict[int, tuple[bool, asyncio.Future[Beat]]] = {}

    async def ask(self, stacks: bool, while_silent: Callable[[], object]) -> Beat:
        """Return the next answer; `while_silent` is called every half second until it comes."""
        future = next((waiting for kind, waiting in self._open.values() if kind is stacks), None)
        if future is None:
            token = next(self._tokens)
            future = asyncio.get_running_loop().create_future()
            self._open[token] = (stacks, future)
            self._send(["ping", token, stacks])
        while True:
            try:
                return await asyncio.wait_for(asyncio.shield(future), _PATIENCE_S)
            except TimeoutError:
                while_silent()

    def on_pong(self, header: list[Any], tail: bytearray, tagged: bool) -> None:
        """Take an answer."""
        beat = read_beat(header[2])
        _, future = self._open.pop(header[1], (False, None))
        if future is not None:
            resolve(future, beat, None)
        if self._on_beat is not None:
            self._on_beat(beat)

    def fail(self, error: Exception) -> None:
        """End all of them: no answer will come."""
        waiting, self._open = self._open, {}
        for _, future in waiting.values():
            resolve(future, None, error)
