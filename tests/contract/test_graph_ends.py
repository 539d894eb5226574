"""How graphs on a real queue end: cancelled, tried again, interrupted, forgotten; and every end is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.graph_nodes import Node, Plugins, one, running, standing
from tests.waiting import eventually_async

from toft.jobs import queue as queues
from toft.jobs.records import Limits, Outcome, Request, State
from toft.jobs.references import item, step
from toft.jobs.retention import Forget
from toft.kernel import errors


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running(tmp_path, standing()) as opened:
        yield opened


async def test_a_cancelled_graph_ends_pending_steps_at_once_and_asks_the_running_one(node: Node) -> None:
    stored = await node.graphs.submit([one("a"), one("b"), one("c") | {"for_each": [1, 2]}])
    asked: list[str] = []
    node.queue.listeners.append(lambda effects: asked.extend(effects.cancels))
    (claimed,) = await node.claim()
    cancelled = await node.graphs.cancel(stored.id)
    assert cancelled.state is State.RUNNING
    assert cancelled.cancel_requested_at is not None
    assert asked == [claimed.id]
    assert await node.states(stored) == {"a": "running", "b": "cancelled", "c": "cancelled"}
    assert await node.queue.finish(claimed.id, claimed.attempt, Outcome(state=State.CANCELLED))
    ended = await node.graphs.wait(stored.id, 60)
    assert ended.state is State.CANCELLED
    assert (await node.graphs.cancel(stored.id)).to_dict() == ended.to_dict()
    assert await node.claim() == []
    assert (await node.told(stored))[-1] == "cancelled"


async def test_a_cancel_between_two_steps_lets_nothing_more_run(node: Node) -> None:
    stored = await node.graphs.submit([one("a"), one("b"), one("c")])
    (claimed,) = await node.claim()
    finishing = node.queue.finish(claimed.id, claimed.attempt, Outcome(state=State.COMPLETED, result=b"1"))
    cancelled, _ = await asyncio.gather(node.graphs.cancel(stored.id), finishing)
    assert await node.claim() == []
    assert cancelled.state is State.CANCELLED
    assert await node.states(stored) == {"a": "completed", "b": "cancelled", "c": "cancelled"}


async def test_a_cancelled_member_ends_its_sequence(node: Node) -> None:
    stored = await node.graphs.submit([one("a"), one("b"), one("c")], mode="best_effort")
    jobs = {job.step: job for job in await node.queue.list(sequence=stored.id)}
    await node.queue.request_cancel(jobs["b"].id)
    assert (await node.run(stored)).state is State.CANCELLED
    assert await node.states(stored) == {"a": "cancelled", "b": "cancelled", "c": "cancelled"}
    assert (await node.error(stored, "c"))["details"]["failed_step"] == "b"


async def test_a_retried_step_resumes_the_graph(node: Node) -> None:
    broken = [True]

    def now_and_then(n: int = 1) -> Any:
        return 1 // 0 if broken[0] and n == 1 else {"n": n}

    node.plugins.add("flaky", now_and_then)
    steps = [
        one("a"),
        one("b", "flaky"),
        one("c", x=step("b").output["n"]),
        one("d", x=item()) | {"for_each": [1, 2]},
        one("e", x=step("d").output, y=step("c").output),
    ]
    stored = await node.graphs.submit(steps)
    assert (await node.run(stored)).state is State.FAILED
    skipped = {job.step: job.id for job in await node.queue.list(sequence=stored.id, state="cancelled")}
    assert set(skipped) == {"c", "d", "e"}
    broken[0] = False
    jobs = {job.step: job for job in await node.queue.list(sequence=stored.id)}
    await node.queue.retry(jobs["b"].id)
    resumed = await node.graphs.get(stored.id)
    assert resumed.state is State.RUNNING
    assert resumed.finished_at is None
    assert (await node.run(stored)).state is State.COMPLETED
    assert node.ran == ["a", "b", "b", "c", "d[0]", "d[1]", "e"]
    assert (await node.result(stored, "e"))["x"] == [{"x": 1}, {"x": 2}]
    for job_id in skipped.values():
        assert (await node.queue.get(job_id)).state is State.CANCELLED
    assert await node.told(stored) == ["pending", "running", "failed", "running", "completed"]


@pytest.mark.parametrize("how", ["part", "fan_out", "sequence"])
@pytest.mark.parametrize("mode", ["fail_fast", "best_effort"])
async def test_a_retried_part_resumes_its_fan_out(node: Node, how: str, mode: str) -> None:
    broken = [True]
    node.plugins.add("flaky", lambda n: 1 // 0 if broken[0] and n == 2 else n)
    steps = [one("each", "flaky", n=item()) | {"for_each": [1, 2, 3]}, one("show", all=step("each").output)]
    stored = await node.graphs.submit(steps, mode=mode)
    await node.run(stored)
    assert (await node.states(stored))["each"] == "failed"
    broken[0] = False
    jobs = {job.step: job for job in reversed(await node.queue.list(sequence=stored.id))}
    if how == "sequence":
        await node.graphs.retry(stored.id)
    else:
        await node.queue.retry(jobs["each[1]" if how == "part" else "each"].id)
    assert (await node.run(stored)).state is State.COMPLETED
    assert await node.result(stored, "show") == {"all": [1, 2, 3]}
    assert node.ran.count("each[0]") == 1
    assert node.ran.count("each[1]") == 2


async def test_a_retried_part_leaves_the_other_parts_as_they_are(node: Node) -> None:
    broken = [True]
    node.plugins.add("flaky", lambda n: 1 // 0 if broken[0] and n > 1 else n)
    stored = await node.graphs.submit(
        [one("each", "flaky", n=item()) | {"for_each": [1, 2, 3]}], mode="best_effort"
    )
    await node.run(stored)
    broken[0] = False
    jobs = {job.step: job for job in reversed(await node.queue.list(sequence=stored.id))}
    # Another job of the same instance: what is counted as ready must be all that is.
    (other,) = await node.queue.submit([Request(plugin="flaky", instance="flaky", arguments=b'{"n": 1}')])
    await node.queue.retry(jobs["each[1]"].id)
    assert node.queue.heads()["flaky"].ready == 2
    await node.run(stored)
    assert node.ran.count("each[1]") == 2
    assert node.ran.count("each[2]") == 1
    assert (await node.states(stored))["each"] == "failed"
    assert (await node.queue.get(other.job_id)).state is State.COMPLETED


async def test_a_restart_in_the_middle_goes_on_with_the_next_step(tmp_path: Path) -> None:
    plugins = Plugins()
    steps = [
        one("a"),
        one("b", x=step("a").output) | {"idempotent": True},
        one("c", n=item()) | {"for_each": [1, 2, 3]},
        one("d", all=step("c").output),
    ]
    ran: list[str] = []
    async with running(tmp_path, plugins) as first:
        stored = await first.graphs.submit(steps)
        (claimed,) = await first.claim()
        await first.execute(claimed)
        await first.claim()  # b runs when the process ends
        ran += first.ran
    async with running(tmp_path, plugins) as second:
        assert (await second.graphs.get(stored.id)).state is State.RUNNING
        (claimed,) = await second.claim()
        assert (claimed.step, claimed.attempt) == ("b", 2)
        second.graphs._fan_outs._is_open = False  # the fan-out is never spread in this process
        await second.execute(claimed)
        ran += second.ran
    async with running(tmp_path, plugins) as third:
        await eventually_async(lambda: bool(third.queue.heads()))
        claimed = (await third.claim())[0]
        await third.execute(claimed)
        ran += third.ran
    async with running(tmp_path, plugins) as fourth:
        interrupted = await fourth.graphs.get(stored.id)
        assert interrupted.counts["interrupted"] == 2
        assert interrupted.state is State.INTERRUPTED
        await fourth.graphs.retry(stored.id)
        assert (await fourth.run(stored)).state is State.COMPLETED
        ran += fourth.ran
        assert await fourth.result(stored, "d") == {"all": [{"n": 1}, {"n": 2}, {"n": 3}]}
    assert sorted(ran) == ["a", "b", "c[0]", "c[1]", "c[2]", "d"]


async def test_waiting_ends_in_time(node: Node) -> None:
    stored = await node.graphs.submit([one("a")])
    with pytest.raises(errors.UnavailableError) as caught:
        await node.graphs.wait(stored.id, 0.01)
    assert caught.value.code == "job.wait_timeout"
    waiting = asyncio.ensure_future(node.graphs.wait(stored.id, 60))
    await node.run(stored)
    assert (await waiting).state is State.COMPLETED
    with pytest.raises(errors.NotFoundError):
        await node.graphs.wait("seq_nothing", 1)


async def test_results_stay_as_long_as_a_sequence_may_need_them(node: Node) -> None:
    async def forget() -> None:
        await queues.perform(node.queue, Forget(Limits(keep_count=0, keep_s=0), ended=1000))

    stored = await node.graphs.submit(
        [one("a", x=[1]), one("b", x=step("a").output), one("c", "fail"), one("d")]
    )
    for _ in range(3):
        (claimed,) = await node.claim()
        await node.execute(claimed)
        if claimed.step != "c":
            await forget()
            assert len(await node.reading.members(stored.id)) == 4
    assert (await node.graphs.get(stored.id)).state is State.FAILED
    await forget()
    assert await node.reading.members(stored.id) == []
    with pytest.raises(errors.NotFoundError):
        await node.graphs.get(stored.id)
    assert list(await node.queue.events(sequence=stored.id)) == []

    empty = await node.graphs.submit([])
    other = await node.graphs.submit([one("a")])
    await forget()
    assert [each.id for each in await node.graphs.recent()] == [other.id, empty.id]


async def test_a_retry_does_without_steps_that_were_forgotten(node: Node) -> None:
    stored = await node.graphs.submit([one("a"), one("b", "fail"), one("c", x=step("a").output), one("d")])
    assert (await node.run(stored)).state is State.FAILED
    jobs = {job.step: job for job in await node.queue.list(sequence=stored.id)}
    await queues.perform(node.queue, Forget(Limits(keep_count=3), ended=4))
    assert set(await node.states(stored)) == {"b", "c", "d"}
    await node.queue.retry(jobs["b"].id)
    (claimed,) = await node.claim()
    assert claimed.step == "b"
    assert (await node.states(stored))["c"] == "cancelled"
