"""`toft sequence`: a file of steps becomes jobs, and its end is told like that of one job."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from tests.unit.cli_jobs import FakeJobs, JobNode, Record
from tests.unit.cli_node import run

STEPS = {"name": "pages", "steps": [{"id": "scan", "plugin": "ocr", "arguments": {"text": "a"}}]}
YAML = "name: pages\nsteps:\n  - id: scan\n    plugin: ocr\n    arguments: {text: a}\n"
TOML = 'name = "pages"\n[[steps]]\nid = "scan"\nplugin = "ocr"\narguments = {text = "a"}\n'


@pytest.mark.parametrize(
    ("name", "text"), [("g.json", json.dumps(STEPS)), ("g.yaml", YAML), ("g.toml", TOML), ("g", YAML)]
)
def test_steps_are_read_from_json_yaml_and_toml(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    node = JobNode()
    told = run(node, "sequence", "submit", str(tmp_path / name), "--best-effort", "--priority", "0", "--json")
    assert json.loads(told.out) == {"id": "job_1", "state": "pending"}
    assert node.jobs.asked == [(STEPS, {"mode": "best_effort", "priority": 0})]


def test_steps_are_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps([{"plugin": "ocr"}]).encode())))
    node = JobNode(is_embedded=True)
    told = run(node, "sequence", "submit", "-", "--name", "one")
    assert node.jobs.asked == [([{"plugin": "ocr"}], {"name": "one"})]
    assert told.out == "job_1\n"
    assert "toft up runs it, or toft sequence wait job_1" in told.err


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("g.json", b'{"steps": '),
        ("g.yaml", b"a: [b"),
        ("g.toml", b"a = "),
        ("g.json", b"\xff\xfe"),
        ("g.json", b"[" * 100_000),
        ("missing.json", None),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    node = JobNode()
    told = run(node, "sequence", "submit", str(tmp_path / name), "--json")
    assert (told.status, node.closed) == (2, 0)
    error = json.loads(told.err)["error"]
    assert error["code"] == "request.document"
    assert name in error["message"]


@pytest.mark.parametrize(
    ("state", "status"), [("completed", 0), ("failed", 1), ("cancelled", 1), ("running", 3)]
)
def test_a_wait_ends_as_the_sequence_did(tmp_path: Path, state: str, status: int) -> None:
    def end(record: Record) -> Record:
        record.state = state
        record.known = {"name": "pages", "step": "scan", "counts": {"completed": 1, "failed": 0}}
        return record

    (tmp_path / "g.yaml").write_text(YAML)
    node = JobNode(jobs=FakeJobs(end))
    told = run(node, "sequence", "submit", str(tmp_path / "g.yaml"), "--wait")
    assert told.status == status
    assert told.out.splitlines()[0] == f"job_1 {state} pages"
    assert told.out.splitlines()[3].split()[:3] == ["scan", state, "ocr"]
    told = run(node, "sequence", "wait", "job_1", "--timeout", "1", "--json")
    assert (told.status, json.loads(told.out)["state"]) == (status, state)


def test_ctrl_c_leaves_a_sequence_alone() -> None:
    def interrupt(record: Record) -> Record:
        raise KeyboardInterrupt

    node = JobNode(jobs=FakeJobs(interrupt))
    node.jobs.make()
    told = run(node, "sequence", "wait", "job_1")
    assert told.status == 130
    assert "toft sequence wait job_1 waits again; toft sequence cancel job_1 ends it" in told.err


def test_list_show_and_cancel() -> None:
    node = JobNode()
    node.jobs.make("running", name="pages")
    assert run(node, "sequence", "list").out.splitlines()[1].split()[::4] == ["job_1", "pages"]
    assert json.loads(run(node, "sequence", "list", "--json").out)[0]["id"] == "job_1"
    assert json.loads(run(node, "sequence", "show", "job_1", "--json").out)["state"] == "running"
    told = run(node, "sequence", "cancel", "job_1")
    assert (told.out, "toft sequence wait job_1" in told.err) == ("job_1 running\n", True)
    assert run(node, "sequence", "retry", "job_1").out == "job_1 pending\n"


def test_a_step_that_ran_again_is_shown_once_as_it_is_now() -> None:
    node = JobNode()
    node.jobs.make("failed", step="scan")
    node.jobs.make("completed", step="scan")
    shown = run(node, "sequence", "show", "job_1").out
    assert [line.split()[1:] for line in shown.splitlines() if line.startswith("scan")] == [
        ["completed", "ocr", "job_2", "2.5", "s"]
    ]


class Settled(FakeJobs):
    """Sequences of which nothing can run again."""

    def retry_sequence(self, id: str) -> Record:
        return self.records[id]


def test_a_retry_that_changes_nothing_says_so() -> None:
    node = JobNode(jobs=Settled())
    node.jobs.make("cancelled")
    told = run(node, "sequence", "retry", "job_1")
    assert told.out == "job_1 cancelled\n"
    assert "nothing runs again" in told.err
