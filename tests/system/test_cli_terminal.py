"""A person at a terminal sees progress and colour, can stop a command, and no plugin drives the terminal."""

from __future__ import annotations

import os
import signal
import time

import pytest
from tests.command_line import CommandLine
from tests.sample_packages import write_project
from tests.screens import Screen

SHOWY = '''
    """Shows off."""
    import time

    from toft_sdk import Plugin

    EVIL = "\\x1b]0;owned\\x07\\x1b[2J\\x1b[1mnot bold\\r\\u202e"


    class Showy(Plugin):
        """Show off."""

        name = "showy"

        def execute(self, pause_s: float = 0.0, text: bool = False):
            """Print and return what would drive a terminal."""
            print("printed " + EVIL)
            for step in range(4):
                self.report_progress(step / 4, "step " + EVIL)
                time.sleep(pause_s)
            return EVIL + "end" if text else {"said": EVIL, "n": 1}

        def _never(self):
            """Not an action."""
'''


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    directory = tmp_path_factory.mktemp("terminal")
    found = CommandLine(directory / "home", directory)
    write_project(directory / "showy", "showy", {"showy.py": SHOWY})
    assert found("plugin", "add", "./showy").status == 0
    return found


def test_what_a_plugin_prints_cannot_drive_the_terminal(installed: CommandLine) -> None:
    for words in (["run", "showy"], ["run", "showy", "text=true"], ["plugin", "logs", "showy"]):
        screen = Screen(installed, *words)
        assert screen.end() == 0, screen.shown
        assert "\x1b]0;owned" not in screen.shown
        assert "\x1b[2J" not in screen.shown
        assert "\u202e" not in screen.shown
        assert "x1b]0;owned" in screen.shown, "it is spelled out"


def test_a_person_sees_a_bar_and_colour(installed: CommandLine) -> None:
    screen = Screen(installed, "run", "showy", "pause_s=0.3")
    screen.read("\u2501")
    assert screen.end() == 0
    assert "\x1b[" in screen.shown
    assert "instance showy" in screen.shown


def test_a_person_can_stop_it_with_ctrl_c(installed: CommandLine) -> None:
    screen = Screen(installed, "run", "showy", "pause_s=600")
    screen.read("\u2501")
    os.killpg(screen.process.pid, signal.SIGINT)
    assert screen.end() == 130
    assert "cancelled" in screen.shown
    assert "Traceback" not in screen.shown


def test_a_secret_is_asked_for_and_not_shown(installed: CommandLine) -> None:
    screen = Screen(installed, "secret", "set", "showy", "KEY")
    screen.read("not shown")
    os.write(screen.master, b"typed-by-hand\n")
    assert screen.end() == 0
    assert "typed-by-hand" not in screen.shown
    assert "typed-by-hand" in (installed.home / "secrets" / "secrets.json").read_text()


def test_removing_asks_first(installed: CommandLine) -> None:
    screen = Screen(installed, "plugin", "remove", "showy")
    screen.read("Remove plugin showy?")
    os.write(screen.master, b"n\n")
    assert screen.end() == 130
    assert installed("plugin", "show", "showy").status == 0


def test_a_log_is_followed_while_another_command_writes_it(installed: CommandLine) -> None:
    screen = Screen(installed, "plugin", "logs", "showy", "-n", "1", "--follow")
    screen.read("printed")
    before = len(screen.shown)
    assert installed("run", "showy").status == 0
    deadline = time.monotonic() + 30
    while len(screen.shown) == before and time.monotonic() < deadline:
        screen.read(within_s=0.2)
    assert "printed" in screen.shown[before:]
    os.killpg(screen.process.pid, signal.SIGINT)
    assert screen.end() == 130
