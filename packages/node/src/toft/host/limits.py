"""Limits on what a worker and everything it starts use together, and the kernel's own account of it.

Control groups (version 1 or 2) where this user may make them: they count the whole tree, and their counter
of kills is the evidence that memory ran out. Else resource limits, which hold for each process alone. Runs in
the keeper; standard library only.
"""

from __future__ import annotations

import contextlib
import os
import resource

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` costs every keeper 0.7 MB
    from collections.abc import Iterable
    from typing import Any

_V1_FILES = {
    "limit": "memory.limit_in_bytes",
    "peak": "memory.max_usage_in_bytes",
    "events": "memory.oom_control",
}
_V2_FILES = {"limit": "memory.max", "peak": "memory.peak", "events": "memory.events"}
# Out of 1000; as if it used half of the machine's memory in addition.
_OOM_SCORE = 500
_CONTROLLERS = ("memory", "pids")


class Hierarchy:
    """One place in a tree of control groups below which groups can be made.

    Args:
        version: 1 or 2.
        controllers: What it controls: memory, pids.
        directory: Where our groups are made; made by this, removed by `remove`.
    """

    def __init__(self, version: int, controllers: tuple[str, ...], directory: str) -> None:
        self.version = version
        self.controllers = controllers
        self.directory = directory
        os.mkdir(directory)
        if version == 2:
            try:
                _write(f"{directory}/cgroup.subtree_control", " ".join(f"+{name}" for name in controllers))
            except OSError:
                os.rmdir(directory)
                raise

    def remove(self) -> None:
        """Remove our directory; what is still in use stays for the next start to remove."""
        _remove_tree(self.directory)


class Group:
    """The control groups of one worker: only those a limit needs, since joining one takes some 10 ms.

    Args:
        hierarchies: Where groups can be made.
        number: Names the worker.
        memory_bytes: What all its processes may use together.
        processes: How many there may be.
    """

    def __init__(
        self,
        hierarchies: Iterable[Hierarchy] = (),
        number: int = 0,
        memory_bytes: int | None = None,
        processes: int | None = None,
    ) -> None:
        self._memory_bytes = memory_bytes
        self._processes = processes
        self._places: list[tuple[Hierarchy, str]] = []
        wanted = {"memory": memory_bytes, "pids": processes}
        self.mechanisms = {name: "rlimit" for name, value in wanted.items() if value is not None}
        try:
            for hierarchy in hierarchies:
                self._limit(hierarchy, f"{hierarchy.directory}/{number}")
        except OSError:
            self.remove()
            raise

    def _limit(self, hierarchy: Hierarchy, directory: str) -> None:
        controllers = [name for name in hierarchy.controllers if name in self.mechanisms]
        if not controllers:
            return
        os.mkdir(directory)
        self._places.append((hierarchy, directory))
        for controller in controllers:
            self.mechanisms[controller] = f"cgroup v{hierarchy.version}"
        if "memory" in controllers:
            _limit_memory(hierarchy.version, directory, self._memory_bytes or 0)
        if "pids" in controllers:
            _write(f"{directory}/pids.max", str(self._processes))

    def join(self) -> None:
        """Put the calling process, and all it will start, into the groups."""
        for _, directory in self._places:
            _write(f"{directory}/cgroup.procs", "0")

    def limit_self(self) -> None:
        """Apply to the calling process what no control group does."""
        _lower(resource.RLIMIT_CORE, 0)  # a core file would hold secrets, and fill the disk
        if self.mechanisms.get("memory") == "rlimit":
            # Not the address space: CUDA, Go and V8 reserve terabytes of it and use none.
            _lower(resource.RLIMIT_DATA, self._memory_bytes or 0)
        if self.mechanisms.get("pids") == "rlimit":
            _lower(resource.RLIMIT_NPROC, _processes_of_user() + (self._processes or 0))

    def evidence(self) -> dict[str, Any]:
        """Return what the kernel counted."""
        for hierarchy, directory in self._places:
            if "memory" in hierarchy.controllers:
                files = _V1_FILES if hierarchy.version == 1 else _V2_FILES
                return {
                    "mechanism": f"cgroup v{hierarchy.version}",
                    "oom_kills": _counter(f"{directory}/{files['events']}", "oom_kill"),
                    "memory_peak_bytes": _number(f"{directory}/{files['peak']}"),
                    "memory_limit_bytes": self._memory_bytes,
                }
        return {}

    def remove(self) -> bool:
        """Remove the groups; false when the kernel is not done with them yet."""
        for place in list(self._places):
            try:
                os.rmdir(place[1])
            except FileNotFoundError:
                pass
            except OSError:
                continue
            self._places.remove(place)
        return not self._places


class Groups:
    """Makes the control groups of all workers of one keeper, from the first one that has a limit on.

    Args:
        is_allowed: False leaves resource limits alone to hold every limit.
        proc: Where to read the groups and mounts of this process.
    """

    def __init__(self, *, is_allowed: bool = True, proc: str = "/proc") -> None:
        self._proc = proc
        self._hierarchies: list[Hierarchy] | None = None if is_allowed else []
        self._unremoved: list[Group] = []

    def make(self, number: int, memory_bytes: int | None, processes: int | None) -> Group:
        """Make the groups of one worker."""
        self._remove_ended()
        if memory_bytes is None and processes is None:
            return Group()
        if self._hierarchies is None:
            self._hierarchies = self._open()
        return Group(self._hierarchies, number, memory_bytes, processes)

    def remove(self, group: Group) -> None:
        """Remove the groups of a worker that is gone, now or at the next occasion."""
        self._unremoved.append(group)
        self._remove_ended()

    def close(self) -> None:
        """Remove everything."""
        for hierarchy in self._hierarchies or ():
            hierarchy.remove()

    def remove_stale(self) -> None:
        """Remove what keepers that were killed left behind."""
        for _, _, directories in _hierarchies(self._proc):
            for directory in directories:
                _remove_stale(directory, self._proc)

    def _open(self) -> list[Hierarchy]:
        made = []
        for version, controllers, directories in _hierarchies(self._proc):
            for directory in directories:
                try:
                    made.append(Hierarchy(version, controllers, f"{directory}/toft-{os.getpid()}"))
                except OSError:
                    continue
                break
        return made

    def _remove_ended(self) -> None:
        self._unremoved = [group for group in self._unremoved if not group.remove()]


def offer_to_oom_killer() -> None:
    """When the whole machine runs out of memory, a plugin goes before the node and everything else."""
    path = "/proc/self/oom_score_adj"
    with contextlib.suppress(OSError):
        _write(path, str(max(_OOM_SCORE, int(_read(path)))))


def probe() -> dict[str, str]:
    """Return what would hold each limit here, found out by making a group and removing it."""
    groups = Groups()
    try:
        group = groups.make(0, 1 << 30, 100)
    except OSError:
        return {"memory": "rlimit", "pids": "rlimit"}
    group.remove()
    groups.close()
    return group.mechanisms


def _hierarchies(proc: str) -> list[tuple[int, tuple[str, ...], list[str]]]:
    """Return (version, controllers, directories to try) for what controls memory and processes."""
    mine = _own_groups(f"{proc}/self/cgroup")
    found: list[tuple[int, tuple[str, ...], list[str]]] = []
    for root, mounted_at, kind, options in _mounts(f"{proc}/self/mountinfo"):
        if kind == "cgroup":
            controllers = tuple(name for name in _CONTROLLERS if name in options)
            if controllers:
                found.append((1, controllers, [_inside(root, mounted_at, mine.get(controllers[0], "/"))]))
        elif kind == "cgroup2":
            own = _inside(root, mounted_at, mine.get("", "/"))
            # A group with processes in it cannot hand controllers down, so ours must be made beside it.
            beside = own != mounted_at and not _is_limited(own)
            directories = [os.path.dirname(own), own] if beside else [own]
            for directory in directories:
                available = _read(f"{directory}/cgroup.subtree_control").split()
                controllers = tuple(name for name in _CONTROLLERS if name in available)
                if controllers:
                    found.append((2, controllers, [directory]))
                    break
    return found


def _is_limited(group: str) -> bool:
    """Whether somebody limits the node itself: a worker beside it would escape that."""
    files = ("memory.max", "memory.high", "cpu.max")
    return any(text and not text.startswith("max") for text in (_read(f"{group}/{name}") for name in files))


def _own_groups(path: str) -> dict[str, str]:
    """Return the group of this process by controller; version 2 has the empty name."""
    mine = {}
    for line in _read(path).splitlines():
        _, controllers, group = line.split(":", 2)
        for controller in controllers.split(","):
            mine[controller] = group
    return mine


def _mounts(path: str) -> list[tuple[str, str, str, list[str]]]:
    """Return (root, mounted at, kind, options) of every mount."""
    found = []
    for line in _read(path).splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(), after.split()
        found.append((fields[3], fields[4], rest[0], rest[-1].split(",")))
    return found


def _inside(root: str, mounted_at: str, group: str) -> str:
    """Return where a group is in the file system, when the mount shows only a part of the tree."""
    prefix = root.rstrip("/")
    if not group.startswith(prefix + "/"):
        return mounted_at
    return (mounted_at + group[len(prefix) :]).rstrip("/")


def _limit_memory(version: int, directory: str, memory_bytes: int) -> None:
    _write(f"{directory}/{_V1_FILES['limit'] if version == 1 else _V2_FILES['limit']}", str(memory_bytes))
    swap, value = ("memory.memsw.limit_in_bytes", memory_bytes) if version == 1 else ("memory.swap.max", 0)
    with contextlib.suppress(OSError):  # not every kernel accounts for swap
        _write(f"{directory}/{swap}", str(value))


def _remove_stale(directory: str, proc: str) -> None:
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if name.startswith("toft-") and not os.path.exists(f"{proc}/{name[5:]}"):
                _remove_tree(f"{directory}/{name}")


def _remove_tree(directory: str) -> None:
    with contextlib.suppress(OSError):
        for entry in os.scandir(directory):
            if entry.is_dir():
                with contextlib.suppress(OSError):
                    os.rmdir(entry.path)
        os.rmdir(directory)


def _lower(kind: int, value: int) -> None:
    _, hard = resource.getrlimit(kind)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, value))


def _processes_of_user() -> int:
    uid = os.geteuid()
    found = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found += os.stat(f"/proc/{name}").st_uid == uid
    return found


def _counter(path: str, name: str) -> int:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _number(path: str) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
