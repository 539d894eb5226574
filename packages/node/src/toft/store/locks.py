"""Locks between processes that share one home: held by an open file, so death releases them."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from toft.kernel import errors

_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.1


@contextlib.contextmanager
def hold(path: Path, *, shared: bool = False, timeout_s: float = 30.0) -> Iterator[None]:
    """Hold a lock file; blocks, so call it in a thread from an event loop.

    Args:
        path: The lock file; made when it is not there, never removed.
        shared: Several holders at once, but none beside an exclusive one.
        timeout_s: Seconds to wait for others.

    Raises:
        UnavailableError: Somebody else held it all that time.
    """
    fd = _acquire(path, shared, timeout_s)
    try:
        yield
    finally:
        os.close(fd)


def _acquire(path: Path, shared: bool, timeout_s: float) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    kind = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
    until = time.monotonic() + timeout_s
    pause = _FIRST_PAUSE_S
    try:
        while True:
            try:
                fcntl.flock(fd, kind)
                return fd
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise errors.UnavailableError(
                        f"another process holds {path} for more than {timeout_s:g} s",
                        code="store.locked",
                        details={"path": str(path)},
                        hint="wait for it to finish, or look who it is: lsof or fuser on that file",
                    ) from None
            # flock has no time-out of its own; a signal would need the main thread.
            time.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)
    except BaseException:
        os.close(fd)
        raise
