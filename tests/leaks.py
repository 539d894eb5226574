"""Nothing may be left behind: processes, descriptors, segments, temporary files, control groups.

A system test imports `leaks_checked` and lists it in `pytestmark = pytest.mark.usefixtures("leaks_checked")`;
what was there before the test may stay, whatever is new must be gone soon after it.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.waiting import eventually

from toft.host import namespaces, process_tree

_CONTROL_GROUPS = Path("/sys/fs/cgroup")


class Traces(NamedTuple):
    """What exists at one moment, each thing by a name that tells what it is."""

    processes: frozenset[str]
    descriptors: frozenset[str]
    files: frozenset[str]
    groups: frozenset[str]

    def beyond(self, before: "Traces") -> dict[str, list[str]]:
        """Return what is here and was not there before."""
        fields = zip(self._fields, self, before, strict=True)
        return {name: sorted(now - then) for name, now, then in fields if now - then}


def traces(shared: frozenset[int] = frozenset()) -> Traces:
    """Look at this machine now.

    Args:
        shared: Processes that outlive the test, the daemon of its module say; what is below one is its own.
    """
    own = _own(shared)
    return Traces(_processes(own), _descriptors(), _temporary_files(), _groups(own))


@pytest.fixture
def leaks_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail the test when it leaves something behind that was not there before."""
    # A directory for temporary files of its own: other tests may run on this machine at the same time.
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    namespaces.adopt_orphans()  # a process that outlives its parent is then found below this one
    before = traces()
    shared = frozenset(stat.pid for stat in process_tree.descendants(os.getpid()))
    yield
    _reap()
    try:
        eventually(lambda: not traces(shared).beyond(before), 5)
    except AssertionError:
        pytest.fail(f"left behind: {traces(shared).beyond(before)}")


def _reap() -> None:
    for stat in process_tree.scan():
        if stat.parent == os.getpid() and stat.state == "Z":
            with contextlib.suppress(ChildProcessError):
                os.waitpid(stat.pid, os.WNOHANG)


def _own(shared: frozenset[int]) -> list[int]:
    """Return the processes below this one that are not below a shared one."""
    theirs = {stat.pid for pid in shared for stat in process_tree.descendants(pid)}
    return [stat.pid for stat in process_tree.descendants(os.getpid()) if stat.pid not in theirs]


def _processes(pids: list[int]) -> frozenset[str]:
    found = set()
    for pid in pids:
        name = _read(f"/proc/{pid}/comm").strip()
        found.add(f"{pid} {name} " + _read(f"/proc/{pid}/cmdline").replace("\0", " ")[:120])
    return frozenset(found)


def _descriptors() -> frozenset[str]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} -> {os.readlink(f'/proc/self/fd/{name}')}")
        except FileNotFoundError:
            continue  # the one that listed the directory
    return frozenset(found)


def _temporary_files() -> frozenset[str]:
    return frozenset(str(path) for path in Path(tempfile.gettempdir()).glob("toft*"))


def _groups(pids: list[int]) -> frozenset[str]:
    """Groups of keepers below this process; other tests may run on this machine at the same time."""
    mine = {f"toft-{pid}" for pid in pids}
    return frozenset(str(path) for path in _CONTROL_GROUPS.rglob("toft-*") if path.name in mine)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
