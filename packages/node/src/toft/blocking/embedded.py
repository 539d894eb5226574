"""A plugin that is loaded in this process, for programs that do not use asyncio."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from toft.blocking.instance import Call, Chunks, Instance
from toft.plugins.loop_thread import LoopThread, Outcome

if TYPE_CHECKING:
    from toft.plugins import instance as handles
    from toft.plugins.manifests import drift
    from toft.plugins.supervision import calls, states


class EmbeddedInstance(Instance):
    """A plugin that is loaded here."""

    def __init__(self, thread: LoopThread, instance: handles.Instance) -> None:
        super().__init__(thread, instance)
        self._here = instance

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
        outcome: Outcome[Any] = Outcome()
        begun: list[calls.Call] = []

        def begin() -> None:
            with outcome:
                call = self._here.start_with(
                    action, arguments, timeout_s=timeout_s, grace_s=grace_s, on_progress=on_progress
                )
                begun.append(call)
                call.when_ended(outcome.give)

        self._thread.post(begin)
        try:
            return outcome.wait()
        except KeyboardInterrupt:
            self._thread.post(lambda: [call.cancel("interrupted") for call in begun])
            raise

    def start_with(self, action: str | None, arguments: Mapping[str, Any], **more: Any) -> Call:
        """Begin a call with everything that can be said about it."""
        begun = self._thread.do(partial(self._here.start_with, action, arguments, **more))
        return EmbeddedCall(self._thread, begun)

    def stream_with(self, action: str | None, arguments: Mapping[str, Any], **more: Any) -> Chunks:
        """Stream with everything that can be said about it."""
        begun = self._thread.do(partial(self._here.stream_with, action, arguments, **more))
        return Chunks(self._thread, begun, EmbeddedCall(self._thread, begun.call))

    @property
    def state(self) -> states.State:
        """Return what it is doing."""
        return self._here.state

    @property
    def is_enabled(self) -> bool:
        """Say whether it takes calls when it is ready."""
        return self._here.is_enabled

    @property
    def drift(self) -> drift.Drift | None:
        """Return how the running code differs from what the manifest recorded."""
        return self._here.drift


class EmbeddedCall(Call):
    """A call that runs here."""

    def __init__(self, thread: LoopThread, call: calls.Call) -> None:
        super().__init__(thread, call)
        self._here = call

    def cancel(self, reason: str = "cancelled", *, grace_s: float | None = None) -> bool:
        """Ask it to stop; its worker is replaced when it does not within the grace."""
        return self._thread.do(partial(self._here.cancel, reason, grace_s=grace_s))
