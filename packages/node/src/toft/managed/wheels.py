"""The wheels that documents pin: each under its hash, whole and on disk, or not there at all.

`managed/store/wheels/<sha256>.whl`. What comes is hashed on its way to the disk and gets its name only when
it is what was pinned; where it came from proves nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import os
import stat
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import unquote, urlsplit

from toft.kernel import errors, log, threads
from toft.managed import downloads
from toft.managed.install_errors import InstallError, for_good, for_now, mismatch
from toft.managed.pins import Wheel
from toft.store import durable

_log = log.get_logger("managed.wheels")
_PIECE = 1 << 20
_RESERVE_BYTES = 128 << 20
_LEAST_BYTES_PER_S = 16 << 10
_GRACE_S = 120.0


class Source(Protocol):
    """Where wheels are had by their hash: the central of this node."""

    def open(self, sha256: str) -> AsyncGenerator[bytes]:
        """Yield the bytes of a wheel.

        Raises:
            NotFoundError: There is none of this hash, and trying again does not help.
            UnavailableError: Not now.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where wheels may be had.

    Attributes:
        houses: Directories of this machine that its owner has named; `file://` reaches nothing else.
        source: The central of this node; None for a node without one.
        offline: Ask no server that a document names.
        download: Reads from a server.
    """

    houses: Sequence[Path] = ()
    source: Source | None = None
    offline: bool = False
    download: Callable[[str, int], AsyncGenerator[bytes]] = downloads.read


class Wheels:
    """The wheels of one home.

    Args:
        home: `TOFT_HOME`.
        places: Where those are had that are not here.
        operations: The steps of a durable write.
        free_bytes: How much room there is; no limit when None.
    """

    def __init__(
        self,
        home: Path,
        places: Places,
        *,
        operations: durable.Operations = durable.SYSTEM,
        free_bytes: Callable[[], int] | None = None,
    ) -> None:
        self.directory = home / "managed" / "store" / "wheels"
        self._places = places
        self._operations = operations
        self._free_bytes = free_bytes

    def path(self, sha256: str) -> Path:
        """Return where a wheel is, or would be."""
        return self.directory / f"{sha256}.whl"

    def is_whole(self, wheel: Wheel) -> bool:
        """Say whether a wheel is here, and still what was put here; reads all of it."""
        try:
            return self._operations.digest(str(self.path(wheel.sha256))) == wheel.sha256
        except OSError:
            return False

    async def obtain(self, wanted: Sequence[Wheel]) -> None:
        """Make sure that all of these are here.

        Raises:
            InstallError: One cannot be had.

        Durability: They are on disk when this returns.
        Cancellation: Safe; what came half is taken away.
        """
        needed = {each.sha256: each for each in reversed(wanted)}
        missing = [each for each in needed.values() if not await asyncio.to_thread(self.is_whole, each)]
        if not missing:
            return
        await threads.finished(lambda: self._make_room(missing))
        for each in missing:
            await self._obtain(each)

    def _make_room(self, missing: Sequence[Wheel]) -> None:
        try:
            durable.make_directory(self.directory, 0o700, operations=self._operations)
            for each in missing:
                # What is not whole would keep its name from the one that is.
                durable.discard(self.path(each.sha256), operations=self._operations)
        except OSError as error:
            raise _not_written(error) from error
        needed = sum(each.size_bytes for each in missing)
        free = self._free_bytes() if self._free_bytes is not None else None
        if free is not None and free < needed + _RESERVE_BYTES:
            # A wheel that fills the disk would take the room of the jobs, too.
            raise for_now(
                f"there is no room for {needed} bytes of wheels: {free} are free, and some stay so",
                details={"resource": "disk", "needed_bytes": needed, "available_bytes": free},
                hint="free some space: toft env gc",
            )

    async def _obtain(self, wheel: Wheel) -> None:
        """Try each place in turn; when none has it, what may change by itself is told first."""
        failed: list[InstallError] = []
        for offer in await asyncio.to_thread(self._offers, wheel):
            try:
                await self._write(wheel, offer())
                return
            except InstallError as error:
                failed.append(error)
        if not failed:
            raise for_good(
                f"nobody says where {wheel.filename} is: it has no url, and this node has no central",
                details=_named(wheel),
                hint="put the file into a directory of the setting `wheelhouses`, or give the pin a url",
            )
        raise next((each for each in failed if each.is_transient), failed[0])

    def _offers(self, wheel: Wheel) -> list[Callable[[], AsyncGenerator[bytes]]]:
        files = [house / wheel.filename for house in self._places.houses]
        found = [path for path in files if path.is_file()]
        if wheel.url.startswith("file://"):
            found.append(self._allowed(wheel))
        offers: list[Callable[[], AsyncGenerator[bytes]]] = [
            functools.partial(_file, path, wheel) for path in found
        ]
        if wheel.url.startswith("http") and not self._places.offline:
            offers.append(functools.partial(self._places.download, wheel.url, wheel.size_bytes))
        if self._places.source is not None:
            offers.append(functools.partial(_asked, self._places.source, wheel))
        return offers

    def _allowed(self, wheel: Wheel) -> Path:
        path = Path(os.path.realpath(unquote(urlsplit(wheel.url).path)))
        houses = [Path(os.path.realpath(each)) for each in self._places.houses]
        if not any(each in path.parents for each in houses):
            raise for_good(
                f"{path} is in no directory of the setting `wheelhouses`",
                details={**_named(wheel), "wheelhouses": [str(each) for each in houses]},
                hint="whoever owns this machine may add the directory to `wheelhouses` in its settings file",
            )
        return path

    async def _write(self, wheel: Wheel, pieces: AsyncGenerator[bytes]) -> None:
        """Write what comes to the disk, and give it its name when it is what was pinned."""
        temporary = durable.temporary_name(self.path(wheel.sha256))
        hashed, size, gathered = hashlib.sha256(), 0, bytearray()
        try:
            async with asyncio.timeout(_GRACE_S + wheel.size_bytes / _LEAST_BYTES_PER_S):
                async with contextlib.aclosing(pieces):
                    await threads.finished(lambda: self._operations.write(str(temporary), b"", 0o600))
                    async for piece in pieces:
                        size += len(piece)
                        if size > wheel.size_bytes:
                            raise _other(wheel, size)
                        gathered += piece
                        if len(gathered) >= _PIECE:
                            await self._append(temporary, hashed, gathered)
                    await self._append(temporary, hashed, gathered)
            if hashed.hexdigest() != wheel.sha256:
                raise _other(wheel, size, hashed.hexdigest())
            await threads.finished(functools.partial(self._publish, temporary, wheel))
        except TimeoutError as error:
            raise for_now(f"{wheel.filename} comes too slowly", details=_named(wheel)) from error
        except OSError as error:
            raise _not_written(error) from error
        finally:
            await threads.finished(functools.partial(self._discard, temporary))

    async def _append(self, path: Path, hashed: hashlib._Hash, gathered: bytearray) -> None:
        data = bytes(gathered)
        gathered.clear()

        def append() -> None:
            hashed.update(data)
            self._operations.append(str(path), data)

        await threads.finished(append)

    def _publish(self, temporary: Path, wheel: Wheel) -> None:
        self._operations.sync(str(temporary))
        self._operations.rename(str(temporary), str(self.path(wheel.sha256)))
        self._operations.sync_directory(str(self.directory))

    def _discard(self, temporary: Path) -> None:
        with contextlib.suppress(OSError):
            self._operations.remove(str(temporary))


async def _file(path: Path, wheel: Wheel) -> AsyncGenerator[bytes]:
    """Yield what is in a file, which may be anything."""
    try:
        with await asyncio.to_thread(_opened, path) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise for_good(f"{path} is no file", details=_named(wheel))
            while piece := await threads.finished(lambda: file.read(_PIECE)):
                yield piece
    except FileNotFoundError as error:
        raise for_good(f"there is no {path}", details=_named(wheel)) from error
    except OSError as error:
        raise for_now(f"{path} cannot be read: {error.strerror}", details=_named(wheel)) from error


def _opened(path: Path) -> BinaryIO:
    # Not waiting for whoever writes to a pipe.
    return open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb")


async def _asked(source: Source, wheel: Wheel) -> AsyncGenerator[bytes]:
    """Yield what central has under a hash."""
    try:
        async with contextlib.aclosing(source.open(wheel.sha256)) as pieces:
            async for piece in pieces:
                yield piece
    except InstallError:
        raise
    except errors.UnavailableError as error:
        raise for_now(
            f"{wheel.filename} cannot be had from central: {error}", details=_named(wheel)
        ) from error
    except errors.NodeError as error:
        raise for_good(f"central does not give {wheel.filename}: {error}", details=_named(wheel)) from error


def _named(wheel: Wheel) -> dict[str, object]:
    return {"filename": wheel.filename, "sha256": wheel.sha256}


def _other(wheel: Wheel, size: int, sha256: str = "") -> InstallError:
    # What it is instead stays on this machine: whoever writes documents reads errors, and may ask with them
    # about files inside of this network.
    _log.warning("another file", filename=wheel.filename, size_bytes=size, sha256=sha256)
    return mismatch(f"what came for {wheel.filename} is another file than was pinned", details=_named(wheel))


def _not_written(error: OSError) -> InstallError:
    return for_now(
        f"the disk did not take it: {error.strerror or error}",
        details={"resource": "disk", "errno": error.errno},
        hint="it is tried again by itself; toft doctor looks at the disk",
    )
