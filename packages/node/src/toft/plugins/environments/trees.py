"""What is done to the whole tree of an environment before it counts."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from toft.kernel import ids
from toft.store import durable


def disk_bytes(path: Path) -> int:
    """Return what a tree takes on disk: blocks, each file once however many names it has."""
    total, seen = 0, set()
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            found = os.lstat(os.path.join(directory, name))
            if (found.st_dev, found.st_ino) not in seen:
                seen.add((found.st_dev, found.st_ino))
                total += found.st_blocks * 512
    return total


def unshare(path: Path) -> None:
    """Give every file that has several names a copy of its own."""
    # A tool that linked a file into its cache made it one with every other environment's: take a copy.
    for directory, _, files in os.walk(path):
        for name in files:
            target = os.path.join(directory, name)
            found = os.lstat(target)
            if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
                copy = os.path.join(directory, f".tmp-{ids.ulid()}")
                shutil.copy2(target, copy)
                os.replace(copy, target)


def take_write_permission(path: Path) -> None:
    """Leave nobody the right to write, but in the topmost directory."""
    # The sandbox mounts it read-only in any case; this holds where there is no sandbox and no root.
    for directory, _, files in os.walk(path):
        for name in files:
            target = os.path.join(directory, name)
            mode = os.lstat(target).st_mode
            if stat.S_ISREG(mode):
                os.chmod(target, stat.S_IMODE(mode) & ~0o222)
        if directory != str(path):
            os.chmod(directory, 0o555)


def empty(path: Path) -> None:
    """Remove everything in a directory."""
    for child in path.iterdir():
        if child.is_dir() and not child.is_symlink():
            durable.remove_directory(child)
        else:
            child.unlink()
