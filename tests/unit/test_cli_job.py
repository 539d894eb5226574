"""`toft job`: what is stored is acknowledged, what is waited for is told, nothing ends by not waiting."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.cli_jobs import Event, FakeJobs, JobNode, Record
from tests.unit.cli_node import run

from toft.kernel.errors import RefusedError

SHOWN = {
    *("id", "plugin", "state", "attempt", "priority", "submitted_at", "started_at", "finished_at"),
    *("progress", "message", "block_reason", "result", "error", "usage", "sequence"),
}


def ending(state: str, **known: Any) -> FakeJobs:
    def end(record: Record) -> Record:
        record.state = state
        record.known = known
        return record

    return FakeJobs(end)


def test_submit_prints_the_id_and_with_json_the_id_and_the_state() -> None:
    node = JobNode()
    told = run(node, "job", "submit", "ocr", "text=hello", "times=3")
    assert (told.status, told.out) == (0, "job_1\n")
    assert node.jobs.asked == [("ocr", {"text": "hello", "times": 3}, {})]
    told = run(node, "job", "submit", "ocr", "--json")
    assert json.loads(told.out) == {"id": "job_2", "state": "pending"}
    assert told.err == ""


def test_everything_that_can_be_said_about_a_job_is_passed_on() -> None:
    node = JobNode()
    words = "--idempotency-key k --idempotent --timeout 5 --deadline 60 --priority 3 --delay 2 --after job_0"
    run(node, "job", "submit", "ocr.page", *words.split(), "--after", "job_00", "--instance", "ocr-2")
    run(node, "job", "submit", "ocr", "--at", "2030-01-02T03:04:05Z", "--retry", "5,on=transient,first_s=2")
    assert node.jobs.asked[0][2] == {
        "action": "page",
        "instance": "ocr-2",
        "priority": 3,
        "delay_s": 2.0,
        "timeout_s": 5.0,
        "deadline_s": 60.0,
        "idempotent": True,
        "idempotency_key": "k",
        "after": ("job_0", "job_00"),
    }
    assert node.jobs.asked[1][2]["start_at"] == 1893553445.0
    policy = node.jobs.asked[1][2]["retry"]
    assert (policy["max_attempts"], policy["on"], policy["first_s"]) == (5, ("transient",), 2.0)


@pytest.mark.parametrize(
    "words",
    [
        ["--delay", "1", "--at", "18:30"],
        ["--at", "soon"],
        ["--at", "2030-13-01T00:00"],
        ["--retry", "many"],
        ["--retry", "0"],
        ["--retry", "3,when=later"],
        ["page"],
    ],
)
def test_what_cannot_be_meant_is_refused_before_a_node_is_opened(words: list[str]) -> None:
    node = JobNode()
    told = run(node, "job", "submit", "ocr", *words, "--json")
    assert (told.status, told.out, node.closed) == (2, "", 0)
    error = json.loads(told.err)["error"]
    assert error["code"] == "request.command_line"
    assert error["hint"]


@pytest.mark.parametrize("target", ["../etc/passwd", ".page", "", "a b", "ocr/x.page", "é"])
@pytest.mark.parametrize("command", ["job submit", "run"])
def test_what_names_no_plugin_is_refused_as_it_was_typed(command: str, target: str) -> None:
    node = JobNode()
    told = run(node, *command.split(), target, "--json")
    error = json.loads(told.err)["error"]
    assert (told.status, error["code"]) == (2, "name.invalid")
    assert repr(target) in error["message"]
    assert node.closed == 0


def test_whoever_may_submit_and_not_look_submits_all_the_same() -> None:
    class Hidden(JobNode):
        def get(self, name: str) -> Any:
            raise RefusedError("token:ci may not: to read plugins needs plugin:read", code="access.refused")

    node = Hidden()
    told = run(node, "job", "submit", "ocr", "text=hello", "times=3")
    assert (told.status, told.out) == (0, "job_1\n")
    assert node.jobs.asked == [("ocr", {"text": "hello", "times": 3}, {})]


def test_arguments_that_do_not_fit_are_refused_and_nothing_is_stored() -> None:
    node = JobNode()
    told = run(node, "job", "submit", "ocr", "times=many", "--json")
    assert told.status == 1
    assert json.loads(told.err)["error"]["details"]["fields"].keys() == {"times"}
    assert node.jobs.records == {}


def test_without_a_daemon_a_person_hears_who_will_run_it() -> None:
    told = run(JobNode(is_embedded=True), "job", "submit", "ocr")
    assert told.out == "job_1\n"
    assert "toft up" in told.err
    assert "toft up" not in run(JobNode(), "job", "submit", "ocr").err


def test_a_wait_prints_the_result_and_ends_well() -> None:
    node = JobNode(jobs=ending("completed"))
    told = run(node, "job", "submit", "ocr", "--wait")
    assert (told.status, told.out) == (0, "text\n")
    assert told.err.splitlines()[0] == "submitted job_1"
    assert told.err.splitlines()[-1] == "job_1 · 2.5 s · attempt 1"
    told = run(node, "job", "wait", "job_1", "--json")
    assert told.status == 0
    assert json.loads(told.out).keys() >= SHOWN


@pytest.mark.parametrize(
    ("state", "status"),
    [("completed", 0), ("failed", 1), ("cancelled", 1), ("interrupted", 1), ("running", 3), ("pending", 3)],
)
def test_the_status_of_a_wait_says_how_it_ended(state: str, status: int) -> None:
    node = JobNode(jobs=ending(state))
    node.jobs.make()
    told = run(node, "job", "wait", "job_1", "--timeout", "0.5", "--json")
    assert (told.status, told.err) == (status, "")
    assert json.loads(told.out)["state"] == state
    assert node.jobs.asked == [("wait", "job_1", 0.5)]
    assert run(node, "job", "wait", "job_1").status == status


def test_a_wait_whose_time_is_over_tells_how_far_the_job_is() -> None:
    def late(record: Record) -> Record:
        raise TimeoutError

    node = JobNode(jobs=FakeJobs(late))
    node.jobs.make("running", progress=0.4, message="page 4")
    told = run(node, "job", "wait", "job_1", "--timeout", "1")
    assert (told.status, told.out) == (3, "")
    assert told.err.splitlines() == ["job_1 is still running: 40% page 4", "next: toft job wait job_1"]


def test_a_failure_is_told_with_its_evidence_and_the_command_that_tells_the_story() -> None:
    error = {"code": "plugin.fatal", "message": "no such page", "details": {"page": 9}, "category": "fatal"}
    node = JobNode(jobs=ending("failed", error=error))
    told = run(node, "job", "submit", "ocr", "--wait")
    assert (told.status, told.out) == (1, "")
    assert told.err.splitlines()[1:] == [
        "error: job_1 failed: no such page",
        "  page: 9",
        "next: toft why job_1",
    ]


def test_an_interrupted_job_says_how_to_run_it_again() -> None:
    told = run(JobNode(jobs=ending("interrupted")), "job", "submit", "ocr", "--wait")
    assert told.status == 1
    assert "nobody can say how far it came" in told.err
    assert "toft job retry job_1" in told.err


def test_ctrl_c_ends_the_waiting_and_says_what_to_do_next() -> None:
    def interrupt(record: Record) -> Record:
        raise KeyboardInterrupt

    node = JobNode(jobs=FakeJobs(interrupt))
    told = run(node, "job", "submit", "ocr", "--wait")
    assert (told.status, told.out) == (130, "")
    assert "job_1 was left alone and goes on" in told.err
    assert "toft job wait job_1 waits again; toft job cancel job_1 ends it" in told.err
    assert not [each for each in node.jobs.asked if each[0] == "cancel"]
    embedded = run(JobNode(jobs=FakeJobs(interrupt), is_embedded=True), "job", "submit", "ocr", "--wait").err
    assert "what was running is interrupted, what waits stays" in embedded
    error = json.loads(run(node, "job", "wait", "job_1", "--json").err)["error"]
    assert (error["code"], error["category"]) == ("job.wait_ended", "cancelled")


def test_progress_is_shown_to_whoever_waits_and_not_to_a_script() -> None:
    jobs = ending("completed")
    jobs.recorded = [Event(1, "progress", data={"progress": 0.5, "message": "half way"})]
    assert "job_1: 50% half way" in run(JobNode(jobs=jobs), "job", "submit", "ocr", "--wait").err
    assert run(JobNode(jobs=jobs), "job", "submit", "ocr", "--wait", "--json").err == ""


def test_list_shows_the_newest_first_and_what_each_waits_for() -> None:
    node = JobNode()
    node.jobs.make("failed", error={"message": "no such page"})
    node.jobs.make("pending", block_reason={"code": "no_lane", "running": 2})
    told = run(node, "job", "list", "--state", "pending", "--plugin", "ocr", "-n", "2")
    assert node.jobs.asked == [("list", {"state": ["pending"], "plugin": "ocr", "limit": 2})]
    lines = told.out.splitlines()
    assert lines[1].startswith("job_2")
    assert "2 jobs were running" in lines[1]
    assert "no such page" in lines[2]
    assert "toft job list --before job_1" in told.err
    shown = json.loads(run(node, "job", "list", "--json").out)
    assert [each["id"] for each in shown] == ["job_2", "job_1"]
    assert shown[0].keys() >= SHOWN
    assert run(node, "job", "list", "--state", "done").status == 2


def test_show_says_everything_and_nothing_empty() -> None:
    node = JobNode()
    node.jobs.make("running", progress=0.25, message="page 1", priority=4)
    told = run(node, "job", "show", "job_1")
    assert told.out.splitlines()[0] == "job_1  running"
    assert "  progress    25% page 1" in told.out
    assert "deadline" not in told.out
    assert json.loads(run(node, "job", "show", "job_1", "--json").out).keys() >= SHOWN
    told = run(node, "job", "show", "job_9", "--json")
    assert told.status == 1
    assert json.loads(told.err)["error"]["hint"] == "toft job list shows what there is."


def test_result_goes_to_stdout_or_to_a_file(tmp_path: Path) -> None:
    node = JobNode(jobs=FakeJobs(value=b"\x00\x01"))
    target = tmp_path / "page"
    told = run(node, "job", "result", "job_1", "-o", str(target), "--json")
    assert json.loads(told.out)["result"] == {"file": str(target), "kind": "bytes", "size_bytes": 2}
    assert target.read_bytes() == b"\x00\x01"
    told = run(node, "job", "result", "job_1", "--json")
    assert json.loads(told.out) == {"id": "job_1", "result": {"bytes_base64": "AAE="}}
    assert run(node, "job", "result", "job_1", "-o", str(tmp_path / "no" / "file")).status == 2


def test_cancel_retry_and_reorder_print_what_the_job_is_then() -> None:
    node = JobNode()
    node.jobs.make()
    node.jobs.make("running")
    assert run(node, "job", "cancel", "job_1").out == "job_1 cancelled\n"
    told = run(node, "job", "cancel", "job_2", "--grace", "0")
    assert "toft job wait job_2" in told.err
    assert node.jobs.asked[-1] == ("cancel", "job_2", 0.0)
    assert json.loads(run(node, "job", "retry", "job_1", "--json").out)["state"] == "pending"
    run(node, "job", "reorder", "job_1", "--before", "job_2")
    assert node.jobs.asked[-1] == ("reorder", "job_1", {"before": "job_2"})
    assert run(node, "job", "reorder", "job_1").status == 2
    assert run(node, "job", "reorder", "job_1", "--first", "--last").status == 2


def test_logs_and_events_are_lines_for_people_and_json_for_scripts() -> None:
    jobs = FakeJobs(lines=["2026-01-02T03:04:05Z stdout 7 counting to 3"])
    jobs.recorded = [Event(number, "progress", data={"progress": number / 2000}) for number in range(1, 1501)]
    node = JobNode(jobs=jobs)
    jobs.make()
    assert json.loads(run(node, "job", "logs", "job_1", "--json").out) == [
        {"time": "2026-01-02T03:04:05Z", "stream": "stdout", "call": 7, "text": "counting to 3"}
    ]
    lines = run(node, "job", "events", "job_1", "--json").out.splitlines()
    assert [json.loads(line)["cursor"] for line in lines] == list(range(1, 1501))
    assert json.loads(lines[0]).keys() >= {"cursor", "at", "type", "job", "attempt"}
    assert len(run(node, "job", "events", "job_1", "--after", "1490").out.splitlines()) == 10
    assert len(run(node, "events", "--follow", "--after", "1490").out.splitlines()) == 10
    assert run(node, "job", "events", "job_9").status == 1


def test_why_prints_the_story_by_day_and_as_json_unchanged() -> None:
    story = [
        {"at": "2026-01-02T03:04:05.000Z", "what": "submitted: run ocr", "because": "", "evidence": {}},
        {
            "at": "2026-01-02T03:04:06.000Z",
            "what": "failed after 1.0 s",
            "because": "no such page \x1b[2J",
            "evidence": {
                "error": {"code": "plugin.fatal"},
                "attempt": 1,
                "delay_s": 0.089,
                "wait": {"first_s": 300},
            },
        },
    ]
    node = JobNode(jobs=FakeJobs(story=story))
    node.jobs.make()
    told = run(node, "why", "job_1")
    assert "failed after 1.0 s: no such page \\x1b[2J" in told.out
    assert "error code plugin.fatal · attempt 1 · delay 89 ms · wait first 5.0 min" in told.out
    assert json.loads(run(node, "why", "job_1", "--json").out) == story
