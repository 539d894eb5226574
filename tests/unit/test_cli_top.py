"""`toft top` shows what is going on: once for a script, again and again for a person."""

from __future__ import annotations

import io
import json
from typing import Any

from tests.unit.cli_jobs import START, FakeJobs, JobNode
from tests.unit.cli_node import run

from toft.cli import top
from toft.cli.session import Session
from toft.cli.terminal import Terminal
from toft.kernel.clock import rfc3339

NOW = {
    "lanes": 4,
    "queue": {"pending": 120, "running": 1, "completed": 3400},
    "memory": {"total_bytes": 16e9, "available_bytes": 12e9},
    "reserved_bytes": {"ocr": {"memory": 1e9}, "other": {"gpu0": 1e9}},
    "gpu": [{"gpu": "gpu0", "total_bytes": 24e9, "free_bytes": 6e9}],
}


def busy() -> JobNode:
    jobs = FakeJobs(now=NOW)
    jobs.make("running", progress=0.5, message="page \x1b[2J 4")
    node = JobNode(jobs=jobs)
    return node


def test_a_frame_has_lanes_queue_memory_gpus_and_each_running_job_with_its_progress() -> None:
    jobs = busy().jobs
    waits = jobs.make(block_reason={"code": "no_lane", "running": 4}).to_dict()
    running = [jobs.get("job_1").to_dict()]
    now = {**NOW, "at": rfc3339(START + 13.5)}
    lines = list(top.frame(now, running, [waits]))
    assert lines == [
        "1 of 4 lanes taken · 120 pending · 1 running · 3,400 completed",
        "memory  [#####               ] 4.0 GB of 16 GB taken, 1.0 GB promised to running jobs",
        "gpu0    [###############     ] 18 GB of 24 GB taken",
        "",
        "job    runs  for",
        r"job_1  ocr   12.5 s  [##########          ] 50% page \x1b[2J 4",
        "",
        "waiting, and 119 more",
        "job    runs  for",
        "job_2  ocr   13.5 s  all lanes were taken: 4 jobs were running",
    ]
    assert list(top.frame(now, running, [waits], height=3)) == lines[:3]


def test_nothing_known_is_still_a_frame() -> None:
    assert list(top.frame({}, [], [])) == [
        "no node is running: toft up starts one · no jobs",
        "",
    ]


def test_without_a_terminal_it_is_printed_once_and_json_has_everything() -> None:
    node = busy()
    assert run(node, "top").out.startswith("1 of 4 lanes taken")
    told = json.loads(run(node, "top", "--json").out)
    assert told["lanes"] == 4
    assert told["running"][0]["id"] == "job_1"


def test_a_person_sees_it_again_and_again_until_enough() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen, looks = Screen(), iter([False, False, True])
    session = Session(Terminal(screen, io.StringIO(), {"TERM": "xterm", "COLUMNS": "40"}), None, {})
    node: Any = busy()
    top._live(session, node, lambda: next(looks))
    assert screen.getvalue().count("1 of 4 lanes taken") == 3
    assert "\x1b[2J" not in screen.getvalue().split("page", 1)[1][:12]
