"""The daemon as a systemd unit: its text, and the steps to have it installed or removed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toft.client import place as places
from toft.kernel import errors
from toft.kernel.settings import Settings, default_home
from toft.store import durable

_COMMAND_S = 60.0

_TEXT = """\
[Unit]
Description=toft node at {home}
# It may be started again as often as it ends: what keeps dying on trial is sent back by the guard.
StartLimitIntervalSec=0
{network}
[Service]
Type=notify
NotifyAccess=main
ExecStart={python} -P -m toft.managed.guard --home {home} -- {python} -P -m toft.daemon --home {home}
Environment=PATH={path}
Restart=always
RestartSec=2
# The daemon asks to be started again, with another generation; that is no failure.
SuccessExitStatus=75
RestartForceExitStatus=75
# What runs gets the time of drain_s; then the daemon interrupts it and needs a moment to say so.
TimeoutStopSec={stop_s:.0f}
TimeoutStartSec=90
WatchdogSec=60
# The daemon ends its workers itself, and says how each call ended.
KillMode=mixed
# Workers get control groups below the unit's own.
Delegate=yes
TasksMax=infinity
LimitNOFILE=524288
UMask=0077
{confined}
[Install]
WantedBy={target}
"""

_NETWORK = """\
Wants=network-online.target
After=network-online.target
"""

_CONFINED = """\
NoNewPrivileges=yes
# Everything is read-only but the home, what is cached, and a /tmp of its own. For plugins that write
# elsewhere: systemctl edit {name}, [Service], ReadWritePaths=/srv/data
ProtectSystem=strict
{writable}
CacheDirectory=toft
Environment=XDG_CACHE_HOME=/var/cache/toft
PrivateTmp=yes
# Who installs machines may leave a join there: /etc/credstore/toft.join; without one nothing happens.
LoadCredential=toft.join
"""
_STATE = Path("/var/lib")


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One unit file.

    Attributes:
        name: As `systemctl` takes it.
        path: Where it belongs.
        is_system: Of the machine's manager; of the user's otherwise.
    """

    name: str
    path: Path
    is_system: bool
    home: Path
    drain_s: float
    search_path: str

    @classmethod
    def of(cls, settings: Settings, *, is_system: bool, environ: Mapping[str, str] = os.environ) -> Unit:
        """Return the unit of a home."""
        default = default_home(environ)
        # One unit for each home: the ordinary one has the short name.
        tail = (
            ""
            if settings.home == default
            else "-" + "".join(each if each.isalnum() else "-" for each in settings.home.name).strip("-")
        )
        name = f"toft{tail}.service"
        base = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "/")) / ".config")
        directory = Path("/etc/systemd/system") if is_system else base / "systemd" / "user"
        return cls(
            name=name,
            path=directory / name,
            is_system=is_system,
            home=settings.home,
            drain_s=settings.drain_s,
            search_path=environ.get("PATH", os.defpath),
        )

    @classmethod
    def both(cls, settings: Settings, *, environ: Mapping[str, str] = os.environ) -> tuple[Unit, Unit]:
        """Return the unit of a home for the machine's manager, and the one for the user's."""
        return (
            cls.of(settings, is_system=True, environ=environ),
            cls.of(settings, is_system=False, environ=environ),
        )

    def text(self) -> str:
        """Return the file."""
        return _TEXT.format(
            home=_quoted(str(self.home)),
            python=_quoted(sys.executable),
            path=_quoted(self.search_path),
            stop_s=self.drain_s + 30,
            target="multi-user.target" if self.is_system else "default.target",
            # A user's manager has no such target, and may not confine without a namespace of its own.
            network=_NETWORK if self.is_system else "",
            confined=_CONFINED.format(name=self.name, writable=self._writable()) if self.is_system else "",
        )

    def _writable(self) -> str:
        home = str(self.home)
        if self.home.parent == _STATE and re.fullmatch(r"[A-Za-z0-9_.-]+", self.home.name):
            return f"StateDirectory={self.home.name}\nStateDirectoryMode=0700"
        return f"ReadWritePaths={_quoted(home)}"

    def command(self, *arguments: str) -> list[str]:
        """Return a command for the manager this unit belongs to."""
        return ["systemctl", *(() if self.is_system else ("--user",)), *arguments]


def install(unit: Unit) -> dict[str, Any]:
    """Write the unit and let the manager start it, now and from now on.

    Raises:
        UnavailableError: There is no systemd here; nothing was written.
        RefusedError: Only root may install for the machine.
        ConflictError: A daemon of that home runs already that the manager did not start; nothing was written.
    """
    _check(unit)
    _check_alone(unit)
    durable.make_directory(unit.path.parent)
    durable.write_file(unit.path, unit.text().encode(), mode=0o644)
    _run(unit, "daemon-reload")
    _run(unit, "enable", "--now", unit.name)
    return {"unit": unit.name, "file": str(unit.path), "did": "installed and started"}


def is_active(unit: Unit) -> bool:
    """Say whether the manager has it running."""
    return _ask(unit, "is-active", "--quiet", unit.name).returncode == 0


def stop(unit: Unit) -> None:
    """Let the manager end it, and not start it again before the machine starts.

    Raises:
        UnavailableError: It did not.
    """
    _run(unit, "stop", unit.name)


def linger(unit: Unit) -> None:
    """Let the services of this user run without a session, from the start of the machine on.

    Raises:
        UnavailableError: The machine does not let them.
    """
    command = ["loginctl", "enable-linger"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(unit, command, str(error)) from error
    if done.returncode != 0:
        raise _failed(unit, command, done.stderr.strip() or f"it ended with {done.returncode}")


def remove(unit: Unit) -> dict[str, Any]:
    """Let the manager end and forget the unit.

    Raises:
        NotFoundError: It is not installed.
    """
    _check(unit)
    if not unit.path.exists():
        raise errors.NotFoundError(
            f"there is no {unit.path}", code="service.not_installed", hint="toft service install"
        )
    _run(unit, "disable", "--now", unit.name)
    unit.path.unlink()
    _run(unit, "daemon-reload")
    return {"unit": unit.name, "file": str(unit.path), "did": "stopped and removed"}


def _check(unit: Unit) -> None:
    if shutil.which("systemctl") is None:
        raise errors.UnavailableError(
            "there is no systemctl here, so systemd cannot keep the daemon",
            code="service.no_systemd",
            blame="environment",
            hint="toft up --detach starts it without; toft service install --print shows the unit",
        )
    if unit.is_system and os.geteuid() != 0:
        raise errors.RefusedError(
            "only root may install a service for the machine",
            code="service.not_root",
            hint="leave --system out, or run it with sudo",
        )


def _check_alone(unit: Unit) -> None:
    """Refuse where the manager would start a daemon again and again that cannot have its home."""
    found = places.Place(unit.home).find()
    if found is not None and not is_active(unit):
        raise errors.ConflictError(
            f"a daemon runs for {unit.home} already, process {found.pid}, and systemd did not start it",
            code="daemon.running",
            details={"pid": found.pid},
            hint="toft down ends it; then toft service install",
        )


def _run(unit: Unit, *arguments: str) -> None:
    done = _ask(unit, *arguments)
    if done.returncode != 0:
        said = done.stderr.strip() or done.stdout.strip() or f"it ended with {done.returncode}"
        raise _failed(unit, unit.command(*arguments), said)


def _ask(unit: Unit, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = unit.command(*arguments)
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _failed(unit, command, str(error)) from error


def _failed(unit: Unit, command: list[str], said: str) -> errors.UnavailableError:
    user = "" if unit.is_system else "--user "
    hint = f"journalctl {user}--unit {unit.name} shows more"
    if "connect to bus" in said:  # no session of that user: in a container, after su, over some logins
        hint = "sign in as that user, or loginctl enable-linger; toft up --detach does without systemd"
    return errors.UnavailableError(
        f"{' '.join(command)} failed: {said[:500]}",
        code="service.systemctl",
        blame="environment",
        details={"command": command},
        hint=hint,
    )


def _quoted(text: str) -> str:
    """Return a word as a unit file takes it: percent signs and quotes mean something there."""
    safe = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{safe}"' if any(each.isspace() for each in safe) or '"' in safe else safe
