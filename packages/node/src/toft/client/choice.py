"""Whether there is a daemon to use, and whether it would do what a node with these settings does."""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from toft.client import place as places
from toft.kernel.settings import Settings
from toft.plugins.manifests import registry

_STARTING_S = 10.0
_PAUSE_S = 0.02

MATTERS = (
    "call_stall_s",
    "cancel_grace_s",
    "cleanup_s",
    "crash_limit",
    "detect_drift",
    "isolation",
    "load_stall_s",
    "log_bytes",
    "log_files",
    "models_dir",
    "queue_limit",
    "restart_first_s",
    "restart_healthy_s",
    "restart_most_s",
)
"""Settings that change what a call does; the others are about installing, or the daemon's own."""


def told(settings: Settings, but: Collection[str] = ()) -> dict[str, Any]:
    """Return the settings that matter, as they are compared.

    Args:
        settings: All of them.
        but: Names that are not told.
    """
    shown = {name: getattr(settings, name) for name in MATTERS if name not in but}
    found: dict[str, Any] = json.loads(json.dumps(shown, default=str))
    return found


def differs(mine: Settings, theirs: Mapping[str, Any], *, directory: Path) -> str:
    """Return why the daemon would not do what this program asks for; empty when it would.

    Args:
        mine: The settings of this program.
        theirs: What the daemon told of its own.
        directory: Where this program was started.
    """
    for name, value in told(mine).items():
        # What the daemon does not tell is the document's word: that holds for whoever uses this home.
        if name in theirs and theirs[name] != value:
            return f"setting {name} is {value!r} here and {theirs.get(name)!r} there"
    for path in registry.project_paths(directory):
        if path.is_dir():
            return f"{path} has plugins that only programs in this directory see"
    return ""


def find(home: Path) -> Path | None:
    """Return the socket of a home's daemon, if it has one; waits for one that is starting; blocks."""
    place = places.Place(home)
    until = time.monotonic() + _STARTING_S
    while place.is_held():
        if place.socket.exists() and place.read_record() is not None:
            return place.socket
        if time.monotonic() > until:
            return None
        time.sleep(_PAUSE_S)
    return None
