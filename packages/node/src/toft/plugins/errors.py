"""What can go wrong between the node and a worker.

    WireError          (IntegrityError)    what came breaks the protocol; the connection is closed
    WorkerLostError    (UnavailableError)  the worker is gone: crashed, killed, out of memory, exited, stalled
    CallTimeoutError   (UnavailableError)  the call took longer than its caller allows

What the plugin itself raised is a `toft_sdk.errors.PluginError`.
"""

from __future__ import annotations

from toft.kernel.errors import IntegrityError, UnavailableError


class WireError(IntegrityError):
    """The other end of a worker's socket does not speak the protocol."""

    code = "worker.protocol"
    blame = "plugin"


class WorkerLostError(UnavailableError):
    """The worker ended while something was asked of it; the code says how, when that is known."""

    code = "worker.lost"
    blame = "plugin"


class CallTimeoutError(UnavailableError):
    """The call did not end within the time its caller gave it; it was asked to stop."""

    code = "call.timeout"
    blame = "plugin"
    retry = "never"
