"""Following a log misses no whole line, whatever happens to the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from toft.cli import follow


def following(path: Path, steps: list[Callable[[], object]]) -> Iterator[str]:
    """Follow a file to which something happens each time the reader has nothing to read."""
    waiting = iter(steps)

    def pause(seconds: float) -> None:
        step = next(waiting, None)
        if step is None:
            raise StopFollowing
        step()

    return follow.lines(path, pause=pause)


class StopFollowing(Exception):
    """The test has seen enough."""


def collect(path: Path, *steps: Callable[[], object]) -> list[str]:
    found = []
    try:
        for line in following(path, list(steps)):
            found.append(line)
    except StopFollowing:
        return found
    raise AssertionError("a log that is followed does not end")


def append(path: Path, text: str) -> Callable[[], object]:
    def step() -> None:
        with open(path, "a") as file:
            file.write(text)

    return step


def test_only_what_comes_is_shown_and_only_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "ocr.log"
    path.write_text("before\n")
    assert collect(path, append(path, "one\ntw"), append(path, "o\nthr")) == ["one", "two"]


def test_a_log_that_comes_later_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "ocr.log"
    assert collect(path, lambda: None, append(path, "first\n")) == ["first"]


def test_lines_around_a_rotation_are_all_shown(tmp_path: Path) -> None:
    path = tmp_path / "ocr.log"
    path.write_text("")

    def rotate() -> None:
        append(path, "last of the old\n")()
        path.rename(tmp_path / "ocr.log.1")
        append(path, "first of the new\n")()

    assert collect(path, append(path, "one\n"), rotate, append(path, "two\n")) == [
        "one",
        "last of the old",
        "first of the new",
        "two",
    ]


def test_a_log_that_was_emptied_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "ocr.log"
    path.write_text("before\n" * 10)
    assert collect(path, lambda: path.write_text("new\n")) == ["new"]
