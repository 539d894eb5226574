"""Remembers the files that were read since the machine started: one that did not change is not read again.

A daemon that starts again must not read gigabytes each time. After a start of the machine everything is read
once: what a power cut did to a disk shows in no time stamp.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from pathlib import Path

from toft.managed import trees
from toft.managed.moments import Moment
from toft.store import durable

_FRESH_S = 2.0
"""A file that changed so lately may change again within one tick of its clock."""

Mark = list[int]


class Remembered:
    """Looks at environments; see `toft.managed.trees.look`.

    Args:
        directory: Where it remembers.
        now: Tells the moment.
    """

    def __init__(self, directory: Path, now: Callable[[], Moment]) -> None:
        self._directory = directory
        self._now = now

    def __call__(self, root: Path) -> list[trees.Entry]:
        """Return everything in an environment, in order.

        Raises:
            OSError: It is not there, or cannot be read.
        """
        now = self._now()
        path = self._directory / f"{root.name}.json"
        known = _read(path, now.machine)
        found: dict[str, tuple[Mark, str]] = {}

        def digest(file: str, name: str, stat: os.stat_result) -> str:
            mark = [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            before, told = known.get(name, ([], ""))
            if before != mark:
                told = trees.digest(file, name, stat)
            if stat.st_ctime_ns < (now.wall_s - _FRESH_S) * 1e9:
                found[name] = (mark, told)
            return told

        entries = trees.look(root, digest)
        if now.machine and found != known:
            text = json.dumps({"machine": now.machine, "files": found}, separators=(",", ":"))
            with contextlib.suppress(OSError):  # the next start reads a little more, then
                durable.make_directory(self._directory, 0o700)
                durable.write_file(path, text.encode(), mode=0o600)
        return entries


def _read(path: Path, machine: str) -> dict[str, tuple[Mark, str]]:
    try:
        value = json.loads(path.read_bytes())
        if not machine or value["machine"] != machine:
            return {}
        return {str(name): (list(mark), str(told)) for name, (mark, told) in value["files"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
