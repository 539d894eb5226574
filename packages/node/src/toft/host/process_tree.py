"""Which processes descend from which, by one pass over /proc; standard library only."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs every keeper 0.7 MB
    from collections.abc import Iterator


class Stat:
    """One process as the kernel lists it; times in clock ticks, memory in pages.

    `cpu_ticks` is its own, `reaped_ticks` that of the children it has waited for.
    """

    __slots__ = (
        "cpu_ticks",
        "parent",
        "pid",
        "reaped_ticks",
        "rss_pages",
        "session",
        "started_ticks",
        "state",
    )

    def __init__(self, pid: int, fields: list[bytes]) -> None:
        self.pid = pid
        self.state = fields[0].decode()
        self.parent = int(fields[1])
        self.session = int(fields[3])
        self.cpu_ticks = int(fields[11]) + int(fields[12])
        self.reaped_ticks = int(fields[13]) + int(fields[14])
        self.started_ticks = int(fields[19])
        self.rss_pages = int(fields[21])


def read(pid: int | str) -> Stat | None:
    """Return one process; None when it is gone."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = os.read(fd, 4096)
    except OSError:
        return None
    finally:
        os.close(fd)
    if not text:
        return None
    # The name stands in parentheses and may hold spaces and parentheses itself.
    return Stat(int(text[: text.index(b" ")]), text[text.rindex(b")") + 2 :].split())


def scan() -> Iterator[Stat]:
    """Yield every process."""
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := read(name)) is not None:
            yield stat


def children(*, with_dead: bool = False) -> dict[int, list[Stat]]:
    """Return the children of each process, those that ended and were not reaped only when asked for."""
    found: dict[int, list[Stat]] = {}
    for stat in scan():
        if with_dead or stat.state not in "ZX":
            found.setdefault(stat.parent, []).append(stat)
    return found


def descendants(root: int, by_parent: dict[int, list[Stat]] | None = None) -> list[Stat]:
    """Return the live processes below a process, parents before their children."""
    by_parent = children() if by_parent is None else by_parent
    found = list(by_parent.get(root, ()))
    for stat in found:  # grows while it is walked
        found.extend(by_parent.get(stat.pid, ()))
    return found


def alive(pid: int, started_ticks: int | None = None) -> bool:
    """Say whether a process still runs; with its start, whether it is that one and no later one."""
    stat = read(pid)
    return stat is not None and stat.state not in "ZX" and started_ticks in (None, stat.started_ticks)


def started_s(pid: int) -> float:
    """Return when a process started, in seconds since boot; 0.0 when it is gone."""
    stat = read(pid)
    return stat.started_ticks / os.sysconf("SC_CLK_TCK") if stat else 0.0


def pid_of(pidfd: int) -> int:
    """Return the pid, in this process's namespace, that a pidfd stands for; -1 when it was reaped."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        for line in file:
            if line.startswith("Pid:"):
                return int(line[4:])
    return -1
