"""A disk in memory for `store/durable.py`: stops before any step, fails at any step, and loses what was not
synced.

A step is smaller than an operation: a write is made of the name, half of the bytes, all of them, and the
    fsync. What
a power cut leaves is every combination of what each directory and file may have kept: a prefix of the
    changes that
a directory has not synced or, as disks without order have it, any of them; of a file nothing, half, or all.
"""

import copy
import errno
import hashlib
import itertools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from toft.store import durable


class Stopped(BaseException):
    """The world ends here; no error handler of the code under test may continue."""


@dataclass
class File:
    content: bytes = b""
    durable: bytes | None = None
    """What survives for sure; None while nothing was synced."""


@dataclass(frozen=True)
class Link:
    target: str


Changes = dict[str, "Node | None"]


@dataclass
class Directory:
    names: dict[str, "Node"] = field(default_factory=dict)
    durable: dict[str, "Node"] = field(default_factory=dict)
    pending: list[Changes] = field(default_factory=list)
    """Changes of names since the last sync, each whole or not at all."""

    def change(self, changes: Changes) -> None:
        _apply(self.names, changes)
        self.pending.append(changes)


Node = File | Link | Directory


def _apply(names: dict[str, Node], changes: Changes) -> None:
    for name, node in changes.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """The operations of `durable.Operations`, below `/`.

    Args:
        root: What is on it.
        stop_at: The step before which the world ends; None lets it go on.
        fail_at: The step that fails, once, for want of space.
        syncs: False makes a disk that says it synced and did not.
    """

    def __init__(
        self,
        root: Directory | None = None,
        *,
        stop_at: int | None = None,
        fail_at: int | None = None,
        syncs: bool = True,
    ) -> None:
        self.root = root or Directory()
        self.steps = 0
        self.stop_at = stop_at
        self.fail_at = fail_at
        self.syncs = syncs

    def write(self, path: str, data: durable.Buffer | Iterable[durable.Buffer], mode: int) -> None:
        parts = [data] if isinstance(data, bytes | bytearray | memoryview) else data
        whole = b"".join(bytes(part) for part in parts)
        self._step(path)
        directory, name = self._parent(path)
        if name in directory.names:
            raise FileExistsError(errno.EEXIST, "exists", path)
        file = File()
        directory.change({name: file})
        self._step(path)
        file.content = whole[: len(whole) // 2]
        self._step(path)
        file.content = whole
        self._step(path)
        if self.syncs:
            file.durable = whole

    def append(self, path: str, data: durable.Buffer) -> None:
        file, more = self._file(path), bytes(data)
        self._step(path)
        whole = file.content + more
        file.content += more[: len(more) // 2]
        self._step(path)
        file.content = whole

    def sync(self, path: str) -> None:
        self._step(path)
        file = self._file(path)
        if self.syncs:
            file.durable = file.content

    def digest(self, path: str) -> str:
        return hashlib.sha256(self.read(path)).hexdigest()

    def rename(self, source: str, target: str) -> None:
        self._step(source)
        (directory, old), (other, new) = self._parent(source), self._parent(target)
        assert directory is other, "between directories nothing is atomic after a power cut"
        if old not in directory.names:
            raise FileNotFoundError(errno.ENOENT, "no such name", source)
        taken = directory.names.get(new)
        if isinstance(taken, Directory) and taken.names:
            raise OSError(errno.ENOTEMPTY, "not empty", target)
        directory.change({old: None, new: directory.names[old]})

    def sync_directory(self, path: str) -> None:
        self._step(path)
        directory = self._directory(path)
        if self.syncs:
            for changes in directory.pending:
                _apply(directory.durable, changes)
            directory.pending.clear()

    def remove(self, path: str) -> None:
        self._step(path)
        if isinstance(self._find(path), Directory):
            raise IsADirectoryError(errno.EISDIR, "a directory", path)
        directory, name = self._parent(path)
        directory.change({name: None})

    def make(self, path: str, mode: int) -> bool:
        self._step(path)
        directory, name = self._parent(path)
        if name in directory.names:
            return False
        directory.change({name: Directory()})
        return True

    def unmake(self, path: str) -> None:
        self._step(path)
        if self._directory(path).names:
            raise OSError(errno.ENOTEMPTY, "not empty", path)
        directory, name = self._parent(path)
        directory.change({name: None})

    def link(self, target: str, path: str) -> None:
        self._step(path)
        directory, name = self._parent(path)
        if name in directory.names:
            raise FileExistsError(errno.EEXIST, "exists", path)
        directory.change({name: Link(target)})

    def read(self, path: str) -> bytes:
        found = self._find(path)
        if isinstance(found, Directory):
            raise IsADirectoryError(errno.EISDIR, "a directory", path)
        if isinstance(found, Link):
            raise OSError(errno.ELOOP, "a link", path)
        return found.content

    def read_link(self, path: str) -> str:
        found = self._find(path)
        if not isinstance(found, Link):
            raise OSError(errno.EINVAL, "no link", path)
        return found.target

    def list(self, path: str) -> list[str]:
        return sorted(self._directory(path).names)

    def _step(self, path: str) -> None:
        if self.stop_at is not None and self.steps >= self.stop_at:
            raise Stopped
        self.steps += 1
        if self.fail_at is not None and self.steps == self.fail_at:
            raise OSError(errno.ENOSPC, "no space", path)

    def _find(self, path: str) -> Node:
        node: Node = self.root
        for name in path.strip("/").split("/"):
            if not isinstance(node, Directory):
                raise NotADirectoryError(errno.ENOTDIR, "no directory", path)
            if name:
                if name not in node.names:
                    raise FileNotFoundError(errno.ENOENT, "no such name", path)
                node = node.names[name]
        return node

    def _file(self, path: str) -> File:
        found = self._find(path)
        if not isinstance(found, File):
            raise OSError(errno.EINVAL, "no file", path)
        return found

    def _directory(self, path: str) -> Directory:
        found = self._find(path)
        if not isinstance(found, Directory):
            raise NotADirectoryError(errno.ENOTDIR, "no directory", path)
        return found

    def _parent(self, path: str) -> tuple[Directory, str]:
        directory, _, name = path.rpartition("/")
        return self._directory(directory), name


def killed(root: Directory) -> Directory:
    """Return what a process that was killed leaves: everything, synced or not."""
    return copy.deepcopy(root)


def cuts(root: Directory, *, most: int = 64) -> Iterator[Directory]:
    """Yield each disk that a power cut may leave now; evenly chosen ones when there are more than `most`."""
    choices = _Choices()
    every = list(choices.of(root))
    pace = max(1, -(-len(every) // most))
    seen = set()
    for made in every[::pace]:
        form = repr(made)
        if form not in seen:
            seen.add(form)
            yield copy.deepcopy(made)


class _Choices:
    def of(self, node: Node) -> list[Node]:
        if isinstance(node, Link):
            return [node]
        if isinstance(node, File):
            if node.durable is not None:
                return [File(node.durable, node.durable)]
            kept = (b"", node.content[: len(node.content) // 2], node.content)
            return [File(each, each) for each in dict.fromkeys(kept)]
        found: list[Node] = []
        for kept_changes in _subsets(node.pending):
            names = dict(node.durable)
            for changes in kept_changes:
                _apply(names, changes)
            options = [[(name, each) for each in self.of(child)] for name, child in sorted(names.items())]
            for chosen in itertools.product(*options):
                found.append(Directory(dict(chosen), dict(chosen)))
        return found


def _subsets(pending: list[Changes]) -> Iterator[list[Changes]]:
    if len(pending) <= 4:
        for size in range(len(pending) + 1):
            yield from map(list, itertools.combinations(pending, size))
        return
    for size in range(len(pending) + 1):
        yield pending[:size]
    for missing in range(len(pending)):
        yield pending[:missing] + pending[missing + 1 :]


def holds(root: Node, secret: bytes) -> list[str]:
    """Return where on a disk some bytes are, a file that was only half written included."""
    if isinstance(root, File):
        return [""] if secret in root.content or secret in (root.durable or b"") else []
    if isinstance(root, Link):
        return []
    return [
        os.path.join(name, each)
        for name, node in {**root.durable, **root.names}.items()
        for each in holds(node, secret)
    ]
