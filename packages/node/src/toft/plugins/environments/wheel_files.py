"""Opens wheels that anybody may have made: what a few bytes can unfold into stays within bounds."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

# A directory of 20,000 files with long names is half of it.
_MOST_DIRECTORY = 8 << 20
_MOST_METADATA = 4 << 20
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    OSError,
    EOFError,
    KeyError,
    ValueError,
    OverflowError,
    RuntimeError,
    NotImplementedError,
)
"""What reading one may raise that is no wheel, or a damaged one."""


class _Bounded(io.BufferedReader):
    """A file that no header can make somebody read into memory whole."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so much, or all that is left, which must not be much."""
        wanted = _MOST_DIRECTORY + 1 if size is None or size < 0 else size
        data = super().read(min(wanted, _MOST_DIRECTORY + 1))
        if len(data) > _MOST_DIRECTORY:
            raise zipfile.BadZipFile("one of its headers is too large")
        return data


@contextlib.contextmanager
def opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a wheel whose members can be read piece by piece.

    Raises:
        BadZipFile: It is none, or packed so that a piece of it may unfold into any size.
    """
    with _Bounded(io.FileIO(path)) as file, zipfile.ZipFile(file) as archive:
        for each in archive.infolist():
            if each.compress_type not in _PACKED:
                raise zipfile.BadZipFile(f"{each.filename[:200]!r} is packed as no wheel is")
        yield archive


def metadata(path: Path) -> str:
    """Return the METADATA of a wheel.

    Raises:
        BadZipFile: It has none, or one that is too large; or any other of `DAMAGED`.
    """
    with opened(path) as archive:
        for name in archive.namelist():
            if name.endswith(".dist-info/METADATA") and name.count("/") == 1:
                with archive.open(name) as file:
                    data = file.read(_MOST_METADATA + 1)
                if len(data) > _MOST_METADATA:
                    raise zipfile.BadZipFile(f"its METADATA is larger than {_MOST_METADATA} bytes")
                return data.decode("utf-8", "replace")
    raise zipfile.BadZipFile("no METADATA")
