"""What people and programs ask of jobs that wait, run or have ended."""

import asyncio
import itertools

import pytest
from tests.job_queues import InlineStore, SetClock, open_queue, outcome, request, settle, submit

from toft.jobs.queue import JobQueue
from toft.jobs.records import RetryPolicy, State
from toft.kernel import errors


class Loop(asyncio.SelectorEventLoop):
    """A loop whose timers go by the clock of the test."""

    clock = SetClock()

    def time(self) -> float:
        return self.clock.monotonic()


async def order(queue: JobQueue) -> list[str]:
    return [each.id for each in await queue.claim("echo", 1000)]


async def test_one_key_is_one_job_however_often_it_is_submitted() -> None:
    async with open_queue() as queue:
        answers = await asyncio.gather(
            *(queue.submit([request(idempotency_key="k", arguments=b"1")]) for _ in range(5))
        )
        assert len({each[0].job_id for each in answers}) == 1
        assert [each[0].is_new for each in answers] == [True, False, False, False, False]
        await queue.claim("echo")
        await queue.finish(answers[0][0].job_id, 1, outcome())
        (again,) = await queue.submit([request(idempotency_key="k", arguments=b"1")])
        assert (again.job_id, again.state) == (answers[0][0].job_id, State.COMPLETED)
        assert queue.counts()["pending"] == 0


@pytest.mark.parametrize("other", [{"arguments": b"2"}, {"action": "train"}, {"plugin": "other"}])
async def test_a_key_with_something_else_is_refused_and_nothing_is_stored(other: dict[str, object]) -> None:
    async with open_queue() as queue:
        job_id = await submit(queue, idempotency_key="k", arguments=b"1")
        with pytest.raises(errors.ConflictError) as caught:
            await queue.submit([request(), request(**{"idempotency_key": "k", "arguments": b"1", **other})])
        assert caught.value.code == "job.idempotency"
        assert caught.value.details["job"] == job_id
        with pytest.raises(errors.ConflictError):
            await queue.submit(
                [
                    request(**{"idempotency_key": "n", "arguments": b"1"}),
                    request(**{"idempotency_key": "n", "arguments": b"1", **other}),
                ]
            )
        assert queue.counts()["pending"] == 1


@pytest.mark.parametrize(
    "bad",
    [
        {"timeout_s": -1.0},
        {"delay_s": float("nan")},
        {"deadline_s": float("inf")},
        {"priority": 10**12},
        {"kind": "loop"},
        {"retry": RetryPolicy(max_attempts=0)},
        {"needs": "luck"},
        {"idempotency_key": ""},
        {"idempotency_key": "k" * 1000},
    ],
)
async def test_what_cannot_be_right_is_refused_with_its_field(bad: dict[str, object]) -> None:
    async with open_queue() as queue:
        with pytest.raises(errors.UsageError) as caught:
            await queue.submit([request(), request(**bad)])
        assert list(caught.value.details["fields"]) == list(bad)
        assert queue.counts()["pending"] == 0


async def test_jobs_move_to_any_place_as_often_as_one_likes() -> None:
    async with open_queue() as queue:
        ids = [each.job_id for each in await queue.submit([request() for _ in range(6)])]
        a, b, c, d, e, f = ids
        await queue.reorder(f, first=True)
        await queue.reorder(a, last=True)
        await queue.reorder(e, before=c)
        assert await order(queue) == [f, b, e, c, d, a]


async def test_there_is_always_room_between_two_jobs() -> None:
    store = InlineStore()
    async with open_queue(store) as queue:
        ids = [each.job_id for each in await queue.submit([request() for _ in range(40)])]
        expected = list(ids)
        for turn in range(200):
            moved, target = expected[(turn * 7) % 40], expected[20]
            if moved == target:
                continue
            await queue.reorder(moved, before=target)
            expected.remove(moved)
            expected.insert(expected.index(target), moved)
        assert await order(queue) == expected


async def test_only_jobs_that_wait_can_be_moved() -> None:
    async with open_queue() as queue:
        job_id, other = await submit(queue), await submit(queue, instance="other")
        await queue.claim("echo")
        with pytest.raises(errors.ConflictError):
            await queue.reorder(job_id, first=True)
        with pytest.raises(errors.UsageError):
            await queue.reorder(other, before=job_id)
        with pytest.raises(errors.UsageError):
            await queue.reorder(other)
        with pytest.raises(errors.NotFoundError):
            await queue.reorder(other, before="job_unknown")


async def test_what_comes_after_a_job_waits_runs_or_is_skipped() -> None:
    async with open_queue() as queue:
        first = await submit(queue)
        good = await submit(queue, after=(first,))
        last = await submit(queue, after=(good, first))
        anyway = await submit(queue, after=(good,), needs="ended")
        assert await order(queue) == [first]
        await queue.finish(first, 1, outcome())
        assert await order(queue) == [good]
        await queue.finish(good, 1, outcome(State.FAILED, error={"code": "x"}))
        job = await queue.get(last)
        assert job.state is State.CANCELLED
        assert job.error is not None
        assert (job.error["code"], job.error["details"]["parent"]) == ("job.skipped", good)
        assert await order(queue) == [anyway]
        late = await submit(queue, after=(good,))
        assert (await queue.get(late)).state is State.CANCELLED
        ready = await submit(queue, after=(first,))
        assert await order(queue) == [ready]


async def test_a_skip_goes_down_the_whole_line() -> None:
    async with open_queue() as queue:
        ids = [await submit(queue)]
        for _ in range(50):
            ids.append(await submit(queue, after=(ids[-1],)))
        await queue.request_cancel(ids[0])
        assert queue.counts()["cancelled"] == 51


async def test_jobs_submitted_together_may_name_each_other() -> None:
    async with open_queue() as queue:
        parent = queue.new_id()
        answers = await queue.submit([request(id=parent), request(after=(parent,))])
        assert [each.job_id for each in answers][0] == parent
        assert await order(queue) == [parent]
        with pytest.raises(errors.NotFoundError):
            await queue.submit([request(after=("job_unknown",))])


async def test_an_interrupted_parent_keeps_its_children_waiting() -> None:
    store = InlineStore()
    async with open_queue(store) as queue:
        parent = await submit(queue)
        child = await submit(queue, after=(parent,))
        await queue.claim("echo")
    async with open_queue(store) as queue:
        assert (await queue.get(child)).state is State.PENDING
        await queue.retry(parent)
        await queue.claim("echo")
        await queue.finish(parent, 2, outcome())
        assert await order(queue) == [child]


async def test_dead_letters_are_found_and_requeued() -> None:
    async with open_queue() as queue:
        ids = [await submit(queue, retry=RetryPolicy(max_attempts=2)) for _ in range(3)]
        for job_id, attempt in itertools.product(ids, (1, 2)):
            (claimed,) = await queue.claim("echo")
            state = State.PENDING if claimed.tries < claimed.retry.max_attempts else State.FAILED
            assert await queue.finish(claimed.id, claimed.attempt, outcome(state, error={"code": "x"}))
            del job_id, attempt
        dead = await queue.list(state="failed")
        assert {each.id for each in dead} == set(ids)
        assert all(each.attempt == 2 for each in dead)
        await queue.retry(ids[0])
        (again,) = await queue.claim("echo")
        assert (again.attempt, again.tries) == (3, 1), "asking gives it all its attempts again"
        with pytest.raises(errors.ConflictError):
            await queue.retry(ids[0])


async def test_a_cancel_that_meets_a_completion_is_decided_once() -> None:
    async with open_queue() as queue:
        job_id = await submit(queue)
        await queue.claim("echo")
        cancelled = queue.request_cancel(job_id)
        finished = queue.finish(job_id, 1, outcome(result=b"1"))
        assert await finished
        assert (await cancelled).state is State.COMPLETED
        assert (await queue.request_cancel(job_id)).state is State.COMPLETED
        kinds = [each.type for each in await queue.events(job=job_id)]
        assert kinds == ["submitted", "state", "state"]


def test_delays_appointments_and_deadlines_come_by_themselves() -> None:
    async def run() -> None:
        clock = Loop.clock
        async with open_queue(clock=clock) as queue:
            delayed = await submit(queue, delay_s=60.0)
            meeting = await submit(queue, ready_at=clock.now() + 100)
            too_late = await submit(queue, instance="busy", deadline_s=30.0)
            assert set(queue.heads()) == {"busy"}
            clock.advance(31)
            await settle()
            job = await queue.get(too_late)
            assert job.error is not None
            assert (job.state, job.error["code"]) == (State.FAILED, "job.deadline")
            clock.advance(30)
            await settle()
            assert await order(queue) == [delayed]
            clock.jump(50)
            clock.advance(30)  # an appointment is looked at again that often
            await settle()
            assert await order(queue) == [meeting]

    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(run())
