"""Runs the calls of one instance on whatever worker it has, and what else it is asked to do between them.

Everything happens on the event loop's thread, so the calls need no lock. A call costs no task: it is handed
to the worker on the spot and ends in a callback.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from toft.kernel import clock as clocks
from toft.kernel import errors, log, suggestions
from toft.plugins import errors as faults
from toft.plugins.supervision import calls, cancellation, gate, restart, states, succession
from toft.plugins.wire.frames import LogLine
from toft_sdk import errors as plugin_errors

_log = log.get_logger("plugins.supervisor")
_WAIT_FOR_CALLS_S = 30.0
C = TypeVar("C", bound=calls.Call)
_TAKES_CALLS = frozenset({states.State.READY, states.State.RESTARTING, states.State.STARTING})


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

    ended: int = 0
    failures: int = 0
    cancelled: int = 0
    busy_s: float = 0.0
    last_at: float = 0.0
    usage: dict[str, float] = field(default_factory=dict)

    def add(self, call: calls.Call) -> None:
        """Count a call that ended."""
        self.ended += 1
        self.last_at = call.ended_at
        self.busy_s += call.duration_s
        for unit, amount in call.usage.items():
            self.usage[unit] = self.usage.get(unit, 0.0) + amount
        outcome = call.outcome
        if outcome != "succeeded":
            if outcome == "cancelled":
                self.cancelled += 1
            else:
                self.failures += 1


class Supervisor:
    """Supervises one instance.

    Args:
        name: The instance.
        make: Starts a worker that has the plugin imported.
        binders: What checks the arguments, by action.
        policy: How it is run.
        numbers: Where calls get their numbers; shared with its workers' connections.
        redact: Takes secrets out of an error on its way to a caller.
        clock: For uptime and restarts.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Awaitable[succession.Works]],
        binders: Mapping[str, Binds],
        *,
        policy: Policy,
        numbers: Iterator[int] | None = None,
        redact: Callable[[Exception], None] = lambda error: None,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self.name = name
        self.policy = policy
        self.enabled = True
        self.totals = Totals()
        self.workers = succession.Succession(
            name, make, self, policy=policy.restarts, keep_spare=policy.keep_spare, clock=clock
        )
        self.gate = gate.Gate(name, self._run, cap=policy.concurrency, limit=policy.queue_limit)
        self._binders = binders
        self._redact = redact
        self._loop = asyncio.get_running_loop()
        self._cancellation = cancellation.Cancellation(
            policy.cancel_grace_s, self.workers.spare, self.workers.replace
        )
        self._open: dict[int, calls.Call] = {}
        self._numbers = numbers if numbers is not None else itertools.count(1)
        self._idle_hooks: list[Callable[[], None]] = []
        self._exclusive = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._asked: dict[str, asyncio.Task[Any]] = {}

    async def start(self, config: Mapping[str, Any]) -> None:
        """Start the first worker with a validated configuration.

        Raises:
            PluginError: The plugin refused; nothing is left of it.
            WorkerLostError: Its process died or stalled; nothing is left of it.
        """
        await self.workers.start(config)
        if self.policy.call_stall_s > 0:
            self._spawn(self._watch_calls(self.policy.call_stall_s))

    @property
    def state(self) -> states.State:
        """Return what the instance is doing."""
        return self.workers.lifecycle.state

    @property
    def config(self) -> Mapping[str, Any]:
        """Return the configuration the plugin has."""
        return self.workers.config

    # Calls

    def begin(
        self,
        action: str,
        arguments: Mapping[str, Any],
        *,
        timeout_s: float | None = None,
        grace_s: float | None = None,
        kind: type[C] = calls.Call,  # type: ignore[assignment]  # mypy has no default for a type variable
        is_raw: bool = False,
    ) -> C:
        """Check the arguments and start a call, or let it wait for its turn.

        Raises:
            InputError: The action or the arguments do not fit; nothing was started.
            DisabledError: The instance is switched off.
            BusyError: As many calls wait as may.
            DownError: It has no worker and will not get one by itself.
        """
        binder = self._binders.get(action)
        if binder is None:
            raise no_action(self.name, action, self._binders)
        bound = binder.bind(arguments)
        if not self.enabled:
            raise faults.DisabledError(
                f"instance {self.name} is disabled",
                details={"instance": self.name},
                hint=f"toft plugin enable {self.name}",
            )
        if self.workers.lifecycle.state not in _TAKES_CALLS:
            raise self.workers.down()
        call = kind(next(self._numbers), action, bound, self, self._loop)
        call.grace_s = grace_s
        call.is_raw = is_raw
        self._open[call.number] = call
        try:
            self.gate.enter(call)
        except faults.BusyError:
            del self._open[call.number]
            raise
        if timeout_s is not None:
            call.expire_after(timeout_s)
        return call

    def _run(self, call: calls.Call) -> None:
        worker = self.workers.worker
        if worker is None:
            raise RuntimeError("the gate was open without a worker")
        call.begin_running(worker)
        worker.begin(call)

    def ended(self, call: calls.Call, result: Any, error: Exception | None) -> None:
        """Take a worker's answer."""
        self._close(call, result, error)
        self.gate.leave()
        if self._idle_hooks and not self.gate.running:
            hooks, self._idle_hooks = self._idle_hooks, []
            for hook in hooks:
                hook()

    def cancel(self, call: calls.Call) -> None:
        """Begin to end a call that was asked to stop."""
        if call.phase is calls.Phase.WAITING:
            self.gate.withdraw(call)
            self._close(call, None, None)
        else:
            self._cancellation.begin(call)

    def _close(self, call: calls.Call, result: Any, error: Exception | None) -> None:
        self._open.pop(call.number, None)
        was_cancelling = call.phase is calls.Phase.CANCELLING
        if error is not None:
            self._redact(error)
        call.finish(result, error)
        self.totals.add(call)
        if was_cancelling and not self.policy.keep_spare and not self._is_cancelling():
            self._spawn(self.workers.spare.drop())

    def _is_cancelling(self) -> bool:
        return any(call.phase is calls.Phase.CANCELLING for call in self._open.values())

    def heard(self, line: LogLine) -> None:
        """Take a line of output to the call it belongs to."""
        call = self._open.get(line.call)
        if call is not None:
            call.note_line(line)

    async def _watch_calls(self, budget_s: float) -> None:
        while True:
            await asyncio.sleep(budget_s / 4)
            now = self._loop.time()
            for call in list(self._open.values()):
                if call.phase is calls.Phase.RUNNING and now - call.seen_at > budget_s:
                    call.ask_to_end(await call.worker.stalled(call.action, now - call.seen_at), grace_s=0)

    # What the workers mean for calls

    def may_run(self) -> None:
        """Let calls run, but never more than the worker can: one that waits there ends with the others."""
        worker = self.workers.worker
        caps = [self.policy.concurrency, worker.most_at_once if worker is not None else None]
        self.gate.cap = min((cap for cap in caps if cap is not None), default=None)
        self.gate.open()

    def must_wait(self) -> None:
        """Let calls wait."""
        self.gate.close()

    def must_fail(self) -> None:
        """Refuse the calls that wait."""
        self.gate.close()
        for call in self.gate.drain():
            self._close(call, None, self.workers.down())

    # What else it can be asked to do

    async def request(self, op: str, arguments: Any = None, *, timeout_s: float | None = None) -> Any:
        """Run a lifecycle operation on the worker beside whatever calls run."""
        worker = await self.workers.wait_ready()
        return await worker.request(op, arguments, timeout_s=timeout_s)

    async def ask(self, op: str) -> Any:
        """Run an operation on a worker that has room for it; None when calls take all there is.

        Who asks while an answer is still missing waits for that one: each question that hangs has taken a
        thread of the worker for good.

        Cancellation: A worker that could do nothing else meanwhile is replaced: it would be stuck for ever.
        """
        if self.gate.cap != 1:
            return await self._ask_beside(op)
        async with self._exclusive:
            worker = await self.workers.wait_ready()
            if self.gate.running:
                return None
            # Calls wait here and not behind it, where they would be lost together with the worker.
            self.gate.close()
            try:
                return await worker.request(op)
            except asyncio.CancelledError:
                self.workers.replace(worker, f"{op} did not end in time")
                raise
            finally:
                self._reopen(worker)

    async def _ask_beside(self, op: str) -> Any:
        asked = self._asked.get(op)
        if asked is None:
            if self.gate.cap is not None and self.gate.running >= self.gate.cap:
                return None
            asked = self._asked[op] = asyncio.create_task(self.request(op))

            def answered(task: asyncio.Task[Any]) -> None:
                del self._asked[op]
                if not task.cancelled():
                    task.exception()  # perhaps nobody waits for it any more

            asked.add_done_callback(answered)
        return await asyncio.shield(asked)

    async def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Give the plugin another configuration between calls; those who wait keep their places.

        Raises:
            PluginError: The plugin refused; it still has the old configuration.
            BusyError: A call ran on and on; nothing changed.
        """
        async with self._exclusive:
            worker = await self.workers.wait_ready()
            self.gate.close()
            try:
                await self._idle_or_busy()
                await self.request("reconfigure", {"old": dict(self.config), "new": dict(config)})
                self.workers.config = config
            finally:
                self._reopen(worker)

    async def set_enabled(self, enabled: bool) -> None:
        """Switch it on or off; the worker stays, and is told once no call runs any more."""
        if enabled and self.state is states.State.CRASH_LOOP:
            self.workers.revive()
        if enabled == self.enabled:
            return
        self.enabled = enabled
        if enabled or not (self.gate.running or self.gate.waiting):
            await self._tell("enable" if enabled else "disable")
        else:
            self._idle_hooks.append(self._tell_disabled)

    def _tell_disabled(self) -> None:
        if self.gate.waiting:
            self._idle_hooks.append(self._tell_disabled)
        elif not self.enabled:
            self._spawn(self._tell("disable"))

    async def _tell(self, op: str) -> None:
        try:
            await self.request(op, timeout_s=self.policy.cleanup_s)
        except (errors.NodeError, plugin_errors.PluginError, TimeoutError) as error:
            # The switch is the node's; a plugin that fails to hear of it is still switched.
            _log.warning("hook_failed", instance=self.name, op=op, error=str(error))

    async def respawn(self, reason: str, *, wait_s: float = _WAIT_FOR_CALLS_S) -> None:
        """Replace the worker between calls and return when the new one is ready; settings stay.

        Args:
            reason: For the log, and for the calls that are still running then.
            wait_s: Seconds to wait for running calls; afterwards they end with `worker.replaced`.
        """
        async with self._exclusive:
            if self.state is states.State.CRASH_LOOP:
                self.workers.revive()
            worker = await self.workers.wait_ready()
            self.gate.close()
            try:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.idle(), wait_s)
                if worker is self.workers.worker:
                    await self._clean_up(worker)
                    await self.workers.spare.drop()
                    self.workers.replace(worker, reason)
            finally:
                self._reopen(worker)
            await self.workers.wait_ready()

    def _reopen(self, worker: succession.Works) -> None:
        """Let calls run again, unless the worker is not the present one any more: then its heir does."""
        if worker is self.workers.worker and worker.is_alive:
            self.gate.open()

    async def stop(self) -> None:
        """End it within a bound: calls fail, the plugin may clean up, then everything is killed."""
        if self.workers.lifecycle.is_ending:
            return
        await self.workers.stop(self._clean_up)
        left = [*self._tasks, *self._asked.values()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def _clean_up(self, worker: succession.Works) -> None:
        for call in list(self._open.values()):
            if call.worker is worker:
                worker.cancel(call)
        if not worker.is_alive:
            return
        try:
            await worker.request("cleanup", timeout_s=self.policy.cleanup_s)
        except (errors.NodeError, plugin_errors.PluginError, TimeoutError) as error:
            _log.info("cleanup_failed", instance=self.name, error=str(error))

    async def _idle_or_busy(self) -> None:
        try:
            await asyncio.wait_for(self.idle(), _WAIT_FOR_CALLS_S)
        except TimeoutError:
            raise faults.BusyError(
                f"{self.gate.running} calls of instance {self.name} still run",
                details={"running": self.gate.running},
                hint="wait for them, or cancel them",
            ) from None

    async def idle(self) -> None:
        """Return when no call runs."""
        if self.gate.running:
            reached = asyncio.Event()
            self._idle_hooks.append(reached.set)
            await reached.wait()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def no_action(instance: str, action: str, known: Mapping[str, Any]) -> plugin_errors.InputError:
    """Say which actions there are instead."""
    said = action[:80]
    near = suggestions.nearest(said, known)
    text = f"did you mean {near}?" if near else f"it has: {', '.join(sorted(known))}"
    return plugin_errors.InputError(
        f"instance {instance} has no action {said!r}; {text}",
        fields={"action": text},
        code="call.action_unknown",
    )
