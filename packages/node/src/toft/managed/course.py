"""The course of a trial: what its gates showed, look after look, and what that comes to."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

from toft.managed import phases
from toft.managed.gates import Gate, Light, Reading, counts

LEAST_RED_S = 5.0
"""What is red for a shorter time condemns nothing, however short the document wants to settle."""


class Outcome(enum.StrEnum):
    """How a trial stands after a look."""

    WAITING = "waiting"
    PROVEN = "proven"
    FAILED = "failed"


class Course:
    """The course of one trial: what was found, look after look.

    Proven is what was green all the time for `settle_s`; failed, what one gate was red for as long.

    Args:
        gates: Of the document on trial.
        trial: What was found before it came.
        settle_s: How long.
    """

    def __init__(self, gates: Sequence[Gate], trial: phases.Trial, settle_s: float) -> None:
        self._counting = {gate.name for gate in gates if counts(gate, trial.baseline)}
        self._settle_s = settle_s
        self._green_since: float | None = None
        self._red_since: dict[str, float] = {}
        self.red_gate = ""

    def learn(self, readings: Mapping[str, Reading], at: float) -> Outcome:
        """Take in a look that was ended at a moment of the monotonic clock."""
        lights = {name: readings[name].light for name in self._counting if name in readings}
        red = [name for name, light in lights.items() if light is Light.RED]
        self._red_since = {name: self._red_since.get(name, at) for name in red}
        self.red_gate = min(red, key=lambda name: self._red_since[name], default="")
        if self.red_gate and at - self._red_since[self.red_gate] >= max(self._settle_s, LEAST_RED_S):
            return Outcome.FAILED
        if any(light not in (Light.GREEN, Light.IDLE) for light in lights.values()):
            self._green_since = None
            return Outcome.WAITING
        if self._green_since is None:
            self._green_since = at
        return Outcome.PROVEN if at - self._green_since >= self._settle_s else Outcome.WAITING

    def lasting_red(self, at: float) -> str:
        """Return the gate that has been red for longer than anything flickers; empty for none."""
        is_lasting = self.red_gate and at - self._red_since[self.red_gate] >= LEAST_RED_S
        return self.red_gate if is_lasting else ""

    @property
    def is_settling(self) -> bool:
        """Say whether all that counts is green, and only time is missing."""
        return self._green_since is not None
