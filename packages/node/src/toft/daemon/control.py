"""Starts and ends the daemon of a home from outside of it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from toft.client import place as places
from toft.host import detached, process_tree
from toft.kernel import errors, settings

READY = b"ready\n"
_READY_S = 60.0
_TIDY_S = 15.0
_LOOK_S = 0.1
_LAST_LINES = 15


def argv(chosen: settings.Settings, *, is_verbose: bool = False) -> list[str]:
    """Return the command that is the daemon of a home."""
    # -P: what lies in the directory it is started in is never imported.
    python = [sys.executable, "-P", "-m"]
    busy = str(places.Place(chosen.home).lock)
    found = [*python, "toft.managed.guard", "--home", str(chosen.home), "--busy", busy, "--"]
    found += [*python, "toft.daemon", "--home", str(chosen.home)]
    if chosen.offline:
        found.append("--offline")
    if is_verbose:
        found.append("--verbose")
    # What the settings say already is said again: the command line may have said otherwise.
    for option in ("listen", "tls_cert", "tls_key"):
        if value := getattr(chosen, option):
            found += [f"--{option.replace('_', '-')}", str(value)]
    if chosen.insecure_public:
        found.append("--insecure-public")
    return found


def tell_generation(place: places.Place) -> bool:
    """Let the daemon see that another generation counts; False when none runs."""
    found = place.find() or place.read_record()
    if found is None:
        return False
    with _pinned(found) as fd:
        if fd is None:
            return False
        signal.pidfd_send_signal(fd, signal.SIGHUP)
    return True


@contextlib.contextmanager
def _pinned(found: places.Record) -> Iterator[int | None]:
    """Give what stands for a process while the `with` block lasts; None when it has ended.

    A number alone may be another process by the time it is used.
    """
    try:
        fd = os.pidfd_open(found.pid)
    except ProcessLookupError:
        yield None
        return
    try:
        # The number may have been another one's already before it was pinned.
        yield fd if found.is_alive() else None
    finally:
        os.close(fd)


def start(
    chosen: settings.Settings,
    environ: Mapping[str, str],
    *,
    is_verbose: bool = False,
    timeout_s: float = _READY_S,
) -> places.Record:
    """Start a daemon that goes on by itself, and return when it takes work; blocks.

    Raises:
        ConflictError: One runs already.
        NodeError: It ended, or did not become ready; the last lines it logged are in the error.
    """
    place = places.Place(chosen.home)
    if place.is_held():
        raise place.taken()
    begun = detached.start(
        argv(chosen, is_verbose=is_verbose),
        environ=environ,
        ready_option="--ready-fd",
        ready=READY,
        timeout_s=timeout_s,
    )
    if begun.said == READY:
        found = place.find()
        if found is not None:
            return found
    raise _not_started(place, begun, timeout_s)


def _not_started(place: places.Place, begun: detached.Started, timeout_s: float) -> errors.NodeError:
    with contextlib.suppress(ValueError):
        return errors.from_dict(json.loads(begun.said))
    return errors.UnavailableError(
        f"the daemon was not ready within {timeout_s:g} s"
        if begun.is_running
        else "the daemon ended at its start",
        code="daemon.not_started",
        blame="node",
        details={"pid": begun.pid, "last_lines": last_lines(place)},
        hint="toft logs shows more",
    )


def last_lines(place: places.Place, count: int = _LAST_LINES) -> list[str]:
    """Return the last lines of the daemon's log."""
    try:
        return place.log.read_text(errors="replace").splitlines()[-count:]
    except OSError:
        return []


def stop(place: places.Place, *, timeout_s: float, is_urgent: bool = False) -> places.Record | None:
    """End the daemon and return when none of its processes is left; None when there was none; blocks.

    Args:
        place: Of the home.
        timeout_s: Seconds to wait.
        is_urgent: What runs is interrupted at once.

    Raises:
        UnavailableError: It did not end in that time.
    """
    found = _wait_for_record(place)
    if found is None:
        return None
    with _pinned(found) as fd:
        if fd is not None:
            _end(found, fd, timeout_s, signal.SIGQUIT if is_urgent else signal.SIGTERM)
    return found


def _end(found: places.Record, fd: int, timeout_s: float, number: int) -> None:
    below = _below(found.pid)
    try:
        signal.pidfd_send_signal(fd, number)
    except PermissionError:
        raise errors.RefusedError(
            f"process {found.pid} belongs to another user",
            code="daemon.other_user",
            details={"pid": found.pid},
            hint=f"ps -o user= -p {found.pid} says whose it is; that user's toft down ends it",
        ) from None
    until = time.monotonic() + timeout_s
    poller = select.poll()
    poller.register(fd, select.POLLIN)
    while not poller.poll(_LOOK_S * 1000):
        below |= _below(found.pid)
        if time.monotonic() > until:
            raise _still_there(found, timeout_s)
    _wait_until_gone(found, below, max(until, time.monotonic() + _TIDY_S))


def _wait_for_record(place: places.Place) -> places.Record | None:
    """Return who holds the home; one that has just taken it needs a moment to say who it is.

    One that starts again holds nothing for a moment, and is there all the same.
    """
    for _ in range(20):
        found = place.find() or place.read_record()
        if found is not None or not place.is_held():
            return found
        time.sleep(_LOOK_S)
    raise errors.UnavailableError(
        f"something holds {place.lock} and does not say what it is",
        code="daemon.no_record",
        hint=f"fuser {place.lock} shows the process",
    )


def _below(pid: int) -> set[tuple[int, int]]:
    return {(each.pid, each.started_ticks) for each in process_tree.descendants(pid)}


def _wait_until_gone(found: places.Record, below: set[tuple[int, int]], until: float) -> None:
    while True:
        below = {each for each in below if process_tree.alive(*each)}
        if not below:
            return
        if time.monotonic() > until:
            raise _still_there(found, _TIDY_S, sorted(pid for pid, _ in below))
        time.sleep(_LOOK_S / 10)


def _still_there(
    found: places.Record, seconds: float, left: list[int] | None = None
) -> errors.UnavailableError:
    details: dict[str, Any] = {"pid": found.pid}
    if left:
        details["left"] = left
    return errors.UnavailableError(
        f"the daemon, process {found.pid}, has not ended within {seconds:g} s",
        code="daemon.not_stopped",
        details=details,
        hint="toft logs shows what it waits for; toft down --now interrupts what runs",
    )
