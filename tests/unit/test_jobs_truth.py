"""The table of transitions stands in SQL as in code, and the events of a job replayed give its row."""

import asyncio
import sqlite3
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.job_queues import InlineStore, MemoryBlobs, SetClock, outcome, request, seeded_randomness

from toft.jobs.queue import JobQueue
from toft.jobs.records import ENDED, TRANSITIONS, Event, Job, Limits, RetryPolicy, State
from toft.jobs.replay import replay
from toft.kernel import errors

_WAYS = {
    State.PENDING: (),
    State.RUNNING: (State.RUNNING,),
    State.COMPLETED: (State.RUNNING, State.COMPLETED),
    State.FAILED: (State.RUNNING, State.FAILED),
    State.CANCELLED: (State.CANCELLED,),
    State.INTERRUPTED: (State.RUNNING, State.INTERRUPTED),
}


def _move(store: InlineStore, state: State) -> None:
    ended = state in ENDED
    store.query(
        "UPDATE jobs SET state = ?, attempt = attempt + ?, started_at = 1.0, finished_at = ?, finished_q = ?",
        state,
        state is State.RUNNING,
        1.0 if ended else None,
        1.0 if ended else None,
    )


def _insert(store: InlineStore, kind: str = "call") -> None:
    store.query(
        "INSERT INTO jobs (id, plugin, instance, action, kind, state, priority, rank, queued_q, submitted_at)"
        " VALUES ('a', 'p', 'i', 'execute', ?, 'pending', 0, 0, 0.0, 0.0)",
        kind,
    )


@pytest.mark.parametrize("kind", ["call", "map"])
@pytest.mark.parametrize("after", State)
@pytest.mark.parametrize("before", State)
def test_sql_takes_the_transitions_of_the_table_and_no_others(before: State, after: State, kind: str) -> None:
    store = InlineStore()
    _insert(store, kind)
    for state in _WAYS[before]:
        _move(store, state)
    is_known = (before, after) in TRANSITIONS
    if (before, after) == (State.PENDING, State.COMPLETED):
        is_known = kind == "map"
    if is_known:
        _move(store, after)
    else:
        with pytest.raises(sqlite3.IntegrityError, match="no such transition"):
            _move(store, after)


def test_sql_lets_an_attempt_grow_by_a_claim_and_by_nothing_else() -> None:
    store = InlineStore()
    _insert(store)
    with pytest.raises(sqlite3.IntegrityError):
        store.query("UPDATE jobs SET state = 'running', started_at = 1.0")
    _move(store, State.RUNNING)
    with pytest.raises(sqlite3.IntegrityError):
        store.query("UPDATE jobs SET state = 'failed', attempt = 2, finished_at = 1.0, finished_q = 1.0")
    with pytest.raises(sqlite3.IntegrityError):
        store.query(
            "INSERT INTO jobs (id, plugin, instance, action, kind, state, priority, rank, queued_q,"
            " submitted_at, attempt, started_at)"
            " VALUES ('b', 'p', 'i', 'execute', 'call', 'running', 0, 0, 0.0, 0.0, 1, 0.0)"
        )


class _Loop(asyncio.SelectorEventLoop):
    """A loop whose timers go by the clock of the test."""

    def __init__(self, clock: SetClock) -> None:
        self.clock = clock
        super().__init__()

    def time(self) -> float:
        return self.clock.monotonic()


class _World:
    """A queue that is driven by single steps, restarts included."""

    def __init__(self, clock: SetClock) -> None:
        self.clock = clock
        self.store = InlineStore()
        self.blobs = MemoryBlobs()
        self.randomness = seeded_randomness()
        self.ids: list[str] = []
        self.stale: list[tuple[str, int]] = []

    async def open(self) -> None:
        # Jumps of the clock come and go by the year here; what they do to the history is another test's.
        self.queue = JobQueue(
            self.store,
            self.blobs,
            clock=self.clock,
            randomness=self.randomness,
            limits=Limits(keep_s=1e12),
        )
        await self.queue.open()

    async def step(self, choice: tuple[Any, ...]) -> None:
        verb, number, value = choice
        job_id = self.ids[number % len(self.ids)] if self.ids else ""
        if verb == "submit":
            await self._submit(number, value)
        elif verb == "claim":
            for claimed in await self.queue.claim(f"i{number % 2}", 1 + value % 2):
                self.stale.append((claimed.id, claimed.attempt))
        elif verb == "finish" and self.stale:
            await self._finish(*self.stale[number % len(self.stale)], value)
        elif verb == "advance":
            self.clock.advance(float(value * 20))
        elif verb == "jump":
            self.clock.jump(365 * 86_400.0 * (1 if value % 2 else -1))
        elif verb == "restart":
            await self.queue.close()
            await self.open()
        elif job_id:
            await self._wish(verb, job_id, number, value)
        for _ in range(6):
            await asyncio.sleep(0)

    async def _submit(self, number: int, value: int) -> None:
        answers = await self.queue.submit(
            [
                request(
                    f"i{number % 2}",
                    priority=value % 3,
                    delay_s=30.0 if value == 3 else None,
                    ready_at=self.clock.now() + 40 if value == 4 else None,
                    deadline_s=50.0 if value in (5, 3) else None,
                    idempotent=value == 6,
                    retry=RetryPolicy(max_attempts=2) if value == 7 else None,
                    after=tuple(self.ids[-2:]) if value in (1, 2) else (),
                    needs="ended" if value == 2 else "completed",
                    arguments=b"x" * (20_000 if value == 0 else 10),
                )
            ]
        )
        self.ids += [each.job_id for each in answers]

    async def _finish(self, job_id: str, attempt: int, value: int) -> None:
        states = [State.COMPLETED, State.FAILED, State.CANCELLED, State.PENDING]
        state = states[value % 4]
        await self.queue.finish(
            job_id,
            attempt,
            outcome(
                state,
                result=b"r" * (30_000 if value > 4 else 3) if state is State.COMPLETED else None,
                error=None if state is State.COMPLETED else {"code": "x"},
                usage={"cpu_s": 1.5},
                because="",
                retry_in_s=25.0 if state is State.PENDING and value > 3 else None,
            ),
        )

    async def _wish(self, verb: str, job_id: str, number: int, value: int) -> None:
        try:
            if verb == "cancel":
                await self.queue.request_cancel(job_id)
            elif verb == "retry":
                await self.queue.retry(job_id)
            elif verb == "reorder":
                place = [
                    {"priority": value},
                    {"first": True},
                    {"last": True},
                    {"before": self.ids[value % len(self.ids)]},
                ]
                await self.queue.reorder(job_id, **place[number % 4])
            elif verb == "block":
                self.queue.note(job_id, 0, "blocked", {"reason": {"kind": "memory"}})
            elif verb == "progress":
                job = await self.queue.get(job_id)
                for share in range(value):
                    self.queue.note(
                        job_id, job.attempt, "progress", {"progress": share / 10, "message": None}
                    )
        except (errors.ConflictError, errors.UsageError):
            pass

    async def check(self) -> None:
        rows = self.store.query("SELECT state, count(*) FROM jobs GROUP BY state")
        assert {state: count for state, count in self.queue.counts().items() if count} == dict(
            map(tuple, rows)
        )
        ready = self.store.query(
            "SELECT instance, count(*), min(rank) FROM jobs"
            " WHERE state = 'pending' AND waiting = 0 AND held = 0 GROUP BY instance"
        )
        assert {name: (head.ready, head.rank) for name, head in self.queue.heads().items()} == {
            name: (count, rank) for name, count, rank in map(tuple, ready)
        }
        for job_id in self.ids:
            job = await self.queue.get(job_id)
            events = list(await self.queue.events(job=job_id))
            assert replay(events) == _comparable(job)
            _check_story(job, events)
            ended = [each for each in await self.queue.attempts(job_id) if each.state is not State.RUNNING]
            assert len(ended) == job.attempt - (job.state is State.RUNNING)


def _comparable(job: Job) -> Job:
    return replace(job, seq=0, result=None if job.result is None else replace(job.result, data=None))


def _check_story(job: Job, events: list[Event]) -> None:
    moves = [(State(each.data["from"]), State(each.data["to"])) for each in events if each.type == "state"]
    assert all(move in TRANSITIONS for move in moves)
    assert all(first[1] is second[0] for first, second in zip(moves, moves[1:], strict=False))
    assert sum(after is State.RUNNING for _, after in moves) == job.attempt
    assert sum(after is State.COMPLETED for _, after in moves) <= 1
    cursors = [each.cursor for each in events]
    assert cursors == sorted(set(cursors))


_STEPS = st.tuples(
    st.sampled_from(
        ["submit"] * 5
        + ["claim"] * 4
        + ["finish"] * 4
        + ["cancel", "retry", "reorder", "reorder", "advance", "jump", "restart", "block", "progress"]
    ),
    st.integers(0, 11),
    st.integers(0, 8),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(_STEPS, max_size=60))
def test_the_events_of_a_job_replayed_give_its_row(steps: list[tuple[Any, ...]]) -> None:
    clock = SetClock()

    async def run() -> None:
        world = _World(clock)
        await world.open()
        for step in steps:
            await world.step(step)
        await world.check()
        await world.queue.close()

    with asyncio.Runner(loop_factory=lambda: _Loop(clock)) as runner:
        runner.run(run())
