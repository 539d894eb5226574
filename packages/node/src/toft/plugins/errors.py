"""What can go wrong between the node and a worker, and what a caller meets beside the plugin's own errors.

    WireError          (IntegrityError)    what came over the socket breaks the protocol; it is closed
    WorkerLostError    (UnavailableError)  the process behind the call is gone; the code says how:
                                           `worker.exited`, `worker.crashed`, `worker.killed`,
                                           `worker.out_of_memory`, `worker.stalled`, `worker.protocol`,
                                           `worker.replaced`
    CallTimeoutError   (UnavailableError)  the call took longer than its caller allows
    BusyError          (UnavailableError)  as many calls wait for the instance as may
    DisabledError      (RefusedError)      somebody switched the instance off
    DownError          (UnavailableError)  the instance is stopped, or died too often to come back by itself

What the plugin itself raised is a `toft_sdk.errors.PluginError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toft.kernel.errors import IntegrityError, RefusedError, UnavailableError


class WireError(IntegrityError):
    """The other end of a worker's socket does not speak the protocol."""

    code = "worker.protocol"
    blame = "plugin"


class WorkerLostError(UnavailableError):
    """The process behind the call is gone; it may have had effects, and is never repeated silently."""

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


class CallTimeoutError(UnavailableError, TimeoutError):
    """The call did not end within the time its caller gave it; it was asked to stop."""

    code = "call.timeout"
    blame = "plugin"
    retry = "never"


class BusyError(UnavailableError):
    """As many calls wait for this instance as may."""

    code = "instance.busy"
    blame = "caller"


class DisabledError(RefusedError):
    """Somebody switched this instance off."""

    code = "instance.disabled"


class DownError(UnavailableError):
    """The instance has no worker and will not get one by itself."""

    code = "instance.down"
    blame = "plugin"
    retry = "never"


def down(instance: str, state: str, evidence: Mapping[str, Any], reason: str) -> DownError:
    """Say why an instance takes no calls."""
    return DownError(
        f"instance {instance} is {state.replace('_', ' ')}: {reason}",
        code=f"instance.{state}",
        details=evidence,
        hint=f"toft plugin logs {instance}; then load it again",
    )
