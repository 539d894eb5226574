"""A loaded plugin and what is called on it, for programs that do not use asyncio, wherever it is loaded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from toft.plugins.loop_thread import LoopThread

if TYPE_CHECKING:
    from toft.client.calls import RemoteCall, RemoteChunks
    from toft.client.instance import RemoteInstance
    from toft.plugins import instance as handles
    from toft.plugins.manifests import drift
    from toft.plugins.supervision import calls, chunks, states

_CHUNKS_AT_ONCE = 256


class Instance(ABC):
    """A loaded plugin; see `toft.plugins.instance.Instance` for what each method promises.

    As a context manager it is unloaded at the end.

    Attributes:
        id: Its name in this node.
        plugin: The plugin's name.
        options: How it is run.
    """

    def __init__(self, thread: LoopThread, instance: handles.Instance | RemoteInstance) -> None:
        self.id = instance.id
        self.plugin = instance.plugin
        self.options = instance.options
        self._thread = thread
        self._instance = instance

    def __enter__(self) -> Instance:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unload()

    def call(self, action: str | None = None, /, **arguments: Any) -> Any:
        """Run an action to its end and return its result."""
        return self.call_with(action, arguments)

    @abstractmethod
    def call_with(
        self,
        action: str | None,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        grace_s: float | None = None,
        on_progress: calls.OnProgress | None = None,
    ) -> Any:
        """Do what `call` does, with everything that can be said about a call.

        `on_progress` is called in the node's thread.
        """

    def start(self, action: str | None = None, /, **arguments: Any) -> Call:
        """Begin a call and return a handle to wait on, watch and cancel."""
        return self.start_with(action, arguments)

    @abstractmethod
    def start_with(
        self,
        action: str | None,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        grace_s: float | None = None,
        on_progress: calls.OnProgress | None = None,
        on_log: calls.OnLog | None = None,
    ) -> Call:
        """Begin a call with everything that can be said about it."""

    def stream(self, action: str | None = None, /, **arguments: Any) -> Chunks:
        """Run an action and return its chunks as they come; read them with `for`."""
        return self.stream_with(action, arguments)

    @abstractmethod
    def stream_with(
        self,
        action: str | None,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        grace_s: float | None = None,
        on_progress: calls.OnProgress | None = None,
        on_log: calls.OnLog | None = None,
    ) -> Chunks:
        """Stream with everything that can be said about it."""

    def signature(self, action: str | None = None) -> Mapping[str, Any] | None:
        """Return the input schema of an action."""
        return self._instance.signature(action)

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the whole configuration the plugin has."""
        return self._instance.config

    def reconfigure(self, changes: Mapping[str, Any], *, replace: bool = False) -> None:
        """Change the configuration between two calls and remember it."""
        self._thread.run(self._instance.reconfigure(changes, replace=replace))

    def config_options(self) -> dict[str, Any]:
        """Return the values each setting can take right now."""
        return self._thread.run(self._instance.config_options())

    def prefetch(self) -> None:
        """Let the plugin fetch what it will need."""
        self._thread.run(self._instance.prefetch())

    def enable(self) -> None:
        """Take calls again, and remember it."""
        self._thread.run(self._instance.enable())

    def disable(self) -> None:
        """Refuse calls, and remember it."""
        self._thread.run(self._instance.disable())

    def reload(self) -> None:
        """Replace the worker between calls; every setting stays."""
        self._thread.run(self._instance.reload())

    def unload(self) -> None:
        """End it; a second time does nothing."""
        self._thread.run(self._instance.unload())

    @property
    @abstractmethod
    def state(self) -> states.State:
        """Return what it is doing."""

    @property
    @abstractmethod
    def is_enabled(self) -> bool:
        """Say whether it takes calls when it is ready."""

    @property
    @abstractmethod
    def drift(self) -> drift.Drift | None:
        """Return how the running code differs from what the manifest recorded."""

    def stats(self) -> dict[str, Any]:
        """Return what it has done and what its process tree uses now."""
        return self._thread.run(self._instance.stats())

    def logs(self, count: int = 50) -> list[str]:
        """Return the last lines of its log."""
        return self._thread.run(self._instance.logs(count))


class Call(ABC):
    """A handle on one execution; see `toft.plugins.supervision.calls.Call`."""

    def __init__(self, thread: LoopThread, call: calls.Call | RemoteCall) -> None:
        self._thread = thread
        self._call = call

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the result; after `timeout_s` a `TimeoutError`, and the call goes on."""
        return self._thread.run(self._call.result(timeout_s))

    @abstractmethod
    def cancel(self, reason: str = "cancelled", *, grace_s: float | None = None) -> bool:
        """Ask it to stop; its worker is replaced when it does not within the grace."""

    @property
    def number(self) -> int:
        """Return its number; log lines carry it."""
        return self._call.number

    @property
    def progress(self) -> float | None:
        """Return the last fraction the plugin reported."""
        return self._call.progress

    @property
    def message(self) -> str:
        """Return what the plugin said with it."""
        return self._call.message

    @property
    def usage(self) -> Mapping[str, float]:
        """Return what the plugin reported to have used."""
        return self._call.usage

    @property
    def duration_s(self) -> float:
        """Return the seconds it ran; 0 while it has not ended."""
        return self._call.duration_s

    @property
    def outcome(self) -> str:
        """Return `succeeded`, `failed` or `cancelled` once it has ended, the phase before."""
        return self._call.outcome

    @property
    def is_open(self) -> bool:
        """Say whether it has not ended yet."""
        return self._call.is_open


class Chunks(Iterator[Any]):
    """The chunks of a streaming call; `close` or dropping it cancels the call.

    Attributes:
        call: The call itself.
    """

    def __init__(self, thread: LoopThread, source: chunks.Chunks | RemoteChunks, call: Call) -> None:
        self.call = call
        self._thread = thread
        self._source = source
        self._ready: list[Any] = []

    def __iter__(self) -> Chunks:
        return self

    def __next__(self) -> Any:
        """Return the next chunk."""
        if not self._ready:
            self._ready = self._thread.run(self._source.take(_CHUNKS_AT_ONCE))
            self._ready.reverse()
            if not self._ready:
                raise StopIteration
        return self._ready.pop()

    def __enter__(self) -> Chunks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def usage(self) -> Mapping[str, float]:
        """Return what the plugin reported to have used."""
        return self.call.usage

    def close(self) -> None:
        """Stop reading; the call is cancelled when it has not ended."""
        self._ready = []
        self.call.cancel("its reader went away")
