"""The one blocking facade over the asynchronous node, for scripts and the command line.

The node lives on an event loop in a thread of its own; the words are the same as there. Everything may be
used from several threads at once, and Ctrl-C cancels the call that is waited for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from toft import wiring
from toft.kernel import settings as node_settings
from toft.plugins import catalog, findings
from toft.plugins import installed as installed_plugins
from toft.plugins import instance as handles
from toft.plugins import node as nodes
from toft.plugins.environments import provisioning
from toft.plugins.environments.environments import Environment
from toft.plugins.instances import InstanceOptions
from toft.plugins.loop_thread import LoopThread, Outcome
from toft.plugins.manifests import drift
from toft.plugins.manifests.manifest import Manifest
from toft.plugins.supervision import calls, chunks, states

if TYPE_CHECKING:
    from toft.plugins.conformance import Finding

_CHUNKS_AT_ONCE = 256


def connect(
    home: str | os.PathLike[str] | None = None,
    *,
    settings: node_settings.Settings | None = None,
    **given: Any,
) -> Node:
    """Open a node in this process.

    Args:
        home: `TOFT_HOME`; what the settings say when None.
        settings: All settings; read from the environment and the settings file when None.
        given: Single settings, as `toft.kernel.settings.Settings` names them.

    Returns:
        The node; use it as a context manager, or close it.
    """
    thread = LoopThread("toft-node")
    opening = wiring.open_node(home, settings=settings, **given)
    try:
        return Node(thread, opening, thread.run(opening.__aenter__()))
    except BaseException:
        thread.stop()
        raise


class Node:
    """The node; see `toft.plugins.node.Node` for what each method promises.

    Attributes:
        installed: The plugins that are installed.
    """

    def __init__(
        self, thread: LoopThread, opening: AbstractAsyncContextManager[nodes.Node], node: nodes.Node
    ) -> None:
        self.installed = Installed(thread, node.installed)
        self.rooms = node.rooms
        self._thread = thread
        self._opening: AbstractAsyncContextManager[nodes.Node] | None = opening
        self._node = node

    def __enter__(self) -> Node:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End every instance and everything the node started; bounded. A second close does nothing."""
        opening, self._opening = self._opening, None
        if opening is None:
            return
        try:
            self._thread.run(_leave(opening))
        finally:
            self._thread.stop()

    def plugins(self) -> list[catalog.Entry]:
        """Return every installed plugin, by name, with the state of what is loaded here."""
        return self._thread.run(self._node.plugins())

    def refresh(self, plugin: str, *, on_step: provisioning.Progress | None = None) -> Manifest:
        """Build a plugin's environment anew and swap."""
        return self._thread.run(self._node.refresh(plugin, on_step=on_step))

    def remove(self, plugin: str, *, keep_environment: bool = False) -> bool:
        """Unload a plugin's instances, forget them, and take the plugin away."""
        return self._thread.run(self._node.remove(plugin, keep_environment=keep_environment))

    def load(
        self,
        plugin: str,
        config: Mapping[str, Any] | None = None,
        *,
        instance: str | None = None,
        new: bool = False,
        **options: Any,
    ) -> Instance:
        """Load a plugin, ready to be called."""
        loading = self._node.load(plugin, config, instance=instance, new=new, **options)
        return Instance(self._thread, self._thread.run(loading))

    def load_many(
        self,
        wanted: Sequence[str | tuple[str, Mapping[str, Any]] | Mapping[str, Any]],
        *,
        at_once: int = 4,
        fail_fast: bool = False,
    ) -> dict[str, Instance | Exception]:
        """Load several plugins side by side; an error stands in the place of what did not load."""
        loaded = self._thread.run(self._node.load_many(wanted, at_once=at_once, fail_fast=fail_fast))
        return {
            name: got if isinstance(got, Exception) else Instance(self._thread, got)
            for name, got in loaded.items()
        }

    def instances(self) -> list[Instance]:
        """Return what is loaded here, by name."""
        return [Instance(self._thread, each) for each in self._thread.do(self._node.instances)]

    def instance(self, name: str) -> Instance:
        """Return a loaded instance."""
        return Instance(self._thread, self._thread.do(partial(self._node.instance, name)))

    def unload(self, name: str) -> None:
        """End an instance."""
        self._thread.run(self._node.unload(name))

    def unload_many(self, names: Sequence[str]) -> None:
        """End several instances side by side."""
        self._thread.run(self._node.unload_many(names))

    def config(self, plugin: str, *, instance: str | None = None) -> dict[str, Any]:
        """Return the configuration an instance has or would be loaded with."""
        return self._thread.run(self._node.config(plugin, instance=instance))

    def configure(
        self,
        plugin: str,
        changes: Mapping[str, Any],
        *,
        instance: str | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Change what an instance is configured with, and remember it."""
        return self._thread.run(self._node.configure(plugin, changes, instance=instance, replace=replace))

    def set_enabled(self, plugin: str, enabled: bool, *, instance: str | None = None) -> None:
        """Switch an instance on or off, and remember it."""
        self._thread.run(self._node.set_enabled(plugin, enabled, instance=instance))

    def set_options(
        self,
        plugin: str,
        changes: Mapping[str, Any],
        *,
        instance: str | None = None,
        replace: bool = False,
    ) -> InstanceOptions:
        """Change how an instance is run from its next load on, and remember it."""
        return self._thread.run(self._node.set_options(plugin, changes, instance=instance, replace=replace))

    def logs(self, plugin: str, count: int = 50, *, instance: str | None = None) -> list[str]:
        """Return the last lines of an instance's log, loaded or not."""
        return self._thread.run(self._node.logs(plugin, count, instance=instance))

    def system(self, what: str = "status") -> Any:
        """Return what the machine is doing: `status`, or `processes` on its GPUs."""
        return self._thread.run(self._node.system(what))

    def set_secret(self, plugin: str, key: str, value: str) -> None:
        """Store a secret and replace the workers that were started without it."""
        self._thread.run(self._node.set_secret(plugin, key, value))


async def _leave(opening: AbstractAsyncContextManager[nodes.Node]) -> None:
    await opening.__aexit__(None, None, None)


class Installed:
    """The installed plugins; see `toft.plugins.installed.Installed` for what each method promises."""

    def __init__(self, thread: LoopThread, installed: installed_plugins.Installed) -> None:
        self._thread = thread
        self._installed = installed

    def list(self) -> Sequence[catalog.Entry]:
        """Return every plugin, by name, with its state."""
        return self._thread.run(self._installed.list())

    def get(self, name: str) -> Manifest:
        """Return what is known of a plugin."""
        return self._thread.run(self._installed.get(name))

    def find(
        self,
        task: str = "",
        *,
        category: str | None = None,
        role: str | None = None,
        domain: str | None = None,
        platform: str | None = None,
        takes: Sequence[str] = (),
        gives: str | None = None,
    ) -> Sequence[Manifest]:
        """Return the plugins that fit, the best first."""
        found = self._installed.find(
            task, category=category, role=role, domain=domain, platform=platform, takes=takes, gives=gives
        )
        return self._thread.run(found)

    def canonical(self, role: str) -> Manifest | None:
        """Return the only plugin of a role."""
        return self._thread.run(self._installed.canonical(role))

    def categories(self) -> Sequence[str]:
        """Return the categories there are."""
        return self._thread.run(self._installed.categories())

    def variables(self, name: str) -> Sequence[catalog.Variable]:
        """Return the environment variables a plugin declares, and whether each has a value."""
        return self._thread.run(self._installed.variables(name))

    def add(
        self,
        source: str,
        *,
        force: bool = False,
        on_step: provisioning.Progress | None = None,
        **wish: Any,
    ) -> Sequence[Manifest]:
        """Install the plugins of a directory, wheel, requirement or `plugins.yaml`."""
        return self._thread.run(self._installed.add(source, force=force, on_step=on_step, **wish))

    def refresh(self, name: str, *, on_step: provisioning.Progress | None = None) -> Manifest:
        """Build a plugin's environment anew beside the old one, then swap."""
        return self._thread.run(self._installed.refresh(name, on_step=on_step))

    def regenerate(self, name: str) -> Manifest:
        """Ask the code again what it is; the environment stays."""
        return self._thread.run(self._installed.regenerate(name))

    def remove(self, name: str, *, keep_environment: bool = False) -> bool:
        """Take a plugin away."""
        return self._thread.run(self._installed.remove(name, keep_environment=keep_environment))

    def size(
        self, source: str, *, on_step: provisioning.Progress | None = None, **wish: Any
    ) -> provisioning.SizeEstimate:
        """Say what installing would take, without installing."""
        return self._thread.run(self._installed.size(source, on_step=on_step, **wish))

    def check(self, name: str) -> Sequence[findings.Finding]:
        """Look whether a plugin can still run."""
        return self._thread.run(self._installed.check(name))

    def test(
        self, source: str, *, python: str | None = None, on_step: provisioning.Progress | None = None
    ) -> Sequence[Finding]:
        """Run the conformance kit on an author's plugin without installing it."""
        return self._thread.run(self._installed.test(source, python=python, on_step=on_step))

    def environments(self) -> Sequence[Environment]:
        """Return every environment."""
        return self._thread.run(self._installed.environments())

    def collect_environments(self) -> Sequence[Environment]:
        """Remove the environments that no plugin names and no worker runs from."""
        return self._thread.run(self._installed.collect_environments())

    def setup_conda(self, *, force: bool = False, on_step: provisioning.Progress | None = None) -> Path:
        """Set up a micromamba of the node's own."""
        return self._thread.run(self._installed.setup_conda(force=force, on_step=on_step))


class Instance:
    """A loaded plugin; see `toft.plugins.instance.Instance` for what each method promises.

    As a context manager it is unloaded at the end.

    Attributes:
        id: Its name in this node.
        plugin: The plugin's name.
        options: How it is run.
    """

    def __init__(self, thread: LoopThread, instance: handles.Instance) -> None:
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
        outcome: Outcome[Any] = Outcome()
        begun: list[calls.Call] = []

        def begin() -> None:
            with outcome:
                call = self._instance.start_with(
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

    def start(self, action: str | None = None, /, **arguments: Any) -> Call:
        """Begin a call and return a handle to wait on, watch and cancel."""
        return self.start_with(action, arguments)

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
        begin = partial(
            self._instance.start_with,
            action,
            arguments,
            timeout_s=timeout_s,
            grace_s=grace_s,
            on_progress=on_progress,
            on_log=on_log,
        )
        return Call(self._thread, self._thread.do(begin))

    def stream(self, action: str | None = None, /, **arguments: Any) -> Chunks:
        """Run an action and return its chunks as they come; read them with `for`."""
        return self.stream_with(action, arguments)

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
        begin = partial(
            self._instance.stream_with,
            action,
            arguments,
            timeout_s=timeout_s,
            grace_s=grace_s,
            on_progress=on_progress,
            on_log=on_log,
        )
        return Chunks(self._thread, self._thread.do(begin))

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
    def state(self) -> states.State:
        """Return what it is doing."""
        return self._instance.state

    @property
    def is_enabled(self) -> bool:
        """Say whether it takes calls when it is ready."""
        return self._instance.is_enabled

    @property
    def drift(self) -> drift.Drift | None:
        """Return how the running code differs from what the manifest recorded."""
        return self._instance.drift

    def stats(self) -> dict[str, Any]:
        """Return what it has done and what its process tree uses now."""
        return self._thread.run(self._instance.stats())

    def logs(self, count: int = 50) -> list[str]:
        """Return the last lines of its log."""
        return self._thread.run(self._instance.logs(count))


class Call:
    """A handle on one execution; see `toft.plugins.supervision.calls.Call`."""

    def __init__(self, thread: LoopThread, call: calls.Call) -> None:
        self._thread = thread
        self._call = call

    def result(self, timeout_s: float | None = None) -> Any:
        """Wait for the result; after `timeout_s` a `TimeoutError`, and the call goes on."""
        return self._thread.run(self._call.result(timeout_s))

    def cancel(self, reason: str = "cancelled", *, grace_s: float | None = None) -> bool:
        """Ask it to stop; its worker is replaced when it does not within the grace."""
        return self._thread.do(partial(self._call.cancel, reason, grace_s=grace_s))

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

    def __init__(self, thread: LoopThread, source: chunks.Chunks) -> None:
        self.call = Call(thread, source.call)
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
