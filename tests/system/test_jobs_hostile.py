"""Full disks, locked and damaged databases, readers who stop: refused loudly, and the state stays right."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.leaks import leaks_checked as leaks_checked
from tests.nodes import register, running
from tests.simulation import disk, recording_vfs
from tests.waiting import eventually_async

from toft.dispatch.node import Node
from toft.jobs import records
from toft.kernel import errors
from toft.store import backups, database, durable

pytestmark = pytest.mark.usefixtures("leaks_checked")
WORK = {"action": "work", "arguments": {"seconds": 0.5}}
LARGE = 300_000


class Full:
    """A disk that is full when it is told to be, for the database and for blobs."""

    def __init__(self) -> None:
        self.is_full = False
        self.recording = disk.Recording()
        self.recording.refuse = self._refuse

    def _refuse(self, kind: str, path: str) -> int:
        return recording_vfs.FULL if self.is_full and kind == "write" else recording_vfs.OK


@pytest.fixture
def full() -> Iterator[Full]:
    told = Full()
    with recording_vfs.recording(told.recording):
        yield told


@pytest.fixture
async def node(toft_home: Path, full: Full) -> AsyncIterator[Node]:
    register(toft_home)
    async with running(toft_home, lanes=2) as opened:
        await opened.jobs.open()
        yield opened
        full.is_full = False


async def refused(node: Node, code: str) -> errors.NodeError:
    with pytest.raises(errors.UnavailableError) as caught:
        await node.jobs.submit("misbehaving", action="echo")
    assert caught.value.code == code
    assert caught.value.hint
    return caught.value


async def kinds(node: Node, job: str) -> list[str]:
    return [each.type for each in await node.jobs.events(job=job)]


async def test_a_full_disk_refuses_a_submission_and_nothing_is_stored(node: Node, full: Full) -> None:
    full.is_full = True
    await refused(node, "store.disk_full")
    await refused(node, "store.disk_full")
    full.is_full = False
    assert await node.jobs.list() == []
    job = await node.jobs.submit("misbehaving", action="echo", arguments={"value": 1})
    assert (await node.jobs.wait(job.id, 20)).state == "completed"


async def test_an_end_that_cannot_be_written_is_written_when_there_is_space(node: Node, full: Full) -> None:
    job = await node.jobs.submit("misbehaving", **WORK)
    await eventually_async(lambda: is_in(node, job.id, "running"), 20)
    full.is_full = True
    await asyncio.sleep(0.8)  # it ends meanwhile; that nothing is written can only be waited for
    assert (await node.jobs.get(job.id)).state == "running", "what is not on disk is not said"
    await refused(node, "store.disk_full")
    full.is_full = False
    ended = await node.jobs.wait(job.id, 20)
    assert (ended.state, ended.attempt) == ("completed", 1)
    assert (await kinds(node, job.id)).count("state") == 2


async def test_events_that_cannot_be_written_are_lost_and_the_job_is_not(node: Node, full: Full) -> None:
    job = await node.jobs.submit("misbehaving", action="work", arguments={"seconds": 1.0})
    await eventually_async(lambda: is_told(node, job.id, "progress"), 20)
    full.is_full = True
    await asyncio.sleep(0.3)
    full.is_full = False
    ended = await node.jobs.wait(job.id, 20)
    assert (ended.state, ended.attempt) == ("completed", 1)


async def test_a_node_that_starts_on_a_full_disk_says_so_and_the_next_start_works(
    toft_home: Path, full: Full
) -> None:
    register(toft_home)
    async with running(toft_home) as node:
        await node.jobs.open()
        job = await node.jobs.submit("misbehaving", action="work", arguments={"seconds": 60})
        await eventually_async(lambda: is_in(node, job.id, "running"), 20)
        full.is_full = True
    with pytest.raises(errors.UnavailableError, match="disk is full"):
        async with running(toft_home) as node:
            await node.jobs.open()
    full.is_full = False
    async with running(toft_home) as node:
        await node.jobs.open()
        assert (await node.jobs.get(job.id)).state == "interrupted"


async def test_a_result_too_large_for_the_disk_fails_its_job_with_the_reason(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(self: durable.SystemOperations, path: str, data: Any, mode: int) -> None:
        raise OSError(28, "No space left on device", path)

    job = await node.jobs.submit("misbehaving", action="huge", arguments={"size_bytes": LARGE})
    monkeypatch.setattr(durable.SystemOperations, "write", no_space)
    ended = await node.jobs.wait(job.id, 20)
    assert (ended.state, ended.error["code"] if ended.error else None) == ("failed", "store.disk_full")


@pytest.mark.parametrize("action", ["unencodable", "endless"])
async def test_a_result_that_nobody_can_write_down_is_named_by_its_path(node: Node, action: str) -> None:
    job = await node.jobs.submit("misbehaving", action=action)
    ended = await node.jobs.wait(job.id, 20)
    assert ended.error is not None
    assert (ended.state, ended.error["code"]) == ("failed", "result.unencodable")


async def test_a_database_that_somebody_else_holds_is_said_and_waited_for(
    toft_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "LOCKED_AFTER_S", 0.2)
    register(toft_home)
    async with running(toft_home) as node:
        await node.jobs.open()
        other = await asyncio.to_thread(hold, toft_home)
        with contextlib.closing(other):
            told = await refused(node, "store.locked")
            assert "node.db" in told.message
            await asyncio.to_thread(other.execute, "ROLLBACK")
            job = await node.jobs.submit("misbehaving", action="echo")
            assert (await node.jobs.wait(job.id, 20)).state == "completed"


def hold(home: Path) -> sqlite3.Connection:
    other = sqlite3.connect(home / "node.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    return other


async def test_a_damaged_database_is_not_used_and_a_copy_of_it_is(toft_home: Path, tmp_path: Path) -> None:
    register(toft_home)
    async with running(toft_home) as node:
        job = await node.jobs.submit("misbehaving", action="echo", arguments={"value": 5})
        await node.jobs.wait(job.id, 20)
        await asyncio.to_thread(backups.write, toft_home, tmp_path / "copy")
    path = toft_home / "node.db"
    data = bytearray(path.read_bytes())
    data[4096 : len(data)] = bytes(len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(errors.IntegrityError) as caught:
        async with running(toft_home) as node:
            await node.jobs.open()
    assert caught.value.code == "store.damaged"
    assert "node.db" in caught.value.message
    for leftover in ("node.db-wal", "node.db-shm"):
        (toft_home / leftover).unlink(missing_ok=True)
    (tmp_path / "copy" / "node.db").rename(path)
    async with running(toft_home) as node:
        assert await node.jobs.result(job.id) == 5


async def test_ten_thousand_subscribers_hold_up_nobody_and_one_that_stops_is_told_what_it_missed(
    toft_home: Path,
) -> None:
    register(toft_home)
    async with running(toft_home, lanes=2) as node:
        await node.jobs.open()
        heard = [0] * 10_000

        async def listen(number: int) -> None:
            async for event in node.jobs.watch():
                heard[number] += 1
                if event.type == "state" and event.data["to"] == "completed":
                    return

        listeners = [asyncio.create_task(listen(number)) for number in range(len(heard))]
        slow = node.jobs.watch(capacity=10)
        first = asyncio.ensure_future(anext(slow))
        await asyncio.sleep(0)
        job = await node.jobs.submit("misbehaving", action="work", arguments={"seconds": 0.4})
        assert (await node.jobs.wait(job.id, 20)).state == "completed"
        await asyncio.wait_for(asyncio.gather(*listeners), 20)
        assert min(heard) >= 3
        assert (await first).type == "submitted"
        for number in range(40):
            await node.jobs.submit("misbehaving", action="echo", arguments={"value": number}, delay_s=999)
        missed = await anext(slow)
        assert missed.type == "lost"
        assert missed.data["count"] > 0
        # What it missed is stored, and read by its cursor.
        again = await node.jobs.events(after=0, limit=1000)
        assert len(again) >= 43
        await slow.aclose()


async def is_in(node: Node, job: str, state: str) -> bool:
    return bool((await node.jobs.get(job)).state == records.State(state))


async def is_told(node: Node, job: str, kind: str) -> bool:
    return kind in await kinds(node, job)
