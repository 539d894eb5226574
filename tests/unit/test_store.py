import os
import sqlite3
from pathlib import Path

import pytest

from toft.kernel import errors
from toft.store import database, durable, locks, sqlite_errors


class _StoppedError(OSError):
    pass


class _Stopping(durable.SystemOperations):
    """Stops the world before the n-th operation; only a power cut also stops the cleaning up."""

    def __init__(self, at: int, *, power_cut: bool) -> None:
        self.at = at
        self.power_cut = power_cut
        self.done: list[str] = []

    def _step(self, name: str) -> None:
        if len(self.done) == self.at or (self.power_cut and len(self.done) > self.at):
            self.done.append("stop")
            raise _StoppedError(name)
        self.done.append(name)

    def write(self, path: str, data: bytes, mode: int) -> None:
        self._step("write")
        super().write(path, data, mode)

    def rename(self, source: str, target: str) -> None:
        self._step("rename")
        super().rename(source, target)

    def sync_directory(self, path: str) -> None:
        self._step("sync")
        super().sync_directory(path)

    def remove(self, path: str) -> None:
        self._step("remove")
        super().remove(path)


def test_write_file_syncs_before_and_after_the_rename(tmp_path: Path) -> None:
    operations = _Stopping(99, power_cut=False)
    durable.write_file(tmp_path / "a", b"new", operations=operations)
    assert operations.done == ["write", "rename", "sync"]
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("power_cut", [False, True])
def test_a_stop_anywhere_leaves_old_or_new_content_whole(tmp_path: Path, at: int, power_cut: bool) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(_StoppedError):
        durable.write_file(path, b"new", operations=_Stopping(at, power_cut=power_cut))
    assert path.read_bytes() == (b"new" if at == 2 else b"old")
    if not power_cut:
        assert os.listdir(tmp_path) == ["a"]
    durable.sweep(tmp_path)
    assert os.listdir(tmp_path) == ["a"]


def test_write_file_keeps_the_mode_it_is_given(tmp_path: Path) -> None:
    durable.write_file(tmp_path / "secret", b"x", mode=0o600)
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600


def test_damaged_json_is_an_integrity_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    durable.write_json(path, {"b": 1, "a": 2})
    assert durable.read_json(path) == {"a": 2, "b": 1}
    path.write_text("{")
    with pytest.raises(errors.IntegrityError, match=r"x\.json"):
        durable.read_json(path)


def test_directories_are_published_whole_and_removed_by_name_first(tmp_path: Path) -> None:
    staged = tmp_path / ".tmp-stage"
    (staged / "deep").mkdir(parents=True)
    (staged / "deep" / "file").write_text("x")
    (staged / "deep").chmod(0o555)
    durable.publish_directory(staged, tmp_path / "done")
    assert (tmp_path / "done" / "deep" / "file").read_text() == "x"
    assert durable.remove_directory(tmp_path / "done") is True
    assert durable.remove_directory(tmp_path / "done") is False
    assert os.listdir(tmp_path) == []


def test_publishing_never_replaces_what_is_there(tmp_path: Path) -> None:
    for name in ("staged", "done"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(OSError, match="not empty"):
        durable.publish_directory(tmp_path / "staged", tmp_path / "done")
    assert (tmp_path / "done" / "file").read_text() == "done"


def test_a_held_lock_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "run" / "lock"
    with locks.hold(path), pytest.raises(errors.UnavailableError) as caught, locks.hold(path, timeout_s=0):
        pass
    assert caught.value.code == "store.locked"
    assert caught.value.details["path"] == str(path)
    with locks.hold(path, timeout_s=0):
        pass


def test_shared_holders_do_not_wait_for_each_other(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with (
        locks.hold(path, shared=True),
        locks.hold(path, shared=True, timeout_s=0),
        pytest.raises(errors.UnavailableError),
        locks.hold(path, timeout_s=0),
    ):
        pass


@pytest.fixture
def tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "pkgs" / "sampleroom"
    (package / "migrations").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "migrations" / "0001_pre_things.sql").write_text(
        "-- a comment; with a semicolon\n"
        "CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;\n"
    )
    (package / "queries.sql").write_text(
        "-- name: add_thing\nINSERT INTO things (name) VALUES (:name);\n\n"
        "-- name: list_things\nSELECT name\nFROM things;\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "pkgs"))
    monkeypatch.delitem(__import__("sys").modules, "sampleroom", raising=False)
    return package


async def test_a_transaction_is_all_or_nothing(tmp_path: Path, tables: Path) -> None:
    queries = database.read_queries("sampleroom")
    store = database.Database(tmp_path / "node.db")
    await store.open({"sample": "sampleroom"})

    def twice(connection: database.Connection) -> None:
        connection.execute(queries["add_thing"], {"name": "a"})
        connection.execute(queries["add_thing"], {"name": "a"})

    with pytest.raises(errors.ConflictError, match="UNIQUE"):
        await store.write(twice)
    await store.write(lambda c: c.execute(queries["add_thing"], {"name": "b"}) and None)
    assert [
        row["name"] for row in await store.read(lambda c: c.execute(queries["list_things"]).fetchall())
    ] == ["b"]
    await store.close()
    await store.close()


async def test_what_was_committed_is_there_for_the_next_process(tmp_path: Path, tables: Path) -> None:
    queries = database.read_queries("sampleroom")
    for expected in (0, 1):
        store = database.Database(tmp_path / "node.db")
        await store.open({"sample": "sampleroom"})
        assert await store.read(lambda c: c.execute("SELECT count(*) FROM things").fetchone()[0]) == expected
        thing = {"name": f"x{expected}"}
        await store.write(lambda c, thing=thing: c.execute(queries["add_thing"], thing) and None)
        await store.close()


def modes(folder: Path) -> dict[str, int]:
    return {each.name: each.stat().st_mode & 0o777 for each in folder.glob("*.db*")}


@pytest.mark.parametrize("is_new", [True, False])
async def test_only_its_owner_reads_a_database_its_journal_and_a_copy(
    tmp_path: Path, tables: Path, is_new: bool
) -> None:
    path = tmp_path / "node.db"
    before = os.umask(0o022)
    try:
        if not is_new:
            sqlite3.connect(path).execute("PRAGMA journal_mode=WAL").close()
            path.chmod(0o644)
        store = database.Database(path)
        await store.open({"sample": "sampleroom"})
        database.copy(path, tmp_path / "copy.db")
        found = modes(tmp_path)
        await store.close()
    finally:
        os.umask(before)
    assert set(found) >= {"node.db", "node.db-wal", "copy.db"}
    assert set(found.values()) == {0o600}


async def test_a_failing_migration_changes_nothing(tmp_path: Path, tables: Path) -> None:
    store = database.Database(tmp_path / "node.db")
    await store.open({"sample": "sampleroom"})
    await store.close()
    (tables / "migrations" / "0002_post_broken.sql").write_text(
        "CREATE TABLE extra (id INTEGER) STRICT;\nINSERT INTO nowhere VALUES (1);\n"
    )
    store = database.Database(tmp_path / "node.db")
    with pytest.raises(errors.NodeError, match="nowhere") as caught:
        await store.open({"sample": "sampleroom"})
    assert caught.value.code == "store.failed"  # the file is whole: nobody should restore it
    await store.close()
    with sqlite3.connect(tmp_path / "node.db") as raw:
        names = {row[0] for row in raw.execute("SELECT name FROM sqlite_master")}
    raw.close()
    assert "extra" not in names
    assert "things" in names


async def test_two_scripts_of_one_number_are_refused_whichever_was_run(tmp_path: Path, tables: Path) -> None:
    store = database.Database(tmp_path / "node.db")
    await store.open({"sample": "sampleroom"})
    await store.close()
    (tables / "migrations" / "0001_pre_again.sql").write_text("CREATE TABLE more (id INTEGER) STRICT;\n")
    with pytest.raises(errors.IntegrityError, match=r"0001_pre_again\.sql and 0001_") as caught:
        await store.open({"sample": "sampleroom"})
    await store.close()
    assert caught.value.code == "store.scripts"


async def test_tables_of_a_newer_toft_are_refused(tmp_path: Path, tables: Path) -> None:
    extra = tables / "migrations" / "0002_post_more.sql"
    extra.write_text("CREATE TABLE more (id INTEGER) STRICT;\n")
    store = database.Database(tmp_path / "node.db")
    await store.open({"sample": "sampleroom"})
    await store.close()
    extra.unlink()
    store = database.Database(tmp_path / "node.db")
    with pytest.raises(errors.IntegrityError) as caught:
        await store.open({"sample": "sampleroom"})
    await store.close()
    assert caught.value.code == "store.newer"


async def test_a_file_that_is_no_database_is_named(tmp_path: Path, tables: Path) -> None:
    (tmp_path / "node.db").write_bytes(b"not a database, certainly not" * 100)
    store = database.Database(tmp_path / "node.db")
    with pytest.raises(errors.IntegrityError, match=r"node\.db"):
        await store.open({"sample": "sampleroom"})
    await store.close()


async def test_a_closed_database_says_so(tmp_path: Path) -> None:
    store = database.Database(tmp_path / "node.db")
    with pytest.raises(errors.UnavailableError):
        await store.read(lambda c: None)
    await store.close()


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("SQLITE_BUSY_SNAPSHOT", "store.locked"),
        ("SQLITE_CONSTRAINT_CHECK", "store.conflict"),
        ("SQLITE_FULL", "store.disk_full"),
        ("SQLITE_CANTOPEN", "store.unusable"),
        ("SQLITE_READONLY_DIRECTORY", "store.unusable"),
        ("SQLITE_CORRUPT", "store.damaged"),
        ("SQLITE_NOTADB", "store.damaged"),
        ("", "store.damaged"),
        ("SQLITE_ERROR", "store.failed"),
        ("SQLITE_NOMEM", "store.failed"),
        ("SQLITE_TOOBIG", "store.failed"),
    ],
)
def test_what_sqlite_says_becomes_what_somebody_can_do(name: str, code: str) -> None:
    error = sqlite3.DatabaseError("as sqlite says it")
    error.sqlite_errorname = name
    told = sqlite_errors.translate(error, Path("/home/node.db"))
    assert told.code == code
    assert "/home/node.db" in told.message
    assert told.hint or code == "store.conflict"
