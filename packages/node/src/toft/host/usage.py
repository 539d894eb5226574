"""What the processes of a worker use together: memory, its peak, processor time, GPU memory.

Every function reads /proc once for any number of workers: call them in a thread from an event loop.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from toft.host import process_tree
from toft.host.gpus import GpuReading

_PAGE = os.sysconf("SC_PAGE_SIZE")
_TICK = os.sysconf("SC_CLK_TCK")

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Usage:
    """What one worker and everything it started use.

    Attributes:
        pids: Its processes, the worker first.
        rss_bytes: Resident memory summed over them; pages they share are counted for each.
        peak_rss_bytes: The largest each has had so far, summed.
        cpu_s: Processor time since the start, ended children included.
        gpu_memory_bytes: By index of the GPU; empty without one.
    """

    pids: tuple[int, ...] = ()
    rss_bytes: int = 0
    peak_rss_bytes: int = 0
    cpu_s: float = 0.0
    gpu_memory_bytes: Mapping[int, int] | None = None


def measure(roots: Mapping[Key, tuple[int, int]], gpus: GpuReading | None = None) -> dict[Key, Usage]:
    """Measure any number of workers in one pass.

    Args:
        roots: For each worker its (pid, root) as `keeper.Process` has them.
        gpus: A reading to attribute; None leaves GPU memory out.
    """
    by_parent: dict[int, list[process_tree.Stat]] = {}
    by_pid: dict[int, process_tree.Stat] = {}
    for stat in process_tree.scan():
        by_parent.setdefault(stat.parent, []).append(stat)
        by_pid[stat.pid] = stat
    return {key: _sum(pid, root, by_parent, by_pid, gpus) for key, (pid, root) in roots.items()}


def cpu_percent(before: Usage, after: Usage, seconds: float) -> float:
    """Return the processor use between two measurements; 100 is one core."""
    return max(0.0, after.cpu_s - before.cpu_s) / seconds * 100 if seconds > 0 else 0.0


def _sum(
    pid: int,
    root: int,
    by_parent: dict[int, list[process_tree.Stat]],
    by_pid: dict[int, process_tree.Stat],
    gpus: GpuReading | None,
) -> Usage:
    found = process_tree.descendants(root, by_parent)
    reaped = 0
    if root in by_pid:
        if root == pid:
            found.insert(0, by_pid[root])
        else:  # the first process of a namespace is ours, but what it reaped is the worker's
            reaped = by_pid[root].reaped_ticks
    pids = tuple(stat.pid for stat in found)
    return Usage(
        pids=pids,
        rss_bytes=sum(stat.rss_pages for stat in found) * _PAGE,
        peak_rss_bytes=sum(_kilobytes(f"/proc/{pid}/status", b"VmHWM:") for pid in pids),
        cpu_s=(reaped + sum(stat.cpu_ticks + stat.reaped_ticks for stat in found)) / _TICK,
        gpu_memory_bytes=None if gpus is None else _gpu_memory(frozenset(pids), gpus),
    )


def _gpu_memory(pids: frozenset[int], gpus: GpuReading) -> dict[int, int]:
    used = {}
    for gpu in gpus.gpus:
        held = [size for pid, size in gpu.memory_by_pid.items() if pid in pids]
        if held:
            used[gpu.index] = sum(held)
    return used


def _kilobytes(path: str, name: bytes) -> int:
    try:
        with open(path, "rb") as file:
            for line in file:
                if line.startswith(name):
                    return int(line.split()[1]) * 1024
    except OSError:  # it has ended, or has forbidden to be looked at
        return 0
    return 0
