"""Progress is shown to a person at once and to a log now and then, and never on stdout."""

from __future__ import annotations

import io

from toft.cli.live import Live
from toft.cli.terminal import Terminal
from toft.kernel.clock import ManualClock


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_a_line_a_second_and_the_last_one() -> None:
    out, err, clock = io.StringIO(), io.StringIO(), ManualClock()
    with Live(Terminal(out, err), "ocr", clock=clock) as live:
        for page in range(101):
            live.progress(page / 100, f"page {page}")
            clock.advance(0.1)
    lines = err.getvalue().splitlines()
    assert 10 <= len(lines) <= 12
    assert lines[0] == "ocr: 0% page 0"
    assert lines[-1] == "ocr: 100% page 100"
    assert out.getvalue() == ""


def test_progress_that_says_nothing_new_is_not_repeated() -> None:
    err, clock = io.StringIO(), ManualClock()
    with Live(Terminal(io.StringIO(), err), "ocr", clock=clock) as live:
        for _ in range(50):
            live.progress(-1, "still at it")
            clock.advance(5)
    assert err.getvalue() == "ocr: still at it\n"


def test_a_person_sees_a_bar_that_is_gone_when_the_work_is() -> None:
    out, err = io.StringIO(), Screen()
    with Live(Terminal(out, err, {"TERM": "xterm"}), "ocr") as live:
        live.progress(0.5, "half way")
        live.log("a printed line \x1b]0;x\x07")
        live.step("next \x1b[31m[bold]step")
    assert "next \\x1b[31m[bold]step" in err.getvalue()
    assert "a printed line \\x1b]0;x\\x07" in err.getvalue()
    assert "\x1b]0;x" not in err.getvalue()
    assert out.getvalue() == ""


def test_a_script_is_not_disturbed() -> None:
    out, err = io.StringIO(), io.StringIO()
    terminal = Terminal(out, err)
    terminal.be_quiet_for_scripts()
    with Live(terminal, "ocr") as live:
        live.progress(0.5, "half")
        live.log("printed")
        live.step("step")
        terminal.warn("kept for later")
    assert out.getvalue() + err.getvalue() == ""
    assert terminal.warnings == ["kept for later"]
