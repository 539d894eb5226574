"""`why` tells from events alone what happened to a job, in sentences that need no knowledge of toft."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from tests.job_queues import InlineStore, SetClock, open_queue, outcome, settle, submit

from toft import dispatch, jobs
from toft.jobs import digests, reasons, story
from toft.jobs.queue import JobQueue
from toft.jobs.records import State
from toft.kernel.clock import rfc3339

JOB = "job_01"
USAGE = {"duration_s": 1.5, "peak_memory_bytes": {"memory": 340e6}, "units": {"pages": 4}}


class Tape:
    """Events as they are recorded, a second apart unless said otherwise."""

    def __init__(self) -> None:
        self.events: list[Mapping[str, Any]] = []
        self.time = 1_700_000_000.0
        self._cursors = itertools.count(1)

    def add(self, type: str, attempt: int = 0, *, after_s: float = 1.0, **data: Any) -> Tape:
        self.time += after_s
        self.events.append(
            {
                "cursor": next(self._cursors),
                "at": rfc3339(self.time),
                "type": type,
                "job": data.pop("job", JOB),
                "attempt": attempt,
                "sequence": None,
                **data,
            }
        )
        return self

    def state(self, before: str, after: str, attempt: int = 1, **data: Any) -> Tape:
        return self.add("state", attempt, **{"from": before, "to": after}, **data)


def job(**known: Any) -> dict[str, Any]:
    return {"id": JOB, "plugin": "ocr", "action": "execute", "instance": "ocr", "state": "completed", **known}


def lines(told: list[dict[str, Any]]) -> list[str]:
    return [f"{each['what']}: {each['because']}" if each["because"] else each["what"] for each in told]


def test_an_ordinary_job_is_told_in_three_sentences_with_its_times_and_what_it_used() -> None:
    tape = Tape().add("submitted").state("pending", "running", after_s=3.2)
    tape.state("running", "completed", after_s=90, usage=USAGE)
    told = story.tell(job(), tape.events)
    assert lines(told) == [
        "submitted: run ocr",
        "attempt 1 began on instance ocr",
        "completed after 90.0 s",
    ]
    assert told[1]["evidence"] == {"waited": "3.2 s"}
    assert told[2]["evidence"] == {"used": "up to 340 MB of memory, 4 pages"}
    assert [list(each) for each in told] == [["at", "what", "because", "evidence"]] * 3


def test_a_wait_says_how_long_and_what_for_and_one_that_lasts_says_so() -> None:
    tape = Tape().add("submitted").add("blocked", reason={"code": "lanes_busy", "lanes": 2})
    assert story.tell(job(state="pending"), tape.events)[-1]["what"] == "waits to begin"
    tape.state("pending", "running", after_s=12)
    waited = story.tell(job(), tape.events)[1]
    assert waited["what"] == "waited 12.0 s"
    assert waited["evidence"] == {"code": "lanes_busy", "lanes": 2}


def test_a_job_that_waits_without_an_event_tells_from_its_row_what_for() -> None:
    told = story.tell(job(state="pending", block_reason={"code": "after", "jobs": ["job_0"]}), [])
    assert (told[-1]["what"], told[-1]["evidence"]["jobs"]) == ("waits to begin", ["job_0"])


def test_a_retry_says_what_went_wrong_and_when_it_goes_on() -> None:
    error = {
        "code": "plugin.transient",
        "category": "transient",
        "message": "429 from the model",
        "trace": "x" * 99,
    }
    tape = Tape().add("submitted").state("pending", "running")
    tape.add("retry", 1, because="transient", error=error, delay_s=5).state(
        "running", "pending", because="transient"
    )
    tape.state("pending", "running", 2)
    told = story.tell(job(), tape.events)
    retry = next(each for each in told if each["what"].startswith("will be tried"))
    assert retry["what"] == "will be tried again in 5.0 s"
    assert retry["because"].startswith("429 from the model")
    assert "trace" not in retry["evidence"]["error"]
    assert told[-1]["what"] == "attempt 2 began on instance ocr"


def test_a_retry_and_the_change_of_state_it_leads_to_are_one_entry_in_whatever_order() -> None:
    error = {"message": "no memory", "category": "resource"}
    for turned in (False, True):
        tape = Tape().add("submitted").state("pending", "running")
        tape.add("retry", 1, because="resource", error=error, delay_s=0).state(
            "running", "pending", because="resource"
        )
        if turned:
            tape.events[-2:] = reversed(tape.events[-2:])
        told = story.tell(job(state="pending"), tape.events)
        assert [each["what"] for each in told[2:]] == ["will be tried again"]
        assert told[2]["because"].startswith("no memory; the plugin said that it lacked a resource")
    tape = (
        Tape().add("submitted").state("pending", "running").state("running", "failed", because="plugin.fatal")
    )
    tape.add("retry", 1, because="asked").state("failed", "pending", because="asked")
    assert lines(story.tell(job(state="pending"), tape.events))[3:] == ["queued again: somebody asked for it"]


def test_a_job_after_others_says_whose_end_it_waited_for() -> None:
    tape = Tape().add("submitted", waiting=2).add("unblocked", because="job_a completed", waiting=1)
    tape.add("unblocked", because="job_b completed", waiting=0)
    assert lines(story.tell(job(), tape.events))[1:] == [
        "waits for 1 more: job_a completed, which it had to wait for",
        "may begin: job_b completed",
    ]


def test_an_interruption_says_that_nobody_knows_how_far_it_came() -> None:
    tape = Tape().add("submitted").state("pending", "running")
    tape.state("running", "interrupted", because="the node ended")
    told = story.tell(job(state="interrupted"), tape.events)
    assert told[-1]["what"] == "was found interrupted", "when it really ended nobody saw"
    tape = Tape().add("submitted").state("pending", "running")
    tape.state("running", "interrupted", because="node_stopped")
    told = story.tell(job(state="interrupted"), tape.events)
    assert told[-1]["what"] == "interrupted after 1.0 s"
    assert "not run again unasked" in told[-1]["because"]


def test_a_cancel_is_told_by_its_phases() -> None:
    tape = Tape().add("submitted").state("pending", "running")
    for phase in ("requested", "cooperative", "force", "reloading"):
        tape.add("cancel", 1, phase=phase)
    tape.state("running", "cancelled").add("cancel", 1, phase="done")
    told = [each["what"] for each in story.tell(job(state="cancelled"), tape.events)]
    assert told[2:] == [
        "a cancel was asked for",
        "the plugin was asked to stop",
        "the plugin did not stop in time, so its process was ended",
        "a fresh worker takes the place of the one that was ended",
        "cancelled after 5.0 s",
        "the cancel was over 5.0 s after it was asked for",
    ]


def test_what_was_cancelled_says_once_who_did_it_and_what_was_skipped_for_what() -> None:
    tape = Tape().add("submitted").state("pending", "running")
    error = {"code": "call.cancelled", "message": "somebody cancelled the job"}
    tape.state("running", "cancelled", because="asked", error=error)
    assert lines(story.tell(job(state="cancelled"), tape.events))[-1] == (
        "cancelled after 1.0 s: somebody cancelled the job"
    )
    error = {"code": "job.skipped", "message": "step b was not run, because step a failed"}
    tape = Tape().add("submitted").state("pending", "cancelled", 0, because="skipped", error=error)
    assert lines(story.tell(job(state="cancelled"), tape.events))[-1] == (
        "cancelled before it began: step b was not run, because step a failed"
    )


def test_a_place_in_the_queue_is_told_by_its_priority() -> None:
    tape = Tape().add("submitted").add("reordered", rank=1_795_753_006_873_565_376, priority=7)
    moved = story.tell(job(state="pending"), tape.events)[-1]
    assert (moved["what"], moved["evidence"]) == ("was moved in the queue", {"priority": 7})


def test_a_timeout_is_why_the_plugin_was_asked_to_stop() -> None:
    tape = Tape().add("submitted").state("pending", "running").add("cancel", 1, phase="cooperative")
    told = story.tell(job(state="running", timeout_s=1.0), tape.events)
    assert told[-1]["because"] == "it took longer than it was given"


def test_many_reports_and_samples_become_one_entry_each_for_an_attempt() -> None:
    tape = Tape().add("submitted").state("pending", "running")
    for page in range(1, 100):
        tape.add("progress", 1, progress=page / 100, message=f"page {page}")
        tape.add("snapshot", 1, pid=9, memory_bytes=1e6 * page, cpu_percent=100 - page)
    told = story.tell(job(state="running"), tape.events)
    assert [each["what"] for each in told[2:]] == [
        "got as far as 99% page 99 (99 reports)",
        "was seen using up to 99 MB of memory, 99 % of cpu",
    ]


def test_who_was_evicted_and_which_late_answer_was_refused_is_told() -> None:
    tape = Tape().add("submitted")
    tape.add("evicted", 0, instance="big", because="making_room", freed_bytes={"memory": 2e9, "gpu0": 1e9})
    tape.add("fenced", 1)
    told = lines(story.tell(job(), tape.events))
    assert told[1].startswith("the idle instance big was unloaded to make room, which freed 2.0 GB of memory")
    assert "1.0 GB of gpu0: a job needs the memory" in told[1]
    assert told[2].startswith("a late answer of attempt 1 was thrown away: only the newest attempt")


def test_a_failure_says_the_message_and_where_it_failed_before_it_began() -> None:
    error = {
        "code": "job.deadline",
        "message": "its deadline passed while it waited",
        "hint": "submit it again",
    }
    tape = Tape().add("submitted").state("pending", "failed", 0, error=error)
    told = story.tell(job(state="failed", error=error), tape.events)
    assert lines(told)[-1] == "failed before it began: its deadline passed while it waited"
    assert told[-1]["evidence"]["error"]["hint"] == "submit it again"


def test_a_fan_out_completes_with_its_parts() -> None:
    tape = Tape().add("submitted").state("pending", "completed", 0, because="parts completed", after_s=5)
    assert lines(story.tell(job(), tape.events))[-1] == "completed after 5.0 s: all of its parts completed"


def test_an_event_that_is_not_known_yet_is_shown_with_what_it_says() -> None:
    told = story.tell(job(), Tape().add("moved_house", because="rent", street="Elm").events)
    assert told == [
        {"at": told[0]["at"], "what": "moved house", "because": "rent", "evidence": {"street": "Elm"}}
    ]


def test_a_clock_that_went_back_gives_no_negative_time() -> None:
    tape = Tape().add("submitted").state("pending", "running").state("running", "completed", after_s=-31e6)
    assert "-" not in story.tell(job(), tape.events)[-1]["what"]


def test_a_sequence_is_told_in_the_order_of_time_with_the_step_of_each_job() -> None:
    tape = (
        Tape().add("sequence", job=None, state="pending").add("submitted", job="a").add("submitted", job="b")
    )
    tape.state("pending", "running", job="b").add("sequence", job=None, state="running")
    tape.state("pending", "running", job="a")
    members = [job(id="a", step="scan"), job(id="b", step=None)]
    told = story.tell_sequence({"id": "seq_1", "name": "pages"}, members, tape.events)
    assert [each["what"] for each in told] == [
        "pages was submitted",
        "scan: submitted: run ocr",
        "b: submitted: run ocr",
        "b: attempt 1 began on instance ocr",
        "the sequence is running",
        "scan: attempt 1 began on instance ocr",
    ]
    assert told[1]["evidence"]["job"] == "a"


def test_every_reason_to_wait_that_is_decided_somewhere_has_a_sentence() -> None:
    rooms = [Path(jobs.__file__).parent, Path(dispatch.__file__).parent]
    text = "".join(path.read_text(encoding="utf-8") for room in rooms for path in room.glob("*.py"))
    codes = set(re.findall(r'{"code": "([a-z_]+)"', text))
    assert len(codes) > 8
    assert codes - reasons.BLOCKS.keys() == set()
    causes = set(re.findall(r'because="([a-z_]+)"', text)) - {"failed"}
    assert causes - reasons.CAUSES.keys() == set()


async def told(queue: JobQueue, job_id: str) -> list[dict[str, Any]]:
    events = [each.to_dict() for each in await queue.events(job=job_id)]
    attempts = [each.to_dict() for each in await queue.attempts(job_id)]
    return json.loads(json.dumps(story.tell((await queue.get(job_id)).to_dict(), events, attempts)))


async def test_what_the_queue_writes_down_is_told() -> None:
    clock, store = SetClock(), InlineStore()
    error = {"code": "plugin.transient", "category": "transient", "message": "busy", "details": {}}
    async with open_queue(store, clock=clock) as queue:
        first = await submit(queue, priority=2)
        second = await submit(queue, after=(first,), idempotent=True)
        queue.note(first, 0, "blocked", {"reason": {"code": "no_lane", "running": 2}})
        await settle()
        assert (
            lines(await told(queue, first))[1] == "waits to begin: all lanes were taken: 2 jobs were running"
        )
        clock.advance(4)
        await queue.claim("echo", lane_info={"lane": 1})
        queue.note(first, 1, "progress", {"progress": 0.5, "message": "half"})
        clock.advance(2)
        await queue.finish(first, 1, outcome(State.PENDING, because="transient", error=error))
        await queue.claim("echo")
        clock.advance(1)
        await queue.finish(first, 2, outcome(result=b"1", usage=USAGE))
        await queue.finish(first, 1, outcome(result=b"2"))
        await queue.claim("echo")
        assert lines(await told(queue, first)) == [
            "submitted: run echo",
            "waited 4.0 s: all lanes were taken: 2 jobs were running",
            "attempt 1 began on instance echo",
            "got as far as 50% half",
            "will be tried again: busy; the plugin said that the same may work later",
            "attempt 2 began on instance echo",
            "completed after 1.0 s",
            f"a late answer of attempt 1 was thrown away: {reasons.FENCED}",
        ]
    async with open_queue(store, clock=clock) as queue:
        assert lines(await told(queue, second))[1:] == [
            f"may begin: {first} completed",
            "attempt 1 began on instance echo",
            f"was found interrupted: {reasons.INTERRUPTED}",
            "queued again: it was declared idempotent, so running it again does no harm",
        ]
        await queue.request_cancel(second)
        assert lines(await told(queue, second))[-2:] == [
            "a cancel was asked for",
            "cancelled before it began: somebody asked for it",
        ]


async def test_however_often_a_job_reports_few_rows_are_read_and_the_same_is_told() -> None:
    clock, store = SetClock(), InlineStore()
    async with open_queue(store, clock=clock) as queue:
        job_id = await submit(queue)
        for attempt in (1, 2):
            await queue.claim("echo")
            clock.advance(1)
            ends = outcome(State.PENDING, because="transient") if attempt == 1 else outcome(result=b"1")
            await queue.finish(job_id, attempt, ends)
        report(store, 10_000)
        digest = await digests.of_jobs(store, [job_id], 1000)
        assert (
            len(digest) == len({(each.type, each.attempt, str(each.data.get("to"))) for each in digest}) < 13
        )
        attempts = [each.to_dict() for each in await queue.attempts(job_id)]
        job = (await queue.get(job_id)).to_dict()
        whole = [each async for page in pages(queue, job_id) for each in page]
        assert story.tell(job, [each.to_dict() for each in digest], attempts) == story.tell(
            job, whole, attempts
        )
        # Of very many the end is told, and not the beginning.
        assert [each.cursor for each in await digests.of_jobs(store, [job_id], 2)] == [
            each.cursor for each in digest[-2:]
        ]


def report(store: InlineStore, times: int) -> None:
    """Write down reports and measurements of a job's two attempts, however fast they would have come."""
    rows = []
    for number in range(times):
        is_report, attempt = number % 3 != 0, 1 + number % 2
        data = {"progress": number / times, "message": f"page {number}"}
        measured = {"memory_bytes": 7 * (number % 91), "cpu_percent": 1.5, "pid": 12}
        rows.append(
            (
                1000 + number,
                1_700_000_000.0 + number,
                "progress" if is_report else "snapshot",
                attempt,
                json.dumps(data if is_report else measured),
            )
        )
    for row in rows:
        store.query(
            "INSERT INTO events (cursor, at, type, job, attempt, data) VALUES (?, ?, ?, 1, ?, ?)", *row
        )


async def pages(queue: JobQueue, job_id: str) -> AsyncIterator[list[dict[str, Any]]]:
    after = 0
    while page := await queue.events(after, job=job_id, limit=1000):
        after = page[-1].cursor
        yield [each.to_dict() for each in page]


async def test_the_end_of_a_sequence_is_told_without_reading_all_of_it() -> None:
    clock, store = SetClock(), InlineStore()
    async with open_queue(store, clock=clock) as queue:
        ids = [await submit(queue, sequence="seq_1", step=f"s{number}") for number in range(60)]
        for _ in ids:
            clock.advance(1)
            (claimed,) = await queue.claim("echo")
            clock.advance(2)
            await queue.finish(claimed.id, 1, outcome(result=b"1"))
        sequence = {"id": "seq_1", "name": "pages", "state": "running"}
        jobs = [(await queue.get(each)).to_dict() for each in ids]
        events = [each.to_dict() for each in await queue.events(sequence="seq_1", limit=1000)]
        whole = story.tell_sequence(sequence, jobs, events)
        tail = await digests.tail(store, "seq_1", 10)
        assert list(tail.jobs) == ids[:-11:-1]
        known = await digests.jobs(store, [*tail.jobs, "job_none"])
        told = [each.to_dict() for each in await digests.of_jobs(store, tail.jobs, 1000)]
        end = story.tell_sequence(
            sequence, [each.to_dict() for each in known.values()], told, after=tail.after
        )
        assert end == whole[-len(end) :]
        assert len(end) == 20
