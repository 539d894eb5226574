"""A plugin that is loaded in a daemon, for programs that do not use asyncio."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from toft.blocking.instance import Call, Chunks, Instance
from toft.kernel.errors import NodeError
from toft.plugins.loop_thread import LoopThread

if TYPE_CHECKING:
    from toft.client.calls import RemoteCall, RemoteChunks
    from toft.client.instance import RemoteInstance
    from toft.plugins.manifests.drift import Drift
    from toft.plugins.supervision import calls, states


class DaemonInstance(Instance):
    """A plugin that is loaded in the daemon."""

    def __init__(self, thread: LoopThread, instance: RemoteInstance) -> None:
        super().__init__(thread, instance)
        self._there = instance

    def call_with(
        self,
        action: str | None,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        grace_s: float | None = None,
        on_progress: calls.OnProgress | None = None,
    ) -> Any:
        """Do what `call` does, with everything that can be said about a call."""
        calling = self._there.call_with(
            action, arguments, timeout_s=timeout_s, grace_s=grace_s, on_progress=on_progress
        )
        return self._thread.run(calling)

    def start_with(self, action: str | None, arguments: Mapping[str, Any], **more: Any) -> Call:
        """Begin a call with everything that can be said about it."""
        return DaemonCall(self._thread, self._thread.run(self._there.start_with(action, arguments, **more)))

    def stream_with(self, action: str | None, arguments: Mapping[str, Any], **more: Any) -> Chunks:
        """Stream with everything that can be said about it."""
        return DaemonChunks(
            self._thread, self._thread.run(self._there.stream_with(action, arguments, **more))
        )

    @property
    def state(self) -> states.State:
        """Return what it is doing."""
        return self._thread.run(self._there.look())[0]

    @property
    def is_enabled(self) -> bool:
        """Say whether it takes calls when it is ready."""
        return self._thread.run(self._there.look())[1]

    @property
    def drift(self) -> Drift | None:
        """Return how the running code differs from what the manifest recorded."""
        self._thread.run(self._there.look())
        return self._there.drift


class DaemonCall(Call):
    """A call that runs in the daemon."""

    def __init__(self, thread: LoopThread, call: RemoteCall) -> None:
        super().__init__(thread, call)
        self._there = call

    def cancel(self, reason: str = "cancelled", *, grace_s: float | None = None) -> bool:
        """Ask it to stop; its worker is replaced when it does not within the grace."""
        return self._thread.run(self._there.cancel(reason, grace_s=grace_s))

    def drop(self) -> None:
        """Follow it no longer; the daemon ends it then."""
        self._thread.post(self._there.drop)


class DaemonChunks(Chunks):
    """The chunks of a streaming call that runs in the daemon."""

    def __init__(self, thread: LoopThread, source: RemoteChunks) -> None:
        self._call = DaemonCall(thread, source.call)
        super().__init__(thread, source, self._call)

    def close(self) -> None:
        """Stop reading; the call is cancelled when it has not ended."""
        self._ready = []
        self._call.drop()

    def __del__(self) -> None:
        with contextlib.suppress(NodeError, RuntimeError, AttributeError):  # the node may be closed already
            self._call.drop()
