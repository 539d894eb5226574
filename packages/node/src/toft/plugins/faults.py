"""What a caller of an instance can meet beside the plugin's own errors.

NodeError
|- WorkerLostError     the process behind the call is gone; the code says how: `worker.exited`,
|                      `worker.crashed`, `worker.killed`, `worker.out_of_memory`, `worker.stalled`,
|                      `worker.protocol`, `worker.replaced`
|- CallTimeoutError    the call had its time and was ended
|- BusyError           as many calls wait as may
|- DisabledError       somebody switched the instance off
`- DownError           the instance is stopped, or stays down after dying again and again
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toft.kernel import errors


class WorkerLostError(errors.UnavailableError):
    """The process that ran the call is gone; the call may have had effects and is never repeated silently."""

    code = "worker.lost"
    blame = "plugin"

    def __init__(self, message: str, *, code: str | None = None, **rest: Any) -> None:
        super().__init__(message, code=code, **rest)
        if self.code == "worker.out_of_memory":
            self.category = "resource"

    def again(self) -> WorkerLostError:
        """Return an equal error, so that each of several calls raises one of its own."""
        twin = WorkerLostError(
            self.message, code=self.code, blame=self.blame, details=self.details, hint=self.hint
        )
        twin.__cause__ = self.__cause__
        return twin


class CallTimeoutError(errors.NodeError, TimeoutError):
    """The call had its time and was ended."""

    code = "call.timeout"
    category = "transient"
    blame = "caller"
    retry = "now"


class BusyError(errors.UnavailableError):
    """As many calls wait for this instance as may."""

    code = "instance.busy"


class DisabledError(errors.RefusedError):
    """Somebody switched this instance off."""

    code = "instance.disabled"


class DownError(errors.UnavailableError):
    """The instance has no worker and will not get one by itself."""

    code = "instance.down"
    blame = "plugin"
    retry = "never"


def not_ended(instance: str, state: str, evidence: Mapping[str, Any], reason: str) -> DownError:
    """Say why an instance takes no calls."""
    return DownError(
        f"instance {instance} is {state.replace('_', ' ')}: {reason}",
        code=f"instance.{state}",
        details=evidence,
        hint=f"toft plugin logs {instance}; then load it again",
    )
