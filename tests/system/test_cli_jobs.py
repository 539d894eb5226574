"""Jobs from the command line, with and without a daemon: every JSON shape that scripts rely on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.command_line import CommandLine, Done
from tests.nodes import register
from tests.screens import Screen
from tests.waiting import eventually

SHOWN = {
    *("id", "plugin", "state", "attempt", "priority", "submitted_at", "started_at", "finished_at"),
    *("progress", "message", "block_reason", "result", "error", "usage", "sequence"),
}
GRAPH = """
name: two steps
steps:
  - {id: first, plugin: misbehaving, action: echo, arguments: {value: {lines: [a, b]}}}
  - {id: second, plugin: misbehaving, action: echo, arguments: {value: {$from: first, path: [lines, 1]}}}
"""


@pytest.fixture
def toft(toft_home: Path, tmp_path: Path) -> CommandLine:
    register(toft_home)
    return CommandLine(toft_home, tmp_path)


@pytest.fixture
def up(toft: CommandLine) -> Iterator[CommandLine]:
    assert toft("up", "--detach").status == 0
    yield toft
    assert toft("down", "--now").status == 0


@pytest.fixture(params=["embedded", "daemon"])
def either(request: pytest.FixtureRequest) -> CommandLine:
    name = "toft" if request.param == "embedded" else "up"
    found: CommandLine = request.getfixturevalue(name)
    return found


def lines(done: Done) -> list[Any]:
    assert done.status == 0, done.err
    return [json.loads(line) for line in done.out.splitlines()]


def test_a_job_from_submit_to_why_in_the_shapes_that_scripts_rely_on(either: CommandLine) -> None:
    toft = either
    submitted = toft(
        "job", "submit", "misbehaving.echo", 'value:={"n": 7}', "--priority", "2", "--json"
    ).value
    assert submitted.keys() == {"id", "state"}
    id = submitted["id"]
    waited = toft("job", "wait", id, "--timeout", "60", "--json").value
    assert waited.keys() >= SHOWN
    assert (waited["state"], waited["result"], waited["attempt"]) == ("completed", {"n": 7}, 1)
    assert (waited["plugin"], waited["priority"], waited["error"]) == ("misbehaving", 2, None)
    assert toft("job", "show", id, "--json").value == waited
    assert toft("job", "list", "--state", "completed", "--plugin", "misbehaving", "--json").value == [waited]
    assert toft("job", "list", "--state", "failed", "--json").value == []
    assert toft("job", "result", id, "--json").value == {"id": id, "result": {"n": 7}}
    told = lines(toft("job", "events", id, "--json"))
    assert all(each.keys() >= {"cursor", "at", "type", "job", "attempt"} for each in told)
    assert [each["to"] for each in told if each["type"] == "state"] == ["running", "completed"]
    assert [each["cursor"] for each in told] == sorted(each["cursor"] for each in told)
    rest = lines(toft("events", "--job", id, "--after", str(told[0]["cursor"])))
    assert rest == told[1:]
    story = toft("why", id, "--json").value
    assert all(each.keys() == {"at", "what", "because", "evidence"} for each in story)
    assert story[0]["what"] == "submitted: run echo of misbehaving"
    assert story[-1]["what"].startswith("completed after")
    assert "completed after" in toft("why", id).out


def test_the_status_of_a_wait_tells_completed_failed_and_not_yet(either: CommandLine) -> None:
    toft = either
    done = toft("job", "submit", "misbehaving.raise_error", "message=no such page", "--wait", "--json")
    assert (done.status, done.err) == (1, "")
    failed = json.loads(done.out)
    assert (failed["state"], failed["error"]["message"]) == ("failed", "RuntimeError: no such page")
    told = toft("job", "wait", failed["id"])
    assert told.status == 1
    assert "no such page" in told.err
    assert f"toft why {failed['id']}" in told.err
    assert "no such page" in toft("why", failed["id"]).out
    later = toft("job", "submit", "misbehaving.echo", "--delay", "3600", "--json").value["id"]
    done = toft("job", "wait", later, "--timeout", "0.2", "--json")
    assert (done.status, json.loads(done.out)["state"]) == (3, "pending")
    assert toft("job", "cancel", later, "--json").value["state"] == "cancelled"
    done = toft("job", "wait", later, "--json")
    assert (done.status, json.loads(done.out)["state"]) == (1, "cancelled")
    assert toft("job", "retry", failed["id"], "--json").value["state"] in ("pending", "running", "failed")


def test_what_cannot_be_run_is_refused_before_anything_is_stored(either: CommandLine) -> None:
    toft = either
    assert toft("job", "submit", "nothing", "--json").error["code"] == "plugin.not_found"
    assert (
        "seconds"
        in toft("job", "submit", "misbehaving.work", "seconds=x", "--json").error["details"]["fields"]
    )
    assert (
        toft("job", "submit", "misbehaving.echo", "--after", "job_0", "--json").error["code"]
        == "job.not_found"
    )
    first = toft("job", "submit", "misbehaving.echo", "value=1", "--idempotency-key", "k", "--json").value[
        "id"
    ]
    again = toft("job", "submit", "misbehaving.echo", "value=1", "--idempotency-key", "k", "--json").value[
        "id"
    ]
    assert first == again
    other = toft("job", "submit", "misbehaving.echo", "value=2", "--idempotency-key", "k", "--json")
    assert other.error["code"] == "job.idempotency"
    for verb in ("show", "wait", "cancel", "retry", "events", "logs", "result"):
        assert toft("job", verb, "job_0", "--json").error["code"] == "job.not_found", verb
    assert toft("why", "job_0", "--json").error["code"] == "job.not_found"
    assert len(toft("job", "list", "--json").value) == 1


def test_a_graph_passes_results_on_and_is_told_step_by_step(either: CommandLine, tmp_path: Path) -> None:
    toft = either
    (tmp_path / "graph.yaml").write_text(GRAPH)
    submitted = toft("sequence", "submit", tmp_path / "graph.yaml", "--json").value
    assert submitted.keys() == {"id", "state"}
    id = submitted["id"]
    waited = toft("sequence", "wait", id, "--timeout", "60", "--json").value
    assert (waited["state"], waited["name"]) == ("completed", "two steps")
    jobs = {each["step"]: each for each in toft("job", "list", "--sequence", id, "--json").value}
    assert jobs["second"]["result"] == "b"
    assert jobs["second"]["sequence"] == id
    assert toft("sequence", "list", "--json").value[0]["id"] == id
    whats = [each["what"] for each in toft("why", id, "--json").value]
    assert any(each.startswith("second: completed") for each in whats)
    assert toft("sequence", "show", id).status == 0
    assert toft("sequence", "cancel", "seq_0", "--json").error["code"] == "sequence.not_found"


def test_without_a_daemon_a_submit_only_stores_and_says_who_runs_it(toft: CommandLine) -> None:
    done = toft("job", "submit", "misbehaving.echo")
    assert "toft up" in done.err
    id = done.out.strip()
    assert toft("job", "show", id, "--json").value["state"] == "pending"
    assert toft("job", "list", "--json").value[0]["state"] == "pending"
    assert toft("up", "--detach").status == 0
    try:
        assert toft("job", "wait", id, "--timeout", "60", "--json").value["state"] == "completed"
    finally:
        toft("down", "--now")


def has_asked_a_node(pid: int) -> bool:
    """Say whether a process has a connection; before it has, Ctrl-C ends a command that did nothing yet."""
    with contextlib.suppress(OSError):
        return any(os.readlink(each).startswith("socket:") for each in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_ctrl_c_ends_the_waiting_and_not_the_job(up: CommandLine) -> None:
    id = up("job", "submit", "misbehaving.work", "seconds=600", "--json").value["id"]
    eventually(lambda: up("job", "show", id, "--json").value["state"] == "running", within_s=30)
    waiting = up.start("job", "wait", id)
    eventually(lambda: has_asked_a_node(waiting.pid), within_s=30)
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=30)
    assert waiting.returncode == 130
    assert f"toft job wait {id} waits again; toft job cancel {id} ends it" in err
    assert up("job", "show", id, "--json").value["state"] == "running"
    assert id in up("top", "--once").out
    told = up("top", "--json").value
    assert [each["id"] for each in told["running"]] == [id]
    assert up("job", "cancel", id).status == 0
    done = up("job", "wait", id, "--timeout", "30", "--json")
    assert (done.status, json.loads(done.out)["state"]) == (1, "cancelled")
    assert "a cancel was asked for" in up("why", id).out


def test_after_the_daemon_was_killed_a_job_is_interrupted_and_tells_so(up: CommandLine) -> None:
    id = up("job", "submit", "misbehaving.work", "seconds=600", "--json").value["id"]
    waits = up("job", "submit", "misbehaving.echo", "--after", id, "--json").value["id"]
    eventually(lambda: up("job", "show", id, "--json").value["state"] == "running", within_s=30)
    os.kill(up("status", "--json").value["pid"], signal.SIGKILL)
    eventually(lambda: up("status", "--json").value["state"] == "stopped", within_s=30)
    assert up("up", "--detach").status == 0
    done = up("job", "wait", id, "--timeout", "30", "--json")
    assert (done.status, json.loads(done.out)["state"]) == (1, "interrupted")
    story = up("why", id, "--json").value
    assert story[-1]["what"] == "was found interrupted"
    assert "not run again unasked" in story[-1]["because"]
    assert f"next: toft job retry {id} runs it again" in up("why", id).err
    assert up("job", "show", waits, "--json").value["state"] == "pending"
    assert up("job", "retry", id, "--json").value["state"] == "pending"
    eventually(lambda: up("job", "show", id, "--json").value["attempt"] == 2, within_s=30)
    assert up("job", "cancel", id).status == 0
    done = up("job", "wait", waits, "--timeout", "30", "--json")
    assert json.loads(done.out)["error"]["code"] == "job.skipped"


def test_logs_are_exactly_those_of_the_job(up: CommandLine) -> None:
    ids = [
        up("job", "submit", "misbehaving.write_fds", f"text=mine-{number}\n", "--wait", "--json").value["id"]
        for number in range(2)
    ]
    told = [up("job", "logs", id, "--json").value for id in ids]
    assert all(f"mine-{number}" in json.dumps(told[number]) for number in range(2))
    assert "mine-1" not in json.dumps(told[0])


def test_a_follower_of_events_hears_what_happens_and_misses_nothing_when_it_comes_back(
    up: CommandLine,
) -> None:
    following = up.start("events", "--follow", "--after", "0")
    assert following.stdout is not None
    id = up("job", "submit", "misbehaving.echo", "--wait", "--json").value["id"]
    seen = []
    while not seen or seen[-1].get("to") != "completed":
        seen.append(json.loads(following.stdout.readline()))
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=30)
    assert {each["job"] for each in seen} == {id}
    other = up("job", "submit", "misbehaving.echo", "--wait", "--json").value["id"]
    rest = lines(up("events", "--after", str(seen[-1]["cursor"])))
    assert {each["job"] for each in rest} == {other}


@pytest.mark.parametrize(
    "words", [["job", "list", "--json"], ["job", "submit", "misbehaving.echo", "--json"]]
)
def test_asking_a_daemon_brings_in_no_node(up: CommandLine, words: list[str]) -> None:
    unwanted = (
        "toft.wiring",
        "toft.plugins.node",
        "toft.dispatch.dispatcher",
        "rich",
        "yaml",
        "numpy",
        "structlog",
    )
    program = (
        f"import sys; from toft.cli import app; app.run({words!r});"
        f"sys.stderr.write(str([name for name in {unwanted!r} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **up.environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    json.loads(done.stdout)
    assert done.stderr == "[]"


def test_top_goes_on_until_q_and_leaves_the_terminal_as_it_was(toft: CommandLine) -> None:
    screen = Screen(toft, "top", "--interval", "0.1")
    screen.read("no node is running: toft up starts one")
    screen.type("q")
    assert screen.end() == 0
    assert "\x1b[?1049l" in screen.shown


def test_what_another_program_runs_can_be_looked_at_and_many_may_store_at_once(toft: CommandLine) -> None:
    storing = [toft.start("job", "submit", "misbehaving.echo", f"value={number}") for number in range(4)]
    assert [each.communicate(timeout=60)[1].count("toft up") for each in storing] == [1] * 4
    assert len(toft("job", "list", "--json").value) == 4
    waiting = toft.start("job", "submit", "misbehaving.work", "seconds=600", "--wait")
    eventually(lambda: toft("job", "list", "--state", "running", "--json").value, within_s=60)
    id = toft("job", "list", "--state", "running", "--json").value[0]["id"]
    assert toft("why", id).status == 0
    assert toft("job", "submit", "misbehaving.echo", "--json").error["code"] == "job.owned_elsewhere"
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert "toft up" in err
    assert toft("job", "show", id, "--json").value["state"] == "interrupted"
