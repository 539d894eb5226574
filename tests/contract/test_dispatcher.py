"""The dispatcher on the real queue and a backend that does as it is told, in virtual time."""

import asyncio

import pytest
from tests.benches import GB, Bench, FragileStore, Model, fault, with_bench

from toft.dispatch import backend
from toft.jobs import policies, reasons
from toft.jobs.admission import Rules
from toft.jobs.records import RetryPolicy, State
from toft.jobs.retries import Origin


class TestLanes:
    def test_no_more_run_than_there_are_lanes(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a")
            jobs = await bench.run("a", 50)
            assert {each.state for each in jobs} == {State.COMPLETED}
            assert bench.machine.most["all"] == 4

        with_bench(work, {"a": Model()})

    def test_an_instance_runs_no_more_than_it_may_and_others_take_the_lanes(self) -> None:
        async def work(bench: Bench) -> None:
            ids = await bench.submit("one", 6) + await bench.submit("many", 12)
            await bench.ended(ids)
            assert bench.machine.most["one"] == 1
            assert bench.machine.most["many"] >= 3

        with_bench(work, {"one": Model(cap=1), "many": Model()})

    def test_a_hung_job_holds_up_nobody(self) -> None:
        async def work(bench: Bench) -> None:
            hung = await bench.submit("hung")
            await asyncio.sleep(0.1)
            began = asyncio.get_running_loop().time()
            jobs = await bench.run("a", 20)
            assert {each.state for each in jobs} == {State.COMPLETED}
            # Alone for a second, because it was never measured; then everybody has the other lanes.
            assert asyncio.get_running_loop().time() - began < 20
            assert (await bench.jobs.get(hung[0])).state is State.RUNNING

        with_bench(work, {"hung": Model(seconds=1e6), "a": Model()})

    def test_lanes_full_of_hung_jobs_are_lent_once_more(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("hung")
            bench.machine.models["hung"].seconds = 1e7
            await bench.submit("hung", 5)
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            jobs = await bench.ended(await bench.submit("a", 3) + await bench.submit("b", 3))
            assert {each.state for each in jobs} == {State.COMPLETED}
            assert asyncio.get_running_loop().time() - began < 30
            assert bench.machine.most["all"] <= 4
            assert bench.machine.most["hung"] == 2

        models = {"hung": Model(seconds=0.1), "a": Model(), "b": Model()}
        with_bench(work, models, lanes=2, rules=Rules(overdue_s=5.0))

    def test_long_jobs_that_are_always_long_lend_nothing(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("long")
            await bench.ended(await bench.submit("long", 4) + await bench.submit("a", 4))
            assert bench.machine.most["all"] == 2

        with_bench(work, {"long": Model(seconds=60), "a": Model()}, lanes=2, rules=Rules(overdue_s=5.0))

    def test_the_higher_priority_goes_first(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a")
            await bench.submit("a")
            low = await bench.submit("a", 3)
            high = await bench.submit("a", priority=5)
            await bench.ended(low + high)
            started = [(await bench.jobs.get(each)).started_at or 0.0 for each in (*low, *high)]
            assert started[3] < min(started[:3])

        with_bench(work, {"a": Model(cap=1)}, lanes=1)

    def test_claiming_ahead_runs_everything_once_and_never_more_than_lanes(self) -> None:
        async def work(bench: Bench) -> None:
            jobs = await bench.run("a", 300)
            assert {each.state for each in jobs} == {State.COMPLETED}
            assert {each.attempt for each in jobs} == {1}
            assert bench.machine.most["all"] <= 2

        with_bench(work, {"a": Model(seconds=0.0005)}, lanes=2, ahead_s=0.01)

    def test_what_was_claimed_ahead_is_given_back_when_its_lane_does_not_come_free(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a", 10)
            bench.machine.models["a"].seconds = 50.0
            first = await bench.submit("a", 20)
            await asyncio.sleep(5)
            running = [each for each in first if (await bench.jobs.get(each)).state is State.RUNNING]
            assert len(running) == 1
            told = [each.data.get("because") for each in await bench.jobs.events(job=first[1])]
            assert told[-1] == "given_back"
            assert told[-1] in reasons.CAUSES
            assert (await bench.jobs.request_cancel(first[-1])).state is State.CANCELLED

        with_bench(work, {"a": Model(seconds=0.0005)}, lanes=1, ahead_s=0.01)

    def test_a_lane_comes_back_although_nobody_could_measure_what_ran_in_it(self) -> None:
        async def work(bench: Bench) -> None:
            ids = await bench.submit("a", 3)
            await asyncio.sleep(0.5)
            bench.machine.is_blind = True
            await asyncio.sleep(10)
            bench.machine.is_blind = False
            assert {each.state for each in await bench.ended(ids, 30)} == {State.COMPLETED}
            assert await bench.dispatcher.drain(5)

        with_bench(work, {"a": Model()}, lanes=1)

    def test_nothing_happens_while_there_is_nothing_to_do(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a", 3)
            await asyncio.sleep(10)
            measured, writes = bench.machine.measured, bench.store.writes
            await asyncio.sleep(3_000)
            assert (bench.machine.measured, bench.store.writes) == (measured, writes)

        with_bench(work, {"a": Model()})


class TestMemory:
    def test_jobs_are_packed_by_what_they_were_measured_to_take(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a")
            jobs = await bench.run("a", 12)
            assert {each.state for each in jobs} == {State.COMPLETED}
            assert bench.machine.most["a"] == 3
            assert bench.machine.least_free >= 0

        with_bench(work, {"a": Model(each=5 * GB)}, lanes=8)

    def test_a_long_job_is_measured_again_after_once_it_could_not_be(self) -> None:
        async def work(bench: Bench) -> None:
            [job] = await bench.submit("a")
            await asyncio.sleep(20)
            bench.machine.is_blind = True
            await asyncio.sleep(20)
            bench.machine.is_blind = False
            seen = len(await bench.told(job, "snapshot"))
            await asyncio.sleep(20)
            assert len(await bench.told(job, "snapshot")) >= seen + 3

        with_bench(work, {"a": Model(seconds=1000)})

    def test_one_that_was_never_measured_runs_alone_first(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.ended(await bench.submit("a", 4) + await bench.submit("b", 4))
            first = [each for each in bench.machine.log if each.startswith("load")]
            assert first == ["load a", "load b"]
            assert bench.machine.least_free >= 0

        with_bench(
            work, {"a": Model(seconds=0.5, each=9 * GB), "b": Model(seconds=0.5, each=9 * GB)}, lanes=8
        )

    def test_what_never_fits_fails_at_once_and_says_why(self) -> None:
        async def work(bench: Bench) -> None:
            [job] = await bench.run("huge")
            assert (job.state, job.attempt) == (State.FAILED, 0)
            assert job.error is not None
            assert job.error["code"] == "job.never_fits"
            assert job.error["category"] == "resource"
            assert job.error["details"]["needed_bytes"] == 20 * GB
            assert bench.machine.log == []

        with_bench(work, {"huge": Model(floor=20 * GB)})

    def test_idle_instances_make_room_the_longest_unused_first(self) -> None:
        async def work(bench: Bench) -> None:
            for name in ("old", "new"):
                await bench.run(name)
                await asyncio.sleep(60)
            [job] = await bench.run("big")
            assert job.state is State.COMPLETED
            assert "evict old" in bench.machine.log
            assert "evict new" not in bench.machine.log
            [told] = await bench.told(job.id, "evicted")
            assert told == {
                "instance": "old",
                "because": "making_room",
                "freed_bytes": {"memory": 5 * GB},
                "for": "big",
            }

        models = {
            "old": Model(idle=5 * GB),
            "new": Model(idle=5 * GB),
            "big": Model(floor=9 * GB, each=9 * GB),
        }
        with_bench(work, models)

    def test_pinned_ones_stay_and_the_job_says_what_it_waits_for(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("pinned")
            [job] = await bench.submit("big")
            await asyncio.sleep(30)
            seen = await bench.jobs.get(job)
            assert seen.state is State.PENDING
            assert seen.block_reason is not None
            assert seen.block_reason["code"] == "memory"
            assert len(await bench.told(job, "blocked")) == 1

        models = {"pinned": Model(idle=9 * GB, is_pinned=True), "big": Model(floor=9 * GB)}
        with_bench(work, models)

    def test_a_large_job_is_not_overtaken_for_ever(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("small")
            await bench.run("big")
            ids = await bench.submit("small", 300)
            await asyncio.sleep(2)
            [big] = await bench.submit("big", priority=1)
            job = await bench.jobs.wait(big, 10_000)
            assert job.state is State.COMPLETED
            left = [each for each in ids if (await bench.jobs.get(each)).state is State.PENDING]
            assert len(left) > 100
            told = await bench.told(big, "blocked")
            assert [each["reason"]["code"] for each in told] == ["no_lane", "memory"]

        models = {"small": Model(seconds=3.0, each=4 * GB), "big": Model(each=12 * GB)}
        with_bench(work, models, lanes=4)

    def test_the_policies_that_do_not_wait_for_ever(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.submit("holder")
            await asyncio.sleep(1)
            began = asyncio.get_running_loop().time()
            [job] = await bench.run("big")
            waited = asyncio.get_running_loop().time() - began
            assert job.error is not None
            assert job.error["code"] == "job.no_room"
            assert (
                waited < 2 if bench.dispatcher.options.rules.policy is policies.SAFETY else 299 < waited < 303
            )

        models = {"holder": Model(seconds=1e5, each=12 * GB), "big": Model(floor=9 * GB)}
        for policy in (policies.SAFETY, policies.QUEUE):
            with_bench(work, models, rules=Rules(policy=policy))


class TestFaults:
    def test_pauses_between_attempts_grow(self) -> None:
        async def work(bench: Bench) -> None:
            policy = RetryPolicy(max_attempts=4, first_s=10.0, factor=3.0, jitter=0.0)
            [job] = await bench.run("a", retry=policy)
            assert (job.state, job.attempt) == (State.COMPLETED, 4)
            told = await bench.told(job.id, "retry")
            assert [each["delay_s"] for each in told] == [10.0, 30.0, 90.0]

        with_bench(work, {"a": Model(faults=[fault("transient")] * 3)})

    def test_a_resource_error_gets_room_and_a_fresh_worker(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("idle")
            [job] = await bench.run("a")
            assert (job.state, job.attempt) == (State.COMPLETED, 2)
            assert bench.machine.log[-3:] == ["load a", "evict idle", "respawn a"]

        with_bench(work, {"a": Model(faults=[fault("resource")]), "idle": Model(idle=GB)})

    def test_a_lost_worker_is_not_tried_again_unasked(self) -> None:
        async def work(bench: Bench) -> None:
            [job] = await bench.run("a", retry=RetryPolicy(max_attempts=5))
            assert (job.state, job.attempt) == (State.FAILED, 1)

        with_bench(work, {"a": Model(faults=[fault("transient", Origin.WORKER)])})

    def test_a_deadline_is_no_time_out_and_is_not_tried_again(self) -> None:
        async def work(bench: Bench) -> None:
            [job] = await bench.run("a", deadline_s=5.0, idempotent=True)
            assert (job.state, job.attempt) == (State.FAILED, 1)
            assert job.error is not None
            assert job.error["code"] == "job.deadline"
            [job] = await bench.run("a", timeout_s=5.0, idempotent=True)
            assert (job.state, job.attempt) == (State.FAILED, 3)

        with_bench(work, {"a": Model(seconds=60)})

    def test_a_load_that_fails_fails_one_job_and_the_next_waits_a_little(self) -> None:
        async def work(bench: Bench) -> None:
            jobs = await bench.run("a", 4)
            assert [each.state for each in jobs] == [State.FAILED] * 3 + [State.COMPLETED]

        with_bench(work, {"a": Model(load_faults=[fault("fatal")] * 3)}, lanes=1)

    def test_an_instance_that_nobody_knows_any_more(self) -> None:
        async def work(bench: Bench) -> None:
            jobs = await bench.run("gone", 3)
            assert {each.state for each in jobs} == {State.FAILED}
            assert [each.state for each in await bench.run("a", 3)] == [State.COMPLETED] * 3

        with_bench(work, {"a": Model()})

    def test_jobs_of_a_disabled_instance_wait_for_it(self) -> None:
        async def work(bench: Bench) -> None:
            bench.machine.conditions["a"] = backend.Condition.DISABLED
            [job] = await bench.submit("a")
            await asyncio.sleep(100)
            seen = await bench.jobs.get(job)
            assert seen.block_reason is not None
            assert seen.block_reason["code"] == "disabled"
            del bench.machine.conditions["a"]
            bench.machine.changed("a")
            assert (await bench.jobs.wait(job, 3)).state is State.COMPLETED

        with_bench(work, {"a": Model()})

    def test_an_instance_that_restarts_is_waited_for(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a")
            bench.machine.conditions["a"] = backend.Condition.RESTARTING
            bench.machine.changed("a")
            [job] = await bench.submit("a")
            await asyncio.sleep(5)
            seen = await bench.jobs.get(job)
            assert seen.block_reason is not None
            assert seen.block_reason["code"] == "restarting"
            del bench.machine.conditions["a"]
            bench.machine.changed("a")
            assert (await bench.jobs.wait(job, 3)).state is State.COMPLETED

        with_bench(work, {"a": Model()})

    def test_a_full_disk_holds_outcomes_back_and_loses_none(self) -> None:
        store = FragileStore()

        async def work(bench: Bench) -> None:
            await bench.run("a")
            ids = await bench.submit("a", 8)
            await asyncio.sleep(0.5)
            store.is_full = True
            await asyncio.sleep(60)
            store.is_full = False
            began = asyncio.get_running_loop().time()
            jobs = await bench.ended(ids)
            assert {each.state for each in jobs} == {State.COMPLETED}
            assert {each.attempt for each in jobs} == {1}
            assert asyncio.get_running_loop().time() - began < 15

        with_bench(work, {"a": Model()}, store=store)


class TestCancel:
    @pytest.mark.parametrize("after_s", [0.0, 0.0001, 0.5])
    def test_wherever_the_job_is_it_ends_cancelled(self, after_s: float) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a")
            [job] = await bench.submit("a")
            await asyncio.sleep(after_s)
            await bench.jobs.request_cancel(job)
            assert (await bench.jobs.wait(job, 5)).state is State.CANCELLED

        with_bench(work, {"a": Model()})

    def test_one_that_was_claimed_ahead(self) -> None:
        async def work(bench: Bench) -> None:
            await bench.run("a", 10)
            bench.machine.models["a"].seconds = 50.0
            ids = await bench.submit("a", 5)
            await asyncio.sleep(0.05)
            asked = [each for each in ids if (await bench.jobs.get(each)).state is State.RUNNING]
            assert len(asked) > 1
            began = asyncio.get_running_loop().time()
            for each in reversed(asked):
                await bench.jobs.request_cancel(each)
            assert {each.state for each in await bench.ended(asked, 0.1)} == {State.CANCELLED}
            assert asyncio.get_running_loop().time() - began < 0.1

        with_bench(work, {"a": Model(seconds=0.0005)}, lanes=1, ahead_s=0.01)

    def test_closing_interrupts_what_runs(self) -> None:
        async def work(bench: Bench) -> None:
            [job] = await bench.submit("a")
            await asyncio.sleep(1)
            await bench.dispatcher.close()
            assert (await bench.jobs.get(job)).state is State.INTERRUPTED

        with_bench(work, {"a": Model(seconds=100)})

    def test_draining_waits_for_what_runs_and_starts_nothing(self) -> None:
        async def work(bench: Bench) -> None:
            ids = await bench.submit("a", 3)
            await asyncio.sleep(0.5)
            assert not await bench.dispatcher.drain(0.1)
            assert await bench.dispatcher.drain(10)
            states = [(await bench.jobs.get(each)).state for each in ids]
            assert states == [State.COMPLETED, State.PENDING, State.PENDING]

        with_bench(work, {"a": Model()}, lanes=1)
