"""One process with one connection: started, loaded, initialised, watched, ended, and its death explained.

Reap first, classify second: calls that were open when a worker died wait until the operating system has
said how, and then all end with that.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from toft.host import keeper, usage
from toft.host.forked import Forked
from toft.host.gpus import GpuReading
from toft.kernel import clock as clocks
from toft.kernel import errors, log
from toft.plugins import errors as faults
from toft.plugins.errors import WireError
from toft.plugins.supervision import calls, chunks, deaths, launch, stall
from toft.plugins.wire.connection import Connection
from toft.plugins.wire.frames import Beat, LogLine
from toft_sdk import errors as plugin_errors

_log = log.get_logger("plugins.worker")
T = TypeVar("T")
_LAST_WORDS_S = 0.5
_LINGER_S = 1.0
_PING_S = 1.0
_LINES_IN_ERROR = 20
_THREADS = 64  # toft_sdk.worker starts no more
# Where the threads of a worker itself wait.
_WAITING_IN = ("worker", "link", "sentinel", "threads", "capture")


class Output(Protocol):
    """Where the lines of a worker go."""

    def add(self, line: LogLine) -> None:
        """Take one line; returns at once."""
        ...

    def recent(self, count: int = 20) -> list[str]:
        """Return the last lines."""
        ...


class Worker:
    """A started worker.

    Attributes:
        pid: The process.
        is_alive: Whether it takes requests.
        facts: What `load` answered.
        lost: How it died, once that is known.
    """

    def __init__(
        self,
        order: launch.Launch,
        output: Output,
        *,
        stall_s: float,
        gpus: Callable[[], GpuReading] | None,
        clock: clocks.Clock,
    ) -> None:
        self.pid = 0
        self.is_alive = False
        self.facts: Mapping[str, Any] = {}
        self.lost: faults.WorkerLostError | None = None
        self.on_line: Callable[[LogLine], None] = lambda line: None
        self.started_at = 0.0
        self._instance = order.instance
        self._defaults = order.defaults
        self._output = output
        self._gpus = gpus
        self._stall_s = stall_s
        self._clock = clock
        self._signs: stall.Signs | None = None
        self._lines = 0
        self._ending: Exception | None = None
        self._broken: WireError | None = None
        self._connection_gone = asyncio.Event()
        self._on_broken: Callable[[Any], None] = lambda worker: None
        self._on_lost: Callable[[Any, Exception], None] = lambda worker, error: None
        self._doing: dict[str, int] = {}
        self._killing: asyncio.Task[keeper.Exit] | None = None
        self.process: keeper.Process | Forked
        self.connection: Connection
        self._reaping: asyncio.Task[None]

    def attach(self, process: keeper.Process | Forked, connection: Connection) -> None:
        """Take over what was started."""
        self.process, self.connection = process, connection
        self.pid = process.pid
        self.started_at = self._clock.monotonic()
        self.is_alive = True
        self._reaping = asyncio.ensure_future(self._reap())

    @property
    def root_process(self) -> keeper.Process:
        """Return the process, when the keeper started it.

        Raises:
            TypeError: It was forked from another worker.
        """
        if not isinstance(self.process, keeper.Process):
            raise TypeError("a forked worker cannot be forked from")
        return self.process

    @property
    def tree(self) -> tuple[int, int]:
        """Return the process and the root of everything it started, for `toft.host.usage.measure`."""
        return self.pid, self.process.root

    @property
    def most_at_once(self) -> int:
        """Return how many calls it runs at once; a further one would wait inside it."""
        declared = self.facts.get("concurrency")
        return 1 if self.facts.get("main_thread") else min(declared or _THREADS, _THREADS)

    # Calls

    def begin(self, call: calls.Call) -> None:
        """Hand over a call."""
        wanted = {"action": call.action, "arguments": call.arguments}
        ended, progress, usage = call.worker_ended, call.note_progress, call.note_usage
        try:
            if isinstance(call, chunks.StreamingCall):
                stream = self.connection.begin_stream(
                    "stream",
                    wanted,
                    ended,
                    window=call.window,
                    on_progress=progress,
                    on_usage=usage,
                    call_id=call.number,
                )
                call.opened(stream)
            else:
                self.connection.begin(
                    "call",
                    wanted,
                    ended,
                    on_progress=progress,
                    on_usage=usage,
                    call_id=call.number,
                    is_raw=call.is_raw,
                )
        except (plugin_errors.PluginError, errors.NodeError) as error:
            call.worker_ended(None, error)

    def cancel(self, call: calls.Call) -> None:
        """Ask the plugin to stop a call."""
        self.connection.cancel(call.number)

    # Lifecycle operations

    async def initialize(self, config: Mapping[str, Any]) -> None:
        """Make the plugin ready, as long as it takes while it shows signs of life."""
        await self.slow("initialize", {"config": {} if config == self._defaults else dict(config)})

    async def request(self, op: str, arguments: Any = None, *, timeout_s: float | None = None) -> Any:
        """Run a lifecycle operation."""
        self._doing[op] = self._doing.get(op, 0) + 1
        try:
            return await self.connection.request(op, arguments, timeout_s=timeout_s)
        finally:
            self._doing[op] -= 1

    async def slow(self, op: str, arguments: Any = None) -> Any:
        """Run an operation that may take minutes, until it falls silent.

        Raises:
            WorkerLostError: It stalled; the process is left to whoever asked.
        """
        signs = self._signs = stall.Signs(self._clock.monotonic, self._look_at_cpu)
        self._doing[op] = self._doing.get(op, 0) + 1
        try:
            asked = self.connection.request(op, arguments, on_progress=self._on_slow_progress)
            return await stall.watch(asked, signs, self._stall_s)
        except stall.StalledError as stalled:
            raise await self.stalled(op, stalled.silent_s) from stalled
        except plugin_errors.PluginError as error:
            if lines := self._last_lines():
                error.details.setdefault("last_lines", lines)
            raise
        finally:
            self._doing[op] -= 1
            self._signs = None

    def _on_slow_progress(self, fraction: float, message: str) -> None:
        if self._signs is not None:
            self._signs.spoke()

    async def stalled(self, op: str, silent_s: float) -> faults.WorkerLostError:
        """Say where it is stuck."""
        beat = await self._beat()
        stack = _busy_stack(beat) if beat else []
        where = f" at {stack[0]}" if stack else ""
        return faults.WorkerLostError(
            f"{op} of {self._instance} showed no sign of progress for {silent_s:.1f} s{where}",
            code="worker.stalled",
            details={
                "instance": self._instance,
                "pid": self.pid,
                "doing": op,
                "silent_s": round(silent_s, 3),
                "stack": stack,
                "stacks": {name: list(lines) for name, lines in beat.stacks} if beat else {},
                "last_lines": self._last_lines(),
            },
            hint=f"toft plugin logs {self._instance}",
        )

    async def _beat(self) -> Beat | None:
        try:
            return await asyncio.wait_for(self.connection.ping(stacks=True), _PING_S)
        except (TimeoutError, errors.NodeError):
            # C code may hold the interpreter lock; then nobody can say where it is.
            return None

    async def _look_at_cpu(self) -> float | None:
        return (await asyncio.to_thread(self._measure, None)).cpu_s

    def measure(self) -> usage.Usage:
        """Return what it and everything it started use; blocks, so call it in a thread."""
        return self._measure(self._gpus() if self._gpus is not None else None)

    def _measure(self, gpus: GpuReading | None) -> usage.Usage:
        return usage.measure({self.pid: (self.pid, self.process.root)}, gpus)[self.pid]

    # Output

    def take_line(self, line: LogLine) -> None:
        """Take a line the worker sent or printed."""
        if self._signs is not None:
            self._signs.spoke()
        self._lines += 1
        self._output.add(line)
        self.on_line(line)

    def _last_lines(self) -> list[str]:
        """Return what this worker said last, nothing of those before it."""
        return self._output.recent(min(self._lines, _LINES_IN_ERROR))

    # The end

    def watch(self, on_broken: Callable[[Any], None], on_lost: Callable[[Any, Exception], None]) -> None:
        """Name who is told; at once when it is gone already."""
        self._on_broken, self._on_lost = on_broken, on_lost
        if not self.is_alive:
            on_broken(self)
        if self.lost is not None:
            on_lost(self, self.lost)

    async def end(self, error: Exception | None = None) -> None:
        """Kill the whole tree and return when it is gone; open calls end with the error."""
        if self._ending is None:
            self._ending = error or faults.WorkerLostError(
                f"the worker of {self._instance} was ended", code="worker.ended", blame="node"
            )
        self.is_alive = False
        await self.process.end(0.0)
        await asyncio.shield(self._reaping)

    async def explain_and_end(self, error: BaseException) -> None:
        """End a worker that failed to start; raise how it died when that is why it failed.

        Raises:
            WorkerLostError: The process had died by itself.
        """
        died_by_itself = isinstance(error, errors.NodeError) and not self._connection_is_fine()
        if died_by_itself:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.shield(self._reaping), _LINGER_S + _LAST_WORDS_S)
        lost = self.lost
        await self.end()
        if died_by_itself and lost is not None:
            raise lost from error

    def _connection_is_fine(self) -> bool:
        return not self._connection_gone.is_set()

    def on_connection_lost(self, broken: WireError | None) -> None:
        """Take the end of the socket: the process has died, is about to, or must."""
        self._broken = self._broken or broken
        self._connection_gone.set()
        self._stop_taking()
        loop = asyncio.get_running_loop()
        # A worker that closed its socket has nothing left to do; one that talks nonsense goes at once.
        loop.call_later(0.0 if broken else _LINGER_S, self._kill)

    def _kill(self) -> None:
        if self.process.exit is None:
            self._killing = asyncio.ensure_future(self.process.end(0.0))

    def _stop_taking(self) -> None:
        if self.is_alive:
            self.is_alive = False
            self._on_broken(self)

    async def _reap(self) -> None:
        exit_ = await self.process.wait()
        self._stop_taking()
        # Answers and lines that were on their way still count.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._connection_gone.wait(), _LAST_WORDS_S)
        error = self._ending or self._explain(exit_)
        if isinstance(error, faults.WorkerLostError):
            self.lost = error
        else:
            self.lost = faults.WorkerLostError(str(error), code="worker.ended", blame="node")
        self.connection.fail(error)
        if self._ending is None:
            _log.warning("worker_died", instance=self._instance, pid=self.pid, error=str(error))
            self._on_lost(self, error)

    def _explain(self, exit_: keeper.Exit) -> faults.WorkerLostError:
        lines = self._last_lines()
        if self._broken is not None:
            return faults.WorkerLostError(
                f"the worker of {self._instance} was ended: {self._broken.message}",
                code="worker.protocol",
                details={"instance": self._instance, "pid": self.pid, "last_lines": lines},
            )
        doing = [op for op, count in sorted(self._doing.items()) if count]
        doing += [f"call {number}" for number in self.connection.calls[:8]] if not doing else []
        return deaths.classify(
            exit_, instance=self._instance, pid=self.pid, doing=", ".join(doing), lines=lines
        )


def _busy_stack(beat: Beat) -> list[str]:
    """Return the stack of the thread that is inside the plugin, the innermost frame first."""
    for _, frames in beat.stacks:
        if frames and not any(f"/toft_sdk/{name}.py:" in frames[0] for name in _WAITING_IN):
            return list(frames)
    return []
