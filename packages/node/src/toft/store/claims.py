"""Directories several processes share: claimed by a lock on the directory itself, so death gives them back.

There is no lock file to leak or to get out of step: who has the directory open and locked, holds it.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Claim:
    """A held directory; `fd` may be handed to a child, which then holds it too until it ends."""

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self.fd = fd

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the directory back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def claim(path: Path, *, shared: bool = False) -> Claim | None:
    """Hold a directory, or return None when somebody else does.

    Args:
        path: The directory.
        shared: Beside others who share it, but not beside one who holds it alone.

    Raises:
        FileNotFoundError: There is none, or it was taken away in this moment.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        # Between opening and locking, another process may have put a different directory under the name.
        here, there = os.fstat(fd), os.stat(path, follow_symlinks=False)
        if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
            raise FileNotFoundError(path)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return Claim(path, fd)


def make(path: Path, *, mode: int = 0o755) -> Claim | None:
    """Make a directory when it is not there, and hold it alone; None when somebody else holds it."""
    while True:
        path.mkdir(mode=mode, exist_ok=True)
        try:
            return claim(path)
        except FileNotFoundError:
            continue
