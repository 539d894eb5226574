"""A disk that remembers the order of what was asked of it, and can tell what a power cut would have left.

What was not yet synced when the power went may be there, be lost, or be torn at 512-byte sectors, in any
order. Names appear and vanish with their directory's sync; unsynced ones by a prefix, as journals do it.
"""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation import recording_vfs

from toft.store import durable

SECTOR = 512


@dataclass
class Inode:
    """What one file holds for sure, and what was written to it since its last sync."""

    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes] | int] = field(default_factory=list)
    """Writes (offset, data) and truncations (size), in order."""

    def settle(self) -> None:
        for change in self.unsynced:
            _apply(self.durable, change)
        self.unsynced.clear()


def _apply(content: bytearray, change: tuple[int, bytes] | int) -> None:
    if isinstance(change, int):
        del content[change:]
        return
    offset, data = change
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


Operation = tuple[Any, ...]


class Recording:
    """Collects operations of databases (a `recording_vfs.Recorder`) and of `store/durable.py`, in one order.

    Args:
        syncs: False makes a disk that says it synced and did not: the tests that use this one must fail.
    """

    def __init__(self, *, syncs: bool = True) -> None:
        self.operations: list[Operation] = []
        self.refuse: Callable[[str, str], int] = lambda kind, path: recording_vfs.OK
        """Given the kind and the path, the SQLite code that this operation fails with: a full disk."""
        self.syncs = syncs
        self._nameless: set[str] = set()
        """Journals whose names are not durable yet; SQLite syncs the directory with their first sync."""

    def note(self, promise: object) -> None:
        """Write down, between the operations, what was acknowledged to somebody at this moment."""
        self.operations.append(("note", promise))

    def opened(self, path: str, *, created: bool) -> None:
        if created:
            self.operations.append(("create", path))
            if path.endswith(("-wal", "-journal")):
                self._nameless.add(path)

    def write(self, path: str, offset: int, data: bytes) -> int:
        return self._take("write", path, offset, data)

    def truncate(self, path: str, size: int) -> int:
        return self._take("truncate", path, size)

    def sync(self, path: str) -> int:
        code = self._take("sync", path)
        if code == recording_vfs.OK and path in self._nameless:
            self._nameless.discard(path)
            self._take("sync_directory", os.path.dirname(path))
        return code

    def delete(self, path: str, *, directory_synced: bool) -> int:
        self._take("remove", path)
        return self._take("sync_directory", os.path.dirname(path)) if directory_synced else recording_vfs.OK

    def _take(self, kind: str, path: str, *rest: Any) -> int:
        code = self.refuse(kind, path)
        if code == recording_vfs.OK and (self.syncs or not kind.startswith("sync")):
            self.operations.append((kind, path, *rest))
        return code


class RecordedOperations(durable.SystemOperations):
    """What `store/durable.py` does, done for real and told to the recording."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def write(self, path: str, data: durable.Buffer | Sequence[durable.Buffer], mode: int) -> None:
        super().write(path, data, mode)
        self._recording.opened(path, created=True)
        whole = isinstance(data, bytes | bytearray | memoryview)
        self._recording.write(path, 0, bytes(data) if whole else b"".join(data))
        self._recording.sync(path)

    def rename(self, source: str, target: str) -> None:
        super().rename(source, target)
        self._recording.operations.append(("rename", source, target))

    def sync_directory(self, path: str) -> None:
        directories = [entry.path for entry in os.scandir(path) if entry.is_dir()]
        self._recording._take("sync_directory", path)
        if self._recording.syncs:
            self._recording.operations.append(("directories", path, directories))

    def remove(self, path: str) -> None:
        super().remove(path)
        self._recording.delete(path, directory_synced=False)


class Replay:
    """Goes through a recording and can stop at any point to make the disk that a power cut leaves there."""

    def __init__(self, operations: list[Operation]) -> None:
        self._operations = operations
        self._names: dict[str, Inode] = {}
        self._durable_names: dict[str, Inode] = {}
        self._unsynced_names: dict[str, list[Operation]] = {}
        self._durable_directories: set[str] = set()
        self.promises: list[Any] = []

    def steps(self) -> Iterator[tuple[int, str]]:
        """Yield (index, kind) after each operation; the state is then what a cut right there finds."""
        yield 0, "start"
        for index, operation in enumerate(self._operations, 1):
            self._step(operation)
            yield index, operation[0]

    def _step(self, operation: Operation) -> None:
        kind, path = operation[:2]
        if kind == "note":
            self.promises.append(path)
        elif kind == "directories":
            self._durable_directories.update(operation[2])
        elif kind == "write":
            self._names[path].unsynced.append((operation[2], operation[3]))
        elif kind == "truncate":
            self._names[path].unsynced.append(operation[2])
        elif kind == "sync":
            self._names[path].settle()
        elif kind == "sync_directory":
            for name in self._unsynced_names.pop(path, []):
                self._rename(self._durable_names, name)
        else:
            if kind == "create":
                operation = (kind, path, Inode())
            self._rename(self._names, operation)
            self._unsynced_names.setdefault(os.path.dirname(path), []).append(
                (kind, path, self._names.get(operation[2] if kind == "rename" else path))
                if kind != "rename"
                else (*operation, self._names[operation[2]])
            )

    @staticmethod
    def _rename(names: dict[str, Inode], operation: Operation) -> None:
        kind, path = operation[:2]
        if kind == "create":
            names[path] = operation[2]
        elif kind == "remove":
            names.pop(path, None)
        else:
            moved = names.pop(path, None) or (operation[3] if len(operation) > 3 else None)
            if moved is not None:
                names[operation[2]] = moved

    def cut(self, directory: Path, root: str, chance: random.Random) -> None:
        """Put into `directory` what is left of everything below `root`."""
        names = dict(self._durable_names)
        for pending in self._unsynced_names.values():
            for operation in pending[: chance.randint(0, len(pending))]:
                self._rename(names, operation)
        keep = chance.choice((0.0, 0.5, 1.0, None))
        for path, inode in names.items():
            if path.startswith(root + os.sep) and self._is_reachable(path, root):
                target = directory / os.path.relpath(path, root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_survived(inode, chance, keep))

    def _is_reachable(self, path: str, root: str) -> bool:
        """A directory whose own name was never synced takes everything in it along."""
        directory = os.path.dirname(path)
        while directory != root:
            if directory not in self._durable_directories:
                return False
            directory = os.path.dirname(directory)
        return True


def _survived(inode: Inode, chance: random.Random, keep: float | None) -> bytes:
    """`keep` is how likely an unsynced sector is on the platter; None: whole writes, a prefix of them."""
    content = bytearray(inode.durable)
    if keep is None:
        for change in inode.unsynced[: chance.randint(0, len(inode.unsynced))]:
            _apply(content, change)
        return bytes(content)
    for change in inode.unsynced:
        if isinstance(change, int):
            if chance.random() < keep:
                _apply(content, change)
            continue
        offset, data = change
        for start in range(0, len(data), SECTOR):
            if chance.random() < keep:
                _apply(content, (offset + start, data[start : start + SECTOR]))
    return bytes(content)
