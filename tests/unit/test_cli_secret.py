"""`toft secret` stores, lists and removes without ever showing a value."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from toft.cli import app
from toft.cli.session import Session
from toft.cli.terminal import Terminal

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def toft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    def run(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        status = app.run(
            arguments, Session(Terminal(out, err), environ={"TOFT_HOME": str(tmp_path / "home")})
        )
        return status, out.getvalue(), err.getvalue()

    return run


def test_a_secret_from_stdin_is_listed_by_name_and_removed(toft: Run, tmp_path: Path) -> None:
    status, out, err = toft("secret", "set", "ocr", "API_KEY", "--from-stdin", stdin="hunter22\n")
    assert (status, out) == (0, "")
    assert "hunter22" not in err
    stored = json.loads((tmp_path / "home" / "secrets" / "secrets.json").read_text())
    assert stored["scopes"]["__default__"]["ocr"] == {"API_KEY": "hunter22"}
    status, out, err = toft("secret", "list", "--json")
    assert json.loads(out) == [{"plugin": "ocr", "key": "API_KEY", "scope": "__default__"}]
    assert toft("secret", "list", "ocr")[1] == "plugin  secret\nocr     API_KEY\n"
    assert toft("secret", "rm", "ocr", "API_KEY")[0] == 0
    assert json.loads(toft("secret", "list", "--json")[1]) == []


def test_a_secret_from_a_file_loses_one_newline_at_its_end(toft: Run, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"line one\r\nline two\n\n")
    assert toft("secret", "set", "ocr", "PEM", "--from-file", str(tmp_path / "key"))[0] == 0
    stored = json.loads((tmp_path / "home" / "secrets" / "secrets.json").read_text())
    assert stored["scopes"]["__default__"]["ocr"]["PEM"] == "line one\r\nline two\n"


def test_a_value_on_the_command_line_is_stored_with_a_warning(toft: Run) -> None:
    status, out, err = toft("secret", "set", "ocr", "API_KEY", "--value", "hunter22", "--json")
    assert status == 0
    assert json.loads(out) == {"plugin": "ocr", "key": "API_KEY", "scope": "__default__"}
    assert "warning:" in err
    assert "hunter22" not in out + err


def test_a_very_short_value_is_stored_with_a_warning(toft: Run) -> None:
    status, _, err = toft("secret", "set", "ocr", "PIN", "--from-stdin", stdin="12")
    assert status == 0
    assert "so short" in err


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["set", "ocr", "API_KEY"], 2, "secret.no_terminal"),
        (["set", "ocr", "API_KEY", "--from-stdin"], 2, "secret.bad_value"),
        (["set", "ocr", "API_KEY", "--from-stdin", "--value", "x"], 2, "request.invalid"),
        (["set", "ocr", "API_KEY", "--from-file", "/nonexistent"], 2, "secret.bad_value"),
        (["set", "ocr", "API KEY", "--from-stdin"], 2, "secret.bad_name"),
        (["set", "../ocr", "API_KEY", "--from-stdin"], 2, "name.invalid"),
        (["set", "ocr", "API_KEY", "--from-stdin", "--scope", "A/B"], 2, "secret.bad_scope"),
        (["rm", "ocr", "API_KEY"], 1, "secret.not_found"),
        (["list", "a\nb"], 2, "name.invalid"),
        (["list", "nobody"], 1, "plugin.not_found"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_is_made(
    toft: Run, tmp_path: Path, arguments: list[str], status: int, code: str
) -> None:
    found, out, err = toft("secret", *arguments, "--json")
    assert (found, out) == (status, "")
    assert json.loads(err.splitlines()[-1])["error"]["code"] == code
    assert not list((tmp_path / "home" / "secrets").glob("*.json"))


def test_a_damaged_store_is_an_error_with_a_next_step_not_a_traceback(toft: Run, tmp_path: Path) -> None:
    directory = tmp_path / "home" / "secrets"
    directory.mkdir(parents=True, mode=0o700)
    (directory / "secrets.json").write_text('{"schema": 1, "sco')
    (directory / "secrets.json").chmod(0o600)
    status, out, err = toft("secret", "list")
    assert (status, out) == (1, "")
    assert err.startswith("error: ")
    assert "next: " in err
    assert "Traceback" not in err


def test_a_home_that_is_a_file_is_said(toft: Run, tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    status, _, err = toft("secret", "set", "ocr", "API_KEY", "--from-stdin", "--json", stdin="value")
    assert status == 1
    assert str(tmp_path / "home") in json.loads(err)["error"]["message"]
