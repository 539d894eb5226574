"""Kill -9 at each step of a job's life: a restart alone brings it to a right state, and no process survives.

The points are listed in docs/contributing/crash-points.md.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests import nodes
from tests.leaks import leaks_checked as leaks_checked
from tests.waiting import eventually, eventually_async

from toft.host import process_tree
from toft.jobs import records

pytestmark = pytest.mark.usefixtures("leaks_checked")
DRIVER = str(Path(__file__).with_name("jobs_driver.py"))
ROOT = Path(__file__).parents[2]

QUICK = {"action": "echo", "arguments": {"value": 7}}
LONG = {"action": "work", "arguments": {"seconds": 60}}
FAILING = {
    "action": "raise_error",
    "arguments": {"kind": "TransientError"},
    "retry": {"max_attempts": 2, "first_s": 0.1},
}
LARGE = {"action": "echo", "arguments": {"value": "x" * 100_000}}


@pytest.fixture
def home(toft_home: Path) -> Path:
    nodes.register(toft_home)
    return toft_home


class Doomed:
    """A node in a process of its own."""

    def __init__(self, home: Path, point: str, job: dict[str, Any] | None) -> None:
        command = [sys.executable, DRIVER, str(home), point, json.dumps(job)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        self.family: set[int] = set()

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def acknowledged(self) -> str:
        word, job = self.line().split()
        assert word == "acknowledged"
        return job

    def note_family(self) -> list[process_tree.Stat]:
        """Return the processes it has started."""
        found = list(process_tree.descendants(self.process.pid))
        self.family.update(each.pid for each in found)
        return found

    def kill(self) -> None:
        self.note_family()
        self.process.kill()
        self.wait()

    def wait(self) -> str:
        """Return what it still said before it was killed, once nothing of it is left."""
        try:
            rest, _ = self.process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.communicate()
            raise
        assert self.process.returncode == -signal.SIGKILL, rest
        eventually(lambda: not [pid for pid in self.family if process_tree.alive(pid)], 2)
        return rest


def died_at(home: Path, point: str, job: dict[str, Any] | None) -> str | None:
    """Run a node until it kills itself there; return the job it had acknowledged by then."""
    said = Doomed(home, point, job).wait().split()
    assert "ended" not in said, "the point was never met"
    return said[1] if said else None


async def after_restart(home: Path, *, until_ended: bool = True) -> list[records.Job]:
    """Return the jobs a new node finds, once it has done with them what it does unasked."""
    async with nodes.running(home) as node:
        await node.jobs.open()
        if until_ended:
            await eventually_async(lambda: not open_jobs(node), 30)
        return list(await node.jobs.list(limit=10))


def open_jobs(node: Any) -> int:
    counts = node.jobs._engine.queue.counts()
    return int(counts["pending"]) + int(counts["running"])


async def one(home: Path, **given: Any) -> records.Job:
    found = await after_restart(home, **given)
    assert len(found) == 1
    return found[0]


# 1. The submission


async def test_killed_before_the_submission_is_stored_there_is_no_job(home: Path) -> None:
    assert died_at(home, "before submitted", QUICK) is None
    assert await after_restart(home) == []


async def test_killed_before_anybody_was_told_the_job_is_run_all_the_same(home: Path) -> None:
    assert died_at(home, "after submitted", QUICK) is None
    job = await one(home)
    assert (job.state, job.attempt) == ("completed", 1)


# 2. The claim


@pytest.mark.parametrize("idempotent", [False, True])
async def test_killed_before_the_claim_is_stored_it_is_as_if_nobody_had_wanted_it(
    home: Path, idempotent: bool
) -> None:
    died_at(home, "before pending>running", {**QUICK, "idempotent": idempotent})
    job = await one(home)
    assert (job.state, job.attempt) == ("completed", 1)


@pytest.mark.parametrize(("idempotent", "ends"), [(False, ("interrupted", 1)), (True, ("completed", 2))])
async def test_killed_after_the_claim_nobody_knows_how_far_it_came(
    home: Path, idempotent: bool, ends: tuple[str, int]
) -> None:
    died_at(home, "after pending>running", {**QUICK, "idempotent": idempotent})
    job = await one(home)
    assert (job.state, job.attempt) == ends


# 3. In the middle of it


@pytest.mark.parametrize(("idempotent", "ends"), [(False, ("interrupted", 1)), (True, ("running", 2))])
async def test_killed_while_it_executes(home: Path, idempotent: bool, ends: tuple[str, int]) -> None:
    doomed = Doomed(home, "never", {**LONG, "idempotent": idempotent})
    job_id = doomed.acknowledged()
    eventually(lambda: len(doomed.note_family()) >= 2, 20, "a keeper and a worker")
    await eventually_async(lambda: is_in_log(home, job_id, "progress"), 20)
    doomed.kill()
    async with nodes.running(home) as node:
        await node.jobs.open()
        await eventually_async(lambda: state_is(node, job_id, ends[0]), 20)
        assert (await node.jobs.get(job_id)).attempt == ends[1]
        if idempotent:
            await node.jobs.cancel(job_id)
            assert (await node.jobs.wait(job_id, 20)).state == "cancelled"
        else:
            assert (await node.jobs.get(job_id)).error["code"] == "job.interrupted"
            again = await node.jobs.retry(job_id)
            assert again.state == "pending"
            await eventually_async(lambda: state_is(node, job_id, "running"), 20)
            assert (await node.jobs.get(job_id)).attempt == 2
            await node.jobs.cancel(job_id)
            await node.jobs.wait(job_id, 20)


async def test_killed_together_with_everything_it_started(home: Path) -> None:
    doomed = Doomed(home, "never", LONG)
    job_id = doomed.acknowledged()
    await eventually_async(lambda: is_in_log(home, job_id, "progress"), 20)
    for each in doomed.note_family():
        with contextlib.suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGKILL)
    doomed.kill()
    assert (await one(home)).state == "interrupted"


# 4. The end


@pytest.mark.parametrize(("idempotent", "ends"), [(False, ("interrupted", 1)), (True, ("completed", 2))])
@pytest.mark.parametrize("wanted", [QUICK, LARGE], ids=["small", "large"])
async def test_killed_before_its_result_is_stored(
    home: Path, idempotent: bool, ends: tuple[str, int], wanted: dict[str, Any]
) -> None:
    died_at(home, "before running>completed", {**wanted, "idempotent": idempotent})
    job = await one(home)
    assert (job.state, job.attempt) == ends


@pytest.mark.parametrize("wanted", [QUICK, LARGE], ids=["small", "large"])
async def test_killed_after_its_result_is_stored_the_result_is_there(
    home: Path, wanted: dict[str, Any]
) -> None:
    died_at(home, "after running>completed", wanted)
    async with nodes.running(home) as node:
        (job,) = await node.jobs.list()
        assert (job.state, job.attempt) == ("completed", 1)
        assert await node.jobs.result(job.id) == wanted["arguments"]["value"]


@pytest.mark.parametrize(("when", "ends"), [("before", "interrupted"), ("after", "failed")])
async def test_killed_around_a_failure(home: Path, when: str, ends: str) -> None:
    died_at(home, f"{when} running>failed", {"action": "raise_error", "arguments": {"kind": "FatalError"}})
    job = await one(home)
    assert (job.state, job.attempt) == (ends, 1)


# 5. Retries and cancels


@pytest.mark.parametrize(("when", "ends"), [("before", ("interrupted", 1)), ("after", ("failed", 2))])
async def test_killed_around_a_retry(home: Path, when: str, ends: tuple[str, int]) -> None:
    """Once it is stored that it will be tried again, it is, and by the next epoch."""
    died_at(home, f"{when} running>pending", FAILING)
    job = await one(home)
    assert (job.state, job.attempt) == ends


@pytest.mark.parametrize(("when", "ends"), [("before", "interrupted"), ("after", "cancelled")])
async def test_killed_around_the_wish_to_cancel(home: Path, when: str, ends: str) -> None:
    died_at(home, f"{when} cancel", {**LONG, "cancel": True})
    job = await one(home)
    assert (job.state, job.attempt) == (ends, 1)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_around_the_end_of_a_cancel(home: Path, when: str) -> None:
    died_at(home, f"{when} running>cancelled", {**LONG, "cancel": True, "idempotent": True})
    job = await one(home)
    assert (job.state, job.attempt) == ("cancelled", 1)


# 6. The restart itself


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_while_it_takes_up_what_the_last_one_left(home: Path, when: str) -> None:
    died_at(home, "after pending>running", {**QUICK, "idempotent": True})
    assert died_at(home, f"{when} running>interrupted", None) is None
    job = await one(home)
    assert (job.state, job.attempt) == ("completed", 2)


async def test_killed_at_each_boot_it_is_tried_as_often_as_its_policy_says_and_no_more(home: Path) -> None:
    died_at(home, "after pending>running", {**QUICK, "idempotent": True, "retry": 3})
    for _ in range(2):
        died_at(home, "after pending>running", None)
    job = await one(home)
    assert (job.state, job.attempt) == ("interrupted", 3)


# 7. The worker alone


@pytest.mark.parametrize(("idempotent", "ends"), [(False, ("failed", 1)), (True, ("running", 2))])
async def test_a_worker_is_killed_under_its_job(home: Path, idempotent: bool, ends: tuple[str, int]) -> None:
    async with nodes.running(home) as node:
        job = await node.jobs.submit("misbehaving", **LONG, idempotent=idempotent)
        await eventually_async(lambda: has_progress(node, job.id), 20)
        pid = (await node.instance("misbehaving").stats())["pid"]
        os.kill(pid, signal.SIGKILL)
        await eventually_async(lambda: is_at(node, job.id, *ends), 20)
        told = [each for each in await node.jobs.events(job=job.id) if each.type == "state"]
        assert told[1].data["because"]
        if idempotent:
            await node.jobs.cancel(job.id)
            await node.jobs.wait(job.id, 20)


async def state_is(node: Any, job_id: str, state: str) -> bool:
    return bool((await node.jobs.get(job_id)).state == state)


async def is_at(node: Any, job_id: str, state: str, attempt: int) -> bool:
    job = await node.jobs.get(job_id)
    return (str(job.state), job.attempt) == (state, attempt)


async def has_progress(node: Any, job_id: str) -> bool:
    return bool((await node.jobs.get(job_id)).progress)


def is_in_log(home: Path, job_id: str, kind: str) -> bool:
    """Look into the database of a node that runs in another process."""
    import sqlite3  # noqa: PLC0415 - only this test looks past the store

    with contextlib.closing(sqlite3.connect(f"file:{home}/node.db?mode=ro", uri=True)) as connection:
        found = connection.execute("SELECT count(*) FROM events WHERE type = ?", (kind,)).fetchone()[0]
    return bool(found)
