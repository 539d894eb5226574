"""Traces: what is taken from a request, and what becomes of the events of a job."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.job_queues import open_queue

from toft.dispatch import spans
from toft.jobs.records import Event, Request
from toft.kernel import errors, traces
from toft.kernel.traces import Step
from toft.plugins.supervision.calls import Call

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        (PARENT, PARENT),
        (f"01-{TRACE}-{SPAN}-01-later", PARENT),
        (None, None),
        ("", None),
        (PARENT.upper(), None),
        (f"{PARENT}-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"01-{TRACE}-{SPAN}-01later", None),
        ("a" * 100_000, None),
    ],
)
def test_a_traceparent_is_taken_or_ignored(header: str | None, parsed: str | None) -> None:
    assert traces.parse(header) == parsed
    with traces.within(header):
        assert traces.current() == parsed
    assert traces.current() is None


def test_steps_are_collected_only_where_somebody_does() -> None:
    with traces.step("alone"), traces.collect() as steps, traces.step("one"):
        pass
    assert [each.name for each in steps] == ["one"]


def event(cursor: int, at: float, type: str, attempt: int = 0, **data: Any) -> Event:
    return Event(cursor, at, type, "job_1", attempt, None, data)


def moved(cursor: int, at: float, attempt: int, to: str, **data: Any) -> Event:
    return event(cursor, at, "state", attempt, **{"from": "", "to": to, **data})


SUBMITTED = event(1, 10.0, "submitted", plugin="ocr", instance="gpu", traceparent=PARENT)
LOAD = spans.Load("gpu", (Step("environment", 10.5, 10.6), Step("worker", 10.6, 11.9)))


def told(found: list[spans.Span]) -> list[tuple[str, float, float, str | None, str]]:
    return [
        (
            each.name,
            each.began,
            each.ended,
            None if each.parent is None else found[each.parent].name,
            each.error,
        )
        for each in found
    ]


def test_a_job_is_traced_from_its_submission_to_its_call() -> None:
    events = [SUBMITTED, moved(2, 12.0, 1, "running"), moved(3, 15.0, 1, "completed")]
    other = spans.Load("cpu", LOAD.steps)
    found, parent = spans.of(events, [other, LOAD])
    assert parent == PARENT
    assert told(found) == [
        ("job ocr.execute", 10.0, 15.0, None, ""),
        ("submit", 10.0, 10.0, "job ocr.execute", ""),
        ("queue", 10.0, 12.0, "job ocr.execute", ""),
        ("environment", 10.5, 10.6, "queue", ""),
        ("worker", 10.6, 11.9, "queue", ""),
        ("call", 12.0, 15.0, "job ocr.execute", ""),
    ]


def test_each_attempt_has_its_own_wait_and_call_and_a_failure_its_code() -> None:
    events = [
        SUBMITTED,
        moved(2, 12.0, 1, "running"),
        moved(3, 13.0, 1, "pending", error={"code": "plugin.transient"}),
        moved(4, 14.0, 2, "running"),
        moved(5, 15.0, 2, "failed", error={"code": "plugin.fatal"}),
    ]
    assert told(spans.of(events)[0])[2:] == [
        ("queue", 10.0, 12.0, "job ocr.execute", ""),
        ("call", 12.0, 13.0, "job ocr.execute", "plugin.transient"),
        ("queue", 13.0, 14.0, "job ocr.execute", ""),
        ("call", 14.0, 15.0, "job ocr.execute", "plugin.fatal"),
    ]
    assert spans.of(events)[0][0].error == "plugin.fatal"


def test_what_was_asked_to_run_again_is_told_for_each_of_its_ends() -> None:
    events = [
        SUBMITTED,
        moved(2, 12.0, 1, "running"),
        moved(3, 13.0, 1, "failed", error={"code": "x"}),
        moved(4, 20.0, 1, "pending", because="asked"),
        moved(5, 21.0, 2, "running"),
        moved(6, 22.0, 2, "completed"),
    ]
    assert told(spans.of(events)[0]) == [
        ("job ocr.execute", 20.0, 22.0, None, ""),
        ("queue", 20.0, 21.0, "job ocr.execute", ""),
        ("call", 21.0, 22.0, "job ocr.execute", ""),
    ]
    waiting = [SUBMITTED, moved(2, 11.0, 0, "cancelled")]
    assert [each.name for each in spans.of(waiting)[0]] == ["job ocr.execute", "submit", "queue"]
    assert spans.of(events[:2]) == ([], None)


class Executed:
    """Executes nothing."""

    def cancel(self, call: Call) -> None:
        pass

    def ended(self, call: Call, result: Any, error: Exception | None) -> None:
        call.finish(result, error)


@pytest.mark.parametrize("ends", ["well", "badly", "before it began", "left"])
async def test_a_call_is_traced_by_when_it_was_asked_for_began_and_ended(ends: str) -> None:
    loop = asyncio.get_running_loop()
    call = Call(1, "read", {}, Executed(), loop)
    asked = spans.Asked("ocr", "gpu", 1000.0, 50.0, LOAD.steps)
    if ends != "before it began":
        call.begin_running(None)
        call.started_at = 51.0
    if ends == "left":
        call.future.cancel()
    else:
        call.worker_ended(1, None if ends == "well" else errors.UsageError("torn", code="call.torn"))
    found = spans.of_call(asked, call, 53.0)
    code = {"well": "", "left": "call.cancelled"}.get(ends, "call.torn")
    outcome = {"well": "succeeded", "left": "cancelled"}.get(ends, "failed")
    assert found[0].attributes["toft.outcome"] == outcome
    began = 1003.0 if ends == "before it began" else 1001.0
    expected = [
        ("call ocr.read", 1000.0, 1003.0, None, code),
        ("queue", 1000.0, began, "call ocr.read", ""),
        ("call", 1001.0, 1003.0, "call ocr.read", code),
    ]
    assert told(found) == expected[: 2 if ends == "before it began" else 3]


async def test_an_instance_that_was_loaded_just_before_was_loaded_for_the_call() -> None:
    call = Call(1, "read", {}, Executed(), asyncio.get_running_loop())
    call.begin_running(None)
    call.started_at = 50.5
    call.worker_ended(1, None)
    found = spans.of_call(spans.Asked("ocr", "gpu", 16.0, 50.0, LOAD.steps), call, 51.0)
    assert told(found) == [
        ("call ocr.read", 10.5, 17.0, None, ""),
        ("environment", 10.5, 10.6, "call ocr.read", ""),
        ("worker", 10.6, 11.9, "call ocr.read", ""),
        ("queue", 16.0, 16.5, "call ocr.read", ""),
        ("call", 16.5, 17.0, "call ocr.read", ""),
    ]


async def test_a_job_is_stored_with_the_trace_of_whoever_submits_it() -> None:
    async with open_queue() as queue:
        with traces.within(PARENT):
            await queue.submit([Request(plugin="p", instance="p")])
        await queue.submit([Request(plugin="p", instance="p")])
        events = await queue.events()
    assert [each.data.get("traceparent") for each in events] == [PARENT, None]
