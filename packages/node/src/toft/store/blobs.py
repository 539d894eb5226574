"""Large values under their hash: written once, durable before anybody refers to them.

`blobs/sha256/ab/cdef…`: the name says what is inside, so two writers of the same bytes do no harm.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from toft.kernel import errors
from toft.store import durable
from toft.store.durable import Buffer

_FRESH_S = 60.0
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BlobStore(Protocol):
    """Where large values are kept."""

    async def save(self, data: Buffer | Iterable[Buffer]) -> str:
        """Store bytes durably and return their digest."""
        ...

    async def load(self, digest: str) -> bytes:
        """Return the bytes of a digest."""
        ...

    async def discard(self, digests: Iterable[str]) -> list[str]:
        """Remove blobs that nothing refers to; returns those that are kept for now, being fresh."""
        ...

    async def retain(self, digests: frozenset[str]) -> None:
        """Remove all blobs but these; only while nobody stores any."""
        ...


class Blobs:
    """Blobs as files.

    Args:
        directory: Holds `sha256/`; made when something is stored.
        operations: The steps of a durable write.
    """

    def __init__(self, directory: Path, *, operations: durable.Operations = durable.SYSTEM) -> None:
        self._directory = directory / "sha256"
        self._operations = operations
        self._guard = threading.Lock()
        self._storing = 0
        self._fresh: dict[str, float] = {}

    def put(self, data: Buffer | Iterable[Buffer]) -> str:
        """Store bytes and return their digest; fsynced when this returns. Blocks.

        Raises:
            UnavailableError: The disk is full; nothing is left over.
            RefusedError: The directory cannot be written.
        """
        with self._guard:
            self._storing += 1
        digest = ""
        try:
            digest = self._put(data)
        finally:
            with self._guard:
                self._storing -= 1
                self._note_fresh(digest)
        return digest

    def _put(self, data: Buffer | Iterable[Buffer]) -> str:
        if not isinstance(data, bytes | bytearray | memoryview | Sequence):
            return self._put_stream(data)
        parts = [data] if isinstance(data, bytes | bytearray | memoryview) else list(data)
        hashed = hashlib.sha256()
        for part in parts:
            hashed.update(part)
        digest = hashed.hexdigest()
        path = self.path(digest)
        try:
            if self._is_there(path):
                return digest
            durable.make_directory(path.parent, 0o700, operations=self._operations)
            durable.write_parts(path, parts, mode=0o600, operations=self._operations)
        except OSError as error:
            raise translated(error, path) from error
        return digest

    def _put_stream(self, parts: Iterable[Buffer]) -> str:
        """Store what is made piece by piece, each gone before the next: its name is known at the end only."""
        hashed = hashlib.sha256()
        staged = durable.temporary_name(self._directory / "stream")
        try:
            durable.make_directory(self._directory, 0o700, operations=self._operations)
            try:
                self._operations.write(str(staged), _hashing(parts, hashed), 0o600)
                path = self.path(hashed.hexdigest())
                if self._is_there(path):
                    self._operations.remove(str(staged))
                    return hashed.hexdigest()
                durable.make_directory(path.parent, 0o700, operations=self._operations)
                self._operations.rename(str(staged), str(path))
            except BaseException:
                with contextlib.suppress(OSError):
                    self._operations.remove(str(staged))
                raise
            self._operations.sync_directory(str(path.parent))
        except OSError as error:
            raise translated(error, self._directory) from error
        return hashed.hexdigest()

    def stage(self) -> Path:
        """Return an unused name for what comes piece by piece and is put in its place by `adopt`. Blocks."""
        try:
            durable.make_directory(self._directory, 0o700, operations=self._operations)
        except OSError as error:
            raise translated(error, self._directory) from error
        return durable.temporary_name(self._directory / "stream")

    def adopt(self, staged: Path, digest: str) -> None:
        """Give a file that has this digest its place; fsynced when this returns. Blocks.

        Raises:
            UnavailableError: The disk is full; the file is still where it was.
        """
        path = self.path(digest)
        try:
            durable.make_directory(path.parent, 0o700, operations=self._operations)
            durable.publish_file(staged, path, operations=self._operations)
            self._operations.sync_directory(str(self._directory))
        except OSError as error:
            raise translated(error, path) from error

    def digests(self) -> list[str]:
        """Return what is stored, sorted. Blocks."""
        found = self._directory.glob("[0-9a-f][0-9a-f]/*")
        names = (path.parent.name + path.name for path in found)
        return sorted(name for name in names if _DIGEST.fullmatch(name))

    def staged(self) -> list[Path]:
        """Return the files that `stage` named and nobody has adopted. Blocks."""
        return sorted(self._directory.glob(".tmp-stream-*"))

    def _is_there(self, path: Path) -> bool:
        if not path.exists():
            return False
        # Whoever wrote it may not have come as far as to make its name survive.
        self._operations.sync_directory(str(path.parent))
        self._operations.sync_directory(str(self._directory))
        return True

    def path(self, digest: str) -> Path:
        """Return where a blob is, or would be.

        Raises:
            UsageError: This is no digest.
        """
        if not _DIGEST.fullmatch(digest):
            raise errors.UsageError(
                f"{digest[:80]!r} is no blob digest", code="blob.digest", hint="copy the digest whole"
            )
        return self._directory / digest[:2] / digest[2:]

    def open(self, digest: str) -> BinaryIO:
        """Open a blob for reading. Blocks.

        Raises:
            NotFoundError: There is none, or it was removed with the job it belonged to.
        """
        try:
            return open(self.path(digest), "rb")
        except FileNotFoundError as error:
            raise not_found(digest) from error

    def remove(self, digest: str) -> bool:
        """Take a blob away; False when there was none. Blocks."""
        try:
            self._operations.remove(str(self.path(digest)))
        except FileNotFoundError:
            return False
        return True

    def sweep(self, keep: frozenset[str]) -> list[str]:
        """Remove all blobs but these, and what interrupted writers left; only while nobody writes. Blocks."""
        removed = []
        with contextlib.suppress(FileNotFoundError):
            durable.sweep(self._directory)
            for directory in sorted(self._directory.iterdir()):
                durable.sweep(directory)
                for path in sorted(directory.iterdir()):
                    digest = directory.name + path.name
                    if digest not in keep:
                        path.unlink(missing_ok=True)
                        removed.append(digest)
        return removed

    async def save(self, data: Buffer | Iterable[Buffer]) -> str:
        """Store bytes durably and return their digest."""
        return await asyncio.to_thread(self.put, data)

    async def load(self, digest: str) -> bytes:
        """Return the bytes of a digest.

        Raises:
            NotFoundError: There is none.
            IntegrityError: The bytes are not those that were stored.
        """
        return await asyncio.to_thread(self._load, digest)

    async def discard(self, digests: Iterable[str]) -> list[str]:
        """Remove blobs that nothing refers to; returns those that are kept for now, being fresh."""
        return await asyncio.to_thread(self._discard, list(digests))

    async def retain(self, digests: frozenset[str]) -> None:
        """Remove all blobs but these; only while nobody stores any."""
        await asyncio.to_thread(self.sweep, digests)

    def _note_fresh(self, digest: str) -> None:
        now = time.monotonic()
        if digest:
            self._fresh.pop(digest, None)
            self._fresh[digest] = now
        while self._fresh:
            oldest = next(iter(self._fresh))
            if now - self._fresh[oldest] < _FRESH_S:
                break
            del self._fresh[oldest]

    def _discard(self, digests: list[str]) -> list[str]:
        kept = []
        for digest in digests:
            with self._guard:
                # Somebody who stores the same bytes at this moment relies on the file that is there.
                self._note_fresh("")
                if self._storing or digest in self._fresh:
                    kept.append(digest)
                else:
                    self.remove(digest)
        return kept

    def _load(self, digest: str) -> bytes:
        with self.open(digest) as file:
            data = file.read()
        if hashlib.sha256(data).hexdigest() != digest:
            raise errors.IntegrityError(
                f"the blob {digest} is damaged",
                code="blob.damaged",
                details={"digest": digest, "path": str(self.path(digest))},
                hint="run the job again that made it; then look at the disk",
            )
        return data


def _hashing(parts: Iterable[Buffer], hashed: Any) -> Iterator[Buffer]:
    for part in parts:
        hashed.update(part)
        yield part


def translated(error: OSError, path: Path) -> errors.NodeError:
    """Return the error for a file that the disk does not take."""
    details = {"path": str(path), "errno": error.errno}
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return errors.UnavailableError(
            f"{path} cannot be stored: {os.strerror(error.errno)}",
            code="store.disk_full",
            details=details,
            hint="free some space: toft env gc removes environments that nothing uses",
        )
    return errors.RefusedError(
        f"{path} cannot be stored: {error}",
        code="store.unusable",
        blame="environment",
        details=details,
        hint="run toft as the user who owns it, or point TOFT_HOME at a directory of your own",
    )


def not_found(digest: str) -> errors.NotFoundError:
    """Return the error for a blob that is not there, or no more."""
    return errors.NotFoundError(
        f"there is no blob {digest}",
        code="blob.not_found",
        details={"digest": digest},
        hint="values are kept as long as their jobs: toft job list",
    )
