import asyncio

import pytest
from tests.job_queues import InlineStore, SetClock, open_queue, outcome, request, settle, submit

from toft.jobs.records import Limits, State
from toft.kernel import errors


async def test_a_job_goes_from_submission_to_its_result() -> None:
    async with open_queue() as queue:
        job_id = await submit(queue, arguments=b'{"n":1}')
        assert queue.heads()["echo"].ready == 1
        (claimed,) = await queue.claim("echo", 4, lane_info={"lane": 1})
        assert (claimed.id, claimed.attempt, claimed.arguments) == (job_id, 1, b'{"n":1}')
        assert queue.heads() == {}
        assert await queue.finish(job_id, 1, outcome(result=b"7", usage={"cpu_s": 0.5}))
        job = await queue.wait(job_id, 1)
        assert (job.state, job.attempt, job.usage) == (State.COMPLETED, 1, {"cpu_s": 0.5})
        assert job.result is not None
        assert job.result.data == b"7"
        assert [each.type for each in await queue.events(job=job_id)] == ["submitted", "state", "state"]
        (attempt,) = await queue.attempts(job_id)
        assert (attempt.state, attempt.lane) == (State.COMPLETED, {"lane": 1})
        assert queue.counts()["completed"] == 1


async def test_what_is_asked_at_the_same_time_shares_a_transaction() -> None:
    store = InlineStore()
    async with open_queue(store) as queue:
        await asyncio.gather(*(queue.submit([request()]) for _ in range(50)))
        assert store.writes == 1
        (first,) = await queue.claim("echo")
        finished = queue.finish(first.id, 1, outcome())
        claimed = queue.claim("echo")
        assert await finished
        assert [each.seq for each in await claimed] == [2]
        assert store.writes == 3


async def test_first_come_first_served_unless_the_priority_says_otherwise() -> None:
    clock = SetClock()
    async with open_queue(clock=clock) as queue:
        plain = [await submit(queue) for _ in range(3)]
        urgent = await submit(queue, priority=5)
        clock.advance(61)
        later = await submit(queue, priority=1)
        claimed = [(await queue.claim("echo"))[0].id for _ in range(5)]
        assert claimed == [urgent, *plain, later], "one step of priority is worth a minute, not more"


async def test_an_answer_of_an_attempt_that_does_not_run_any_more_is_fenced() -> None:
    async with open_queue() as queue:
        job_id = await submit(queue)
        await queue.claim("echo")
        assert await queue.finish(job_id, 1, outcome(State.PENDING, because="worker lost"))
        await queue.claim("echo")
        assert not await queue.finish(job_id, 1, outcome(result=b"late"))
        assert await queue.finish(job_id, 2, outcome(result=b"good"))
        assert not await queue.finish(job_id, 2, outcome(State.FAILED))
        job = await queue.get(job_id)
        assert job.result is not None
        assert job.result.data == b"good"
        kinds = [each.type for each in await queue.events(job=job_id)]
        assert kinds.count("fenced") == 2


async def test_a_full_queue_says_busy_and_takes_more_when_there_is_room() -> None:
    async with open_queue(limits=Limits(pending=2)) as queue:
        with pytest.raises(errors.UnavailableError):
            await queue.submit([request(), request(), request()])
        assert queue.counts()["pending"] == 0, "all of what is submitted together, or nothing"
        await queue.submit([request(), request()])
        with pytest.raises(errors.UnavailableError) as caught:
            await submit(queue)
        assert caught.value.code == "job.queue_full"
        assert caught.value.retry_after_s
        await queue.claim("echo")
        await submit(queue)


async def test_restart_interrupts_what_ran_and_resumes_only_what_may_run_twice() -> None:
    store = InlineStore()
    async with open_queue(store) as queue:
        once = await submit(queue)
        twice = await submit(queue, idempotent=True)
        waits = await submit(queue)
        await queue.claim("echo", 2)
    queue_after = open_queue(store)
    async with queue_after as queue:
        assert (await queue.get(once)).state is State.INTERRUPTED
        assert (await queue.get(twice)).state is State.PENDING
        assert queue.heads()["echo"].id == waits
        assert queue.heads()["echo"].ready == 2
        assert not await queue.finish(once, 1, outcome())
        assert [each.attempt for each in await queue.claim("echo", 9)] == [1, 2]
        assert (await queue.retry(once)).state is State.PENDING


async def test_a_watcher_reads_what_is_stored_and_then_what_happens() -> None:
    async with open_queue() as queue:
        job_id = await submit(queue)
        seen: list[str] = []

        async def watch() -> None:
            async for event in queue.watch(job=job_id, after=0):
                seen.append(event.type)

        task = asyncio.create_task(watch())
        await settle()
        await queue.claim("echo")
        await queue.finish(job_id, 1, outcome())
        await settle()
        assert seen == ["submitted", "state", "state"]
    await task
