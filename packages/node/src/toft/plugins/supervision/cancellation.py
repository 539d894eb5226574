"""How a running call is ended: it is asked, it gets a grace, then its worker is replaced.

Cancelling is per call. Asking touches nothing else on the worker; only a plugin that does not listen costs
the other calls their worker, and they get an error that says so and may be tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from toft.plugins.supervision import calls

# A plugin that listens to cancellation ends before this; only for the others a spare is worth its start.
_ANTICIPATE_AFTER_S = 0.1


class Spares(Protocol):
    """Whoever can have another worker ready."""

    def prepare(self) -> None:
        """Begin to make one."""
        ...


class Cancellation:
    """The phases of cancelling for the calls of one instance.

    Args:
        grace_s: Seconds a call may take to end by itself when its caller names none.
        spare: Gets ready as soon as it looks as if it were needed.
        replace: Ends a worker and brings up another; told why.
    """

    def __init__(self, grace_s: float, spare: Spares, replace: Callable[[Any, str], None]) -> None:
        self._grace_s = grace_s
        self._spare = spare
        self._replace = replace
        self._loop = asyncio.get_running_loop()

    def begin(self, call: calls.Call) -> None:
        """Ask a running call to stop; asking again may only shorten its grace."""
        grace_s = self._grace_s if call.grace_s is None else call.grace_s
        if call.phase is calls.Phase.RUNNING:
            call.phase = calls.Phase.CANCELLING
            call.tell_phase("cooperative")
            call.worker.cancel(call)
        if call.phase is not calls.Phase.CANCELLING:
            return
        if grace_s <= 0:
            self._force(call)
            return
        self._loop.call_later(min(_ANTICIPATE_AFTER_S, grace_s / 4), self._anticipate, call)
        self._loop.call_later(grace_s, self._force, call)

    def _anticipate(self, call: calls.Call) -> None:
        if call.phase is calls.Phase.CANCELLING:
            self._spare.prepare()

    def _force(self, call: calls.Call) -> None:
        if call.phase is calls.Phase.CANCELLING:
            call.phase = calls.Phase.FORCING
            call.tell_phase("force")
            self._replace(call.worker, f"call {call.number} did not stop when it was asked to")
            call.tell_phase("reloading")
