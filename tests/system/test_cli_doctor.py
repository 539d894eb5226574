"""`toft doctor` looks at a real machine and home, and says what is wrong and what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NAMES = (
    "python",
    "uv",
    "interpreters",
    "isolation",
    "memory",
    "disk",
    "home",
    "database",
    "secrets",
    "plugins",
    "environments",
    "leftovers",
    "conda",
)


def doctor(home: Path, *words: str) -> tuple[int, dict[str, Any]]:
    environ = {**os.environ, "TOFT_HOME": str(home)}
    command = [sys.executable, "-m", "toft", "doctor", "--json", *words]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    checks = json.loads(done.stdout)
    for each in checks:
        assert set(each) == {"check", "ok", "evidence", "next"}
        assert each["evidence"]
        assert each["ok"] or each["next"], each
    return done.returncode, {each["check"]: each for each in checks}


def test_a_home_that_was_never_used_is_fine_and_stays_unmade(toft_home: Path) -> None:
    status, checks = doctor(toft_home)
    assert set(NAMES) <= set(checks)
    failed = {name for name, each in checks.items() if not each["ok"]}
    # A machine may forbid namespaces; everything else is in our hands here.
    assert failed <= {"isolation"}
    assert status == (1 if failed else 0)
    assert not toft_home.exists()


def test_everything_that_is_wrong_is_found_at_once(toft_home: Path) -> None:
    toft_home.mkdir()
    (toft_home / "node.db").write_bytes(b"this is no database, although it is where one should be" * 100)
    (toft_home / "plugins" / "ocr").mkdir(parents=True)
    (toft_home / "plugins" / "ocr" / "manifest.json").write_text("{")
    (toft_home / "secrets").mkdir(mode=0o700)
    (toft_home / "secrets" / "secrets.json").write_text('{"sch')
    (toft_home / "secrets" / "secrets.json").chmod(0o600)
    (toft_home / "data").mkdir()
    (toft_home / "data" / ".tmp-file-999999999-0").write_text("")
    (toft_home / "data" / f".tmp-file-{os.getpid()}-0").write_text("")
    toft_home.chmod(0o777)
    status, checks = doctor(toft_home)
    assert status == 1
    for name in ("home", "database", "secrets", "plugins", "leftovers"):
        assert not checks[name]["ok"], name
    assert "0777" in checks["home"]["evidence"]
    assert "node.db" in checks["database"]["evidence"]
    assert "manifest.json" in checks["plugins"]["evidence"]
    assert checks["leftovers"]["evidence"].startswith("1 of interrupted work")


def test_rights_of_others_on_secrets_are_told_and_mended(toft_home: Path) -> None:
    command = [sys.executable, "-m", "toft", "secret", "set", "ocr", "KEY", "--from-stdin"]
    subprocess.run(command, input="value", text=True, check=True, capture_output=True, timeout=60)
    (toft_home / "secrets" / "secrets.json").chmod(0o644)
    _, checks = doctor(toft_home)
    assert not checks["secrets"]["ok"]
    assert "0644" in checks["secrets"]["evidence"]
    _, checks = doctor(toft_home)
    assert checks["secrets"]["ok"]
    assert checks["secrets"]["evidence"] == "1 stored"


def test_a_home_that_is_a_file_is_said(toft_home: Path) -> None:
    toft_home.write_text("")
    status, checks = doctor(toft_home)
    assert status == 1
    assert "not a directory" in checks["home"]["evidence"]


@pytest.mark.parametrize("isolation", ["plain"])
def test_plain_isolation_that_was_chosen_is_no_fault_but_is_said(
    toft_home: Path, isolation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOFT_ISOLATION", isolation)
    _, checks = doctor(toft_home)
    assert checks["isolation"]["ok"]
    assert checks["isolation"]["evidence"].startswith("plain")
