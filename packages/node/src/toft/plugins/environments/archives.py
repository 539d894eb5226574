"""Project directories as one file, and back: plain tar, the same bytes for the same files.

Nothing is packed tight, so what comes out is no larger than what went in. Whoever unpacks trusts nothing in
it: files and directories only, each once, below one directory, so many and so large.
"""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from toft.kernel import errors
from toft.plugins.environments import environment_errors, projects, wheel_files

MOST_FILES = 20_000
MOST_BYTES = 2 << 30
_MOST_HEADER = 1 << 20
_PIECE = 1 << 20
_DEEPEST = 64
# The kernel takes 4,096 bytes, with the directory that it is unpacked in.
_LONGEST = 2048
# The oldest moment that a wheel can hold; what was touched last says nothing about what is in a file.
_TIME = 315_619_200
_HISTORY = frozenset({".git", ".hg", ".svn"})


def pack(directory: Path, file: IO[bytes]) -> None:
    """Write a project as a tar; without what builds never need, and without its history.

    Raises:
        SourceError: Something in it cannot be sent: a link to elsewhere, a device.
    """
    root = directory.resolve()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path in _files(directory, root):
            found = path.stat()
            header = tarfile.TarInfo(path.relative_to(directory).as_posix())
            header.size, header.mtime = found.st_size, _TIME
            header.mode = 0o755 if found.st_mode & stat.S_IXUSR else 0o644
            if not _is_safe(header.name):
                raise _unsendable(path, "has a name that is none everywhere")
            with path.open("rb") as source:
                archive.addfile(header, source)


def _files(directory: Path, root: Path) -> Iterator[Path]:
    for where, names, files in os.walk(directory):
        out = {*projects.left_out(where, [*names, *files]), *_HISTORY}
        names[:] = sorted(name for name in names if name not in out)
        for name in names:
            if (Path(where) / name).is_symlink():
                raise _unsendable(Path(where) / name, "is a link to a directory")
        for name in sorted(each for each in files if each not in out):
            path = Path(where) / name
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise _unsendable(path, "links to what is outside of the project")
            if not path.is_file():
                raise _unsendable(path, "is no file")
            yield path


def _unsendable(path: Path, why: str) -> errors.NodeError:
    return environment_errors.SourceError(
        f"{path} {why}, and cannot be sent",
        code="artifact.unsendable",
        details={"path": str(path)},
        hint="build a wheel of the project and add that: uv build --wheel",
    )


class _Wary:
    """A file that no header can make somebody read into memory whole.

    Attributes:
        left: How many bytes may be read still.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.left = _MOST_HEADER

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        """Read so much, which must not be much."""
        if not 0 <= size <= min(_MOST_HEADER, self.left):
            raise _bad("one of its headers is too large")
        self.left -= size
        return self._file.read(size)


def unpack(
    file: IO[bytes], target: Path, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES
) -> None:
    """Write what is in a tar below a directory, which must be empty.

    Raises:
        SourceError: It is no tar, or has in it what no project has (`artifact.unsafe`).
        RefusedError: It is too much (`artifact.too_large`).
    """
    left_bytes, left_files = most_bytes, most_files
    wary = _Wary(file)
    try:
        with tarfile.open(fileobj=wary, mode="r:") as archive:
            while (member := archive.next()) is not None:
                if member.size < 0:
                    raise _bad(f"{member.name[:200]!r} has a size below nothing")
                left_files -= 1
                left_bytes -= member.size
                if left_files < 0 or left_bytes < 0:
                    raise _too_much(most_bytes, most_files)
                wary.left = member.size
                _write(archive, member, target)
                wary.left = _MOST_HEADER
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
    except (tarfile.TarError, EOFError, ValueError, OverflowError, IndexError, RecursionError) as error:
        raise _bad(str(error) or type(error).__name__) from error


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    path = target / _checked(member.name)
    try:
        if member.isdir():
            path.mkdir(parents=True, exist_ok=True)
        else:
            _write_file(archive, member, path)
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise _bad(f"{member.name[:200]!r} is there twice") from None


def _write_file(archive: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
        raise _bad(f"{member.name[:200]!r} is neither a file nor a directory")
    source = archive.extractfile(member)
    if source is None:
        raise _bad(f"{member.name[:200]!r} is no file")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Its own directory, and nothing but this has written there: no link can be in the way.
    with path.open("xb") as written:
        shutil.copyfileobj(source, written, _PIECE)
    path.chmod(0o755 if member.mode & 0o100 else 0o644)


def check_wheel(path: Path, *, most_bytes: int = MOST_BYTES, most_files: int = MOST_FILES) -> None:
    """Look whether a wheel is what it says of itself, by reading all of it.

    Raises:
        SourceError: It is no wheel, is damaged, or names files outside of it.
        RefusedError: It is too much.
    """
    try:
        with wheel_files.opened(path) as archive:
            members = archive.infolist()
            if len(members) > most_files or sum(each.file_size for each in members) > most_bytes:
                raise _too_much(most_bytes, most_files)
            for each in members:
                _checked(each.filename)
                with archive.open(each) as file:
                    while file.read(_PIECE):
                        pass
    except wheel_files.DAMAGED as error:
        raise _bad(f"it is no wheel: {error}") from error


def _checked(name: str) -> PurePosixPath:
    """Return the path that a member may have."""
    if not _is_safe(name) and name not in (".", "./"):
        raise _bad(f"{name[:200]!r} is no path below a directory")
    return PurePosixPath(name)


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    return (
        name.isprintable()
        and 0 < len(path.parts) <= _DEEPEST
        and not path.is_absolute()
        and len(os.fsencode(name)) <= _LONGEST
        and all(part != ".." and len(os.fsencode(part)) <= 255 for part in path.parts)
        and "\\" not in name
    )


def _bad(why: str) -> environment_errors.SourceError:
    return environment_errors.SourceError(
        f"the uploaded file cannot be used: {why[:500]}",
        code="artifact.unsafe",
        hint="toft --url URL plugin add DIRECTORY packs it right",
    )


def _too_much(most_bytes: int, most_files: int) -> errors.RefusedError:
    return errors.RefusedError(
        f"unpacked it may be {most_bytes} bytes in {most_files} files",
        code="artifact.too_large",
        details={"most_bytes": most_bytes, "most_files": most_files},
        hint="a plugin is code; let it fetch models and data into models_dir",
    )
