"""A failure is told once, completely, on stderr, with a status a script can rely on."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable
from typing import Any

import pytest

from toft.cli import app, failures
from toft.cli.session import Session
from toft.cli.terminal import Terminal
from toft.kernel.errors import ConflictError, NodeError, NotFoundError, UsageError
from toft_sdk.errors import CancelledError, FatalError, InputError, PluginError, TransientError

Told = tuple[int, str, str]


def tell(error: NodeError | PluginError, *, as_json: bool = False) -> Told:
    out, err = io.StringIO(), io.StringIO()
    status = failures.tell(Terminal(out, err), error, as_json=as_json)
    return status, out.getvalue(), err.getvalue()


def test_a_script_gets_exactly_one_object_on_stderr() -> None:
    status, out, err = tell(
        NotFoundError("no plugin ocr", code="plugin.not_found", hint="toft plugin list"), as_json=True
    )
    assert (status, out) == (1, "")
    assert json.loads(err) == {
        "error": {
            "code": "plugin.not_found",
            "blame": "caller",
            "category": "user_input",
            "message": "no plugin ocr",
            "details": {},
            "hint": "toft plugin list",
        }
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("x"), 2),
        (ConflictError("x"), 1),
        (NodeError("x"), 1),
        (InputError("x"), 1),
        (FatalError("x"), 1),
        (TransientError("x", retry_after_s=3), 1),
        (CancelledError("x"), 130),
    ],
)
def test_the_exit_status_says_what_kind_of_failure_it_was(error: Any, status: int) -> None:
    assert tell(error)[0] == status
    assert tell(error, as_json=True)[0] == status


def test_every_error_of_a_plugin_comes_with_a_next_step() -> None:
    for kind in (PluginError, InputError, TransientError, FatalError):
        fields = json.loads(tell(kind("x"), as_json=True)[2])["error"]
        assert set(fields) >= {"code", "blame", "category", "message", "details", "hint"}
        assert fields["hint"], kind


def test_a_person_reads_cause_then_evidence_then_next_command() -> None:
    error = NodeError(
        "plugin ocr did not start",
        code="worker.exited",
        details={"exit_code": 3, "last_lines": [f"line {number}" for number in range(40)], "nothing": None},
        hint="toft plugin logs ocr",
    )
    _, out, err = tell(error)
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == "error: plugin ocr did not start"
    assert lines[1] == "  exit code: 3"
    assert lines[-2] == "    line 39"
    assert lines[-1] == "next: toft plugin logs ocr"
    assert "line 0\n" not in err
    assert "28 lines above" in err
    assert "nothing" not in err


def test_every_bad_field_is_shown_once() -> None:
    told = tell(
        InputError("2 arguments do not fit", fields={"dpi": "not a number", "pge": "did you mean page?"})
    )[2]
    assert "dpi: not a number" in told
    assert "pge: did you mean page?" in told
    listed = tell(InputError("1 does not fit: dpi: not a number", fields={"dpi": "not a number"}))[2]
    assert listed.count("not a number") == 1


def test_a_message_of_a_plugin_cannot_drive_the_terminal() -> None:
    error = FatalError("\x1b[2Jall is well", details={"why": "\x1b]0;x\x07"})
    error.trace = "Traceback\n\x1b[31m boom"
    assert "\x1b" not in tell(error)[2]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_what_the_system_refused_names_the_path_and_a_next_step(number: int) -> None:
    error = failures.from_os_error(OSError(number, "reason", "/var/lib/toft/node.db"))
    assert error.code == f"os.{errno.errorcode[number].lower()}"
    assert error.message == "/var/lib/toft/node.db: reason"
    assert error.hint


def run(arguments: list[str], act: Callable[[], object]) -> Told:
    """Run a command that opens the node, with a node that does `act`."""

    def connect(**options: object) -> Any:
        act()
        raise AssertionError("act was to raise")

    out, err = io.StringIO(), io.StringIO()
    status = app.run(arguments, Session(Terminal(out, err), connect, {"TOFT_HOME": "/nonexistent/toft"}))
    return status, out.getvalue(), err.getvalue()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["sekret"], "sekret"),
        (["secret", "set", "ocr"], "KEY"),
        (["secret", "list", "--nope"], "--nope"),
        (["--nope"], "--nope"),
    ],
)
def test_a_command_line_that_cannot_be_right_exits_2_and_names_the_word(
    arguments: list[str], word: str
) -> None:
    status, out, err = run(arguments, lambda: None)
    assert (status, out) == (2, "")
    assert word in err
    assert "next: toft" in err
    status, out, err = run([*arguments, "--json"], lambda: None)
    assert (status, out) == (2, "")
    assert json.loads(err)["error"]["code"] == "request.command_line"
