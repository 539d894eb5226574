"""Durable file writes: when a function here returns, what it wrote survives a power cut.

Temporary file beside the target, fsync, rename, fsync of the directory. The operations come in as an object,
so that a test can stop the world between any two of them; looking is one too, so that all of it can happen
on a disk that a test has made.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from toft.kernel import errors

Buffer = bytes | bytearray | memoryview
_counter = itertools.count()


class Operations(Protocol):
    """The steps a durable write is made of."""

    def write(self, path: str, data: Buffer | Iterable[Buffer], mode: int) -> None:
        """Make a new file with these bytes and fsync it; fails when there is one."""
        ...

    def append(self, path: str, data: Buffer) -> None:
        """Add bytes to the end of a file; they survive from the next `sync` on."""
        ...

    def sync(self, path: str) -> None:
        """Make what a file holds survive."""
        ...

    def digest(self, path: str) -> str:
        """Return the sha256 of what a file holds; fails on a link."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Put one name in the place of another, atomically."""
        ...

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory survive."""
        ...

    def remove(self, path: str) -> None:
        """Take a file or a link away."""
        ...

    def make(self, path: str, mode: int) -> bool:
        """Make a directory; False when there is one."""
        ...

    def unmake(self, path: str) -> None:
        """Take an empty directory away."""
        ...

    def link(self, target: str, path: str) -> None:
        """Make a symbolic link; fails when the name is taken."""
        ...

    def read(self, path: str) -> bytes:
        """Return what a file holds; fails on a link."""
        ...

    def read_link(self, path: str) -> str:
        """Return where a symbolic link points; fails with `ENOENT` or `EINVAL`."""
        ...

    def list(self, path: str) -> list[str]:
        """Return the names in a directory, sorted."""
        ...


class SystemOperations:
    """The operating system's own."""

    def write(self, path: str, data: Buffer | Iterable[Buffer], mode: int) -> None:
        """Make a new file with these bytes and fsync it."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            for part in [data] if isinstance(data, bytes | bytearray | memoryview) else data:
                view = memoryview(part).cast("B")
                while view:
                    view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)

    def append(self, path: str, data: Buffer) -> None:
        """Write at the end."""
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            view = memoryview(data).cast("B")
            while view:
                view = view[os.write(fd, view) :]
        finally:
            os.close(fd)

    def sync(self, path: str) -> None:
        """Fsync the file."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def digest(self, path: str) -> str:
        """Read the file in pieces."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def rename(self, source: str, target: str) -> None:
        """Rename, replacing what is there."""
        os.rename(source, target)

    def sync_directory(self, path: str) -> None:
        """Fsync the directory."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self, path: str) -> None:
        """Unlink the file."""
        os.unlink(path)

    def make(self, path: str, mode: int) -> bool:
        """Make the directory."""
        try:
            os.mkdir(path, mode)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
            return False
        return True

    def unmake(self, path: str) -> None:
        """Remove the empty directory."""
        os.rmdir(path)

    def link(self, target: str, path: str) -> None:
        """Make the symbolic link."""
        os.symlink(target, path)

    def read(self, path: str) -> bytes:
        """Read the whole file, never through a link."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        with open(fd, "rb") as file:
            return file.read()

    def read_link(self, path: str) -> str:
        """Read the link itself."""
        return os.readlink(path)

    def list(self, path: str) -> list[str]:
        """List the directory."""
        return sorted(os.listdir(path))


SYSTEM = SystemOperations()


def temporary_name(path: Path) -> Path:
    """Return a hidden name beside a path that nobody else uses; `sweep` knows it by its start."""
    return path.with_name(f".tmp-{path.name}-{os.getpid()}-{next(_counter)}")


def write_file(path: Path, data: bytes, *, mode: int = 0o644, operations: Operations = SYSTEM) -> None:
    """Put bytes under a name so that at every moment either the old or the new content is there, whole.

    Raises:
        OSError: As the operating system said; the old content is untouched and nothing is left over.
    """
    write_parts(path, [data], mode=mode, operations=operations)


def write_parts(
    path: Path, parts: Sequence[Buffer], *, mode: int = 0o644, operations: Operations = SYSTEM
) -> None:
    """Do what `write_file` does with content that stands in several places, without joining it."""
    temporary = str(temporary_name(path))
    try:
        operations.write(temporary, parts[0] if len(parts) == 1 else parts, mode)
        operations.rename(temporary, str(path))
    except OSError:
        with contextlib.suppress(OSError):
            operations.remove(temporary)
        raise
    operations.sync_directory(str(path.parent))


def write_json(path: Path, value: Any, *, mode: int = 0o644, operations: Operations = SYSTEM) -> None:
    """Write a value as indented JSON with sorted keys."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    write_file(path, text.encode(), mode=mode, operations=operations)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileNotFoundError: There is none.
        IntegrityError: It is not JSON.
    """
    data = path.read_bytes()
    try:
        return json.loads(data)
    except ValueError as error:
        raise errors.IntegrityError(
            f"{path} is not JSON: {error}", code="store.damaged", details={"path": str(path)}
        ) from error


def make_directory(path: Path, mode: int = 0o755, *, operations: Operations = SYSTEM) -> None:
    """Make a directory and the ones above it, and make their names survive."""
    try:
        is_new = operations.make(str(path), mode)
    except FileNotFoundError:
        make_directory(path.parent, mode, operations=operations)
        is_new = operations.make(str(path), mode)
    if is_new:
        operations.sync_directory(str(path.parent))


def write_directory(
    path: Path, files: Mapping[str, bytes], *, mode: int = 0o755, operations: Operations = SYSTEM
) -> None:
    """Put a directory of files under a name, whole, in place of what has it.

    A stop in between may leave the name free, but never with half of the files or with old and new ones.
    """
    staged, condemned = temporary_name(path), temporary_name(path)
    try:
        operations.make(str(staged), mode)
        for name, data in files.items():
            operations.write(str(staged / name), data, mode & 0o666)
        operations.sync_directory(str(staged))
        with contextlib.suppress(FileNotFoundError):
            operations.rename(str(path), str(condemned))
        operations.rename(str(staged), str(path))
    except OSError:
        with contextlib.suppress(OSError):
            discard(staged, operations=operations)
        raise
    operations.sync_directory(str(path.parent))
    discard(condemned, operations=operations)


def point(path: Path, target: str, *, operations: Operations = SYSTEM) -> None:
    """Make a name a symbolic link to a target; at every moment it points to the old or to the new one."""
    temporary = temporary_name(path)
    operations.link(target, str(temporary))
    operations.rename(str(temporary), str(path))
    operations.sync_directory(str(path.parent))


def discard(path: Path, *, operations: Operations = SYSTEM) -> None:
    """Take away whatever is there: a file, a link, or a directory of those; nothing is fine too."""
    try:
        operations.read_link(str(path))
    except FileNotFoundError:
        return
    except OSError:
        pass
    else:  # never through it, into what it points to
        operations.remove(str(path))
        return
    try:
        names = operations.list(str(path))
    except NotADirectoryError:
        operations.remove(str(path))
        return
    for name in names:
        discard(path / name, operations=operations)
    operations.unmake(str(path))


def sync_tree(path: Path) -> None:
    """Make every file and directory below a path survive, the path included.

    Raises:
        OSError: The disk did not take it.
    """
    if not _sync_file_system(path):
        _sync_each(path)


def _sync_file_system(path: Path) -> bool:
    # One flush of everything: 0.2 s where an fsync for each of 4000 files took 14 to 24 s. Since Linux 5.8 it
    # reports write errors, as fsync does; before, and elsewhere, only the long way tells.
    if sys.platform != "linux" or tuple(map(int, os.uname().release.split(".")[:2])) < (5, 8):
        return False
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(fd) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(fd)
    return True


def _sync_each(path: Path) -> None:
    for directory, _, files in os.walk(path):
        for name in files:
            target = os.path.join(directory, name)
            if os.path.islink(target):
                continue
            try:
                fd = os.open(target, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                continue  # somebody else's temporary file, renamed meanwhile
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        SYSTEM.sync_directory(directory)


def publish_file(staged: Path, path: Path, *, operations: Operations = SYSTEM) -> None:
    """Give a finished file its name, in place of what has it.

    Durability: The content is fsynced before the name appears.
    """
    fd = os.open(staged, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    operations.rename(str(staged), str(path))
    operations.sync_directory(str(path.parent))


def publish_directory(staged: Path, path: Path, *, operations: Operations = SYSTEM) -> None:
    """Give a finished directory its name; the name must be free or the rename fails.

    Durability: The content is fsynced before the name appears.
    """
    sync_tree(staged)
    operations.rename(str(staged), str(path))
    operations.sync_directory(str(path.parent))


def remove_directory(path: Path, *, operations: Operations = SYSTEM) -> bool:
    """Take a directory away, its name first in one step, then its content; False when there was none."""
    condemned = temporary_name(path)
    try:
        operations.rename(str(path), str(condemned))
    except FileNotFoundError:
        return False
    operations.sync_directory(str(path.parent))
    _make_writable(condemned)
    shutil.rmtree(condemned)
    return True


def sweep(directory: Path, *, keep: frozenset[str] = frozenset()) -> list[Path]:
    """Remove what interrupted writers left in a directory; only while holding the directory's lock."""
    removed = []
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(directory.iterdir()):
            if path.name.startswith(".tmp-") and path.name not in keep:
                if path.is_dir() and not path.is_symlink():
                    _make_writable(path)
                    shutil.rmtree(path)
                else:
                    path.unlink(missing_ok=True)
                removed.append(path)
    return removed


def _make_writable(path: Path) -> None:
    for directory, names, _ in os.walk(path):
        for name in (directory, *(os.path.join(directory, name) for name in names)):
            if not os.path.islink(name):
                os.chmod(name, 0o700)
