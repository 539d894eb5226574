"""What this machine has and has left: memory and cores, read from the kernel, nothing assumed.

Every function reads files: call them in a thread from an event loop.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Memory:
    """Main memory in bytes; `available` is what can be had without swapping, within our own control group."""

    total_bytes: int
    available_bytes: int

    @property
    def used_bytes(self) -> int:
        """What cannot be had."""
        return self.total_bytes - self.available_bytes


def read_memory(root: Path = Path("/")) -> Memory:
    """Return the memory of the machine, or of the control group that holds less."""
    fields = {}
    for line in (root / "proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * 1024
    total, available = fields["MemTotal"], fields["MemAvailable"]
    limit, used = _group_memory(root)
    if limit is not None and limit < total:
        total, available = limit, min(available, max(0, limit - used))
    return Memory(total, available)


def read_cores(root: Path = Path("/")) -> int:
    """Return how many processors this process may use, after affinity and the quota of its control group."""
    cores = len(os.sched_getaffinity(0))
    quota = _text(root / "sys/fs/cgroup/cpu.max").split()
    if not quota:
        group = root / "sys/fs/cgroup/cpu"
        quota = [_text(group / "cpu.cfs_quota_us").strip(), _text(group / "cpu.cfs_period_us").strip()]
    if len(quota) == 2 and quota[0].isdigit() and int(quota[1] or 0) > 0:
        cores = min(cores, max(1, -(-int(quota[0]) // int(quota[1]))))
    return cores


def _group_memory(root: Path) -> tuple[int | None, int]:
    """Return (limit, used) of the control group a container sees as its own.

    What is used for files nobody looks at just now can be had, so it is not used.
    """
    group = root / "sys/fs/cgroup"
    for limit, used, stat, cache in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        text = _text(group / limit).strip()
        if text.isdigit():
            fields = dict(line.split() for line in _text(group / stat).splitlines())
            return int(text), int(_text(group / used).strip() or 0) - int(fields.get(cache, 0))
    return None, 0


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
