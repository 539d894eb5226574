"""How a worker died, from what the operating system said about it; no guess without evidence."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from typing import Any

from toft.host import keeper
from toft.plugins import errors as faults

_CRASHES = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)


def classify(
    exit_: keeper.Exit, *, instance: str, pid: int, doing: str, lines: Sequence[str]
) -> faults.WorkerLostError:
    """Say how a worker died.

    Args:
        exit_: What was reaped.
        instance: Whose worker it was.
        pid: Which process.
        doing: What it was asked to do then; empty for nothing.
        lines: The last lines it printed.
    """
    code, how, facts = _how(exit_)
    during = f" during {doing}" if doing else ""
    details: dict[str, Any] = {"instance": instance, "pid": pid, "doing": doing, **facts}
    if lines:
        details["last_lines"] = list(lines)
    return faults.WorkerLostError(
        f"the worker of {instance} {how}{during}",
        code=code,
        details=details,
        hint=f"toft plugin logs {instance}",
    )


def _how(exit_: keeper.Exit) -> tuple[str, str, dict[str, Any]]:
    if exit_.out_of_memory:
        return "worker.out_of_memory", "ran out of memory and was killed", {"evidence": dict(exit_.evidence)}
    if exit_.signal is not None:
        try:
            name = signal.Signals(exit_.signal).name
        except ValueError:
            name = f"signal {exit_.signal}"
        facts = {"signal": exit_.signal, "signal_name": name}
        if exit_.signal in _CRASHES:
            return "worker.crashed", f"crashed with {name}", facts
        return "worker.killed", f"was killed with {name}", facts
    if exit_.code is not None:
        return "worker.exited", f"ended itself with exit code {exit_.code}", {"exit_code": exit_.code}
    return "worker.lost", "is gone, and nobody saw how", {}
