"""A supervisor over workers that are no processes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.waiting import eventually_async as eventually

from toft.host.usage import Usage
from toft.kernel import errors
from toft.plugins import errors as faults
from toft.plugins.supervision import calls, restart, states, supervisor
from toft_sdk.errors import CancelledError, FatalError, InputError


class Anything:
    def bind(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        if "bad" in arguments:
            raise InputError("no", fields={"bad": "is unknown"})
        return arguments


class FakeWorker:
    """Answers when the test says so; a call named `quick` at once."""

    def __init__(self, number: int) -> None:
        self.pid = number
        self.is_alive = True
        self.open: list[calls.Call] = []
        self.told: list[Any] = []
        self.config: Mapping[str, Any] | None = None
        self.listens = True
        self.most_at_once: int | None = None
        self.fails: dict[str, Exception] = {}
        self.blocks: dict[str, asyncio.Event] = {}
        self._watchers: Any = None

    def begin(self, call: calls.Call) -> None:
        self.open.append(call)
        if call.action == "quick":
            self.answer(call, call.arguments.get("x"))

    def answer(self, call: calls.Call, result: Any = None, error: Exception | None = None) -> None:
        self.open.remove(call)
        call.worker_ended(result, error)

    def cancel(self, call: calls.Call) -> None:
        self.told.append(("cancel", call.number))
        if self.listens and call in self.open:
            self.answer(call, error=CancelledError("stopped"))

    async def initialize(self, config: Mapping[str, Any]) -> None:
        await self.request("initialize", dict(config))
        self.config = config

    async def request(self, op: str, arguments: Any = None, *, timeout_s: float | None = None) -> Any:
        self.told.append((op, arguments))
        if op in self.blocks:
            await self.blocks[op].wait()
        if op in self.fails:
            raise self.fails[op]
        return op

    def measure(self) -> Usage:
        return Usage()

    def watch(self, on_broken: Callable[[Any], None], on_lost: Callable[[Any, Exception], None]) -> None:
        self._watchers = on_broken, on_lost

    async def end(self, error: Exception | None = None) -> None:
        self.is_alive = False
        for call in list(self.open):
            self.answer(call, error=error or faults.WorkerLostError("ended"))

    async def stalled(self, op: str, silent_s: float) -> Exception:
        return faults.WorkerLostError(f"{op} is stuck", code="worker.stalled")

    def die(self, code: str = "worker.crashed") -> None:
        lost = faults.WorkerLostError("it crashed", code=code, details={"pid": self.pid})
        self.is_alive = False
        on_broken, on_lost = self._watchers
        on_broken(self)
        for call in list(self.open):
            self.answer(call, error=lost.again())
        on_lost(self, lost)


class Stable:
    """Makes fake workers and remembers them."""

    def __init__(self) -> None:
        self.made: list[FakeWorker] = []
        self.prepare: Callable[[FakeWorker], None] = lambda worker: None
        self.fails: Exception | None = None

    async def __call__(self) -> FakeWorker:
        await asyncio.sleep(0)
        if self.fails is not None:
            raise self.fails
        worker = FakeWorker(len(self.made) + 1)
        self.prepare(worker)
        self.made.append(worker)
        return worker


FAST = restart.RestartPolicy(first_s=0.0, most_s=0.0, limit=3)


@asynccontextmanager
async def supervised(
    stable: Callable[[], Awaitable[FakeWorker]], **policy: Any
) -> AsyncIterator[supervisor.Supervisor]:
    policy.setdefault("restarts", FAST)
    made = supervisor.Supervisor(
        "ocr",
        stable,
        {"execute": Anything(), "quick": Anything()},
        policy=supervisor.Policy(**policy),
    )
    await made.start({"dpi": 300})
    try:
        yield made
    finally:
        await made.stop()


async def test_a_call_gets_its_result_and_is_counted() -> None:
    async with supervised(Stable()) as ocr:
        assert await ocr.begin("quick", {"x": 5}) == 5
        assert (ocr.totals.ended, ocr.totals.failures, ocr.gate.running) == (1, 0, 0)


async def test_an_error_reaches_the_caller_as_it_is() -> None:
    stable = Stable()
    async with supervised(stable) as ocr:
        call = ocr.begin("execute", {})
        stable.made[0].answer(call, error=FatalError("broken"))
        with pytest.raises(FatalError, match="broken"):
            await call
        assert call.outcome == "failed"
        assert ocr.totals.failures == 1


async def test_what_does_not_fit_is_refused_before_anything_starts() -> None:
    stable = Stable()
    async with supervised(stable) as ocr:
        with pytest.raises(InputError, match=r"did you mean execute\?"):
            ocr.begin("exicute", {})
        with pytest.raises(InputError):
            ocr.begin("execute", {"bad": 1})
        assert stable.made[0].open == []


async def test_calls_beyond_the_cap_wait_in_order() -> None:
    stable = Stable()
    async with supervised(stable, concurrency=1) as ocr:
        first, second, third = (ocr.begin("execute", {"n": n}) for n in range(3))
        worker = stable.made[0]
        assert worker.open == [first]
        worker.answer(first, "a")
        assert worker.open == [second]
        worker.answer(second, "b")
        worker.answer(third, "c")
        assert [await call for call in (first, second, third)] == ["a", "b", "c"]


async def test_no_more_calls_are_let_through_than_the_worker_runs_at_once() -> None:
    stable = Stable()
    stable.prepare = lambda worker: setattr(worker, "most_at_once", 2)
    async with supervised(stable, concurrency=None) as ocr:
        calls_ = [ocr.begin("execute", {}) for _ in range(3)]
        assert stable.made[0].open == calls_[:2]
        assert calls_[2].cancel() is True
        assert stable.made[0].open == calls_[:2]


async def test_cancelling_a_waiting_call_never_bothers_the_worker() -> None:
    stable = Stable()
    async with supervised(stable, concurrency=1) as ocr:
        running, waiting = ocr.begin("execute", {}), ocr.begin("execute", {})
        assert waiting.cancel() is True
        with pytest.raises(CancelledError):
            await waiting
        assert waiting.outcome == "cancelled"
        stable.made[0].answer(running, 1)
        assert await running == 1
        assert ("cancel", waiting.number) not in stable.made[0].told
        assert (ocr.gate.running, ocr.gate.waiting) == (0, 0)


async def test_a_cooperative_cancel_touches_one_call_only() -> None:
    stable = Stable()
    async with supervised(stable, concurrency=None) as ocr:
        one, other = ocr.begin("execute", {}), ocr.begin("execute", {})
        assert one.cancel("enough") is True
        with pytest.raises(CancelledError, match="enough"):
            await one
        stable.made[0].answer(other, "fine")
        assert await other == "fine"
        assert len(stable.made) == 1
        assert one.cancel() is False
        assert (ocr.totals.cancelled, ocr.totals.failures) == (1, 0)


async def test_whatever_a_cancelled_call_ends_with_it_is_cancelled() -> None:
    stable = Stable()
    stable.prepare = lambda worker: setattr(worker, "listens", False)
    async with supervised(stable, concurrency=None) as ocr:
        for end in ({"error": FatalError("helper killed")}, {"result": "half"}):
            call = ocr.begin("execute", {})
            call.cancel()
            stable.made[0].answer(call, **end)
            with pytest.raises(CancelledError):
                await call
            assert call.outcome == "cancelled"


async def test_a_call_that_does_not_stop_has_its_worker_replaced() -> None:
    stable = Stable()
    stable.prepare = lambda worker: setattr(worker, "listens", False)
    async with supervised(stable, concurrency=None) as ocr:
        stubborn, innocent = ocr.begin("execute", {}), ocr.begin("execute", {})
        stubborn.cancel(grace_s=0)
        queued = ocr.begin("execute", {})
        with pytest.raises(CancelledError):
            await stubborn
        with pytest.raises(faults.WorkerLostError) as caught:
            await innocent
        assert (caught.value.code, caught.value.category) == ("worker.replaced", "transient")
        await eventually(lambda: ocr.state is states.State.READY)
        assert len(stable.made) == 2
        assert stable.made[1].config == {"dpi": 300}
        stable.made[1].answer(queued, "after")
        assert await queued == "after"
        assert ocr.workers.restarts.total == 0


async def test_a_spare_is_prepared_when_a_cancel_takes_long_and_takes_over() -> None:
    stable = Stable()
    stable.prepare = lambda worker: setattr(worker, "listens", False)
    async with supervised(stable) as ocr:
        call = ocr.begin("execute", {})
        call.cancel(grace_s=0.05)
        await eventually(lambda: len(stable.made) == 2)
        assert stable.made[1].config is None
        assert call.is_open
        with pytest.raises(CancelledError):
            await call
        await eventually(lambda: ocr.state is states.State.READY)
        assert ocr.workers.worker is stable.made[1]
        assert len(stable.made) == 2


async def test_a_spare_that_was_not_needed_is_dropped() -> None:
    stable = Stable()
    stable.prepare = lambda worker: setattr(worker, "listens", False)
    async with supervised(stable) as ocr:
        call = ocr.begin("execute", {})
        call.cancel(grace_s=0.4)
        await eventually(lambda: len(stable.made) == 2)
        stable.made[0].answer(call, error=CancelledError("slowly"))
        with pytest.raises(CancelledError):
            await call
        await eventually(lambda: not stable.made[1].is_alive)
        assert ocr.workers.worker is stable.made[0]


async def test_a_kept_spare_is_there_at_once_and_renewed() -> None:
    stable = Stable()
    async with supervised(stable, keep_spare=True) as ocr:
        await eventually(lambda: len(stable.made) == 2)
        stable.made[0].die()
        await eventually(lambda: ocr.workers.worker is stable.made[1] and len(stable.made) == 3)


async def test_a_task_that_goes_away_cancels_its_call() -> None:
    stable = Stable()
    async with supervised(stable) as ocr:

        async def caller() -> Any:
            return await ocr.begin("execute", {})

        task = asyncio.create_task(caller())
        await eventually(lambda: bool(stable.made[0].open))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert stable.made[0].open == []
        assert ocr.totals.cancelled == 1


async def test_waiting_for_a_result_may_end_before_the_call_does() -> None:
    stable = Stable()
    async with supervised(stable) as ocr:
        call = ocr.begin("execute", {})
        with pytest.raises(TimeoutError):
            await call.result(timeout_s=0)
        assert call.is_open
        stable.made[0].answer(call, 7)
        assert await call.result() == 7


async def test_a_timeout_ends_running_and_waiting_calls_as_failed() -> None:
    stable = Stable()
    async with supervised(stable, concurrency=1) as ocr:
        running = ocr.begin("execute", {}, timeout_s=0.05)
        waiting = ocr.begin("execute", {}, timeout_s=0.01)
        with pytest.raises(faults.CallTimeoutError, match="never got its turn"):
            await waiting
        with pytest.raises(faults.CallTimeoutError) as caught:
            await running
        assert caught.value.code == "call.timeout"
        assert running.outcome == "failed"


async def test_a_dead_worker_ends_its_calls_typed_and_comes_back_without_repeating_them() -> None:
    stable = Stable()
    async with supervised(stable, concurrency=1) as ocr:
        running, waiting = ocr.begin("execute", {}), ocr.begin("execute", {})
        stable.made[0].die("worker.out_of_memory")
        with pytest.raises(faults.WorkerLostError) as caught:
            await running
        assert caught.value.code == "worker.out_of_memory"
        await eventually(lambda: len(stable.made) == 2 and bool(stable.made[1].open))
        assert stable.made[1].open == [waiting]
        stable.made[1].answer(waiting, "fine")
        assert await waiting == "fine"
        assert ocr.workers.restarts.total == 1


async def test_an_instance_that_keeps_dying_stays_down_and_says_so() -> None:
    stable = Stable()
    async with supervised(stable) as ocr:
        for expected in (2, 3):
            stable.made[-1].die()
            await eventually(lambda expected=expected: len(stable.made) == expected)
            await eventually(lambda: ocr.state is states.State.READY)
        waiting = ocr.begin("execute", {}), ocr.begin("execute", {})
        stable.made[-1].die()
        assert ocr.state is states.State.CRASH_LOOP
        with pytest.raises(faults.WorkerLostError):
            await waiting[0]
        with pytest.raises(faults.DownError) as caught:
            await waiting[1]
        assert caught.value.code == "instance.crash_loop"
        assert "3 times in a row" in caught.value.message
        with pytest.raises(faults.DownError):
            ocr.begin("execute", {})
        await ocr.respawn("asked")
        assert await ocr.begin("quick", {"x": 1}) == 1


async def test_a_restart_that_fails_is_tried_again_and_counted() -> None:
    stable = Stable()
    async with supervised(stable) as ocr:
        stable.fails = errors.UnavailableError("no more processes")
        stable.made[0].die()
        await eventually(lambda: ocr.state is states.State.CRASH_LOOP)
        assert "no more processes" in ocr.workers.lifecycle.reason


async def test_a_restart_that_the_machine_refuses_is_tried_again_too() -> None:
    stable = Stable()
    async with supervised(stable) as ocr:
        stable.fails = OSError(28, "No space left on device")
        stable.made[0].die()
        await eventually(lambda: ocr.state is states.State.CRASH_LOOP)
        assert "No space left" in ocr.workers.lifecycle.reason


async def test_a_respawn_that_is_given_up_lets_calls_run_again() -> None:
    stable = Stable()
    async with supervised(stable, concurrency=None) as ocr:
        running = ocr.begin("execute", {})
        replacing = asyncio.create_task(ocr.respawn("asked"))
        await asyncio.sleep(0)
        waiting = ocr.begin("execute", {})
        replacing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await replacing
        assert stable.made[0].open == [running, waiting]


async def test_a_load_that_fails_leaves_no_worker() -> None:
    stable = Stable()
    stable.prepare = lambda worker: worker.fails.update(initialize=FatalError("no licence"))
    with pytest.raises(FatalError, match="no licence"):
        async with supervised(stable):
            pass
    assert [worker.is_alive for worker in stable.made] == [False]


async def test_a_load_that_is_cancelled_leaves_no_worker() -> None:
    stable = Stable()
    stable.prepare = lambda worker: worker.blocks.update(initialize=asyncio.Event())

    async def load() -> None:
        async with supervised(stable):
            pass

    task = asyncio.create_task(load())
    await eventually(lambda: bool(stable.made))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert stable.made[0].is_alive is False


async def test_reconfiguring_waits_for_running_calls_and_holds_up_new_ones() -> None:
    stable = Stable()
    async with supervised(stable, concurrency=None) as ocr:
        running = ocr.begin("execute", {})
        changing = asyncio.create_task(ocr.reconfigure({"dpi": 600}))
        await asyncio.sleep(0)
        later = ocr.begin("execute", {})
        worker = stable.made[0]
        assert worker.open == [running]
        worker.answer(running)
        await changing
        assert ("reconfigure", {"old": {"dpi": 300}, "new": {"dpi": 600}}) in worker.told
        assert worker.open == [later]
        worker.answer(later)
        assert ocr.config == {"dpi": 600}


async def test_a_refused_configuration_leaves_the_old_one_and_the_instance_working() -> None:
    stable = Stable()
    async with supervised(stable) as ocr:
        stable.made[0].fails["reconfigure"] = InputError("no such model")
        with pytest.raises(InputError):
            await ocr.reconfigure({"dpi": 600})
        assert ocr.config == {"dpi": 300}
        assert await ocr.begin("quick", {"x": 1}) == 1


async def test_disabling_refuses_calls_and_tells_the_plugin_when_it_is_idle() -> None:
    stable = Stable()
    async with supervised(stable) as ocr:
        running = ocr.begin("execute", {})
        await ocr.set_enabled(False)
        worker = stable.made[0]
        assert ("disable", None) not in worker.told
        with pytest.raises(faults.DisabledError):
            ocr.begin("execute", {})
        worker.answer(running, 1)
        await eventually(lambda: ("disable", None) in worker.told)
        await ocr.set_enabled(True)
        await ocr.set_enabled(True)
        assert worker.told.count(("enable", None)) == 1
        assert await ocr.begin("quick", {"x": 2}) == 2


async def test_a_disabled_instance_stays_disabled_over_a_respawn() -> None:
    stable = Stable()
    async with supervised(stable) as ocr:
        await ocr.set_enabled(False)
        await ocr.respawn("new secret")
        assert len(stable.made) == 2
        assert ("cleanup", None) in stable.made[0].told
        with pytest.raises(faults.DisabledError):
            ocr.begin("quick", {})


async def test_stopping_ends_open_and_waiting_calls_and_everything_else() -> None:
    stable = Stable()
    stable.prepare = lambda worker: setattr(worker, "listens", False)
    async with supervised(stable, concurrency=1, keep_spare=True) as ocr:
        await eventually(lambda: len(stable.made) == 2)
        running, waiting = ocr.begin("execute", {}), ocr.begin("execute", {})
        await ocr.stop()
        for call in (running, waiting):
            with pytest.raises(faults.DownError):
                await call
        with pytest.raises(faults.DownError):
            ocr.begin("quick", {})
        assert [worker.is_alive for worker in stable.made] == [False, False]
        assert ocr.state is states.State.STOPPED


async def test_progress_and_usage_reach_the_handle() -> None:
    stable = Stable()
    told: list[tuple[float, str]] = []
    async with supervised(stable) as ocr:
        call = ocr.begin("execute", {})
        call.listen(lambda share, text: told.append((share, text)))
        call.note_progress(0.5, "half")
        await asyncio.sleep(0)
        call.note_usage({"tokens": 3})
        call.note_usage({"tokens": 4, "pages": 1})
        stable.made[0].answer(call, None)
        await call
        assert told == [(0.5, "half")]
        assert (call.progress, call.message) == (0.5, "half")
        assert call.usage == {"tokens": 7, "pages": 1}
        assert ocr.totals.usage == {"tokens": 7, "pages": 1}


async def test_a_silent_call_is_ended_when_the_instance_asks_for_that() -> None:
    stable = Stable()
    stable.prepare = lambda worker: setattr(worker, "listens", False)
    async with supervised(stable, call_stall_s=0.04) as ocr:
        call = ocr.begin("execute", {})
        with pytest.raises(faults.WorkerLostError) as caught:
            await call
        assert caught.value.code == "worker.stalled"
        await eventually(lambda: ocr.state is states.State.READY)
        assert len(stable.made) == 2
