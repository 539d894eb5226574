"""What the processes of an instance use now; read from /proc, so call it in a thread."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

from toft.host import process_tree

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What some processes use together.

    Attributes:
        cpu_s: Processor seconds since each of them started.
        memory_bytes: Resident memory; pages they share count once for each.
        processes: How many there are.
    """

    cpu_s: float
    memory_bytes: int
    processes: int


def cpu_s(pids: Iterable[int]) -> float:
    """Return the processor seconds some processes have used."""
    return sum(stat.cpu_ticks for stat in map(process_tree.read, pids) if stat is not None) / _TICKS


def usage(pids: Iterable[int]) -> Usage:
    """Return what some processes use; those that are gone count nothing."""
    live = [stat for stat in map(process_tree.read, pids) if stat is not None]
    memory_bytes = sum(_resident_bytes(stat.pid) for stat in live)
    return Usage(
        cpu_s=sum(stat.cpu_ticks for stat in live) / _TICKS, memory_bytes=memory_bytes, processes=len(live)
    )


def _resident_bytes(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * _PAGE_BYTES
    except (OSError, IndexError, ValueError):
        return 0
