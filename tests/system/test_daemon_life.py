"""One daemon per home: how it starts, says that it is ready, and ends, however that comes about."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests import daemons
from tests.command_line import CommandLine
from tests.waiting import eventually

from toft.client import place as places
from toft.host import process_tree

_KEYS = {"state", "pid", "version", "uptime_s", "socket", "lanes", "queue", "memory", "gpu"}


def test_up_returns_when_it_is_ready_and_down_when_all_processes_are_gone(
    toft_home: Path, tmp_path: Path
) -> None:
    toft = CommandLine(toft_home, tmp_path)
    assert toft("status", "--json").value["state"] == "stopped"
    began = toft("up", "--detach", "--json").value
    assert began["state"] == "ready"
    told = toft("status", "--json").value
    assert set(told) >= _KEYS
    assert (told["state"], told["pid"], told["socket"]) == ("ready", began["pid"], began["socket"])
    assert told["memory"]["daemon_bytes"] < 90_000_000
    family = [began["pid"], *(each.pid for each in process_tree.descendants(began["pid"]))]
    assert len(family) > 1
    assert toft("down", "--json").value == {"state": "stopped", "pid": began["pid"]}
    daemons.reap()
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []
    assert {path.name for path in (toft_home / "run").iterdir()} <= {"daemon.lock", "jobs.lock"}
    assert toft("down", "--json").value == {"state": "stopped", "pid": None}


def test_a_second_daemon_is_refused_and_told_who_runs(toft_home: Path, tmp_path: Path) -> None:
    with daemons.running(toft_home, tmp_path) as daemon:
        for command in (("up", "--detach", "--json"), ("up", "--json")):
            error = daemon.toft(*command).error
            assert (error["code"], error["details"]["pid"]) == ("daemon.running", daemon.pid)


def test_only_one_of_many_started_at_once_becomes_the_daemon(toft_home: Path, tmp_path: Path) -> None:
    toft = CommandLine(toft_home, tmp_path)
    begun = [toft.start("up", "--detach", "--json") for _ in range(4)]
    ended = [process.communicate(timeout=60) for process in begun]
    ready = [out for process, (out, _) in zip(begun, ended, strict=True) if process.returncode == 0]
    try:
        assert len(ready) == 1, ended
        others = [json.loads(err)["error"]["code"] for _, err in ended if err]
        assert others == ["daemon.running"] * 3
    finally:
        toft("down", "--now")
        daemons.reap()


def test_the_socket_is_its_owners_alone(toft_home: Path, tmp_path: Path) -> None:
    with daemons.running(toft_home, tmp_path) as daemon:
        path = daemon.place.socket
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_a_killed_daemon_left_is_no_obstacle(toft_home: Path, tmp_path: Path) -> None:
    toft = CommandLine(toft_home, tmp_path)
    toft("up", "--detach", "--json")
    daemon = daemons.Daemon(toft)
    first = daemon.pid
    family = process_tree.descendants(first)
    daemon.kill()
    assert daemon.place.socket.exists()
    assert toft("status", "--json").value["state"] == "stopped"
    assert toft("down", "--json").value["pid"] is None
    eventually(lambda: not [each for each in family if process_tree.alive(each.pid)], 2)
    with daemons.running(toft_home, tmp_path) as again:
        assert again.pid != first
        assert again.status()["state"] == "ready"


def test_a_record_of_a_process_that_has_the_number_now_is_not_believed(tmp_path: Path) -> None:
    place = places.Place(tmp_path)
    place.run.mkdir()
    place.write_record("1")
    told = json.loads(place.record.read_text())
    assert place.read_record() is not None
    place.record.write_text(json.dumps({**told, "started_ticks": told["started_ticks"] + 1}))
    assert place.read_record() is None
    for broken in ("", "[]", "{", '{"pid": "x"}'):
        place.record.write_text(broken)
        assert place.read_record() is None


def test_a_daemon_that_cannot_start_says_why(toft_home: Path, tmp_path: Path) -> None:
    toft = CommandLine(toft_home, tmp_path)
    toft_home.mkdir(mode=0o700)
    (toft_home / "node.db").write_bytes(b"this is no database" * 100)
    error = toft("up", "--detach", "--json").error
    assert error["code"].startswith("store."), error
    assert toft("status", "--json").value["state"] == "stopped"
    (toft_home / "node.db").unlink()
    toft.settings(isolation="no such")
    assert toft("up", "--detach", "--json").error["code"] == "settings.invalid"


def test_in_the_foreground_it_ends_with_a_signal(toft_home: Path, tmp_path: Path) -> None:
    toft = CommandLine(toft_home, tmp_path)
    for number in (signal.SIGTERM, signal.SIGINT):
        process = toft.start("up")
        eventually(lambda: toft("status", "--json").value["state"] == "ready", 20)
        assert daemons.Daemon(toft).pid == process.pid
        process.send_signal(number)
        assert process.wait(20) == 0, process.communicate()
        process.communicate()
        assert toft("status", "--json").value["state"] == "stopped"


def test_the_log_is_read_with_and_without_a_daemon(toft_home: Path, tmp_path: Path) -> None:
    with daemons.running(toft_home, tmp_path) as daemon:
        assert "event='ready'" in daemon.toft("logs").out
    assert "event='stopped'" in daemon.toft("logs", "-n", "1").out
    assert [set(each) for each in daemon.toft("logs", "--json").value] == [{"text"}] * 3


def test_a_long_home_has_a_socket_too(tmp_path: Path) -> None:
    home = tmp_path / ("long" * 20) / ("longer" * 10)
    with daemons.running(home, tmp_path) as daemon:
        assert len(str(daemon.place.socket)) > 108
        assert daemon.status()["socket"] == str(daemon.place.socket)


class Manager:
    """A service manager's end of NOTIFY_SOCKET."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(address.replace("@", "\0", 1))
        self.sock.settimeout(60)

    def hear(self, wanted: str) -> list[str]:
        """Return what is told, up to and with a line."""
        heard: list[str] = []
        while wanted not in heard:
            heard += self.sock.recv(4096).decode().splitlines()
        return heard


@pytest.mark.parametrize("address", ["path", "@toft-test-{pid}"])
def test_a_service_manager_is_told(toft_home: Path, tmp_path: Path, address: str) -> None:
    name = address.format(pid=os.getpid()) if address.startswith("@") else str(tmp_path / "notify")
    manager = Manager(name)
    with contextlib.closing(manager.sock):
        toft = CommandLine(toft_home, tmp_path, {"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "200000"})
        process = toft.start("up")
        assert f"MAINPID={process.pid}" in manager.hear("STATUS=idle: no document")
        for _ in range(3):
            manager.hear("WATCHDOG=1")
        process.send_signal(signal.SIGTERM)
        manager.hear("STOPPING=1")
        assert process.wait(20) == 0
        process.communicate()


def test_a_service_manager_is_told_how_a_document_does(toft_home: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps({"schema_version": 1, "revision": 7, "health": {"settle_s": 0.2}}))
    gate = {"kind": "exec", "command": "switch"}
    value = {"schema_version": 1, "revision": 8, "health": {"settle_s": 0.2, "gates": {"own": gate}}}
    bad.write_text(json.dumps(value))
    name, switch = str(tmp_path / "notify"), tmp_path / "switch"
    switch.touch()
    manager = Manager(name)
    with contextlib.closing(manager.sock):
        toft = CommandLine(toft_home, tmp_path, {"NOTIFY_SOCKET": name})
        toft.settings(gate_commands=[f"switch=/usr/bin/test -e {switch}"])
        process = toft.start("up")

        def again() -> subprocess.Popen[str]:
            # Whoever is told is also who starts it again: with 75 it asks for that.
            process.communicate(timeout=60)
            assert process.returncode == 75
            return toft.start("up")

        manager.hear("STATUS=idle: no document")
        assert toft("config", "apply", str(good)).status == 0
        process = again()
        manager.hear("STATUS=on trial: revision 7")
        manager.hear("STATUS=idle: revision 7")
        assert toft("config", "apply", str(bad)).status == 0
        process = again()
        manager.hear("STATUS=on trial: revision 8")
        switch.unlink()
        manager.hear("STATUS=reverting: revision 8, health_failed")
        process = again()
        manager.hear("STATUS=idle: revision 7")
        process.send_signal(signal.SIGTERM)
        manager.hear("STATUS=draining")
        process.communicate(timeout=60)
        assert process.returncode == 0


def test_without_systemd_the_unit_is_printed_and_not_installed(toft_home: Path, tmp_path: Path) -> None:
    empty = tmp_path / "bin"
    empty.mkdir()
    toft = CommandLine(toft_home, tmp_path, {"PATH": str(empty), "HOME": str(tmp_path)})
    error = toft("service", "install", "--json").error
    assert error["code"] == "service.no_systemd"
    assert "up --detach" in error["hint"]
    assert toft("service", "remove", "--json").error["code"] == "service.no_systemd"
    assert not (tmp_path / ".config").exists()
    unit = toft("service", "install", "--print").out
    assert f"-- {sys.executable} -P -m toft.daemon --home {toft_home}" in unit
    assert "Type=notify" in unit


def test_with_systemd_the_unit_is_installed_and_removed(toft_home: Path, tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    calls = tmp_path / "calls"
    (tools / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {calls}\n')
    (tools / "systemctl").chmod(0o755)
    environ = {"PATH": f"{tools}:/usr/bin:/bin", "HOME": str(tmp_path), "XDG_CONFIG_HOME": ""}
    toft = CommandLine(toft_home, tmp_path, environ)
    done = toft("service", "install", "--json").value
    file = Path(done["file"])
    assert file.parent == tmp_path / ".config" / "systemd" / "user"
    assert "WantedBy=default.target" in file.read_text()
    assert toft("service", "remove", "--json").value["unit"] == done["unit"]
    assert not file.exists()
    assert toft("service", "remove", "--json").error["code"] == "service.not_installed"
    (tools / "systemctl").write_text("#!/bin/sh\nexit 3\n")  # as for a unit that is not active
    with daemons.running(toft_home, tmp_path) as daemon:
        refused = toft("service", "install", "--json").error
        assert (refused["code"], refused["details"]["pid"]) == ("daemon.running", daemon.pid)
    assert not file.exists()
    (tools / "systemctl").write_text("#!/bin/sh\nexit 4\n")
    failed = toft("service", "install", "--json").error
    assert failed["message"].endswith("failed: it ended with 4")
    assert f"--user --unit {done['unit']}" in failed["hint"]
    assert [line.split()[1] for line in calls.read_text().splitlines()] == [
        "daemon-reload",
        "enable",
        "disable",
        "daemon-reload",
    ]


def test_an_idle_daemon_takes_no_time_and_little_memory(toft_home: Path, tmp_path: Path) -> None:
    with daemons.running(toft_home, tmp_path) as daemon:
        assert daemon.status()["state"] == "ready"
        before = _ticks(daemon.pid)
        time.sleep(2)  # a measurement, not a wait
        after = _ticks(daemon.pid)
        assert (after - before) / os.sysconf("SC_CLK_TCK") / 2 <= 0.01
        assert daemon.status()["memory"]["daemon_bytes"] <= 90_000_000


def _ticks(pid: int) -> int:
    found = process_tree.read(pid)
    assert found is not None
    return found.cpu_ticks


def test_the_program_imports_nothing_of_the_directory_it_is_started_in(
    toft_home: Path, tmp_path: Path
) -> None:
    (tmp_path / "toft").mkdir()
    (tmp_path / "toft" / "__init__.py").write_text("raise SystemExit('imported what lay there')")
    (tmp_path / "json.py").write_text("raise SystemExit('imported what lay there')")
    command = [sys.executable, "-P", "-m", "toft", "up", "--detach"]
    environ = {**os.environ, "TOFT_HOME": str(toft_home)}
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60)
    toft = CommandLine(toft_home, toft_home)
    try:
        assert done.returncode == 0, done.stderr
        assert toft("status", "--json").value["state"] == "ready"
    finally:
        toft("down", "--now")
        daemons.reap()
