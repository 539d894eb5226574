"""The wheels that documents pin: whole files under their hash, each for the tenants that have given it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterable, Mapping
from pathlib import Path
from typing import IO, Any

from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from toft.central import audit
from toft.kernel import clock as clocks
from toft.kernel import errors, threads
from toft.store import blobs, database

_QUERIES = database.read_queries("toft.central")
_GATHERED = 1 << 20


class Artifacts:
    """The wheels of all tenants.

    Args:
        store: The database.
        directory: Where they are.
        clock: The time.
    """

    def __init__(
        self, store: database.Store, directory: Path, *, clock: clocks.Clock = clocks.SYSTEM
    ) -> None:
        self._store = store
        self._blobs = blobs.Blobs(directory)
        self._clock = clock

    async def add(
        self, tenant: str, sha256: str, filename: str, pieces: AsyncIterable[bytes], *, by: str
    ) -> dict[str, Any]:
        """Store a wheel, if it is what its hash says; no node sees it before it is whole and on disk.

        Raises:
            UsageError: The name is none of a wheel, or what came has another hash.
            UnavailableError: The disk is full.
        """
        self._blobs.path(sha256)  # refuses what is no digest
        try:
            name, version, _, _ = parse_wheel_filename(filename)
        except InvalidWheelFilename as error:
            raise errors.UsageError(
                f"{filename[:120]!r} is no name of a wheel",
                code="central.wheel_name",
                hint="the name of the file says what is in it: NAME-VERSION-...-any.whl",
            ) from error
        size = await self._take(sha256, pieces)
        now = self._clock.now()
        row = {
            "tenant": tenant,
            "sha256": sha256,
            "name": str(name),
            "version": str(version),
            "filename": filename,
            "size_bytes": size,
            "added_by": by,
            "now": now,
        }

        def insert(connection: database.Connection) -> Mapping[str, Any]:
            if connection.execute(_QUERIES["insert_artifact"], row).rowcount:
                told = {each: row[each] for each in ("filename", "size_bytes")}
                entry = audit.Entry(
                    tenant=tenant, actor=by, action="artifact.add", subject=sha256, details=told
                )
                audit.add(connection, now, entry)
            return dict(connection.execute(_QUERIES["find_artifact"], row).fetchone())

        return _told(await self._store.write(insert))

    def sweep(self) -> None:
        """Take away what uploads left that broke off with their process; before there are others. Blocks."""
        for path in self._blobs.staged():
            path.unlink(missing_ok=True)

    async def get(self, tenant: str, sha256: str) -> dict[str, Any]:
        """Return what is known of a wheel of a tenant.

        Raises:
            NotFoundError: It has none of that hash.
        """
        values = {"tenant": tenant, "sha256": sha256}
        row = await self._store.read(
            lambda connection: connection.execute(_QUERIES["find_artifact"], values).fetchone()
        )
        if row is None:
            raise errors.NotFoundError(
                f"there is no artifact {sha256[:80]}",
                code="central.no_artifact",
                hint="toft central artifact list",
            )
        return _told(row)

    def path(self, sha256: str) -> Path:
        """Return where a wheel is, or would be."""
        return self._blobs.path(sha256)

    async def list(self, tenant: str) -> list[dict[str, Any]]:
        """Return the wheels of a tenant, by name."""
        rows = await self._store.read(
            lambda connection: connection.execute(_QUERIES["list_artifacts"], {"tenant": tenant}).fetchall()
        )
        return [_told(row) for row in rows]

    async def _take(self, sha256: str, pieces: AsyncIterable[bytes]) -> int:
        staged = await asyncio.to_thread(self._blobs.stage)
        hashed, gathered, size = hashlib.sha256(), bytearray(), 0
        try:
            file = await threads.finished(lambda: staged.open("xb"))

            async def flush() -> None:
                await threads.finished(lambda: _write(file, hashed, gathered, staged))
                gathered.clear()

            try:
                async for piece in pieces:
                    gathered.extend(piece)
                    size += len(piece)
                    if len(gathered) >= _GATHERED:
                        await flush()
                await flush()
            finally:
                with contextlib.suppress(OSError):
                    await threads.finished(file.close)
            if hashed.hexdigest() != sha256:
                raise errors.UsageError(
                    f"what came is not what its name says: its sha256 is {hashed.hexdigest()}",
                    code="artifact.digest",
                    details={"expected": sha256, "sha256": hashed.hexdigest()},
                    hint="upload it again; what came is not kept",
                )
            await threads.finished(lambda: self._blobs.adopt(staged, sha256))
        finally:
            with contextlib.suppress(OSError):
                await threads.finished(lambda: staged.unlink(missing_ok=True))
        return size


def _write(file: IO[bytes], hashed: Any, data: bytearray, staged: Path) -> None:
    hashed.update(data)
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise blobs.translated(error, staged) from error


def _told(row: Mapping[str, Any]) -> dict[str, Any]:
    plain = ("sha256", "name", "version", "filename", "size_bytes", "added_by")
    return {**{name: row[name] for name in plain}, "added_at": clocks.rfc3339(row["added_at"])}
