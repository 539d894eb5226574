"""Has a daemon for a home, by what the machine offers: the one that runs, its service, or a new one."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from toft.client import place as places
from toft.daemon import control, units
from toft.kernel.errors import ConflictError
from toft.kernel.settings import Settings

_SYSTEMD = Path("/run/systemd/system")
"""There exactly while systemd is what started this machine."""

_COMES_UP_S = 10.0


@dataclass(frozen=True)
class Kept:
    """How a home has its daemon now.

    Attributes:
        how: `told` is one that ran already, `service` is one that systemd keeps, `started` one that nobody
            starts again when the machine does.
        unit: The file of the service; empty without one.
    """

    how: str
    unit: str = ""


def ensure(chosen: Settings, environ: Mapping[str, str], *, is_users: bool, systemd: Path = _SYSTEMD) -> Kept:
    """Have a daemon for a home, which looks anew at what it belongs to; blocks.

    Args:
        chosen: The settings.
        environ: For a daemon that is started.
        is_users: Of the user's own service manager, also for root; who is not root has no other.
        systemd: What is there where systemd runs.

    Raises:
        NodeError: It could not be installed or started; what is on disk stays, and it can be tried again.
    """
    if control.tell_generation(places.Place(chosen.home)):
        return Kept("told", _kept_by(chosen, environ))
    if not systemd.is_dir():
        return _start(chosen, environ)
    is_system = os.geteuid() == 0 and not is_users
    unit = units.Unit.of(chosen, is_system=is_system, environ=environ)
    units.install(unit)
    if not is_system:
        units.linger(unit)
    return Kept("service", str(unit.path))


def _start(chosen: Settings, environ: Mapping[str, str]) -> Kept:
    try:
        control.start(chosen, environ)
    except ConflictError as error:
        # Another join of this home was quicker by a moment; its daemon looks anew for both.
        until = time.monotonic() + _COMES_UP_S
        while not control.tell_generation(places.Place(chosen.home)):
            if error.code != "daemon.running" or time.monotonic() > until:
                raise
            time.sleep(0.05)
        return Kept("told")
    return Kept("started")


def let_go(chosen: Settings, environ: Mapping[str, str], *, systemd: Path = _SYSTEMD) -> bool:
    """Have systemd end the daemon of a home, where systemd would start it again otherwise; blocks.

    Returns:
        Whether a service of this home ran, and was ended.

    Raises:
        UnavailableError: This user may not end it.
    """
    found = False
    for unit in units.Unit.both(chosen, environ=environ) if systemd.is_dir() else ():
        if unit.path.exists() and units.is_active(unit):
            units.stop(unit)
            found = True
    return found


def _kept_by(chosen: Settings, environ: Mapping[str, str]) -> str:
    unit = next((each for each in units.Unit.both(chosen, environ=environ) if each.path.exists()), None)
    return "" if unit is None else str(unit.path)
