"""How much room a file system has left."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Space:
    """What is left for us, who are not the superuser.

    Attributes:
        free_bytes: That may be written.
        total_bytes: Of the file system.
        free_files: That may be made; None where there is no such limit.
    """

    free_bytes: int
    total_bytes: int
    free_files: int | None


def read_space(path: Path) -> Space:
    """Return the space of the file system that holds a path; blocks.

    Raises:
        OSError: It cannot be asked.
    """
    found = os.statvfs(path)
    return Space(
        free_bytes=found.f_bavail * found.f_frsize,
        total_bytes=found.f_blocks * found.f_frsize,
        free_files=found.f_favail if found.f_files else None,
    )
