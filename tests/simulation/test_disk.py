"""The simulated disk itself, and the two writers of `store` on it: the database and the durable files."""

import asyncio
import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.simulation import disk, recording_vfs

from toft.kernel import errors
from toft.store import database, durable

TABLE = "CREATE TABLE kept (number INTEGER PRIMARY KEY, filler BLOB NOT NULL)"
INSERT = "INSERT INTO kept VALUES (?, ?)"


def cuts(
    recorded: disk.Recording, root: Path, where: Path, *, count: int, seed: int
) -> Iterator[tuple[Path, list[object]]]:
    """Yield, for random points of the recording, what a cut leaves and what was promised by then."""
    chance = random.Random(seed)
    replay = disk.Replay(recorded.operations)
    likely = count / max(1, len(recorded.operations))
    for index, kind in replay.steps():
        if chance.random() < likely or (kind == "note" and chance.random() < 3 * likely):
            left = where / f"cut-{index}"
            left.mkdir()
            replay.cut(left, str(root), chance)
            yield left, list(replay.promises)


@pytest.fixture
def disk_home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


def write_rows(home: Path, recorded: disk.Recording, count: int) -> None:
    """Write rows with the real Database; each is noted when its caller has been told that it is there."""

    async def insert(store: database.Database, number: int) -> None:
        await store.write(lambda c: c.execute(INSERT, (number, bytes(900))) and None)
        recorded.note(number)

    async def work() -> None:
        store = database.Database(home / "node.db")
        await store.open({})
        await store.write(lambda c: c.execute(TABLE) and None)
        recorded.note("table")
        for start in range(0, count, 4):
            await asyncio.gather(*(insert(store, number) for number in range(start, start + 4)))
        await store.close()

    with recording_vfs.recording(recorded):
        asyncio.run(work())


def missing(left: Path, promises: list[object]) -> list[object]:
    """Return what was promised and is not there; a damaged database has nothing."""
    connection = sqlite3.connect(left / "node.db")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        there: set[object] = {row[0] for row in connection.execute("SELECT number FROM kept")} | {"table"}
    except (sqlite3.DatabaseError, AssertionError):
        there = set()
    finally:
        connection.close()
    return [promise for promise in promises if promise not in there]


def test_what_the_database_acknowledged_survives_every_cut(disk_home: Path, tmp_path: Path) -> None:
    recorded = disk.Recording()
    write_rows(disk_home, recorded, 400)
    seen = 0
    for left, promises in cuts(recorded, disk_home, tmp_path, count=60, seed=1):
        assert missing(left, promises) == [], left
        seen += len(promises)
    assert seen > 1000


def test_a_disk_that_does_not_sync_is_found_out(disk_home: Path, tmp_path: Path) -> None:
    recorded = disk.Recording(syncs=False)
    write_rows(disk_home, recorded, 40)
    assert any(
        missing(left, promises) for left, promises in cuts(recorded, disk_home, tmp_path, count=40, seed=1)
    )


def test_a_full_disk_refuses_and_goes_on_when_there_is_space(disk_home: Path) -> None:
    recorded = disk.Recording()

    async def work() -> None:
        store = database.Database(disk_home / "node.db")
        await store.open({})
        await store.write(lambda c: c.execute(TABLE) and None)
        recorded.refuse = lambda kind, path: recording_vfs.FULL if kind == "write" else recording_vfs.OK
        with pytest.raises(errors.UnavailableError) as caught:
            await store.write(lambda c: c.execute(INSERT, (1, bytes(9000))) and None)
        assert caught.value.code == "store.disk_full"
        recorded.refuse = lambda kind, path: recording_vfs.OK
        await store.write(lambda c: c.execute(INSERT, (2, bytes(9000))) and None)
        rows = await store.read(lambda c: [row[0] for row in c.execute("SELECT number FROM kept")])
        assert rows == [2]
        await store.close()

    with recording_vfs.recording(recorded):
        asyncio.run(work())


@pytest.mark.parametrize("syncs", [True, False])
def test_a_durable_file_is_old_or_new_after_every_cut(disk_home: Path, tmp_path: Path, syncs: bool) -> None:
    recorded = disk.Recording(syncs=syncs)
    operations = disk.RecordedOperations(recorded)
    for version in range(1, 6):
        durable.write_file(disk_home / "file", bytes([version]) * 2000, operations=operations)
        recorded.note(version)
    broken = []
    for left, promises in cuts(recorded, disk_home, tmp_path, count=200, seed=2):
        file = left / "file"
        content = file.read_bytes() if file.exists() else b""
        whole = content in (b"", *(bytes([version]) * 2000 for version in range(1, 6)))
        newest = content[0] if content else 0
        if not whole or newest < max(promises, default=0):
            broken.append(left)
    assert bool(broken) is not syncs
