"""Results and remarks keep to their streams, and a plugin cannot drive the terminal."""

from __future__ import annotations

import io
import json

import pytest

from toft.cli.terminal import Terminal
from toft.kernel.quantities import counted, duration, size
from toft.kernel.visible import one_line, visible


class Screen(io.StringIO):
    """A stream that a person looks at."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ü 漢字\tkept\n", "plain ü 漢字\tkept\n"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("ok\rHACKED", "ok\\x0dHACKED"),
        ("line\r\nline", "line\nline"),
        ("\x9b31m\x7f", "\\x9b31m\\x7f"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_drives_a_terminal_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_a_screen_gets_spelled_out_results_and_a_pipe_gets_them_as_they_are() -> None:
    screen, pipe = Screen(), io.StringIO()
    for stream in (screen, pipe):
        Terminal(stream, io.StringIO()).line("\x1b[31mred")
    assert screen.getvalue() == "\\x1b[31mred\n"
    assert pipe.getvalue() == "\x1b[31mred\n"


@pytest.mark.parametrize("err", [io.StringIO, Screen])
def test_remarks_never_reach_stdout_and_are_always_spelled_out(err: type[io.StringIO]) -> None:
    out, stream = io.StringIO(), err()
    terminal = Terminal(out, stream, {"TERM": "xterm"})
    for say in (terminal.note, terminal.warn, terminal.fail, terminal.log):
        say("[bold]x[/bold] \x1b]52;c;evil\x07")
    assert out.getvalue() == ""
    assert "\x1b]52" not in stream.getvalue()
    assert stream.getvalue().count("[bold]x[/bold] \\x1b]52;c;evil\\x07") == 4


def test_a_table_for_a_program_has_one_row_a_line_without_colour() -> None:
    out = io.StringIO()
    Terminal(out, io.StringIO()).table(["plugin", "state"], [["ocr", "ready"], ["a\nb", "x"]])
    assert out.getvalue() == "plugin  state\nocr     ready\na b     x\n"


def test_a_table_for_a_person_shows_no_control_characters_of_a_cell() -> None:
    out = Screen()
    Terminal(out, io.StringIO(), {"TERM": "xterm"}).table(["plugin"], [["\x1b]0;t\x07[red]ocr"]])
    assert "\x1b]0" not in out.getvalue()
    assert "\\x1b]0;t\\x07[red]ocr" in out.getvalue()


def test_json_is_one_line_for_a_program_and_strict() -> None:
    out = io.StringIO()
    Terminal(out, io.StringIO()).json({"text": "\x1b ü"})
    assert out.getvalue().count("\n") == 1
    assert json.loads(out.getvalue()) == {"text": "\x1b ü"}
    with pytest.raises(ValueError, match="Out of range"):
        Terminal(out, io.StringIO()).json(float("nan"))


def test_a_long_line_keeps_its_ends() -> None:
    line = one_line("start " + "x" * 500 + " end")
    assert len(line) <= 200
    assert line.startswith("start")
    assert line.endswith("end")
    assert one_line("a\n b\tc") == "a b c"


def test_times_and_sizes_read_like_a_person_writes_them() -> None:
    assert [duration(value) for value in (0.0123, 1.25, 90, 600)] == ["12 ms", "1.2 s", "90.0 s", "10.0 min"]
    assert [duration(value) for value in (36_000, 400_000)] == ["10.0 h", "4.6 days"]
    assert [size(value) for value in (12, 1500, 340e6, 5e12)] == ["12 B", "1.5 kB", "340 MB", "5.0 TB"]
    assert [counted(number, "job") for number in (0, 1, 2)] == ["no jobs", "1 job", "2 jobs"]


def test_a_result_comes_before_what_is_said_about_it_afterwards() -> None:
    both = io.BytesIO()
    out, err = io.TextIOWrapper(both), io.TextIOWrapper(both)
    speaking = Terminal(out, err)
    speaking.line("result")
    speaking.note("said about it")
    assert both.getvalue() == b"result\nsaid about it\n"
    out.detach()
    err.detach()
