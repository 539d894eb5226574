"""A real daemon whose wall clock jumps by a year, and a client whose clock is another one."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import daemons, nodes
from tests.command_line import CommandLine, keep_token
from tests.daemons import Daemon
from tests.system.test_access import Port, port_of, token
from tests.waiting import eventually

YEAR_S = 365 * 86_400.0
MOVED = Path(__file__).parents[1] / "fixtures/moved_clock"
JOB = {"plugin": "misbehaving", "action": "echo", "arguments": {"value": 1}, "idempotency_key": "once"}


class Moved:
    """The clock of the daemon, and of what is started with the same environment."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set(0.0)
        self.environ = {"PYTHONPATH": str(MOVED), "TOFT_TEST_CLOCK": str(path)}

    def set(self, seconds: float) -> None:
        """Let it be so many seconds away from the true one."""
        # In place: the process has this very file in its memory.
        with self._path.open("r+b" if self._path.exists() else "wb") as file:
            file.write(struct.pack("d", seconds))


@pytest.fixture
def moved(tmp_path: Path) -> Moved:
    return Moved(tmp_path / "clock")


@pytest.fixture
def daemon(toft_home: Path, tmp_path: Path, moved: Moved) -> Iterator[Daemon]:
    nodes.register(toft_home)
    with daemons.running(toft_home, tmp_path, moved.environ, listen="127.0.0.1:0") as found:
        yield found


def reason(port: Port, text: str) -> str:
    status, told = port.ask("GET", "/v1/jobs", token=text)
    return "in" if status == 200 else str(told["details"]["reason"])


def runs(port: Port, text: str) -> str:
    """Run a job, and return what the key of another one names now."""
    status, made = port.ask("POST", "/v1/jobs", body={**JOB, "idempotency_key": None}, token=text)
    assert status == 201, made
    status, told = port.ask("GET", f"/v1/jobs/{made['id']}/wait?timeout_s=20", token=text)
    assert told["state"] == "completed", told
    return str(port.ask("POST", "/v1/jobs", body=JOB, token=text)[1]["id"])


def events_after(port: Port, text: str, cursor: int) -> list[dict[str, Any]]:
    status, told = port.ask("GET", f"/v1/events?after={cursor}&limit=1000", token=text)
    assert status == 200
    found: list[dict[str, Any]] = told
    return found


def test_a_year_ahead_and_a_year_behind(daemon: Daemon, moved: Moved, tmp_path: Path) -> None:
    toft, port = daemon.toft, port_of(daemon)
    short, gone = token(daemon, "short", "*", lasts_s=3600), token(daemon, "gone", "*")
    ops = token(daemon, "ops", "*")
    toft("token", "revoke", "gone")
    job = runs(port, ops)
    assert reason(port, short) == "in"

    moved.set(YEAR_S)
    assert [reason(port, each) for each in (short, gone, ops)] == ["expired", "revoked", "in"]
    assert runs(port, ops) == job
    cursor = events_after(port, ops, 0)[-1]["cursor"]

    moved.set(-YEAR_S)
    assert [reason(port, each) for each in (short, gone, ops)] == ["expired", "revoked", "in"]
    assert runs(port, ops) == job
    later = [each["cursor"] for each in events_after(port, ops, cursor)]
    assert later
    assert [cursor, *later] == sorted({cursor, *later})
    fresh = token(daemon, "fresh", "read", lasts_s=3600)
    assert reason(port, fresh) == "in"
    link = toft("open", "--json").value["url"]
    with port.asking("GET", link.removeprefix(port.url)) as answer:
        cookie = answer.getheader("Set-Cookie") or ""
    assert answer.status == 200
    assert "Expires=" not in cookie, "the clock of a browser must not decide"
    assert port.ask("GET", "/v1/jobs", Cookie=cookie.partition(";")[0])[0] == 200

    # The daemon starts again while its clock is behind, and is asked from where another clock is right.
    daemon.kill()
    assert toft("up", "--detach", "--json").status == 0
    port = port_of(daemon)
    assert [reason(port, each) for each in (short, ops)] == ["expired", "in"]
    assert runs(port, ops) == job
    elsewhere = CommandLine(tmp_path / "elsewhere", tmp_path)
    asking = ("--url", port.url, "--token-file", keep_token(tmp_path / "token", ops))
    slow = elsewhere(*asking, "job", "submit", "misbehaving.work", "seconds=100", "--json").value["id"]
    eventually(lambda: elsewhere(*asking, "job", "show", slow, "--json").value["state"] == "running")
    (line,) = [each for each in elsewhere(*asking, "top", "--once").out.splitlines() if slow in each]
    lasts, unit = line.split()[2:4]
    # On a quiet machine it has run for less than a second.
    assert float(lasts) * {"ms": 0.001, "s": 1.0}[unit] < 60, "reckoned on the clock of the node"
    assert elsewhere(*asking, "job", "wait", slow, "--timeout", "0.1", "--json").status == 3
    assert elsewhere(*asking, "job", "cancel", slow, "--json").status == 0
