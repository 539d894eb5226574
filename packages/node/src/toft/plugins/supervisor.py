"""Keeps one instance running: its worker over deaths and replacements, its calls, and how they end.

Everything happens on the event loop's thread, so nothing here takes a lock. A call costs no task: it is
handed to the worker on the spot and ends in a callback.
"""

from __future__ import annotations

import asyncio
import difflib
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from toft.kernel import clock as clocks
from toft.kernel import errors, log
from toft.plugins import calls, cancellation, faults, gate, restart, spare, states
from toft_sdk import errors as plugin_errors

_log = log.get_logger("plugins.supervisor")


class Works(Protocol):
    """A worker as its supervisor sees it."""

    pid: int
    is_alive: bool

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

    def watch(self, on_broken: Callable[[Any], None], on_lost: Callable[[Any, Exception], None]) -> None:
        """Name who is told at once that it takes no more calls, and later how it died."""
        ...

    async def end(self, error: Exception | None = None) -> None:
        """End the whole tree; its open calls end with the error."""
        ...


class Binds(Protocol):
    """Checks the arguments of one action."""

    def bind(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what is sent, or raise `InputError`."""
        ...


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How an instance is run.

    Attributes:
        concurrency: Calls at once; None is unbounded.
        queue_limit: Calls that may wait.
        cancel_grace_s: Seconds a cancelled call may take to end by itself.
        cleanup_s: Seconds it may take to clean up when it is stopped.
        call_stall_s: Seconds without a sign of life that end a call; 0 is never.
        keep_spare: Always have a second worker.
        restarts: How patient to be when workers die.
    """

    concurrency: int | None = 1
    queue_limit: int = 1024
    cancel_grace_s: float = 3.0
    cleanup_s: float = 5.0
    call_stall_s: float = 0.0
    keep_spare: bool = False
    restarts: restart.RestartPolicy = field(default_factory=restart.RestartPolicy)


@dataclass
class Totals:
    """What an instance has done so far."""

    calls: int = 0
    failures: int = 0
    cancelled: int = 0
    busy_s: float = 0.0
    usage: dict[str, float] = field(default_factory=dict)


class Supervisor:
    """Supervises one instance.

    Args:
        name: The instance.
        make: Starts a worker that has the plugin imported.
        binders: What checks the arguments, by action.
        policy: How it is run.
        clock: For uptime and restarts.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Awaitable[Works]],
        binders: Mapping[str, Binds],
        *,
        policy: Policy,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self.name = name
        self.policy = policy
        self.config: Mapping[str, Any] = {}
        self.enabled = True
        self.totals = Totals()
        self.lifecycle = states.Lifecycle(clock, self._log_change)
        self.restarts = restart.Restarts(policy.restarts, clock)
        self.worker: Works | None = None
        self._make = make
        self._binders = binders
        self._loop = asyncio.get_running_loop()
        self._gate = gate.Gate(name, self._run, cap=policy.concurrency, limit=policy.queue_limit)
        self._spare: spare.Spare[Works] = spare.Spare(name, make)
        self._cancellation = cancellation.Cancellation(policy.cancel_grace_s, self._spare, self._replace)
        self._open: dict[int, calls.Call] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._bringing: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._idle_hooks: list[Callable[[], None]] = []
        self._exclusive = asyncio.Lock()

    # Calls

    def begin(
        self,
        action: str,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        grace_s: float | None = None,
        on_progress: calls.OnProgress | None = None,
        kind: type[calls.Call] = calls.Call,
    ) -> calls.Call:
        """Check the arguments and start a call, or let it wait for its turn.

        Raises:
            InputError: The action or the arguments do not fit; nothing was started.
            DisabledError: The instance is switched off.
            BusyError: As many calls wait as may.
            DownError: It has no worker and will not get one by itself.
        """
        binder = self._binders.get(action)
        if binder is None:
            raise self._no_action(action)
        bound = binder.bind(arguments)
        if not self.enabled:
            raise faults.DisabledError(
                f"instance {self.name} is disabled",
                details={"instance": self.name},
                hint=f"toft plugin enable {self.name}",
            )
        if self.lifecycle.state not in _TAKES_CALLS:
            raise self._down()
        self._number += 1
        call = kind(self._number, action, bound, self, self._loop)
        call.grace_s = grace_s
        if on_progress is not None:
            call.on_progress(on_progress)
        self._open[call.number] = call
        try:
            self._gate.enter(call)
        except faults.BusyError:
            del self._open[call.number]
            raise
        if timeout_s is not None:
            call.expire_after(timeout_s)
        return call

    def _run(self, call: calls.Call) -> None:
        worker = self.worker
        if worker is None:
            raise RuntimeError("the gate was open without a worker")
        call.begin_running(worker)
        worker.begin(call)

    def ended(self, call: calls.Call, result: Any, error: Exception | None) -> None:
        """Take a worker's answer."""
        self._close(call, result, error)
        self._gate.leave()
        if self._idle_hooks and not self._gate.running:
            hooks, self._idle_hooks = self._idle_hooks, []
            for hook in hooks:
                hook()

    def _close(self, call: calls.Call, result: Any, error: Exception | None) -> None:
        self._open.pop(call.number, None)
        was_cancelling = call.phase is calls.Phase.CANCELLING
        call.finish(result, error)
        totals = self.totals
        totals.calls += 1
        totals.busy_s += call.duration_s
        if call.usage:
            for unit, amount in call.usage.items():
                totals.usage[unit] = totals.usage.get(unit, 0.0) + amount
        if call.outcome != "succeeded":
            if call.outcome == "cancelled":
                totals.cancelled += 1
            else:
                totals.failures += 1
        if was_cancelling and not self.policy.keep_spare and not self._is_cancelling():
            self._spawn(self._spare.drop())

    def heard(self, number: int) -> None:
        """Note a line of output of a call."""
        call = self._open.get(number)
        if call is not None:
            call.seen_at = self._loop.time()

    def cancel(self, call: calls.Call) -> None:
        """Begin to end a call that was asked to stop."""
        if call.phase is calls.Phase.WAITING:
            self._gate.withdraw(call)
            self._close(call, None, None)
        else:
            self._cancellation.begin(call)

    def _is_cancelling(self) -> bool:
        return any(call.phase is calls.Phase.CANCELLING for call in self._open.values())

    def _replace(self, worker: Works, reason: str) -> None:
        if worker is not self.worker:
            return
        self.worker = None
        self._gate.close()
        self.lifecycle.move(states.State.RESTARTING, reason)
        lost = faults.WorkerLostError(
            f"the worker of instance {self.name} was replaced: {reason}",
            code="worker.replaced",
            blame="node",
            details={"instance": self.name, "pid": worker.pid, "reason": reason},
        )
        self._bring_up(0.0, after=worker.end(lost))

    # Workers coming and going

    async def start(self, config: Mapping[str, Any]) -> None:
        """Start the first worker.

        Raises:
            PluginError: The plugin refused; nothing is left of it.
            WorkerLostError: Its process died or stalled; nothing is left of it.
        """
        self.config = config
        self._install(await self._ready_worker(None))

    async def _ready_worker(self, prepared: Works | None) -> Works:
        worker = prepared or await self._make()
        try:
            await worker.initialize(self.config)
        except BaseException:
            # Also when this task is cancelled: a failed load leaves no process.
            await asyncio.shield(worker.end())
            raise
        return worker

    def _install(self, worker: Works) -> None:
        self.worker = worker
        self.restarts.ready()
        self.lifecycle.move(states.State.READY)
        worker.watch(self._on_broken, self._on_lost)
        if self.worker is worker:
            self._gate.open()
            if self.policy.keep_spare:
                self._spare.prepare()
        self._notify()

    def _on_broken(self, worker: Works) -> None:
        if worker is self.worker and self.lifecycle.state is states.State.READY:
            self._gate.close()

    def _on_lost(self, worker: Works, error: Exception) -> None:
        if worker is not self.worker or self.lifecycle.is_ending:
            return
        self.worker = None
        self._gate.close()
        evidence = error.details if isinstance(error, errors.NodeError) else {}
        self.lifecycle.move(states.State.RESTARTING, str(error), evidence)
        self._after_death(error)

    def _after_death(self, error: Exception) -> None:
        pause_s = self.restarts.died()
        if pause_s is None:
            self._give_up(error)
        else:
            self._bring_up(pause_s)

    def _give_up(self, error: Exception) -> None:
        evidence = error.details if isinstance(error, errors.NodeError) else {}
        reason = f"it died {self.restarts.in_a_row} times in a row, last: {error}"
        self.lifecycle.move(states.State.CRASH_LOOP, reason, evidence)
        self._refuse_waiting()
        self._notify()

    def _refuse_waiting(self) -> None:
        for call in self._gate.drain():
            self._close(call, None, self._down())

    def _bring_up(self, pause_s: float, after: Coroutine[Any, Any, None] | None = None) -> None:
        self._bringing = self._spawn(self._brought_up(pause_s, after))

    async def _brought_up(self, pause_s: float, after: Coroutine[Any, Any, None] | None) -> None:
        if after is not None:
            await after
        while True:
            await asyncio.sleep(pause_s)
            try:
                worker = await self._ready_worker(await self._spare.take())
            except (errors.NodeError, plugin_errors.PluginError) as error:
                _log.warning("restart_failed", instance=self.name, error=str(error))
                pause = self.restarts.died()
                if pause is None:
                    self._give_up(error)
                    return
                pause_s = pause
            else:
                self._install(worker)
                return

    # Asking it to do something else than a call

    async def wait_ready(self) -> None:
        """Return when it takes calls.

        Raises:
            DownError: It will not by itself.
        """
        while self.lifecycle.state is not states.State.READY:
            if self.lifecycle.state in (states.State.CRASH_LOOP, *_ENDING):
                raise self._down()
            self._changed.clear()
            await self._changed.wait()

    async def request(self, op: str, arguments: Any = None, *, timeout_s: float | None = None) -> Any:
        """Run a lifecycle operation on the worker beside whatever calls run."""
        await self.wait_ready()
        worker = self.worker
        if worker is None:
            raise self._down()
        return await worker.request(op, arguments, timeout_s=timeout_s)

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Give the plugin another configuration between calls; those who wait keep their places.

        Raises:
            PluginError: The plugin refused; it still has the old configuration.
        """
        async with self._exclusive:
            await self.wait_ready()
            self._gate.close()
            try:
                await self._idle()
                await self.request("reconfigure", {"old": dict(self.config), "new": dict(config)})
                self.config = config
            finally:
                if self.lifecycle.state is states.State.READY and self.worker and self.worker.is_alive:
                    self._gate.open()

    async def set_enabled(self, enabled: bool) -> None:
        """Switch it on or off; the worker stays, and is told once no call runs any more."""
        if enabled and self.lifecycle.state is states.State.CRASH_LOOP:
            self.revive()
        if enabled == self.enabled:
            return
        self.enabled = enabled
        if enabled or not (self._gate.running or self._gate.waiting):
            await self._tell("enable" if enabled else "disable")
        else:
            self._idle_hooks.append(self._tell_disabled)

    def _tell_disabled(self) -> None:
        if self._gate.waiting:
            self._idle_hooks.append(self._tell_disabled)
        elif not self.enabled:
            self._spawn(self._tell("disable"))

    async def _tell(self, op: str) -> None:
        try:
            await self.request(op, timeout_s=self.policy.cleanup_s)
        except (errors.NodeError, plugin_errors.PluginError, TimeoutError) as error:
            # The switch is the node's; a plugin that fails to hear of it is still switched.
            _log.warning("hook_failed", instance=self.name, op=op, error=str(error))

    async def respawn(self, reason: str) -> None:
        """Replace the worker between calls and return when the new one is ready; settings stay."""
        async with self._exclusive:
            if self.lifecycle.state is states.State.CRASH_LOOP:
                self.revive()
            await self.wait_ready()
            self._gate.close()
            await self._idle()
            worker = self.worker
            if worker is not None and self.lifecycle.state is states.State.READY:
                await self._clean_up(worker)
                if worker is self.worker:
                    await self._spare.drop()
                    self._replace(worker, reason)
            await self.wait_ready()

    def revive(self) -> None:
        """Try again after a crash loop; somebody asked for it."""
        self.restarts.forgive()
        self.lifecycle.move(states.State.RESTARTING, "somebody asked for another try")
        self._bring_up(0.0)

    async def stop(self) -> None:
        """End it within a bound: calls fail, the plugin may clean up, then everything is killed."""
        if self.lifecycle.is_ending:
            return
        self.lifecycle.move(states.State.STOPPING, "unloaded")
        self._gate.close()
        self._refuse_waiting()
        self._notify()
        if self._bringing is not None:
            self._bringing.cancel()
        worker, self.worker = self.worker, None
        if worker is not None:
            for call in list(self._open.values()):
                worker.cancel(call)
            await self._clean_up(worker)
            await worker.end(self._down())
        await self._spare.drop()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.lifecycle.move(states.State.STOPPED, "unloaded")

    async def _clean_up(self, worker: Works) -> None:
        if not worker.is_alive:
            return
        try:
            await worker.request("cleanup", timeout_s=self.policy.cleanup_s)
        except (errors.NodeError, plugin_errors.PluginError, TimeoutError) as error:
            _log.info("cleanup_failed", instance=self.name, error=str(error))

    async def _idle(self) -> None:
        if self._gate.running:
            reached = asyncio.Event()
            self._idle_hooks.append(reached.set)
            await reached.wait()

    # Small things

    @property
    def running(self) -> int:
        """Return how many calls run."""
        return self._gate.running

    @property
    def waiting(self) -> int:
        """Return how many calls wait."""
        return self._gate.waiting

    def set_concurrency(self, cap: int | None) -> None:
        """Change how many calls run at once."""
        self._gate.set_cap(cap)

    def _no_action(self, action: str) -> plugin_errors.InputError:
        near = difflib.get_close_matches(action, self._binders, 1)
        text = f"did you mean {near[0]}?" if near else f"it has: {', '.join(sorted(self._binders))}"
        return plugin_errors.InputError(
            f"instance {self.name} has no action {action!r}; {text}",
            fields={"action": text},
            code="call.action_unknown",
        )

    def _down(self) -> faults.DownError:
        lifecycle = self.lifecycle
        return faults.not_ended(self.name, str(lifecycle.state), lifecycle.evidence, lifecycle.reason)

    def _log_change(self, old: states.State, new: states.State) -> None:
        _log.info(
            "instance_state", instance=self.name, old=str(old), new=str(new), reason=self.lifecycle.reason
        )

    def _notify(self) -> None:
        self._changed.set()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


_ENDING = (states.State.STOPPING, states.State.STOPPED)
_TAKES_CALLS = frozenset({states.State.READY, states.State.RESTARTING, states.State.STARTING})
