"""A list of jobs holds what fits, the newest first, whatever it is narrowed by, and costs its page."""

import itertools
from typing import Any

import pytest
from tests.job_queues import InlineStore, SetClock, open_queue, outcome, submit

from toft.jobs import listing
from toft.jobs.queue import JobQueue
from toft.jobs.records import State
from toft.kernel import errors

_START = 1_700_000_000.0
_FILTERS: dict[str, tuple[Any, ...]] = {
    "state": (None, "pending", "running", "failed", ("failed", "cancelled"), ("running", "completed")),
    "plugin": (None, "echo", "other", "nobody"),
    "plugins": (None, frozenset(), frozenset({"other", "nobody"})),
    "instance": (None, "echo-1", "other"),
    "sequence": (None, "seq_a"),
    "since": (None, _START + 20),
    "until": (None, _START + 40),
    "error": (None, "input", "plugin.", "absent"),
    "before_seq": (None, 33),
}


async def _fill(queue: JobQueue, clock: SetClock) -> None:
    """Store jobs of every state, one a second, two plugins, three instances, some in a sequence."""
    instances = ("echo", "echo-1", "other")
    for number in range(60):
        instance = instances[number % 3]
        sequence = "seq_a" if number % 4 == 0 else None
        await submit(queue, instance=instance, plugin=instance.split("-")[0], sequence=sequence)
        clock.advance(1)
    for number, instance in enumerate(instances * 10):
        (job,) = await queue.claim(instance)
        code = ("plugin.fatal", "plugin.input_error")[number % 2]
        state = (State.COMPLETED, State.FAILED, State.CANCELLED)[number % 4 % 3]
        error = {"code": code, "message": "no"} if state is State.FAILED else None
        if number % 5:
            await queue.finish(job.id, 1, outcome(state, error=error))


def _fits(job: Any, wanted: dict[str, Any]) -> bool:
    states = [wanted["state"]] if isinstance(wanted.get("state"), str) else wanted.get("state")
    return (
        (states is None or job.state in states)
        and all(
            getattr(job, name) == wanted[name]
            for name in ("plugin", "instance", "sequence")
            if name in wanted
        )
        and ("plugins" not in wanted or job.plugin in wanted["plugins"])
        and ("since" not in wanted or job.submitted_at >= wanted["since"])
        and ("until" not in wanted or job.submitted_at < wanted["until"])
        and ("error" not in wanted or wanted["error"] in (job.error or {}).get("code", ""))
        and ("before_seq" not in wanted or job.seq < wanted["before_seq"])
    )


async def test_a_list_holds_what_fits_under_every_combination_of_filters() -> None:
    clock, hits = SetClock(_START), 0
    async with open_queue(clock=clock) as queue:
        await _fill(queue, clock)
        everything = await queue.list(limit=1000)
        assert [job.seq for job in everything] == list(range(60, 0, -1))
        for number, values in enumerate(itertools.product(*_FILTERS.values())):
            if number % 7:
                continue  # seven is prime to every number of choices: each pair of choices still meets
            wanted = {name: value for name, value in zip(_FILTERS, values, strict=True) if value is not None}
            expected = [job.id for job in everything if _fits(job, wanted)]
            assert [job.id for job in await queue.list(**wanted)] == expected, wanted
            assert [job.id for job in await queue.list(**wanted, limit=2)] == expected[:2], wanted
            hits += bool(expected)
    assert hits > 50


async def test_pages_follow_each_other_without_a_gap() -> None:
    clock = SetClock(_START)
    async with open_queue(clock=clock) as queue:
        await _fill(queue, clock)
        seen: list[int] = []
        before = None
        while page := await queue.list(state=["pending", "failed"], limit=7, before_seq=before):
            seen += [job.seq for job in page]
            before = page[-1].seq
        assert seen == [job.seq for job in await queue.list(state=["pending", "failed"], limit=1000)]


@pytest.mark.parametrize(
    "wanted",
    [
        {"state": "failed", "plugin": "p3"},
        {"error": "rare"},
        {"instance": "p1", "error": "rare"},
        {"plugins": frozenset({"p2"}), "state": "pending"},
        {"since": 19_990.0},
        {"until": 10.0, "plugin": "p4"},
        {"state": "running"},
        {"sequence": "seq_none", "state": "failed"},
    ],
)
async def test_what_fits_rarely_is_found_without_looking_at_everything(wanted: dict[str, Any]) -> None:
    store = InlineStore()
    store.query("DROP TRIGGER jobs_begin")
    store.query(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) "
        "INSERT INTO jobs (seq, id, plugin, instance, action, kind, state, priority, rank, queued_q, "
        "submitted_at, finished_at, finished_q, error) "
        "SELECT i, 'job_' || i, 'p' || i % 5, 'p' || i % 5, 'execute', 'call', "
        "iif(i % 5000 = 0, 'failed', 'completed'), 0, i, i, i, i, i, "
        """iif(i % 5000 = 0, '{"code":"' || iif(i = 5000, 'x.rare', 'x.y') || '"}', NULL) FROM n"""
    )
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    store.connection.set_progress_handler(count, 100)
    async with open_queue(store) as queue:
        steps = 0
        await queue.list(**wanted, limit=10)
    # A look at each of 20,000 jobs would be a thousand times a hundred steps.
    assert steps < 150


async def test_a_state_that_there_is_not_is_refused() -> None:
    with pytest.raises(errors.UsageError) as caught:
        listing.wanted(state=["failed", "broken"])
    assert caught.value.code == "job.request"
    assert "broken" in caught.value.message
