"""One worker after another for the same instance: first start, death, back-off, replacement, end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from toft.host.usage import Usage
from toft.kernel import clock as clocks
from toft.kernel import errors, log
from toft.plugins import errors as faults
from toft.plugins.supervision import calls, restart, spare, states
from toft_sdk import errors as plugin_errors

_log = log.get_logger("plugins.succession")
_ENDING = (states.State.STOPPING, states.State.STOPPED)


class Works(Protocol):
    """A worker as its supervisor sees it."""

    pid: int
    is_alive: bool

    @property
    def most_at_once(self) -> int | None:
        """Calls it can run at once; None for any number."""
        ...

    @property
    def tree(self) -> tuple[int, int]:
        """The process and the root of everything it started."""
        ...

    def begin(self, call: calls.Call) -> None:
        """Hand over a call; its `worker_ended` is called once, perhaps before this returns."""
        ...

    def cancel(self, call: calls.Call) -> None:
        """Ask the plugin to stop a call; returns at once."""
        ...

    async def initialize(self, config: Mapping[str, Any]) -> None:
        """Make the plugin ready for calls."""
        ...

    async def request(self, op: str, arguments: Any = None, *, timeout_s: float | None = None) -> Any:
        """Run one of the lifecycle operations."""
        ...

    def measure(self) -> Usage:
        """Return what it and everything it started use; blocks."""
        ...

    def watch(self, on_broken: Callable[[Any], None], on_lost: Callable[[Any, Exception], None]) -> None:
        """Name who is told at once that it takes no more calls, and later how it died."""
        ...

    async def end(self, error: Exception | None = None) -> None:
        """End the whole tree; its open calls end with the error."""
        ...


class Listener(Protocol):
    """Who is told what the succession means for calls."""

    def may_run(self) -> None:
        """A worker takes calls."""
        ...

    def must_wait(self) -> None:
        """No worker takes calls for now."""
        ...

    def must_fail(self) -> None:
        """No worker will take calls by itself."""
        ...


class Succession:
    """The workers of one instance.

    Args:
        name: The instance.
        make: Starts a worker that has the plugin imported.
        listener: Told whether calls may run.
        policy: How patient to be.
        keep_spare: Always have a second worker.
        clock: For restarts and `since`.

    Attributes:
        worker: The one that takes calls, if any.
        config: What each new worker is initialised with.
        lifecycle: The state of the instance.
        restarts: Its deaths.
        spare: The one in waiting, if any.
        watchers: Called after every change of the state, and when something else changed.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Awaitable[Works]],
        listener: Listener,
        *,
        policy: restart.RestartPolicy,
        keep_spare: bool = False,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self.worker: Works | None = None
        self.config: Mapping[str, Any] = {}
        self.lifecycle = states.Lifecycle(clock, self._on_change)
        self.restarts = restart.Restarts(policy, clock)
        self.spare: spare.Spare[Works] = spare.Spare(name, make)
        self._name = name
        self._make = make
        self._listener = listener
        self._keep_spare = keep_spare
        self._bringing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self.watchers: list[Callable[[], object]] = []

    async def start(self, config: Mapping[str, Any]) -> None:
        """Start the first worker.

        Raises:
            PluginError: The plugin refused; nothing is left of it.
            WorkerLostError: Its process died or stalled; nothing is left of it.
        """
        self.config = config
        self._install(await self._ready_worker())

    def replace(self, worker: Works, reason: str) -> None:
        """End a worker and bring up another; does nothing when it is not the present one."""
        if worker is not self.worker:
            return
        self.worker = None
        self._listener.must_wait()
        self.lifecycle.move(states.State.RESTARTING, reason)
        lost = faults.WorkerLostError(
            f"the worker of instance {self._name} was replaced: {reason}",
            code="worker.replaced",
            blame="node",
            details={"instance": self._name, "pid": worker.pid, "reason": reason},
        )
        # A task at once: whatever becomes of this instance, the old worker goes.
        self._bring_up(0.0, ending=asyncio.ensure_future(worker.end(lost)))

    def revive(self) -> None:
        """Try again after a crash loop; somebody asked for it."""
        self.restarts.forgive()
        self.lifecycle.move(states.State.RESTARTING, "somebody asked for another try")
        self._bring_up(0.0)

    async def wait_ready(self) -> Works:
        """Return the worker once there is one.

        Raises:
            DownError: There will be none by itself.
        """
        while self.worker is None:
            if self.lifecycle.state in (states.State.CRASH_LOOP, *_ENDING):
                raise self.down()
            self._changed.clear()
            await self._changed.wait()
        return self.worker

    async def stop(self, clean_up: Callable[[Works], Awaitable[None]]) -> None:
        """End everything; the plugin may clean up first."""
        self.lifecycle.move(states.State.STOPPING, "unloaded")
        self._listener.must_fail()
        bringing, worker = self._bringing, self.worker
        self.worker = None
        if bringing is not None and not bringing.done():
            bringing.cancel()
            await asyncio.wait({bringing})
        if worker is not None:
            await clean_up(worker)
            await worker.end(self.down())
        await self.spare.drop()
        self.lifecycle.move(states.State.STOPPED, "unloaded")

    def down(self) -> faults.DownError:
        """Return the error that says why no calls are taken."""
        lifecycle = self.lifecycle
        return faults.down(self._name, str(lifecycle.state), lifecycle.evidence, lifecycle.reason)

    async def _ready_worker(self) -> Works:
        return await self._initialized(await self._imported())

    async def _imported(self) -> Works:
        return await self.spare.take() or await self._make()

    async def _initialized(self, worker: Works) -> Works:
        try:
            await worker.initialize(self.config)
        except BaseException:
            # Also when this task is cancelled: a failed load leaves no process.
            await asyncio.shield(worker.end())
            raise
        return worker

    async def _succeed(self, ending: asyncio.Task[None]) -> Works:
        """Start the next worker while the old one ends, but initialise it only when that one is gone."""
        importing = asyncio.ensure_future(self._imported())
        try:
            await asyncio.shield(ending)
            worker = await asyncio.shield(importing)
        except BaseException:
            await _abandon(importing)
            raise
        return await self._initialized(worker)

    def _install(self, worker: Works) -> None:
        self.worker = worker
        self.restarts.ready()
        self.lifecycle.move(states.State.READY)
        worker.watch(self._on_broken, self._on_lost)
        # It may have died before anybody watched.
        if self.worker is worker and worker.is_alive:
            self._listener.may_run()
            if self._keep_spare:
                self.spare.prepare()

    def _on_broken(self, worker: Works) -> None:
        if worker is self.worker:
            self._listener.must_wait()

    def _on_lost(self, worker: Works, error: Exception) -> None:
        if worker is not self.worker or self.lifecycle.is_ending:
            return
        self.worker = None
        self._listener.must_wait()
        self.lifecycle.move(states.State.RESTARTING, str(error), _evidence(error))
        pause_s = self.restarts.died()
        if pause_s is None:
            self._give_up(error)
        else:
            self._bring_up(pause_s)

    def _give_up(self, error: Exception) -> None:
        reason = f"it died {self.restarts.in_a_row} times in a row, last: {error}"
        self.lifecycle.move(states.State.CRASH_LOOP, reason, _evidence(error))
        self._listener.must_fail()

    def _bring_up(self, pause_s: float, ending: asyncio.Task[None] | None = None) -> None:
        self._bringing = asyncio.ensure_future(self._brought_up(pause_s, ending))

    async def _brought_up(self, pause_s: float, ending: asyncio.Task[None] | None) -> None:
        while True:
            await asyncio.sleep(pause_s)
            try:
                worker = await (self._ready_worker() if ending is None else self._succeed(ending))
            except (errors.NodeError, plugin_errors.PluginError, OSError) as error:
                _log.warning("restart_failed", instance=self._name, error=str(error))
                following_s = self.restarts.died()
                if following_s is None:
                    self._give_up(error)
                    return
                pause_s, ending = following_s, None
            else:
                self._install(worker)
                return

    def _on_change(self, old: states.State, new: states.State) -> None:
        reason = self.lifecycle.reason
        _log.info("instance_state", instance=self._name, old=str(old), new=str(new), reason=reason)
        self._changed.set()
        self.tell_watchers()

    def tell_watchers(self) -> None:
        """Tell who watches that something about the instance is different."""
        for told in self.watchers:
            told()


def _evidence(error: Exception) -> dict[str, Any]:
    return dict(error.details) if isinstance(error, (errors.NodeError, plugin_errors.PluginError)) else {}


async def _abandon(importing: asyncio.Task[Works]) -> None:
    """Leave nothing of a worker that is not wanted any more."""
    importing.cancel()
    await asyncio.wait({importing})
    if not importing.cancelled() and importing.exception() is None:
        await asyncio.shield(importing.result().end())
