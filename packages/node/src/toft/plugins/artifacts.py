"""What was uploaded to be installed: whole files under their digest, for as long as a plugin needs them.

`artifacts/sha256/ab/cdef…`, beside the results of jobs and stored alike; those have their own end, with
their jobs. A file that no plugin names goes an hour after somebody last used it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import shutil
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from toft.kernel import clock as clocks
from toft.kernel import errors, log, threads
from toft.plugins.environments import archives, artifact_names
from toft.plugins.environments.wishes import Wish
from toft.store import blobs, durable

KEPT_S = 3600.0
_EVERY_S = 600.0
_MOST = 8 << 30
_AT_ONCE = 2
_GATHERED = 1 << 20
_PLACED, _NOTHING = ".tmp-placed-", "nothing"

_log = log.get_logger("plugins.artifacts")


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
        most: How many bytes may be here that no plugin needs; by itself 8 GiB, or a tenth of a smaller disk.
    """

    def __init__(
        self,
        home: Path,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
        operations: durable.Operations = durable.SYSTEM,
        most: int | None = None,
    ) -> None:
        self._directory = home / "artifacts"
        self._blobs = blobs.Blobs(self._directory, operations=operations)
        self._clock = clock
        self._most = most
        # A look at a file and what is done to it are one step: held in threads only, the disk may be slow.
        self._guard = threading.Lock()
        self._installing = asyncio.Semaphore(_AT_ONCE)
        self._needed: Counter[str] = Counter()
        self._busy: set[Path] = set()
        self._unused = self._coming = 0

    async def save(
        self, digest: str, pieces: AsyncIterable[bytes], *, is_named: Callable[[str], bool] = lambda _: False
    ) -> Artifact:
        """Store what comes, if it is what its name says; nobody sees it before it is whole and on disk.

        Raises:
            UsageError: It is something else (`artifact.digest`).
            UnavailableError: The disk is full, or too much is here that no plugin needs (`artifact.no_room`).

        Cancellation: Safe; all of it is left, or nothing.
        """
        self._blobs.path(digest)  # refuses what is no digest
        most = await asyncio.to_thread(self._measure, is_named)
        staged = await asyncio.to_thread(self._blobs.stage)
        self._busy.add(staged)
        try:
            found = await self._write(staged, pieces, most)
            if found != digest:
                raise errors.UsageError(
                    f"what came is not what its name says: its sha256 is {found}",
                    code="artifact.digest",
                    details={"expected": digest, "sha256": found},
                    hint="upload it again; what came is not kept",
                )
            return await threads.finished(lambda: self._adopt(staged, digest))
        finally:
            with contextlib.suppress(OSError):
                await threads.finished(lambda: staged.unlink(missing_ok=True))
            self._busy.discard(staged)

    def _measure(self, is_named: Callable[[str], bool]) -> int:
        """See how much is here that no plugin needs; return how much may be."""
        most = self._most
        if most is None:
            with contextlib.suppress(OSError):
                most = min(_MOST, shutil.disk_usage(self._directory.parent).total // 10)
        found = tuple(self._all())
        # Whether a plugin names a file is dear to find out, and hardly ever asked.
        if sum(each.size_bytes for each in found) > (most or 0) // 2:
            found = tuple(each for each in found if not is_named(each.digest))
        self._unused = sum(each.size_bytes for each in found)
        return _MOST if most is None else most

    async def _write(self, staged: Path, pieces: AsyncIterable[bytes], most: int) -> str:
        hashed = hashlib.sha256()
        gathered = bytearray()
        coming = 0
        held = contextlib.ExitStack()

        def write(data: bytes) -> None:
            hashed.update(data)
            try:
                file.write(data)
                file.flush()
            except OSError as error:
                raise blobs.translated(error, staged) from error

        try:
            file = await threads.finished(lambda: held.enter_context(_create(staged)))
            async for piece in pieces:
                gathered += piece
                coming += len(piece)
                self._coming += len(piece)
                if self._unused + self._coming > most:
                    raise _no_room(most)
                if len(gathered) >= _GATHERED:
                    await threads.finished(functools.partial(write, bytes(gathered)))
                    gathered.clear()
            await threads.finished(functools.partial(write, bytes(gathered)))
            self._unused += coming
        finally:
            self._coming -= coming
            with contextlib.suppress(OSError):  # of what a full disk did not take
                await threads.finished(held.close)
        return hashed.hexdigest()

    def _adopt(self, staged: Path, digest: str) -> Artifact:
        with self._guard:
            self._touch(staged)
            self._blobs.adopt(staged, digest)
            return self._get(digest)

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
        return await threads.finished(lambda: self._remove(digest, is_named))

    def _remove(self, digest: str, is_named: Callable[[str], bool]) -> bool:
        with self._guard:
            if self._needed[digest]:
                raise errors.ConflictError(
                    f"a plugin is being installed from {digest}",
                    code="artifact.in_use",
                    hint="try again when that has ended",
                )
            if is_named(digest):
                raise errors.ConflictError(
                    f"a plugin was installed from {digest}, and refreshing it takes it again",
                    code="artifact.in_use",
                    hint="toft plugin remove takes the plugin away",
                )
            return self._blobs.remove(digest)

    async def keep_tidy(self, is_named: Callable[[str], bool]) -> None:
        """Remove what a killed daemon has left, and every ten minutes what nobody needs; until cancelled.

        For the daemon of the home alone: files come to no other process.
        """
        await threads.finished(lambda: self._sweep(float("inf")))
        while True:
            try:
                await threads.finished(lambda: self.collect(is_named))
            except (errors.NodeError, OSError) as error:
                # The disk may be well again next time.
                _log.warning("not_collected", error=str(error))
            await asyncio.sleep(_EVERY_S)

    def _sweep(self, before: float) -> None:
        """Remove what came half, and what was laid out, before a moment."""
        for path in (*self._blobs.staged(), *self._directory.glob(f"{_PLACED}*")):
            try:
                if path not in self._busy and path.stat().st_mtime < before:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            except FileNotFoundError:
                continue
            except OSError as error:
                _log.warning("not_removed", path=str(path), error=str(error))

    def collect(self, is_named: Callable[[str], bool]) -> Sequence[str]:
        """Remove what no plugin names and nobody used for an hour, and what came half; blocks."""
        before = self._clock.now() - KEPT_S
        self._sweep(before)
        old = [each.digest for each in self._all() if each.used_at < before]
        return [digest for digest in old if self._collected(digest, before, is_named)]

    def _collected(self, digest: str, before: float, is_named: Callable[[str], bool]) -> bool:
        with self._guard, contextlib.suppress(errors.NotFoundError):
            # Looked at again: it may have come once more since.
            if self._get(digest).used_at >= before or self._needed[digest] or is_named(digest):
                return False
            try:
                return self._blobs.remove(digest)
            except OSError as error:
                _log.warning("not_removed", sha256=digest, error=str(error))
        return False

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
        # Few at once, because what is laid out is large.
        async with self._installing:
            directory = self._directory / f"{_PLACED}{uuid.uuid4().hex}"
            needed = _digests(wish)
            self._busy.add(directory)
            try:
                placed = await threads.finished(lambda: self._place(wish, directory, needed))
                yield placed, directory / _NOTHING
            finally:
                await threads.finished(lambda: self._release(directory, needed))
                self._busy.discard(directory)

    def _release(self, directory: Path, needed: Sequence[str]) -> None:
        shutil.rmtree(directory, ignore_errors=True)
        with self._guard:
            self._needed -= Counter(needed)

    def _workspace(self, directory: Path) -> None:
        try:
            durable.make_directory(self._directory, 0o700)
            directory.mkdir(0o700)
            (directory / _NOTHING).mkdir()
        except OSError as error:
            raise blobs.translated(error, self._directory) from error

    def _place(self, wish: Wish, directory: Path, needed: Sequence[str]) -> Wish:
        with self._guard:
            self._needed += Counter(needed)
        self._workspace(directory)

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
        path = self._blobs.path(named.digest)
        with self._guard:
            self._get(named.digest)
            self._touch(path)
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != named.digest:
                raise errors.IntegrityError(
                    f"the uploaded file {named.digest} is damaged",
                    code="artifact.damaged",
                    details={"sha256": named.digest, "path": str(path)},
                    hint="upload it again, then look at the disk",
                )
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


def _digests(wish: Wish) -> tuple[str, ...]:
    named = (wish.source, *wish.requirements, wish.lock, wish.env_file)
    return tuple(
        artifact_names.parse(each).digest for each in named if each and artifact_names.is_named(each)
    )


def _no_room(most: int) -> errors.UnavailableError:
    return errors.UnavailableError(
        "too much was uploaded that no plugin needs",
        code="artifact.no_room",
        details={"most_bytes": most},
        hint="install from what is there, or remove it; what nobody used for an hour goes by itself",
    )


def _create(path: Path) -> IO[bytes]:
    def private(name: str, flags: int) -> int:
        return os.open(name, flags, 0o600)

    try:
        return open(path, "xb", opener=private)
    except OSError as error:
        raise blobs.translated(error, path) from error
