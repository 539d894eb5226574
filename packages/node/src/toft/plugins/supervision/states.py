"""The states of an instance, and the only ways from one to another."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any

from toft.kernel import clock as clocks
from toft.kernel import errors


class State(enum.StrEnum):
    """What an instance is doing.

    STARTING: its first worker is on its way. READY: takes calls. RESTARTING: its worker died or is being
    replaced; calls wait. CRASH_LOOP: it died too often and waits for a person. STOPPING: it ends. STOPPED: it
    holds nothing any more.
    """

    STARTING = "starting"
    READY = "ready"
    RESTARTING = "restarting"
    CRASH_LOOP = "crash_loop"
    STOPPING = "stopping"
    STOPPED = "stopped"


NEXT: dict[State, frozenset[State]] = {
    State.STARTING: frozenset({State.READY, State.STOPPING}),
    State.READY: frozenset({State.RESTARTING, State.STOPPING}),
    State.RESTARTING: frozenset({State.READY, State.CRASH_LOOP, State.STOPPING}),
    State.CRASH_LOOP: frozenset({State.RESTARTING, State.STOPPING}),
    State.STOPPING: frozenset({State.STOPPED}),
    State.STOPPED: frozenset(),
}


class Lifecycle:
    """Where one instance is in the table, since when, and why.

    Args:
        clock: For `since`.
        on_change: Told the old and the new state after every transition.
    """

    def __init__(self, clock: clocks.Clock, on_change: Callable[[State, State], None] | None = None) -> None:
        self._clock = clock
        self._on_change = on_change
        self.state = State.STARTING
        self.since = clock.now()
        self.reason = ""
        self.evidence: dict[str, Any] = {}

    def move(self, state: State, reason: str = "", evidence: dict[str, Any] | None = None) -> None:
        """Go to another state.

        Raises:
            ConflictError: The table knows no way from here to there.
        """
        if state not in NEXT[self.state]:
            raise errors.ConflictError(
                f"an instance that is {self.state} cannot become {state}", code="instance.state"
            )
        old, self.state = self.state, state
        self.since = self._clock.now()
        self.reason = reason
        self.evidence = evidence or {}
        if self._on_change is not None:
            self._on_change(old, state)

    @property
    def is_ending(self) -> bool:
        """Say whether nothing will run here again."""
        return self.state in (State.STOPPING, State.STOPPED)
