import contextlib
import dataclasses
import os
import sqlite3
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from toft.kernel import clock, errors
from toft.plugins import instance as handles
from toft.plugins import instances, log_reading, logs
from toft.plugins.manifests.manifest import Code, Install, Manifest
from toft.store import database
from toft_sdk.errors import InputError


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[database.Database]:
    opened = database.Database(tmp_path / "node.db")
    await opened.open({"plugins": "toft.plugins"})
    yield opened
    await opened.close()


async def test_a_record_comes_back_as_it_was_put(store: database.Database) -> None:
    rows = instances.Instances(store, clock.ManualClock(0.0))
    record = instances.InstanceRecord(
        name="ocr-2",
        plugin="ocr",
        config={"dpi": 300, "langs": ["de"]},
        options=instances.InstanceOptions(
            concurrency=0, writable=("/data",), env={"A": "b"}, is_monitor=True, network=False
        ),
        enabled=False,
    )
    put = await rows.put(record)
    assert put == dataclasses.replace(record, updated_at="1970-01-01T00:00:00.000Z")
    assert await rows.find("ocr-2") == put
    assert await rows.find("ocr") is None


async def test_a_name_that_another_plugin_has_is_refused_and_a_free_one_is_new(
    store: database.Database,
) -> None:
    rows = instances.Instances(store)
    await rows.put(instances.InstanceRecord(name="fine", plugin="ocr", enabled=False))
    assert (await rows.of("ocr", "fine")).enabled is False
    assert await rows.of("ocr", "other") == instances.InstanceRecord(name="other", plugin="ocr")
    with pytest.raises(errors.ConflictError) as caught:
        await rows.of("chat", "fine")
    assert caught.value.code == "instance.other_plugin"


def test_options_that_do_not_fit_are_all_named() -> None:
    with pytest.raises(InputError) as caught:
        instances.checked_options({"netwrok": True, "memory_bytes": "much"})
    assert caught.value.code == "instance.options"
    assert caught.value.fields["netwrok"] == "unknown; did you mean network?"
    assert set(caught.value.fields) == {"netwrok", "memory_bytes"}


async def test_records_are_listed_by_plugin_and_removed_together(store: database.Database) -> None:
    rows = instances.Instances(store)
    for name, plugin in (("b", "x"), ("a", "x"), ("c", "y")):
        await rows.put(instances.InstanceRecord(name=name, plugin=plugin))
    assert [record.name for record in await rows.list()] == ["a", "b", "c"]
    assert [record.name for record in await rows.list("x")] == ["a", "b"]
    assert await rows.remove_all("x") == 2
    assert await rows.remove("c") is True
    assert await rows.remove("c") is False
    assert await rows.list() == []


async def test_a_damaged_row_falls_back_to_defaults(store: database.Database, tmp_path: Path) -> None:
    rows = instances.Instances(store)
    await rows.put(instances.InstanceRecord(name="a", plugin="a", config={"x": 1}))
    with sqlite3.connect(tmp_path / "node.db") as raw:
        raw.execute("UPDATE instances SET config = '{torn'")
    raw.close()
    found = await rows.find("a")
    assert found is not None
    assert found.config == {}


def test_unknown_options_are_refused_by_name() -> None:
    with pytest.raises(errors.UsageError) as caught:
        instances.InstanceOptions.from_dict({"concurency": 3, "spare": True})
    assert caught.value.details["unknown"] == ["concurency"]


@dataclass
class Said:
    text: str
    stream: str = "stdout"
    call: int = 0
    time: float = 0.0
    level: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)


async def test_a_log_line_says_when_from_where_and_in_which_call(tmp_path: Path) -> None:
    writer = logs.LogWriter()
    book = logs.InstanceLog(tmp_path / "logs" / "ocr.log", writer)
    book.add(Said("hello"))
    book.add(Said("inside", "stderr", 7))
    expected = ["1970-01-01T00:00:00.000Z stdout - hello", "1970-01-01T00:00:00.000Z stderr 7 inside"]
    assert book.recent() == expected
    assert await book.tail(50) == expected
    assert await book.tail(1) == expected[1:]
    await writer.close()


async def test_a_structured_line_shows_its_level_and_fields(tmp_path: Path) -> None:
    writer = logs.LogWriter()
    book = logs.InstanceLog(tmp_path / "ocr.log", writer)
    book.add(Said("page_read", "log", 3, level="info", fields={"page": 2, "words": 17}))
    await writer.close()
    assert book.recent() == ["1970-01-01T00:00:00.000Z log 3 info page_read page=2 words=17"]


async def test_a_log_is_bounded_by_rotation_and_its_tail_spans_files(tmp_path: Path) -> None:
    writer = logs.LogWriter()
    book = logs.InstanceLog(tmp_path / "ocr.log", writer, max_bytes=1000, files=2)
    for number in range(200):
        book.add(Said(f"line {number}"))
        await writer.flush()
    await writer.close()
    sizes = {entry.name: entry.stat().st_size for entry in os.scandir(tmp_path)}
    assert sorted(sizes) == ["ocr.log", "ocr.log.1", "ocr.log.2"]
    assert max(sizes.values()) <= 1000
    numbers = [int(line.rsplit(" ", 1)[1]) for line in logs.read_tail(tmp_path / "ocr.log", 30)]
    assert numbers == list(range(170, 200))


async def test_a_plugin_cannot_write_escape_sequences_or_forge_lines(tmp_path: Path) -> None:
    writer = logs.LogWriter()
    book = logs.InstanceLog(tmp_path / "ocr.log", writer)
    book.add(Said("\x1b[31mred\n2026 forged"))
    await writer.close()
    assert (tmp_path / "ocr.log").read_text() == (
        "1970-01-01T00:00:00.000Z stdout - \\x1b[31mred\\x0a2026 forged\n"
    )


async def test_secrets_are_taken_out_before_anything_is_kept(tmp_path: Path) -> None:
    writer = logs.LogWriter()
    book = logs.InstanceLog(tmp_path / "x.log", writer, redact=lambda text: text.replace("hunter2", "***"))
    book.add(Said("password hunter2"))
    await writer.close()
    assert "hunter2" not in book.recent()[0]
    assert "hunter2" not in (tmp_path / "x.log").read_text()


async def test_no_line_of_many_is_lost_or_out_of_order(tmp_path: Path) -> None:
    writer = logs.LogWriter()
    book = logs.InstanceLog(tmp_path / "x.log", writer)
    for number in range(12_000):
        book.add(Said(f"line {number}"))
    await writer.close()
    lines = logs.read_tail(tmp_path / "x.log", 20_000)
    assert [int(line.rsplit(" ", 1)[1]) for line in lines] == list(range(12_000))


async def test_a_flood_is_counted_instead_of_kept(tmp_path: Path) -> None:
    class Stuck(logs.LogWriter):
        def put(self, target: logs.Sink, line: logs.Line | None) -> None:
            if line is not None:
                held.append(line)

    held: list[logs.Line] = []
    writer = Stuck()
    book = logs.InstanceLog(tmp_path / "x.log", writer, max_bytes=10_000_000)
    for _ in range(1000):
        book.add(Said("x" * 16_000))
    assert sum(len(line.text) for line in held) < 5_000_000
    kept = len(held)
    book.write(held)
    await writer.close()
    assert logs.read_tail(tmp_path / "x.log", 1)[0].endswith(f"node - {1000 - kept} lines dropped")


async def test_a_reader_of_a_log_goes_on_where_it_stood_across_rotations_and_a_new_process(
    tmp_path: Path,
) -> None:
    path = tmp_path / "ocr.log"
    seen: list[str] = []
    place = None
    for start in (0, 100):
        writer = logs.LogWriter()
        book = logs.InstanceLog(path, writer, max_bytes=2000, files=2)
        for number in range(start, start + 100):
            book.add(Said(f"line {number}", time=float(number)))
            await writer.flush()
            if number % 7 == 0:
                piece = log_reading.read_after(path, place)
                place = log_reading.Place.parse(str(piece.place))
                assert not piece.is_cut
                seen += piece.lines
        await writer.close()
    seen += log_reading.read_after(path, place).lines
    assert [int(line.rsplit(" ", 1)[1]) for line in seen] == list(range(200))


async def test_a_reader_that_is_far_behind_gets_the_end_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "ocr.log"
    writer = logs.LogWriter()
    book = logs.InstanceLog(path, writer, max_bytes=2000, files=1)
    book.add(Said("first"))
    await writer.flush()
    began = log_reading.read_after(path, None)
    assert (len(began.lines), began.is_cut) == (1, False)
    for number in range(10):
        book.add(Said(f"line {number}", time=float(number)))
    await writer.close()
    behind = log_reading.read_after(path, began.place, most_bytes=100)
    assert [line.rsplit(" ", 1)[1] for line in behind.lines] == ["8", "9"]
    assert behind.is_cut
    path.write_text("1971-01-01T00:00:00.000Z stdout - anew\n1971-01-01T00:00:00.001Z stdout - torn"[:-4])
    anew = log_reading.read_after(path, began.place)
    assert ([line.rsplit(" ", 1)[1] for line in anew.lines], anew.is_cut) == (["anew"], True)
    assert log_reading.read_after(tmp_path / "none.log", None) == log_reading.Piece([], log_reading.Place())
    for text in ("", "7", "x/-1", "x/1e3", "x/" + "9" * 90):
        assert log_reading.Place.parse(text) is None


async def test_whoever_listens_to_a_log_hears_of_each_write_and_of_no_other_log(tmp_path: Path) -> None:
    writer = logs.LogWriter()
    mine, other = (logs.InstanceLog(tmp_path / name, writer) for name in ("a.log", "b.log"))
    with mine.listening() as stirred:
        other.add(Said("not mine"))
        await writer.flush()
        assert not stirred.is_set()
        mine.add(Said("mine"))
        await stirred.wait()
    mine.add(Said("nobody listens"))
    await writer.close()


class Switched:
    """As much of a supervisor as a switch needs."""

    def __init__(self) -> None:
        self.enabled, self.told = True, 0
        self.config: dict[str, Any] = {}
        self.workers = self

    async def set_enabled(self, enabled: bool) -> None:
        self.enabled = enabled

    def tell_watchers(self) -> None:
        self.told += 1


async def test_a_switch_that_cannot_be_remembered_is_not_turned() -> None:
    switched: Any = Switched()
    code = Code("ocr", "1", "", "ocr", "Ocr")

    async def save(record: instances.InstanceRecord) -> None:
        raise errors.UnavailableError("the disk is full", code="store.disk_full")

    loaded = handles.Instance(
        "ocr",
        handles.Parts(
            supervisor=switched,
            manifest=Manifest(Install(python_path="/usr/bin/python3"), code),
            options=instances.InstanceOptions(),
            output=cast("Any", None),
            held=contextlib.AsyncExitStack(),
            save=save,
            validate=dict,
            forget=lambda name: None,
            given={},
        ),
    )
    for turn in (loaded.disable, loaded.enable):
        with pytest.raises(errors.UnavailableError):
            await turn()
        assert loaded.is_enabled
    assert switched.told == 0
