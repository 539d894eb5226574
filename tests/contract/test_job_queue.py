"""The queue on a real database: threads, fsync, full disks, other processes, damaged files."""

import asyncio
import io
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.job_queues import SetClock, outcome, request, submit
from tests.waiting import eventually_async

from toft.cli import app
from toft.cli.session import Session
from toft.cli.terminal import Terminal
from toft.dispatch.finishing import Finisher
from toft.jobs.queue import JobQueue
from toft.jobs.records import Limits, Outcome, State
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.store import backups, blobs, database


@asynccontextmanager
async def opened(
    home: Path, *, limits: Limits | None = None, clock: clocks.Clock = clocks.SYSTEM
) -> AsyncIterator[tuple[database.Database, JobQueue]]:
    store = database.Database(home / "node.db")
    await store.open({"jobs": "toft.jobs"})
    queue = JobQueue(
        store, blobs.Blobs(home / "blobs"), clock=clock, randomness=os.urandom, limits=limits or Limits()
    )
    await queue.open()
    try:
        yield store, queue
    finally:
        await queue.close()
        await store.close()


async def grow_no_more(store: database.Database) -> None:
    # The same error, from the same place, as a disk without space gives.
    pages = await store.write(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await store.write(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0])


async def grow_again(store: database.Database) -> None:
    await store.write(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchone()[0])


async def test_many_callers_share_commits_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, queue):
        answers = await asyncio.gather(*(queue.submit([request(step=str(n))]) for n in range(300)))
        ids = [each[0].job_id for each in answers]
        assert len(set(ids)) == 300
        jobs = await asyncio.gather(*(queue.get(each) for each in ids))
        assert [job.step for job in jobs] == [str(n) for n in range(300)]


async def test_one_bad_transaction_takes_no_other_down(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, _):
        await store.write(lambda c: c.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)"))

        def add(number: int) -> asyncio.Task[object]:
            return asyncio.ensure_future(
                store.write(lambda c: c.execute("INSERT INTO t VALUES (?)", (number,)))
            )

        done = await asyncio.gather(*(add(n % 90) for n in range(100)), return_exceptions=True)
        assert sum(isinstance(each, errors.ConflictError) for each in done) == 10
        assert await store.read(lambda c: c.execute("SELECT count(*) FROM t").fetchone()[0]) == 90


async def test_a_full_disk_is_refused_loudly_and_forgotten_when_there_is_space(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, queue):
        running = [await submit(queue, arguments=b"x" * 9000) for _ in range(4)]
        await queue.claim("echo", 4)
        await grow_no_more(store)
        answers = [
            await asyncio.gather(submit(queue, arguments=b"y" * 15_000), return_exceptions=True)
            for _ in range(9)
        ]
        refused = [each for (each,) in answers if isinstance(each, errors.NodeError)]
        assert {each.code for each in refused} == {"store.disk_full"}
        pending = queue.counts()["pending"]
        with pytest.raises(errors.UnavailableError, match="full"):
            await queue.finish(running[0], 1, outcome(result=b"z" * 15_000))
        assert (await queue.get(running[0])).state is State.RUNNING
        for share in range(50):
            queue.note(running[1], 1, "cancel", {"phase": "cooperative", "text": "t" * 9000, "share": share})
        with pytest.raises(errors.UnavailableError):
            await submit(queue, arguments=b"y" * 15_000)
        await grow_again(store)
        assert await queue.finish(running[0], 1, outcome(result=b"z" * 15_000))
        await submit(queue, arguments=b"y" * 15_000)
        counts = {state: count for state, count in queue.counts().items() if count}
        assert counts == {"pending": pending + 1, "running": 3, "completed": 1}
        found = await store.read(
            lambda c: c.execute("SELECT state, count(*) FROM jobs GROUP BY 1").fetchall()
        )
        assert dict(map(tuple, found)) == {"pending": pending + 1, "running": 3, "completed": 1}


async def test_a_small_finish_gets_through_where_a_large_submission_does_not(tmp_path: Path) -> None:
    async with opened(tmp_path) as (store, queue):
        job_id = await submit(queue)
        await queue.claim("echo")
        await grow_no_more(store)
        large = [queue.submit([request(arguments=b"y" * 15_000)]) for _ in range(5)]
        finished = queue.finish(job_id, 1, outcome())
        refused = await asyncio.gather(*large, return_exceptions=True)
        assert any(isinstance(each, errors.UnavailableError) for each in refused)
        assert await finished


class _FullDisk(blobs.durable.SystemOperations):
    is_full = True

    def write(self, path: str, data: object, mode: int) -> None:
        if self.is_full:
            raise OSError(28, "No space left on device", path)
        super().write(path, data, mode)  # type: ignore[arg-type]


async def test_a_result_that_cannot_be_stored_leaves_the_job_running(tmp_path: Path) -> None:
    disk = _FullDisk()
    store = database.Database(tmp_path / "node.db")
    await store.open({"jobs": "toft.jobs"})
    queue = JobQueue(store, blobs.Blobs(tmp_path / "blobs", operations=disk), randomness=os.urandom)
    await queue.open()
    job_id = await submit(queue)
    await queue.claim("echo")
    with pytest.raises(errors.UnavailableError) as caught:
        await queue.finish(job_id, 1, outcome(result=b"r" * 50_000))
    assert caught.value.code == "store.disk_full"
    assert (await queue.get(job_id)).state is State.RUNNING
    disk.is_full = False
    assert await queue.finish(job_id, 1, outcome(result=b"r" * 50_000))
    job = await queue.get(job_id)
    assert job.result is not None
    assert await queue.blobs.load(str(job.result.blob)) == b"r" * 50_000
    await queue.close()
    await store.close()


class _SlowDisk(blobs.Blobs):
    """Takes its time over each value."""

    async def save(self, data: Any) -> str:
        await asyncio.sleep(0.05)
        return await super().save(data)


async def test_a_large_result_that_is_on_its_way_when_the_node_closes_arrives(tmp_path: Path) -> None:
    store = database.Database(tmp_path / "node.db")
    await store.open({"jobs": "toft.jobs"})
    queue = JobQueue(store, _SlowDisk(tmp_path / "blobs"), randomness=os.urandom)
    await queue.open()
    job_id = await submit(queue)
    await queue.claim("echo")
    finisher = Finisher(queue, on_failure=lambda error: None, pauses=(0.1, 1.0))
    finisher.finish(job_id, 1, outcome(result=b"r" * 100_000))
    await finisher.close()
    await queue.close()
    await store.close()
    async with opened(tmp_path) as (_, queue):
        assert (await queue.get(job_id)).state is State.COMPLETED


async def test_a_database_that_another_process_holds_is_waited_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, queue):
        script = (
            "import sqlite3, sys\n"
            f"c = sqlite3.connect({str(tmp_path / 'node.db')!r}, isolation_level=None)\n"
            "c.execute('BEGIN IMMEDIATE'); print('held', flush=True)\n"
            "sys.stdin.readline(); c.execute('ROLLBACK')\n"
        )
        holder = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
        assert holder.stdin is not None
        assert holder.stdout is not None
        await holder.stdout.readline()
        waiting = asyncio.ensure_future(submit(queue))
        # Looking goes on, and so does the loop.
        assert await queue.list() == []
        assert not waiting.done()
        holder.stdin.write(b"\n")
        assert await waiting
        await holder.wait()


async def test_a_backup_is_whole_and_opens_as_a_queue(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    async with opened(tmp_path / "home") as (_, queue):
        ids = [await submit(queue) for _ in range(20)]
        await queue.claim("echo")
        writing = asyncio.ensure_future(asyncio.gather(*(queue.submit([request()]) for _ in range(200))))
        await asyncio.to_thread(backups.write, tmp_path / "home", tmp_path / "restored")
        await writing
    assert sorted(os.listdir(tmp_path / "restored")) == ["blobs", "node.db"]
    async with opened(tmp_path / "restored") as (_, queue):
        assert (await queue.get(ids[0])).state is State.INTERRUPTED
        assert [(await queue.get(each)).state for each in ids[1:]] == [State.PENDING] * 19


@pytest.mark.parametrize("where", ["header", "middle"])
async def test_a_damaged_database_is_refused_and_says_how_to_restore(tmp_path: Path, where: str) -> None:
    async with opened(tmp_path) as (_, queue):
        await queue.submit([request(arguments=b"a" * 2000) for _ in range(300)])
    path = tmp_path / "node.db"
    data = bytearray(path.read_bytes())
    if where == "header":
        data[:64] = b"\xff" * 64
    else:
        for page in range(3, len(data) // 4096):
            data[page * 4096 : page * 4096 + 64] = b"\x07" * 64
    path.write_bytes(data)
    with pytest.raises(errors.IntegrityError) as caught:
        async with opened(tmp_path):
            pass
    assert caught.value.code == "store.damaged"
    assert "backup" in caught.value.hint
    assert path.read_bytes() == data, "it is left as it is, for whoever wants to look"


async def test_a_clock_that_jumps_starves_nobody_and_ends_nothing(tmp_path: Path) -> None:
    clock, year = SetClock(), 365 * 86_400.0
    async with opened(tmp_path, clock=clock) as (_, queue):
        old = await submit(queue, deadline_s=60.0)
        clock.jump(year)
        ahead = await submit(queue, delay_s=0.05)
        clock.jump(-2 * year)
        behind = await submit(queue)
        clock.advance(0.1)
        await eventually_async(lambda: queue.heads()["echo"].ready == 3)
        assert [each.id for each in await queue.claim("echo", 9)] == [old, ahead, behind]
        for each in (old, ahead, behind):
            await queue.finish(each, 1, outcome())
    async with opened(tmp_path, clock=clock) as (_, queue):
        assert queue.counts()["completed"] == 3
        first = await submit(queue)
        clock.jump(year)
        second = await submit(queue)
        assert [each.id for each in await queue.claim("echo", 9)] == [first, second]


async def test_ended_jobs_beyond_the_limit_go_with_events_and_blobs(tmp_path: Path) -> None:
    stored = blobs.Blobs(tmp_path / "blobs")
    store = database.Database(tmp_path / "node.db")
    await store.open({"jobs": "toft.jobs"})
    queue = JobQueue(store, stored, randomness=os.urandom, limits=Limits(keep_count=10))
    await queue.open()
    for number in range(300):
        job_id = await submit(queue)
        await queue.claim("echo")
        await queue.finish(job_id, 1, outcome(result=bytes([number % 200]) * (20_000 if number == 0 else 9)))
    await eventually_async(lambda: queue.counts()["completed"] <= 11)
    last = (await queue.events())[-1].cursor
    await queue.close()
    tables = ("jobs", "attempts", "blob_uses", "events WHERE job NOT IN (SELECT seq FROM jobs)")
    counts = [
        await store.read(lambda c, table=table: c.execute(f"SELECT count(*) FROM {table}").fetchone()[0])
        for table in tables
    ]
    assert counts == [counts[0], counts[0], 0, 0]
    assert counts[0] <= 11
    await store.close()
    async with opened(tmp_path) as (_, queue):
        await submit(queue)
        assert (await queue.events())[-1].cursor > last, "a cursor is never used twice"
        assert list((tmp_path / "blobs").rglob("*/??/*")) == [], "what nobody names is swept"


async def test_ten_thousand_watchers_and_one_that_does_not_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, queue):
        ids = [each.job_id for each in await queue.submit([request() for _ in range(100)])]
        seen = [0]

        async def watch(job_id: str) -> None:
            async for event in queue.watch(job=job_id):
                seen[0] += 1
                if event.data.get("to") == "completed":
                    return

        lazy = queue.watch(capacity=50)
        watchers = [asyncio.ensure_future(watch(ids[n % 100])) for n in range(10_000)]
        started = asyncio.ensure_future(anext(lazy))
        await asyncio.sleep(0)
        for job_id in ids:
            (claimed,) = await queue.claim("echo")
            await queue.finish(claimed.id, 1, Outcome(state=State.COMPLETED))
            del job_id
        await asyncio.wait_for(asyncio.gather(*watchers), 20)
        assert seen[0] == 20_000
        assert (await started).type == "state"
        lost = await anext(lazy)
        assert (lost.type, lost.data["count"]) == ("lost", 200 - 1 - 50)
        after = await anext(lazy)
        assert after.cursor == (await queue.events())[-50].cursor


async def test_a_reader_that_comes_back_with_a_cursor_misses_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, queue):
        job_id = await submit(queue)
        (first,) = await queue.events()
        await queue.claim("echo")
    async with opened(tmp_path) as (_, queue):
        seen = []
        async for event in queue.watch(after=first.cursor):
            seen.append((event.type, event.data.get("to")))
            if event.data.get("to") == "interrupted":
                await queue.retry(job_id)
            if event.data.get("to") == "pending":
                break
        assert seen == [("state", "running"), ("state", "interrupted"), ("retry", None), ("state", "pending")]


async def test_a_plugin_that_reports_without_end_writes_a_few_rows_and_its_last_word(tmp_path: Path) -> None:
    async with opened(tmp_path) as (_, queue):
        job_id = await submit(queue)
        await queue.claim("echo")
        for number in range(100_000):
            queue.note(job_id, 1, "progress", {"progress": number / 100_000, "message": str(number)})
        await queue.finish(job_id, 1, outcome())
        job = await queue.get(job_id)
        assert job.message == "99999"
        stored = [each for each in await queue.events(job=job_id) if each.type == "progress"]
        assert len(stored) <= 10


async def test_toft_backup_copies_a_node_that_works_and_its_large_values(tmp_path: Path) -> None:
    async with opened(tmp_path / "home") as (_, queue):
        job_id = await submit(queue)
        await queue.claim("echo")
        await queue.finish(job_id, 1, outcome(result=b"r" * 100_000))
        made = await asyncio.to_thread(backups.write, tmp_path / "home", tmp_path / "copies" / "one")
        assert (made.blobs, made.blobs_bytes) == (1, 100_000)
        with pytest.raises(errors.ConflictError):
            await asyncio.to_thread(backups.write, tmp_path / "home", tmp_path / "copies" / "one")
    assert os.listdir(tmp_path / "copies") == ["one"]
    async with opened(tmp_path / "copies" / "one") as (_, queue):
        job = await queue.get(job_id)
        assert job.result is not None
        assert await queue.blobs.load(str(job.result.blob)) == b"r" * 100_000


async def test_the_journal_stays_short_while_somebody_writes_all_the_time(tmp_path: Path) -> None:
    store = database.Database(tmp_path / "node.db")
    await store.open({})
    await store.write(lambda c: c.execute("CREATE TABLE t (n INTEGER PRIMARY KEY, b BLOB)"))

    def add(connection: database.Connection) -> None:
        connection.executemany("INSERT INTO t (b) VALUES (?)", [(os.urandom(2000),)] * 250)

    longest = 0
    for _ in range(200):
        await store.write(add)
        longest = max(longest, (tmp_path / "node.db-wal").stat().st_size)
    written = 200 * 250 * 2000
    await store.close()
    assert longest < written / 2
    assert (tmp_path / "node.db").stat().st_size > written
    assert not (tmp_path / "node.db-wal").exists(), "an orderly end leaves nothing to do"


def test_the_command_says_what_it_copied_and_refuses_what_cannot_be(tmp_path: Path) -> None:
    def run(*arguments: str) -> tuple[int, dict[str, Any]]:
        out, err = io.StringIO(), io.StringIO()
        session = Session(Terminal(out, err))
        status = app.run(["--home", str(tmp_path / "home"), "backup", *arguments, "--json"], session)
        return status, json.loads(out.getvalue() or err.getvalue())

    assert run(str(tmp_path / "copy"))[1]["error"]["code"] == "backup.nothing"

    async def work() -> None:
        async with opened(tmp_path / "home") as (_, queue):
            await queue.submit([request(arguments=b"a" * 100_000)])

    asyncio.run(work())
    status, made = run(str(tmp_path / "copy"))
    assert (status, made["blobs"], made["path"]) == (0, 1, str(tmp_path / "copy"))
    assert made["database_bytes"] > 0
    status, told = run(str(tmp_path / "copy"))
    assert (status, told["error"]["code"]) == (1, "backup.exists")
