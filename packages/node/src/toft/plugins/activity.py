"""What those who share out the machine, or watch over it, want to know of a loaded instance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from toft.plugins.instance import Instance


@dataclass(frozen=True, slots=True)
class Activity:
    """What somebody who shares out the machine has to know of an instance.

    Attributes:
        busy: Calls that run or wait.
        last_used: Loop time at which its last call ended, or it was loaded.
        reason: Why it is in the state it is in.
        tree: Its process and the root of what that started; None while it has none.
    """

    busy: int
    last_used: float
    reason: str
    tree: tuple[int, int] | None


def activity(instance: Instance) -> Activity:
    """Return what an instance does just now; cheap."""
    supervised = instance.loaded_from.supervisor
    worker = supervised.workers.worker
    return Activity(
        busy=supervised.gate.running + supervised.gate.waiting,
        last_used=supervised.totals.last_at or instance.loaded_at,
        reason=supervised.workers.lifecycle.reason,
        tree=None if worker is None else worker.tree,
    )


def watch(instance: Instance, told: Callable[[str], object]) -> None:
    """Name who is told an instance's name whenever its state, configuration or switch has changed."""
    instance.loaded_from.supervisor.workers.watchers.append(lambda: told(instance.id))


async def idle(instance: Instance) -> None:
    """Return when no call of an instance runs."""
    await instance.loaded_from.supervisor.idle()


def is_busy(instance: Instance) -> bool:
    """Say whether a call runs or waits."""
    gate = instance.loaded_from.supervisor.gate
    return gate.running > 0 or gate.waiting > 0


def standing(instance: Instance) -> tuple[Any, ...]:
    """Return what changes with what an instance does: another value says that a look is worth while."""
    supervised = instance.loaded_from.supervisor
    return (
        instance.state,
        instance.is_enabled,
        supervised.totals.ended,
        supervised.totals.failures,
        supervised.gate.running,
        supervised.gate.waiting,
        supervised.workers.restarts.total,
    )


async def health(instance: Instance) -> tuple[bool | None, str]:
    """Ask a plugin whether it can do its work; None when it cannot be asked.

    Raises:
        PluginError: What its `health()` raised instead of an answer.
    """
    found = await instance.loaded_from.supervisor.ask("health")
    if found is None:
        # It would answer after what runs, however long that is; it does its work meanwhile.
        return None, "is busy with its calls"
    is_well = found.get("is_well")
    return is_well if isinstance(is_well, bool) else None, str(found.get("message") or "")
