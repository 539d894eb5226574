"""What was uploaded to be installed: whole files under their digest, for as long as a plugin needs them.

`artifacts/sha256/ab/cdef…`, beside the results of jobs and stored alike; those have their own end, with
their jobs. A file that no plugin names goes an hour after somebody last used it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.plugins.environments import archives, artifact_names
from toft.plugins.environments.wishes import Wish
from toft.store import blobs, durable

KEPT_S = 3600.0
_GATHERED = 1 << 20
_PLACED, _NOTHING = ".tmp-placed-", "nothing"


@dataclass(frozen=True)
class Artifact:
    """One uploaded file.

    Attributes:
        digest: Its sha256.
        size_bytes: What it takes.
        used_at: When it was uploaded, or installed from, last; seconds since 1970.
    """

    digest: str
    size_bytes: int
    used_at: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "sha256": self.digest,
            "size_bytes": self.size_bytes,
            "used_at": clocks.rfc3339(self.used_at),
        }


class Artifacts:
    """The uploaded files of a home.

    Args:
        home: `TOFT_HOME`.
        clock: Says what is old.
        operations: The steps of a durable write.
    """

    def __init__(
        self,
        home: Path,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
        operations: durable.Operations = durable.SYSTEM,
    ) -> None:
        self._directory = home / "artifacts"
        self._blobs = blobs.Blobs(self._directory, operations=operations)
        self._clock = clock

    async def save(self, digest: str, pieces: AsyncIterable[bytes]) -> Artifact:
        """Store what comes, if it is what its name says; nobody sees it before it is whole and on disk.

        Raises:
            UsageError: It is something else (`artifact.digest`).
            UnavailableError: The disk is full.

        Cancellation: Safe; nothing is left.
        """
        self._blobs.path(digest)  # refuses what is no digest
        staged = await asyncio.to_thread(self._blobs.stage)
        try:
            found = await self._write(staged, pieces)
            if found != digest:
                raise errors.UsageError(
                    f"what came is not what its name says: its sha256 is {found}",
                    code="artifact.digest",
                    details={"expected": digest, "sha256": found},
                    hint="upload it again; what came is not kept",
                )
            await asyncio.shield(asyncio.to_thread(self._adopt, staged, digest))
        finally:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
        return await self.get(digest)

    async def _write(self, staged: Path, pieces: AsyncIterable[bytes]) -> str:
        hashed = hashlib.sha256()
        gathered = bytearray()

        def write(data: bytes) -> None:
            hashed.update(data)
            try:
                file.write(data)
                file.flush()
            except OSError as error:
                raise blobs.translated(error, staged) from error

        file = await asyncio.to_thread(_create, staged)
        try:
            async for piece in pieces:
                gathered += piece
                if len(gathered) >= _GATHERED:
                    await asyncio.to_thread(write, bytes(gathered))
                    gathered.clear()
            await asyncio.to_thread(write, bytes(gathered))
        finally:
            with contextlib.suppress(OSError):  # of what a full disk did not take
                file.close()
        return hashed.hexdigest()

    def _adopt(self, staged: Path, digest: str) -> None:
        self._touch(staged)
        self._blobs.adopt(staged, digest)

    async def get(self, digest: str) -> Artifact:
        """Return what is known of an uploaded file.

        Raises:
            NotFoundError: It is not there, or not any more.
        """
        return await asyncio.to_thread(self._get, digest)

    def _get(self, digest: str) -> Artifact:
        path = self._blobs.path(digest)
        try:
            found = path.stat()
        except FileNotFoundError:
            raise errors.NotFoundError(
                f"there is no uploaded file {digest}",
                code="artifact.not_found",
                details={"sha256": digest},
                hint="upload it again: what no plugin needs is kept for an hour",
            ) from None
        return Artifact(digest, found.st_size, found.st_mtime)

    def path(self, digest: str) -> Path:
        """Return where an uploaded file is, or would be."""
        return self._blobs.path(digest)

    async def list(self) -> Sequence[Artifact]:
        """Return every uploaded file, by digest."""
        return await asyncio.to_thread(lambda: tuple(self._all()))

    def _all(self) -> Iterator[Artifact]:
        for digest in self._blobs.digests():
            with contextlib.suppress(errors.NotFoundError):
                yield self._get(digest)

    async def remove(self, digest: str, *, is_named: Callable[[str], bool]) -> bool:
        """Take an uploaded file away; False when there was none.

        Raises:
            ConflictError: An installed plugin is refreshed from it.
        """
        self._blobs.path(digest)
        if await asyncio.to_thread(is_named, digest):
            raise errors.ConflictError(
                f"a plugin was installed from {digest}, and refreshing it takes it again",
                code="artifact.in_use",
                hint="toft plugin remove takes the plugin away",
            )
        return await asyncio.to_thread(self._blobs.remove, digest)

    def collect(self, is_named: Callable[[str], bool]) -> Sequence[str]:
        """Remove what no plugin names and nobody used for an hour, and what came half; blocks."""
        before = self._clock.now() - KEPT_S
        for path in (*self._blobs.staged(), *self._directory.glob(f"{_PLACED}*")):
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
        removed = []
        for each in self._all():
            if each.used_at < before and not is_named(each.digest) and self._blobs.remove(each.digest):
                removed.append(each.digest)
        return removed

    @contextlib.asynccontextmanager
    async def placed(self, wish: Wish) -> AsyncIterator[tuple[Wish, Path | None]]:
        """Lay out what a wish names of what was uploaded, for the length of the block.

        Yields:
            The wish with paths in the place of names, and where relative paths start: in an empty directory
            for a wish that came from elsewhere, None for one of this machine.
        """
        if wish.origin is None:
            yield wish, None
            return
        directory = await asyncio.to_thread(self._workspace)
        try:
            placed = await asyncio.to_thread(self._place, wish, directory)
            yield placed, directory / _NOTHING
        finally:
            await asyncio.shield(asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True))

    def _workspace(self) -> Path:
        try:
            durable.make_directory(self._directory, 0o700)
            directory = Path(tempfile.mkdtemp(prefix=_PLACED, dir=self._directory))
            (directory / _NOTHING).mkdir()
        except OSError as error:
            raise blobs.translated(error, self._directory) from error
        return directory

    def _place(self, wish: Wish, directory: Path) -> Wish:
        def placed(text: str | None) -> str | None:
            if text is None or not artifact_names.is_named(text):
                return text
            named = artifact_names.parse(text)
            try:
                return self._lay_out(named, directory)
            except OSError as error:
                raise blobs.translated(error, directory) from error

        return replace(
            wish,
            source=placed(wish.source) or "",
            requirements=tuple(placed(each) or "" for each in wish.requirements),
            lock=placed(wish.lock),
            env_file=placed(wish.env_file),
        )

    def _lay_out(self, named: artifact_names.Named, directory: Path) -> str:
        self._get(named.digest)
        path = self._blobs.path(named.digest)
        self._touch(path)
        # Each in a directory of its own: two may be called alike.
        below = Path(tempfile.mkdtemp(dir=directory))
        target = below / named.file
        if target.suffix == ".tar":
            target = target.with_suffix("")
            target.mkdir()
            with path.open("rb") as file:
                archives.unpack(file, target)
        else:
            if target.suffix == ".whl":
                archives.check_wheel(path)
            os.link(path, target)
        return f"{target}{named.extras}"

    def _touch(self, path: Path) -> None:
        now = self._clock.now()
        os.utime(path, (now, now))


async def pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    """Yield what is in a file, from its beginning."""
    await asyncio.to_thread(file.seek, 0)
    while piece := await asyncio.to_thread(file.read, _GATHERED):
        yield piece


def _create(path: Path) -> IO[bytes]:
    def private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    try:
        return open(path, "xb", opener=private)
    except OSError as error:
        raise blobs.translated(error, path) from error
