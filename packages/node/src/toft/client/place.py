"""Where the daemon of a home is found: its lock, its record, its socket, its log."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toft.host import process_tree
from toft.kernel import errors
from toft.store import durable

SCHEMA = 1
LONGEST_ADDRESS = 100
"""A little less than `sun_path` holds."""

_TRIES = 10
_PAUSE_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Record:
    """What the daemon wrote about itself when it started.

    Attributes:
        pid: Its process.
        started_ticks: When that process started, in clock ticks since boot; a pid alone may be used again.
        version: Of toft.
        socket: Where it is asked.
        listen: The address of its TCP port; empty when it has none.
    """

    pid: int
    started_ticks: int
    version: str
    socket: str
    listen: str = ""

    def is_alive(self) -> bool:
        """Say whether that very process still runs."""
        return process_tree.alive(self.pid, self.started_ticks)


class Place:
    """The files of one home's daemon.

    Args:
        home: `TOFT_HOME`.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.run = home / "run"
        self.lock = self.run / "daemon.lock"
        self.record = self.run / "daemon.json"
        self.socket = self.run / "toft.sock"
        self.log = home / "logs" / "daemon.log"

    def find(self) -> Record | None:
        """Return the daemon that runs for this home; None when there is none, whatever files it left.

        The lock decides: it goes with the process that held it, however that ended.
        """
        if not self.is_held():
            return None
        return self.read_record()

    def is_held(self) -> bool:
        """Say whether a process holds the home as its daemon."""
        try:
            fd = os.open(self.lock, os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError:
            raise self._of_somebody_else() from None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def _of_somebody_else(self) -> errors.RefusedError:
        return errors.RefusedError(
            f"the daemon of {self.home} belongs to another user",
            code="daemon.other_user",
            details={"path": str(self.run)},
            hint="run toft as the user who owns that home: sudo -u USER toft status",
        )

    def read_record(self) -> Record | None:
        """Return what the last daemon wrote; None when that is nothing, or of a process that is gone."""
        try:
            values: dict[str, Any] = json.loads(self.record.read_bytes())
            found = Record(
                pid=int(values["pid"]),
                started_ticks=int(values["started_ticks"]),
                version=str(values["version"]),
                socket=str(values["socket"]),
                listen=str(values.get("listen", "")),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if found.is_alive() else None

    def write_record(self, version: str, *, listen: str = "") -> None:
        """Say who this process is; only for the holder of the lock."""
        me = process_tree.read(os.getpid())
        values = {
            "schema": SCHEMA,
            "pid": os.getpid(),
            "started_ticks": me.started_ticks if me is not None else 0,
            "version": version,
            "socket": str(self.socket),
            "listen": listen,
        }
        durable.write_file(self.record, json.dumps(values).encode(), mode=0o600)

    @contextlib.contextmanager
    def hold(self) -> Iterator[None]:
        """Be this home's daemon for the length of a `with` block.

        Raises:
            ConflictError: Another process is; the error says which.
        """
        fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._take(fd)
            yield
        finally:
            os.close(fd)

    def _take(self, fd: int) -> None:
        # Somebody who only looks holds the lock for an instant.
        for left in reversed(range(_TRIES)):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                found = self.read_record()
                # This process may have been the daemon before, and have left its record.
                if not left or (found is not None and found.pid != os.getpid()):
                    raise self.taken() from None
                time.sleep(_PAUSE_S)

    def taken(self) -> errors.ConflictError:
        """Return the error that says who is the daemon already."""
        found = self.read_record()
        who = f"process {found.pid}, version {found.version}" if found else "it has just started"
        return errors.ConflictError(
            f"a daemon runs for {self.home} already: {who}",
            code="daemon.running",
            details={"pid": found.pid if found else None, "socket": str(self.socket)},
            hint="toft status shows it; toft down ends it",
        )


@contextlib.contextmanager
def address(path: Path) -> Iterator[str]:
    """Yield what to bind or connect to for a socket's path, also where the path is longer than an address.

    It holds while the `with` block lasts.
    """
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{path.name}"
    finally:
        os.close(fd)


def is_private(directory: Path) -> bool:
    """Say whether a directory is this user's alone."""
    found = directory.lstat()
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
