"""Durable jobs on real workers: what one plugin does wrong is no other plugin's trouble."""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.nodes import register, running
from tests.waiting import eventually_async

from toft.dispatch.node import Node
from toft.jobs.peaks import Peaks
from toft.jobs.queue import JobQueue
from toft.jobs.records import Limits
from toft.kernel import errors
from toft.plugins.plugin_errors import PluginError

NAMES = ("misbehaving", "other", "third")


@pytest.fixture
async def node(toft_home: Path) -> AsyncIterator[Node]:
    for name in NAMES:
        register(toft_home, name)
    async with running(toft_home, lanes=4, cancel_grace_s=0.3, restart_first_s=0.02) as opened:
        yield opened


def do(what: str, **arguments: Any) -> dict[str, Any]:
    return {"do": what, **arguments}


async def states(node: Node, job: str) -> list[str]:
    return [each.data["to"] for each in await node.jobs.events(job=job) if each.type == "state"]


async def phases(node: Node, job: str) -> list[str]:
    return [each.data["phase"] for each in await node.jobs.events(job=job) if each.type == "cancel"]


async def is_running(node: Node, job: str) -> bool:
    return (await node.jobs.get(job)).state == "running"


async def test_a_job_runs_on_a_worker_and_keeps_exact_types(node: Node) -> None:
    job = await node.jobs.submit("misbehaving", do("echo", value={"bytes": b"\x00\xff", "tuple": (1, 2.5)}))
    assert job.state == "pending"
    done = await node.jobs.wait(job.id, 20)
    assert done.state == "completed"
    assert done.attempt == 1
    assert done.usage["duration_s"] > 0
    assert await node.jobs.result(job.id) == {"bytes": b"\x00\xff", "tuple": (1, 2.5)}
    assert done.to_dict()["result"]["tuple"] == [1, 2.5]
    assert await states(node, job.id) == ["running", "completed"]


async def test_what_cannot_run_is_refused_before_anything_is_stored(node: Node) -> None:
    with pytest.raises(errors.NotFoundError):
        await node.jobs.submit("nothing")
    with pytest.raises(PluginError) as refused:
        await node.jobs.submit("misbehaving", {"size_bytes": "many"}, action="leak")
    assert "size_bytes" in refused.value.details["fields"]
    with pytest.raises(PluginError, match="no action"):
        await node.jobs.submit("misbehaving", {}, action="nothing")
    await node.set_enabled("other", False)
    with pytest.raises(errors.RefusedError, match="disabled"):
        await node.jobs.submit("other", do("echo"))
    assert await node.jobs.list() == []
    await node.set_enabled("other", True)
    assert (await node.jobs.submit("other", do("echo"))).state == "pending"


async def test_several_are_stored_together_or_not_at_all(node: Node) -> None:
    good = {"plugin": "misbehaving", "action": "echo", "delay_s": 3600}
    for wrong, kind in (
        ({"plugin": "nothing"}, errors.NotFoundError),
        ({**good, "action": "nothing"}, PluginError),
        ({**good, "surprise": 1}, errors.UsageError),
        ({**good, "instance": "../x"}, errors.UsageError),
        ({**good, "after": ["job_that_is_not_there"]}, errors.NotFoundError),
    ):
        with pytest.raises(kind):
            await node.jobs.submit_many([good, wrong, good])
    assert await node.jobs.list() == []
    stored = await node.jobs.submit_many([{**good, "priority": number} for number in range(3)])
    assert [each.priority for each in stored] == [0, 1, 2]
    assert {each.id for each in await node.jobs.list()} == {each.id for each in stored}


async def test_a_hung_plugin_holds_up_nobody(node: Node) -> None:
    hung = await node.jobs.submit("misbehaving", do("hang"))
    await eventually_async(lambda: is_running(node, hung.id), 20)
    began = time.monotonic()
    others = [await node.jobs.submit(name, do("echo", value=name)) for name in ("other", "third")]
    for job in others:
        assert (await node.jobs.wait(job.id, 20)).state == "completed"
    again = await node.jobs.submit("other", do("echo"))
    assert (await node.jobs.wait(again.id, 20)).state == "completed"
    assert time.monotonic() - began < 10
    assert (await node.jobs.get(hung.id)).state == "running"
    assert (await node.jobs.cancel(hung.id, grace_s=0)).state == "running"
    assert (await node.jobs.wait(hung.id, 20)).state == "cancelled"


async def test_a_plugin_that_hangs_in_every_lane_holds_up_nobody_either(node: Node) -> None:
    await node.jobs.wait((await node.jobs.submit("misbehaving", do("echo"))).id, 20)
    for _ in range(6):
        await node.jobs.submit("misbehaving", do("hang", where="c"))

    async def is_full() -> bool:
        return len(await node.jobs.list(state="running")) == 4

    await eventually_async(is_full, 20)
    jobs = [await node.jobs.submit(name, do("echo")) for name in ("other", "third")]
    for job in jobs:
        assert (await node.jobs.wait(job.id, 30)).state == "completed"
    assert await is_full()


async def test_a_time_out_ends_the_job_and_not_its_plugin(node: Node) -> None:
    job = await node.jobs.submit("misbehaving", do("hang"), timeout_s=0.3)
    ended = await node.jobs.wait(job.id, 20)
    assert (ended.state, ended.error["code"]) == ("failed", "call.timeout")
    after = await node.jobs.submit("misbehaving", do("echo", value=1))
    assert (await node.jobs.wait(after.id, 20)).state == "completed"
    late = await node.jobs.submit("misbehaving", do("hang"), deadline_s=0.5)
    ended = await node.jobs.wait(late.id, 20)
    assert (ended.state, ended.error["code"]) == ("failed", "job.deadline")


async def test_two_plugins_run_side_by_side(node: Node) -> None:
    for name in ("misbehaving", "other"):  # measured, so that neither wants to be alone
        assert (await node.jobs.wait((await node.jobs.submit(name, do("echo"))).id, 20)).state == "completed"
    jobs = [await node.jobs.submit(name, do("work", seconds=0.5)) for name in ("misbehaving", "other")]
    began = time.monotonic()
    for job in jobs:
        assert (await node.jobs.wait(job.id, 20)).state == "completed"
    assert time.monotonic() - began < 0.95
    events = await node.jobs.events(job=jobs[0].id)
    progress = [each.data["progress"] for each in events if each.type == "progress"]
    assert progress
    assert progress == sorted(progress)


async def test_an_instance_runs_no_more_at_once_than_it_may(node: Node) -> None:
    await node.set_options("other", {"concurrency": 1})
    first = await node.jobs.submit("other", do("work", seconds=1.0))
    second = await node.jobs.submit("other", do("work", seconds=0.1))
    await eventually_async(lambda: is_running(node, first.id), 20)

    async def reason() -> Any:
        return (await node.jobs.get(second.id)).block_reason

    told = await eventually_async(reason, 10)
    assert told["code"] in ("instance_busy", "measuring")
    assert (await node.jobs.wait(second.id, 20)).state == "completed"
    one, two = await node.jobs.get(first.id), await node.jobs.get(second.id)
    assert one.finished_at is not None
    assert two.started_at is not None
    assert two.started_at >= one.finished_at
    assert two.block_reason is None


class TestCancel:
    async def test_a_job_that_listens_is_cancelled_at_once(self, node: Node) -> None:
        job = await node.jobs.submit("misbehaving", do("work", seconds=60))
        await eventually_async(lambda: is_running(node, job.id), 20)
        await asyncio.sleep(0.05)
        times = []
        for _ in range(5):
            began = time.perf_counter()
            await node.jobs.cancel(job.id)
            assert (await node.jobs.wait(job.id, 20)).state == "cancelled"
            times.append(time.perf_counter() - began)
            assert await phases(node, job.id) == ["requested", "cooperative", "done"]
            job = await node.jobs.submit("misbehaving", do("work", seconds=60))
            await eventually_async(lambda job=job: is_running(node, job.id), 20)  # type: ignore[misc]
        assert sorted(times)[2] < 0.05
        await node.jobs.cancel(job.id)

    async def test_one_that_does_not_listen_loses_its_worker(self, node: Node) -> None:
        job = await node.jobs.submit("misbehaving", do("hang", where="gil"))
        await eventually_async(lambda: is_running(node, job.id), 20)
        await node.jobs.cancel(job.id)
        ended = await node.jobs.wait(job.id, 20)
        assert ended.state == "cancelled"
        assert await phases(node, job.id) == ["requested", "cooperative", "force", "reloading", "done"]
        after = await node.jobs.submit("misbehaving", do("echo"))
        assert (await node.jobs.wait(after.id, 20)).state == "completed"

    async def test_one_that_waits_ends_at_once_and_an_ended_one_stays(self, node: Node) -> None:
        job = await node.jobs.submit("misbehaving", do("echo"), delay_s=3600)
        assert (await node.jobs.cancel(job.id)).state == "cancelled"
        assert (await node.jobs.cancel(job.id)).state == "cancelled"
        done = await node.jobs.submit("misbehaving", do("echo"))
        await node.jobs.wait(done.id, 20)
        assert (await node.jobs.cancel(done.id)).state == "completed"

    async def test_one_that_waits_for_its_next_attempt(self, node: Node) -> None:
        job = await node.jobs.submit(
            "misbehaving",
            do("raise_error", kind="TransientError"),
            retry={"max_attempts": 5, "first_s": 600.0, "most_s": 600.0},
        )

        async def is_queued_again() -> bool:
            seen = await node.jobs.get(job.id)
            return seen.state == "pending" and seen.attempt == 1

        await eventually_async(is_queued_again, 20)
        assert (await node.jobs.cancel(job.id)).state == "cancelled"

    async def test_cancel_and_completion_meet_and_one_of_them_counts(self, node: Node) -> None:
        jobs = [await node.jobs.submit("misbehaving", do("echo", value=i)) for i in range(40)]
        await asyncio.gather(*(node.jobs.cancel(job.id) for job in jobs[::2]))
        for job in jobs:
            ended = await node.jobs.wait(job.id, 20)
            seen = await states(node, job.id)
            assert seen[-1] == ended.state
            assert len([each for each in seen if each in ("completed", "cancelled", "failed")]) == 1


class TestRetry:
    async def test_a_transient_error_is_tried_again_as_often_as_asked(self, node: Node) -> None:
        job = await node.jobs.submit(
            "misbehaving",
            do("raise_error", kind="ConnectionError"),
            retry={"max_attempts": 3, "first_s": 0.01},
        )
        ended = await node.jobs.wait(job.id, 20)
        assert (ended.state, ended.attempt, ended.error["category"]) == ("failed", 3, "transient")
        retries = [each.data for each in await node.jobs.events(job=job.id) if each.type == "retry"]
        assert [each["because"] for each in retries] == ["transient", "transient"]
        assert (await node.jobs.retry(job.id)).state == "pending"
        assert (await node.jobs.wait(job.id, 20)).attempt > 3

    async def test_a_wrong_argument_is_not(self, node: Node) -> None:
        job = await node.jobs.submit("misbehaving", do("raise_error", kind="InputError"), retry=5)
        ended = await node.jobs.wait(job.id, 20)
        assert (ended.state, ended.attempt) == ("failed", 1)
        with pytest.raises(PluginError, match="as told"):
            await node.jobs.result(job.id)

    async def test_a_plugin_that_ran_out_of_memory_gets_a_fresh_worker_and_one_more_attempt(
        self, node: Node
    ) -> None:
        await node.jobs.wait((await node.jobs.submit("misbehaving", do("echo"))).id, 20)
        before = (await node.instance("misbehaving").stats())["pid"]
        job = await node.jobs.submit("misbehaving", do("raise_error", kind="MemoryError"))
        ended = await node.jobs.wait(job.id, 20)
        assert (ended.state, ended.attempt, ended.error["category"]) == ("failed", 2, "resource")
        after = (await node.instance("misbehaving").stats())["pid"]
        assert before != after

    async def test_idle_instances_go_when_a_job_lacks_memory(self, node: Node) -> None:
        for name in NAMES:
            await node.jobs.wait((await node.jobs.submit(name, do("echo"))).id, 20)
        assert len(node.instances()) == 3
        job = await node.jobs.submit("misbehaving", do("raise_error", kind="MemoryError"))
        assert (await node.jobs.wait(job.id, 20)).attempt == 2
        assert [each.id for each in node.instances()] == ["misbehaving"]
        evicted = [each.data for each in await node.jobs.events(job=job.id) if each.type == "evicted"]
        assert sorted(each["instance"] for each in evicted) == ["other", "third"]
        assert all(each["freed_bytes"]["memory"] > 0 for each in evicted)

    async def test_a_lost_worker_is_tried_again_only_when_that_does_no_harm(self, node: Node) -> None:
        job = await node.jobs.submit("misbehaving", do("segv"))
        ended = await node.jobs.wait(job.id, 20)
        assert (ended.state, ended.attempt, ended.error["code"]) == ("failed", 1, "worker.crashed")
        job = await node.jobs.submit(
            "misbehaving", do("kill_self"), idempotent=True, retry={"max_attempts": 2, "first_s": 0.01}
        )
        ended = await node.jobs.wait(job.id, 20)
        assert (ended.state, ended.attempt, ended.error["code"]) == ("failed", 2, "worker.killed")


class TestBrokenInstances:
    async def test_a_crash_loop_fails_its_own_jobs_and_no_others(self, node: Node) -> None:
        bad = [await node.jobs.submit("misbehaving", do("exit_now")) for _ in range(12)]
        good = [await node.jobs.submit("other", do("echo", value=i)) for i in range(30)]
        for job in good:
            assert (await node.jobs.wait(job.id, 30)).state == "completed"
        for job in bad:
            ended = await node.jobs.wait(job.id, 60)
            assert (ended.state, ended.error["code"]) == ("failed", "worker.exited")
        after = await node.jobs.submit("misbehaving", do("echo"))
        assert (await node.jobs.wait(after.id, 60)).state == "completed"

    async def test_one_that_cannot_be_loaded_fails_its_jobs_with_the_reason(self, node: Node) -> None:
        await node.configure("third", {"at_initialize": "raise"})
        jobs = [await node.jobs.submit("third", do("echo")) for _ in range(3)]
        for job in jobs:
            ended = await node.jobs.wait(job.id, 30)
            assert ended.state == "failed"
            assert "told to raise" in ended.error["message"]
        await node.configure("third", {"at_initialize": "nothing"})
        mended = await node.jobs.submit("third", do("echo"))
        assert (await node.jobs.wait(mended.id, 30)).state == "completed"

    async def test_jobs_of_an_instance_that_is_switched_off_wait_until_it_is_on(self, node: Node) -> None:
        job = await node.jobs.submit("other", do("echo"), delay_s=0.2)
        await node.set_enabled("other", False)

        async def reason() -> Any:
            return (await node.jobs.get(job.id)).block_reason

        assert (await eventually_async(reason, 10))["code"] == "disabled"
        await node.set_enabled("other", True)
        assert (await node.jobs.wait(job.id, 20)).state == "completed"

    async def test_a_worker_killed_from_outside_takes_only_its_own_job(self, node: Node) -> None:
        where = await node.jobs.submit("misbehaving", do("echo"))
        await node.jobs.wait(where.id, 20)
        job = await node.jobs.submit("misbehaving", do("work", seconds=60))
        other = await node.jobs.submit("other", do("work", seconds=1))
        await eventually_async(lambda: is_running(node, job.id), 20)
        os.kill((await node.instance("misbehaving").stats())["pid"], signal.SIGKILL)
        assert (await node.jobs.wait(job.id, 20)).error["code"] == "worker.killed"
        assert (await node.jobs.wait(other.id, 20)).state == "completed"


class TestLogsAndFloods:
    async def test_each_job_has_its_own_lines_and_no_others(self, node: Node) -> None:
        await node.jobs.wait((await node.jobs.submit("misbehaving", do("echo"))).id, 20)
        one = await node.jobs.submit("misbehaving", do("flood", lines=50))
        silent = await node.jobs.submit("misbehaving", do("echo"))
        for job in (one, silent):
            assert (await node.jobs.wait(job.id, 20)).state == "completed"
        # Alone: what is written past Python while several calls run on one worker is nobody's.
        two = await node.jobs.submit("misbehaving", do("write_fds", text="from C\n", fds=[1]))
        assert (await node.jobs.wait(two.id, 20)).state == "completed"
        first, second = await node.jobs.logs(one.id, 1000), await node.jobs.logs(two.id)
        assert len(first) == 50
        assert all(" line " in each for each in first)
        assert [each.rsplit(" ", 2)[-2:] for each in second] == [["from", "C"]]
        assert await node.jobs.logs(silent.id) == []

    async def test_progress_a_hundred_thousand_times_a_second_hurts_nobody(self, node: Node) -> None:
        for name in ("misbehaving", "other"):
            await node.jobs.wait((await node.jobs.submit(name, do("echo"))).id, 20)
        noisy = await node.jobs.submit("misbehaving", do("work", seconds=2, step_s=0))
        await eventually_async(lambda: is_running(node, noisy.id), 20)
        times = []
        for _ in range(30):
            began = time.perf_counter()
            job = await node.jobs.submit("other", do("echo"))
            await node.jobs.wait(job.id, 20)
            times.append(time.perf_counter() - began)
        assert sorted(times)[15] < 0.05
        done = await node.jobs.wait(noisy.id, 20)
        told = [each for each in await node.jobs.events(job=noisy.id) if each.type == "progress"]
        seconds = done.usage["duration_s"] + 1  # what it reported first and last
        assert len(told) <= Limits().notes_per_s * seconds

    async def test_a_large_result_goes_into_a_blob(self, node: Node) -> None:
        job = await node.jobs.submit("misbehaving", do("huge", size_bytes=3_000_000))
        done = await node.jobs.wait(job.id, 20)
        assert done.to_dict()["result"]["size_bytes"] >= 3_000_000
        assert await node.jobs.result(job.id) == bytes(3_000_000)
        big = await node.jobs.submit("misbehaving", do("echo", value=b"x" * 200_000))
        assert (await node.jobs.wait(big.id, 20)).state == "completed"
        assert await node.jobs.result(big.id) == b"x" * 200_000


async def test_two_processes_do_not_run_the_jobs_of_one_home(node: Node, toft_home: Path) -> None:
    job = await node.jobs.submit("misbehaving", do("echo"))
    async with running(toft_home) as second:
        with pytest.raises(errors.UnavailableError) as refused:
            await second.jobs.get(job.id)
    assert refused.value.code == "job.owned_elsewhere"


async def test_what_runs_when_the_node_is_closed_is_interrupted_and_what_waits_goes_on(
    toft_home: Path,
) -> None:
    register(toft_home)
    async with running(toft_home, lanes=2) as node:
        ran = await node.jobs.submit("misbehaving", do("hang"))
        again = await node.jobs.submit("misbehaving", do("work", seconds=0.2), idempotent=True, delay_s=0.01)
        await eventually_async(lambda: is_running(node, ran.id), 20)
    async with running(toft_home, lanes=2) as node:
        assert (await node.jobs.get(ran.id)).state == "interrupted"
        assert (await node.jobs.wait(again.id, 30)).state == "completed"
        story = await node.jobs.why(ran.id)
        assert story


async def test_jobs_meet_the_plugin_that_is_installed_not_the_one_that_was(
    node: Node, toft_home: Path
) -> None:
    first = await node.jobs.submit("misbehaving", do("echo", value=1))
    await node.jobs.wait(first.id, 20)
    before = node.instance("misbehaving")
    running = await node.jobs.submit("misbehaving", do("work", seconds=1.5))
    await eventually_async(lambda: is_running(node, running.id), 20)
    # As somebody else's `toft plugin refresh` would: this process is not told.
    register(toft_home, "misbehaving", description="another one")

    async def is_replaced() -> bool:
        job = await node.jobs.submit("misbehaving", do("echo", value=2))
        await node.jobs.wait(job.id, 20)
        return node.find("misbehaving") not in (before, None)

    await eventually_async(is_replaced, 20)
    assert (await node.jobs.get(running.id)).state == "completed"
    assert (await node.jobs.get(running.id)).attempt == 1


async def test_what_somebody_loaded_for_himself_stays(node: Node, toft_home: Path) -> None:
    own = await node.load("misbehaving")
    register(toft_home, "misbehaving", description="another one")
    job = await node.jobs.submit("misbehaving", do("echo", value=1))
    await node.jobs.wait(job.id, 20)
    assert node.instance("misbehaving") is own


async def test_what_somebody_loads_after_a_job_had_it_loaded_is_his_own(node: Node, toft_home: Path) -> None:
    first = await node.jobs.submit("misbehaving", do("echo", value=1))
    await node.jobs.wait(first.id, 20)
    await node.unload("misbehaving")
    own = await node.load("misbehaving")
    register(toft_home, "misbehaving", description="another one")
    job = await node.jobs.submit("misbehaving", do("echo", value=1))
    await node.jobs.wait(job.id, 20)
    assert node.instance("misbehaving") is own


async def test_what_was_measured_goes_with_a_removed_plugin_whatever_its_instances_were_called(
    node: Node,
) -> None:
    measured = (await node.jobs.open()).peaks
    await node.configure("other", {}, instance="remembered")
    await node.configure("third", {}, instance="stays")
    for name in ("other", "remembered", "stays"):
        measured.count(name, "hash", 1.0, succeeded=True, usage={})
    await measured.flush()
    await node.remove("other")
    assert [measured.find(name, "hash").jobs for name in ("other", "remembered", "stays")] == [0, 0, 1]


async def test_what_was_opened_in_vain_is_closed_again(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[JobQueue] = []
    close, open_peaks = JobQueue.close, Peaks.open

    async def closing(queue: JobQueue) -> None:
        closed.append(queue)
        await close(queue)

    async def fail(known: Peaks) -> None:
        raise errors.UnavailableError("the disk is away")

    monkeypatch.setattr(JobQueue, "close", closing)
    monkeypatch.setattr(Peaks, "open", fail)
    with pytest.raises(errors.UnavailableError, match="away"):
        await node.jobs.open()
    assert len(closed) == 1
    monkeypatch.setattr(Peaks, "open", open_peaks)
    job = await node.jobs.submit("misbehaving", do("echo", value=1))
    assert (await node.jobs.wait(job.id, 20)).state == "completed"


async def test_a_result_whose_file_is_gone_is_told_as_that(node: Node) -> None:
    job = await node.jobs.submit("misbehaving", do("echo", value="x" * 100_000))
    kept = (await node.jobs.wait(job.id, 20)).result
    assert kept is not None
    engine = await node.jobs.open()
    engine.means.blobs.remove(str(kept.blob))
    with pytest.raises(errors.NotFoundError, match="no blob") as caught:
        await node.jobs.result(job.id)
    assert caught.value.code == "blob.not_found"
