"""The service of a node: what systemd says about its units, and how a join has a daemon kept."""

from __future__ import annotations

import functools
import io
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from toft.cli import app
from toft.cli.session import Session
from toft.cli.terminal import Terminal
from toft.client import place as places
from toft.daemon import control, keeping, provisioning, units
from toft.kernel import settings
from toft.kernel.errors import UnavailableError
from toft.managed import generations, joining, moments

TOKEN = "jt_abcd1234_" + "b" * 43
WANTED = (
    "Type=notify",
    "NotifyAccess=main",
    "Restart=always",
    "RestartSec=2",
    "SuccessExitStatus=75",
    "RestartForceExitStatus=75",
    "StartLimitIntervalSec=0",
    "WatchdogSec=60",
    "UMask=0077",
)
FOR_THE_MACHINE = (
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "LoadCredential=toft.join",
    "Wants=network-online.target",
    "After=network-online.target",
    "WantedBy=multi-user.target",
)


@pytest.mark.parametrize(
    ("home", "is_system", "writable"),
    [
        ("/var/lib/toft", True, "StateDirectory=toft\nStateDirectoryMode=0700\n"),
        ('/srv/a "b" 5%/node', True, 'ReadWritePaths="/srv/a \\"b\\" 5%%/node"\n'),
        ("/home/ann/.local/state/toft", False, ""),
    ],
)
def test_systemd_has_nothing_to_say_about_a_unit(
    tmp_path: Path, home: str, is_system: bool, writable: str
) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze: apt install systemd")
    environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    unit = units.Unit.of(settings.Settings(home=Path(home)), is_system=is_system, environ=environ)
    text = unit.text()
    lines = text.splitlines()
    assert set(WANTED) <= set(lines)
    assert writable in text
    assert is_system == (set(FOR_THE_MACHINE) <= set(lines))
    path = tmp_path / unit.name
    path.write_text(text)
    command = ["systemd-analyze", *([] if is_system else ["--user"]), "verify", "--man=no", str(path)]
    # It knows newer words than the systemd of Debian 12; what that one warns about has no place here.
    for word in ("RestartSteps", "RestartMaxDelaySec", "notify-reload"):
        assert word not in text
    done = subprocess.run(
        command,
        env={**environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


class Manager:
    """A systemctl and a loginctl that write down what they are asked."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch) -> None:
        self._calls = directory / "calls"
        tools = directory / "bin"
        tools.mkdir()
        for name in ("systemctl", "loginctl"):
            (tools / name).write_text(f'#!/bin/sh\necho "{name} $@" >> {self._calls}\nexit ${{STATUS:-0}}\n')
            (tools / name).chmod(0o755)
        self.environ = {"HOME": str(directory), "PATH": f"{tools}:{os.environ['PATH']}"}
        patch.setenv("PATH", self.environ["PATH"])
        self.systemd = directory / "systemd"
        self.systemd.mkdir()

    def calls(self) -> list[str]:
        text = self._calls.read_text() if self._calls.exists() else ""
        self._calls.unlink(missing_ok=True)
        return text.splitlines()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manager:
    return Manager(tmp_path, monkeypatch)


def test_where_systemd_runs_a_users_node_is_kept_and_lingers(manager: Manager, tmp_path: Path) -> None:
    chosen = settings.Settings(home=tmp_path / "node")
    kept = keeping.ensure(chosen, manager.environ, is_users=True, systemd=manager.systemd)
    unit = units.Unit.of(chosen, is_system=False, environ=manager.environ)
    assert (kept.how, kept.unit) == ("service", str(unit.path))
    assert unit.path.read_text() == unit.text()
    assert unit.path.stat().st_mode & 0o777 == 0o644
    assert manager.calls() == [
        "systemctl --user daemon-reload",
        f"systemctl --user enable --now {unit.name}",
        "loginctl enable-linger",
    ]
    # What systemd would start again at once, systemd has to end.
    assert keeping.let_go(chosen, manager.environ, systemd=manager.systemd)
    assert manager.calls() == [
        f"systemctl --user is-active --quiet {unit.name}",
        f"systemctl --user stop {unit.name}",
    ]
    assert not keeping.let_go(chosen, manager.environ, systemd=tmp_path / "none")


def test_a_service_that_cannot_be_installed_leaves_the_join_to_be_said_again(
    manager: Manager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STATUS", "1")
    chosen = settings.Settings(home=tmp_path / "node")
    with pytest.raises(UnavailableError):
        keeping.ensure(chosen, manager.environ, is_users=True, systemd=manager.systemd)
    monkeypatch.setattr(keeping, "ensure", functools.partial(keeping.ensure, systemd=manager.systemd))
    environ = {**manager.environ, "TOFT_HOME": str(chosen.home), "MINE": TOKEN}

    def join() -> tuple[int, dict[str, Any]]:
        out, err = io.StringIO(), io.StringIO()
        line = ["join", "https://central.example", "--token-env", "MINE", "--user", "--json"]
        status = app.run(line, Session(Terminal(out, err), environ=environ))
        found: dict[str, Any] = json.loads(out.getvalue() or err.getvalue())
        return status, found

    status, found = join()
    assert (status, found["error"]["code"]) == (1, "service.systemctl")
    seed = (chosen.home / "managed" / "seed.json").read_bytes()
    assert json.loads(seed)["token"] == TOKEN, "it is a join all the same"
    monkeypatch.setenv("STATUS", "0")
    status, found = join()
    assert (status, found["action"], found["daemon"]) == (0, "already_joining", "service")
    assert (chosen.home / "managed" / "seed.json").read_bytes() == seed


class TestCredential:
    """What whoever installs machines has left in the credential store."""

    def take(self, home: Path, text: str | None) -> str:
        directory = home / "credentials"
        directory.mkdir(parents=True, exist_ok=True)
        if text is None:
            (directory / provisioning.NAME).unlink(missing_ok=True)
        else:
            (directory / provisioning.NAME).write_text(text)
        return provisioning.take(self.engine(home), {"CREDENTIALS_DIRECTORY": str(directory)})

    def engine(self, home: Path) -> generations.Generations:
        (home / "managed").mkdir(parents=True, exist_ok=True)
        return generations.Generations(home / "managed", moments.read)

    def test_it_joins_once(self, tmp_path: Path) -> None:
        line = f"https://central.example\n{TOKEN}\n"
        assert self.take(tmp_path, line).startswith("joined")
        assert (self.engine(tmp_path).belonging.seed() or {})["urls"] == ["https://central.example"]
        assert self.take(tmp_path, line) == ""
        assert joining.leave(self.engine(tmp_path))
        assert self.take(tmp_path, line) == "", "who has left stays away"
        assert TOKEN.encode() not in (tmp_path / "managed" / "provisioned").read_bytes()
        assert self.take(tmp_path, line.replace("b" * 43, "c" * 43)).startswith("joined")

    def test_a_node_that_belongs_somewhere_stays_there(self, tmp_path: Path) -> None:
        joining.join(self.engine(tmp_path), joining.seed("https://first.example", TOKEN))
        assert self.take(tmp_path, f"https://other.example {TOKEN}") == ""
        assert (self.engine(tmp_path).belonging.seed() or {})["urls"] == ["https://first.example"]

    @pytest.mark.parametrize(
        "text", ["x", f"https://c.example {TOKEN} nokey", f"ftp://c.example {TOKEN}", f"{TOKEN} a b c", "\0"]
    )
    def test_what_is_no_join_keeps_nobody_from_starting(self, tmp_path: Path, text: str) -> None:
        said = self.take(tmp_path, text)
        assert said.startswith("the credential toft.join joins nothing")
        assert TOKEN not in said
        assert not joining.is_member(self.engine(tmp_path))

    def test_without_one_nothing_happens(self, tmp_path: Path) -> None:
        assert self.take(tmp_path, None) == self.take(tmp_path, "\n") == ""
        assert provisioning.take(self.engine(tmp_path), {}) == ""


def test_who_was_quicker_to_start_a_daemon_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = places.Place(tmp_path / "home")
    place.run.mkdir(parents=True, mode=0o700)
    # It has the home, and comes up: nobody can tell it anything yet.
    told = iter([False, False, False, True])
    monkeypatch.setattr(control, "tell_generation", lambda _: next(told))
    chosen = settings.read({}, home=place.home)
    with place.hold():
        kept = keeping.ensure(chosen, {}, is_users=False, systemd=tmp_path / "none")
    assert kept.how == "told"
    assert list(told) == []
