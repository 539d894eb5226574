"""The seam behind which jobs run: instances that can be loaded, measured, evicted, and given work."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from toft.jobs.ledger import Amounts, Reading
from toft.jobs.records import Claimed
from toft.jobs.retries import Origin
from toft.kernel.record import record

OnChange = Callable[[str], object]
"""Told the name of an instance whose state changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What is known of an instance without loading it.

    Attributes:
        instance: Its name.
        plugin: Its plugin.
        config_hash: Identifies its configuration; peaks are kept by it.
        cap: Calls at once; None is any number.
        floor: What its author says it needs at least.
    """

    instance: str
    plugin: str
    config_hash: str
    cap: int | None = None
    floor: Amounts = field(default_factory=dict)


class Condition(enum.StrEnum):
    """What a loaded instance does."""

    READY = "ready"
    RESTARTING = "restarting"
    DOWN = "down"  # it died too often, or was stopped; `prepare` brings it back
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A loaded instance.

    Attributes:
        condition: Whether it takes work.
        because: Why it does not.
        busy: Calls and jobs it has just now, whoever they are from.
        last_used: Monotonic seconds of the last one's end.
        cost_s: Seconds it took to load: what an eviction costs.
        pinned: Somebody wants it to stay.
    """

    condition: Condition = Condition.READY
    because: str = ""
    busy: int = 0
    last_used: float = 0.0
    cost_s: float = 0.0
    pinned: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """Why something did not work.

    Attributes:
        error: Code, category, message, details… as errors' `to_dict` gives it.
        origin: Where it comes from.
    """

    error: Mapping[str, Any]
    origin: Origin


@record()
class Ending:
    """How an attempt ended.

    Attributes:
        result: What to store: packed bytes or a reference; None with a fault.
        fault: What went wrong.
        units: What the plugin reported to have used.
    """

    result: Any = None
    fault: Fault | None = None
    units: Mapping[str, float] = field(default_factory=dict)


class Listens(Protocol):
    """Who is told about an attempt while it runs; everything is called on the event loop."""

    def progress(self, fraction: float, message: str) -> None:
        """Take what the plugin reported."""
        ...

    def phase(self, phase: str) -> None:
        """Take a step of cancelling: `cooperative`, `force`, `reloading`."""
        ...

    def ended(self, ending: Ending) -> None:
        """Take the end; called exactly once, perhaps before `start` returned."""
        ...


class Running(Protocol):
    """A handle on an attempt."""

    def cancel(self, grace_s: float | None = None) -> None:
        """Ask it to end; with force when it has not within the grace."""
        ...


class Backend(Protocol):
    """Where attempts run."""

    def watch(self, on_change: OnChange) -> None:
        """Name who is told when an instance's condition changed."""
        ...

    async def profile(self, plugin: str, instance: str) -> Profile | Fault:
        """Return what is known of an instance without loading it, or why it cannot run jobs."""
        ...

    async def prepare(self, profile: Profile) -> Fault | None:
        """Load an instance, or bring back one that is down; return why that failed."""
        ...

    def loaded(self) -> Mapping[str, Loaded]:
        """Return what is loaded now; cheap, called at every decision that needs it."""
        ...

    def find(self, instance: str) -> Loaded | None:
        """Return one loaded instance."""
        ...

    def start(self, claim: Claimed, told: Listens, *, timeout_s: float | None) -> Running:
        """Begin an attempt on a ready instance; whatever goes wrong is told, never raised."""
        ...

    async def evict(self, instance: str) -> bool:
        """Unload an idle instance; False when it is idle no longer."""
        ...

    async def respawn(self, instance: str, because: str) -> Fault | None:
        """Replace an instance's worker by a fresh one; return why that failed."""
        ...

    async def measure(self) -> Reading:
        """Measure the machine and every loaded instance in one pass."""
        ...
