"""A node's own log as rows: through rotations, from a level on, the same bytes the same rows."""

import logging
from pathlib import Path

import pytest

from toft.daemon.log_file import LogFile
from toft.managed import log_lines, protocol, telemetry
from toft.managed.log_lines import LogLines
from toft.managed.telemetry import Batch, Mark

AT = "2026-11-27T12:00:00.123456Z"


class Log:
    """A log as the daemon writes it, and who reads it."""

    def __init__(self, path: Path, *, max_bytes: int = 10_000_000, files: int = 2) -> None:
        self.path = path
        self.files = files
        self.file = LogFile(path, max_bytes=max_bytes, files=files, takes_stderr=False)
        self.count = 0

    def write(self, event: str, level: str = "info", *, text: str | None = None) -> None:
        line = f"timestamp='{AT}' level='{level}' event='{event}'" if text is None else text
        self.file.emit(logging.LogRecord("toft", logging.INFO, "", 0, line, None, None))

    async def read(self, mark: Mark, level: str = "info") -> Batch | None:
        return await LogLines(self.path, self.files, level, Mark()).read(mark)

    async def rest(self, mark: Mark, level: str = "info") -> tuple[list[str], Mark]:
        """Return everything that follows on a mark, as somebody reads who has a central that takes all."""
        found: list[str] = []
        while (batch := await self.read(mark, level)) is not None:
            assert len(batch.rows) <= telemetry.CHUNK_ROWS
            found += [str(each["text"]) for each in batch.rows]
            mark = Mark(partition=batch.mark.partition, at=batch.mark.until)
            if batch.is_last:
                break
        assert await self.read(mark, level) is None
        return found, mark


@pytest.fixture
def logged(tmp_path: Path) -> Log:
    return Log(tmp_path / "daemon.log")


async def test_lines_become_rows_with_their_time_and_level(logged: Log) -> None:
    logged.write("ready")
    logged.write("slow", "warning")
    batch = await logged.read(Mark())
    assert batch is not None
    assert batch.rows == [
        {"at": AT, "level": "info", "text": "event='ready'"},
        {"at": AT, "level": "warning", "text": "event='slow'"},
    ]
    assert batch.is_last
    assert batch.mark.until == logged.path.stat().st_size
    assert batch.mark.how == "info"


async def test_what_is_below_the_level_is_read_past(logged: Log) -> None:
    for level in ("debug", "info", "warning", "error"):
        logged.write(level, level)
    for skipped, level in enumerate(log_lines.LEVELS):
        found, mark = await logged.rest(Mark(), level)
        assert found == [f"event='{each}'" for each in log_lines.LEVELS[skipped:]]
        assert mark.at == logged.path.stat().st_size


async def test_what_no_logger_wrote_is_one_row_with_the_time_of_the_line_before(logged: Log) -> None:
    logged.write("", text="Traceback (most recent call last):\n  File 'x'\nKeyError: 'y'")
    logged.write("ready")
    logged.write("", text="Fatal Python error: Segmentation fault")
    batch = await logged.read(Mark(), "warning")
    assert batch is not None
    assert [(each["at"], each["level"]) for each in batch.rows] == [(None, "warning"), (AT, "warning")]
    assert str(batch.rows[0]["text"]).endswith("\nKeyError: 'y'")
    assert (await logged.rest(Mark(), "error"))[0] == []


async def test_a_line_that_is_not_whole_is_waited_for(logged: Log) -> None:
    logged.write("one")
    _, mark = await logged.rest(Mark())
    with logged.path.open("ab") as file:
        file.write(b"timestamp='x' level='info' half")
        file.flush()
        assert await logged.read(mark) is None
        file.write(b" of it\n")
        file.flush()
    assert (await logged.rest(mark))[0] == ["half of it"]


async def test_it_goes_on_through_rotations_and_says_what_it_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    logged = Log(tmp_path / "daemon.log", max_bytes=1000)
    logged.write("0")
    found, mark = await logged.rest(Mark())
    for number in range(1, 31):  # about two files
        logged.write(str(number))
    more, mark = await logged.rest(mark)
    assert [*found, *more] == [f"event='{number}'" for number in range(31)]
    assert not caplog.records
    for number in range(31, 131):  # more than are kept
        logged.write(str(number))
    last, _ = await logged.rest(mark)
    assert last == [f"event='{number}'" for number in range(131 - len(last), 131)]
    assert 20 < len(last) < 100
    assert ["log lines lost" in each.getMessage() for each in caplog.records] == [True]


async def test_a_chunk_that_was_begun_is_the_same_again(tmp_path: Path) -> None:
    logged = Log(tmp_path / "daemon.log", max_bytes=2000)
    logged.write("low", "info")
    logged.write("high", "error")
    first = await logged.read(Mark(), "error")
    assert first is not None
    for number in range(20):  # the file has another name then
        logged.write(str(number))
    again = await logged.read(first.mark, "debug")
    assert again is not None
    assert (again.mark, again.rows) == (first.mark, first.rows)
    assert not again.is_last


async def test_chunks_are_bounded_in_lines_and_bytes(logged: Log) -> None:
    for number in range(telemetry.CHUNK_ROWS + 5):
        logged.write(str(number))
    batch = await logged.read(Mark())
    assert batch is not None
    assert (len(batch.rows), batch.is_last) == (telemetry.CHUNK_ROWS, False)
    assert (await logged.rest(Mark()))[0][-1] == f"event='{telemetry.CHUNK_ROWS + 4}'"
    with logged.path.open("ab") as file:
        file.write(b"x" * (2 * telemetry.CHUNK_BYTES) + b"\n")
    found, _ = await logged.rest(Mark())
    assert max(map(len, found)) < 20_000, "a line without an end is cut"
    assert all(len(each) < protocol.MAX_CHUNK_BYTES for each in found)


async def test_a_node_tells_of_itself_from_its_start_on(logged: Log) -> None:
    logged.write("of another time")
    begins = log_lines.end(logged.path)
    logged.write("boot")
    reader = LogLines(logged.path, 2, "info", begins, lambda text: text.replace("boot", "***"))
    batch = await reader.read(await reader.begin())
    assert batch is not None
    assert [each["text"] for each in batch.rows] == ["event='***'"]


async def test_without_a_log_there_is_nothing(tmp_path: Path) -> None:
    assert log_lines.end(tmp_path / "daemon.log") == Mark()
    assert await LogLines(tmp_path / "daemon.log", 2, "info", Mark()).read(Mark()) is None
    (tmp_path / "daemon.log").mkdir()
    assert await LogLines(tmp_path / "daemon.log", 2, "info", Mark()).read(Mark()) is None


async def test_bytes_that_are_no_text_are_told_as_such(logged: Log) -> None:
    logged.write("one")
    with logged.path.open("ab") as file:
        file.write(b"\xff\x00\x1b[31m\n\n")
    found, _ = await logged.rest(Mark())
    assert found == ["event='one'", "\ufffd\x00\x1b[31m\n"]
