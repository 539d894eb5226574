"""The daemon of a home as the commands about it see it: started, watched, ended and kept from outside.

Imported when one of them runs, and not before: it brings along what starts processes and asks them.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from toft.cli.session import Session
from toft.client import probe
from toft.client.place import Place
from toft.daemon import control, keeping, units
from toft.kernel.settings import Settings
from toft.plugins import logs

__all__ = ["Place", "command", "control", "end", "keeping", "logs", "look", "units"]

_TIDY_S = 30.0
"""For what is left to do when nothing runs any more."""


def command(session: Session, chosen: Settings) -> list[str]:
    """Return the command that is the daemon of a home.

    Raises:
        ConflictError: One runs already.
    """
    place = Place(chosen.home)
    if place.is_held():
        raise place.taken()
    return control.argv(chosen, is_verbose=session.is_verbose)


def end(chosen: Settings, *, timeout_s: float | None, is_urgent: bool) -> int | None:
    """End the daemon of a home, and return its process when it is gone; None where none ran.

    Args:
        chosen: The settings.
        timeout_s: Seconds to wait; as long as it may give to what runs where None.
        is_urgent: What runs is interrupted at once.

    Raises:
        UnavailableError: It did not end in that time.
    """
    patience = _drain_s(chosen) + _TIDY_S if timeout_s is None else timeout_s
    found = control.stop(Place(chosen.home), timeout_s=patience, is_urgent=is_urgent)
    return found.pid if found else None


def _drain_s(chosen: Settings) -> float:
    """Return the most time that the daemon may give to what runs: its settings', or its document's."""
    if not _has_documents(chosen.home):
        return chosen.drain_s
    from toft.managed import generations, layering, moments  # noqa: PLC0415 - 70 ms for homes with documents

    standing = generations.Generations(chosen.home / "managed", moments.read).read()
    # Whichever of the two it has loaded: another one may have been applied since.
    loaded = [
        layering.running_document(dataclasses.replace(standing, active=name)) for name in standing.slots
    ]
    said = (each.value.get("settings", {}).get("drain_s", 0.0) for each in loaded)
    return max(chosen.drain_s, *map(float, said))


def look(home: Path) -> dict[str, Any]:
    """Return the status of a home's daemon as it was observed: asked, starting, or not there."""
    place = Place(home)
    record = place.find()
    found: dict[str, Any] = dict.fromkeys(("pid", "version", "uptime_s", "socket", "lanes"))
    found |= {"queue": {}, "memory": {}, "gpu": [], "config": _config(home)}
    if record is not None and place.socket.exists():
        return {**found, **probe.get(place.socket, "/v1/status")}
    if record is not None:
        return {**found, "state": "starting", "pid": record.pid, "version": record.version}
    return {**found, "state": "starting" if place.is_held() else "stopped"}


def _config(home: Path) -> dict[str, Any] | None:
    """Return how a home stands with its document, from its files; None where there is nothing to tell."""
    if not _has_documents(home):
        return None
    from toft.managed import standing  # noqa: PLC0415 - 70 ms for homes with documents

    found = standing.describe(home)
    return found if standing.is_managed(found) else None


def _has_documents(home: Path) -> bool:
    return (home / "managed").exists()
