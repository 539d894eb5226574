"""Environments: interpreter and packages of a plugin; content-addressed, immutable, shared by equal locks.

`TOFT_HOME/environments/<hash>/` is an environment if and only if it holds `environment.json`, which is
written last, in one step, after everything else is on disk. Whatever else is found there is the rest of an
interrupted build and is swept. The hash is over the lock, the interpreter and the platform; a directory is
built under its final name, because scripts and conda packages write their own path into files.

Who builds or removes holds the directory's lock alone; who runs workers from it shares the lock (`hold`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from toft.kernel import clock as clocks
from toft.kernel import errors, ids, log
from toft.plugins.environments import environment_errors, record, trees
from toft.plugins.environments.provisioning import (
    EnvironmentRequest,
    Installed,
    Progress,
    Provisioner,
    Resolution,
    SizeEstimate,
    silent,
)
from toft.plugins.environments.record import RECORD as RECORD
from toft.plugins.environments.record import Environment as Environment
from toft.store import claims, durable

_HASH = re.compile(r"[0-9a-f]{32}")
_WAIT_FIRST_S = 0.02
_WAIT_MOST_S = 0.5
_LOG = log.get_logger("plugins.environments")


class Environments:
    """The environments of one home.

    Args:
        home: `TOFT_HOME`.
        provisioners: Asked in this order whether they accept a request.
        prepare: Awaited with the interpreter and cache tag of each new environment before it counts.
        operations: What writes and renames; a test may stop it between any two steps.
    """

    def __init__(
        self,
        home: Path,
        provisioners: Sequence[Provisioner],
        *,
        prepare: Callable[[str, str], Awaitable[object]] | None = None,
        clock: clocks.Clock = clocks.SYSTEM,
        operations: durable.Operations = durable.SYSTEM,
    ) -> None:
        self.root = home / "environments"
        self._provisioners = tuple(provisioners)
        self._prepare = prepare
        self._clock = clock
        self._operations = operations

    def find(self, digest: str) -> Environment | None:
        """Return an environment, or None when it is not there or was never finished."""
        if not _HASH.fullmatch(digest):
            return None
        path = self.root / digest
        try:
            found = durable.read_json(path / RECORD)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return record.read(path, found)

    def get(self, digest: str) -> Environment:
        """Return an environment.

        Raises:
            NotFoundError: There is none of this name.
        """
        found = self.find(digest)
        if found is None:
            raise errors.NotFoundError(
                f"there is no environment {digest[:64]!r}",
                code="environment.not_found",
                hint="toft env list shows what is there; toft plugin refresh NAME builds it again",
            )
        return found

    def list(self) -> list[Environment]:
        """Return every finished environment, by name."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return []
        return [found for found in map(self.find_readable, names) if found is not None]

    def find_readable(self, digest: str) -> Environment | None:
        """Return an environment, or None as well when its record is damaged."""
        try:
            return self.find(digest)
        except errors.IntegrityError as error:
            # One damaged record must not hide the others; `get` says what is wrong with it.
            _LOG.warning("environment_unreadable", path=str(self.root / digest), reason=error.message)
            return None

    @contextlib.contextmanager
    def hold(self, digest: str) -> Iterator[Environment]:
        """Keep an environment from being collected, for as long as workers run from it.

        Raises:
            NotFoundError: It is not there, or is just being removed.
        """
        try:
            held = claims.claim(self.root / digest, shared=True) if _HASH.fullmatch(digest) else None
        except FileNotFoundError:
            held = None
        if held is None:
            self.get(digest)
            raise errors.UnavailableError(
                f"environment {digest} is being removed or rebuilt", code="environment.busy"
            )
        with held:
            yield self.get(digest)

    async def build(self, request: EnvironmentRequest, progress: Progress = silent) -> Environment:
        """Return the environment for a request; build it when it is not there.

        Raises:
            NodeError: One of `environment_errors`, or a `UsageError`.

        Durability: On disk before it is returned; a crash at any moment leaves either all of it or nothing.
        Cancellation: Safe; ends what runs and removes what was begun.
        """
        async with self.using(request, progress) as environment:
            return environment

    @contextlib.asynccontextmanager
    async def using(
        self, request: EnvironmentRequest, progress: Progress = silent
    ) -> AsyncIterator[Environment]:
        """Build as `build` does, and hold the environment until the block ends."""
        await asyncio.to_thread(self.sweep)
        async with self._workspace() as work:
            provisioner = self._provisioner(request)
            with _disk_errors(self.root):
                resolution = await provisioner.resolve(request, work, progress)
            while True:
                environment = await self._obtain(provisioner, resolution, request.origin, work, progress)
                with contextlib.ExitStack() as stack:
                    try:
                        stack.enter_context(self.hold(environment.hash))
                    except (errors.NotFoundError, errors.UnavailableError):
                        # Collected in the moment between building and holding: build it again.
                        continue
                    yield replace(environment, local_name=resolution.local_name)
                    return

    async def size(self, request: EnvironmentRequest, progress: Progress = silent) -> SizeEstimate:
        """Say what an environment would take before anything is installed.

        Raises:
            NodeError: As `build`, when the request cannot be resolved.
        """
        async with self._workspace() as work:
            provisioner = self._provisioner(request)
            resolution = await provisioner.resolve(request, work, progress)
            estimate = await provisioner.estimate(resolution, work)
        found = await asyncio.to_thread(self.find, resolution.hash)
        if found is None:
            return estimate
        return SizeEstimate(
            download_bytes=estimate.download_bytes,
            installed_bytes=found.size_bytes,
            packages=estimate.packages,
            exists=True,
        )

    def remove(self, digest: str, *, unless: Callable[[str], bool] = lambda _: False) -> bool:
        """Remove an environment unless somebody holds it; False when it is not there, or still wanted.

        Args:
            digest: Its hash.
            unless: Asked once nobody can begin to use it any more; true keeps it.

        Raises:
            ConflictError: A worker runs from it, or somebody builds it.
        """
        if not _HASH.fullmatch(digest) or unless(digest):
            return False
        if self._take_away(self.root / digest, unless=unless):
            return True
        if not (self.root / digest).exists() or unless(digest):
            return False
        raise errors.ConflictError(
            f"environment {digest} is in use",
            code="environment.in_use",
            hint="unload the instances that run from it, then try again",
        )

    def gc(self, keep: Collection[str] | Callable[[str], bool]) -> tuple[Environment, ...]:
        """Remove every environment that is neither kept nor held by anybody.

        Args:
            keep: The hashes that manifests name; or who knows, asked when nobody can begin to use it.

        Returns:
            What was removed.
        """
        self.sweep()
        is_kept = keep if callable(keep) else keep.__contains__
        return tuple(
            environment
            for environment in self.list()
            if not is_kept(environment.hash) and self._take_away(environment.path, unless=is_kept)
        )

    def sweep(self) -> None:
        """Remove what interrupted builds and removals left; what somebody still holds stays."""
        try:
            names = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return
        for name in names:
            path = self.root / name
            # Only what a build can have made: a directory somebody put here by hand is not ours to remove.
            is_rest = name.startswith((".work-", ".tmp-")) or (
                _HASH.fullmatch(name) is not None and not (path / RECORD).exists()
            )
            if is_rest and path.is_dir() and not path.is_symlink() and self._take_away(path, unfinished=True):
                _LOG.info("environment_rest_swept", path=str(path))

    def _take_away(
        self, path: Path, *, unfinished: bool = False, unless: Callable[[str], bool] = lambda _: False
    ) -> bool:
        try:
            held = claims.claim(path)
        except OSError:
            return False
        if held is None:
            return False
        with held:
            is_finished = not path.name.startswith(".") and (path / RECORD).exists()
            if (unfinished and is_finished) or unless(path.name):
                return False
            return durable.remove_directory(path, operations=self._operations)

    def _provisioner(self, request: EnvironmentRequest) -> Provisioner:
        for provisioner in self._provisioners:
            if provisioner.accepts(request):
                return provisioner
        raise errors.UsageError("no provisioner takes this request", code="environment.no_provisioner")

    @contextlib.asynccontextmanager
    async def _workspace(self) -> AsyncIterator[Path]:
        await asyncio.to_thread(durable.make_directory, self.root)
        held = None
        while held is None:
            held = claims.make(self.root / f".work-{ids.ulid(self._clock)}", mode=0o700)
        try:
            yield held.path
        finally:
            with held:
                await asyncio.shield(asyncio.to_thread(shutil.rmtree, held.path, ignore_errors=True))

    async def _obtain(
        self, provisioner: Provisioner, resolution: Resolution, origin: str, work: Path, progress: Progress
    ) -> Environment:
        path = self.root / resolution.hash
        pause = _WAIT_FIRST_S
        while True:
            found = await self._find_usable(resolution.hash, progress)
            if found is not None:
                return found
            held = claims.make(path)
            if held is not None:
                with held:
                    # Somebody may have finished it between the look and the claim.
                    found = await asyncio.to_thread(self.find, resolution.hash)
                    return found or await self._make(provisioner, resolution, origin, work, held, progress)
            if pause == _WAIT_FIRST_S:
                progress("waiting for another process that builds this environment")
            await asyncio.sleep(pause)
            pause = min(pause * 2, _WAIT_MOST_S)

    async def _find_usable(self, digest: str, progress: Progress) -> Environment | None:
        """Find an environment; one whose record is damaged is taken away, so that it is built again."""
        try:
            return await asyncio.to_thread(self.find, digest)
        except errors.IntegrityError:
            if not await asyncio.to_thread(self._take_away, self.root / digest):
                raise  # somebody runs from it, or it cannot be removed
            progress("its record is damaged: building it again")
            return None

    async def _make(
        self,
        provisioner: Provisioner,
        resolution: Resolution,
        origin: str,
        work: Path,
        held: claims.Claim,
        progress: Progress,
    ) -> Environment:
        path = held.path
        try:
            with _disk_errors(self.root):
                await asyncio.to_thread(trees.empty, path)
                installed = await provisioner.install(
                    resolution, path, work=work, keep_fds=(held.fd,), progress=progress
                )
                if self._prepare:
                    await self._prepare(installed.python, installed.cache_tag)
                progress("writing to disk")
                return await asyncio.to_thread(self._commit, path, resolution, installed, origin)
        except BaseException:
            # Also on cancellation: nothing half made stays, not even until the next sweep.
            with contextlib.suppress(OSError):
                await asyncio.shield(asyncio.to_thread(durable.remove_directory, path))
            raise

    def _commit(self, path: Path, resolution: Resolution, installed: Installed, origin: str) -> Environment:
        trees.unshare(path)
        trees.take_write_permission(path)
        durable.sync_tree(path)
        told = record.of(
            resolution,
            installed,
            origin=origin,
            size_bytes=trees.disk_bytes(path),
            created_at=clocks.rfc3339(self._clock.now()),
        )
        self._operations.sync_directory(str(self.root))
        durable.write_json(path / RECORD, told, mode=0o444, operations=self._operations)
        os.chmod(path, 0o555)
        return record.read(path, told, is_new=True)


@contextlib.contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise environment_errors.disk_full(root, f"{error.strerror}: {error.filename or root}") from error
