"""The real SQLite under the real Database, with every write and sync told to a recorder first.

A VFS of our own stands before SQLite's: it opens files as always, then puts its own write, truncate and sync
into the file's method table. The sqlite3 module and the code under test notice nothing.
"""

import contextlib
import ctypes
import sqlite3
from collections.abc import Iterator
from ctypes import CFUNCTYPE, POINTER, byref, c_char_p, c_int, c_int64, c_void_p, cast
from pathlib import Path
from typing import Any, Protocol

import pytest

OK = 0
IO_ERROR = 10
FULL = 13

_OPEN_CREATE = 0x4
_OPEN_DURABLE = 0x100 | 0x800 | 0x80000
"""Main databases, their journals and write-ahead logs; temporary files do not outlive a power cut anyway."""


class Recorder(Protocol):
    """Hears of each operation before it happens; answers OK, or the SQLite code it is to fail with."""

    def opened(self, path: str, *, created: bool) -> None: ...
    def write(self, path: str, offset: int, data: bytes) -> int: ...
    def truncate(self, path: str, size: int) -> int: ...
    def sync(self, path: str) -> int: ...
    def delete(self, path: str, *, directory_synced: bool) -> int: ...


# SQLite keeps the name it passed to xOpen and goes on using it: a pointer, never a copy of the text.
_OPEN = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_DELETE = CFUNCTYPE(c_int, c_void_p, c_char_p, c_int)
_CLOSE = CFUNCTYPE(c_int, c_void_p)
_WRITE = CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE = CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC = CFUNCTYPE(c_int, c_void_p, c_int)


class _Vfs(ctypes.Structure):
    _fields_ = [
        ("iVersion", c_int),
        ("szOsFile", c_int),
        ("mxPathname", c_int),
        ("pNext", c_void_p),
        ("zName", c_char_p),
        ("pAppData", c_void_p),
        ("xOpen", _OPEN),
        ("xDelete", _DELETE),
        *((name, c_void_p) for name in ("xAccess", "xFullPathname", "xDlOpen", "xDlError", "xDlSym")),
        *((name, c_void_p) for name in ("xDlClose", "xRandomness", "xSleep", "xCurrentTime")),
        *((name, c_void_p) for name in ("xGetLastError", "xCurrentTimeInt64", "xSetSystemCall")),
        *((name, c_void_p) for name in ("xGetSystemCall", "xNextSystemCall")),
    ]


class _Methods(ctypes.Structure):
    _fields_ = [
        ("iVersion", c_int),
        ("xClose", _CLOSE),
        ("xRead", c_void_p),
        ("xWrite", _WRITE),
        ("xTruncate", _TRUNCATE),
        ("xSync", _SYNC),
        *((name, c_void_p) for name in ("xFileSize", "xLock", "xUnlock", "xCheckReservedLock")),
        *((name, c_void_p) for name in ("xFileControl", "xSectorSize", "xDeviceCharacteristics")),
        *((name, c_void_p) for name in ("xShmMap", "xShmLock", "xShmBarrier", "xShmUnmap")),
        *((name, c_void_p) for name in ("xFetch", "xUnfetch")),
    ]


class _File(ctypes.Structure):
    _fields_ = [("pMethods", POINTER(_Methods))]


class _Shim:
    def __init__(self, library: Any, recorder: Recorder) -> None:
        self._library = library
        self._recorder = recorder
        self._paths: dict[int, str] = {}
        self._had: set[str] = set()
        self._tables: dict[int, tuple[_Methods, _Methods]] = {}
        library.sqlite3_vfs_find.restype = POINTER(_Vfs)
        library.sqlite3_vfs_find.argtypes = [c_char_p]
        library.sqlite3_vfs_register.argtypes = [c_void_p, c_int]
        library.sqlite3_vfs_unregister.argtypes = [c_void_p]
        self._base = library.sqlite3_vfs_find(None)
        self._vfs = _Vfs.from_buffer_copy(self._base.contents)
        self._vfs.zName = b"toft-recording"
        self._vfs.pNext = None
        self._vfs.xOpen = _OPEN(self._open)
        self._vfs.xDelete = _DELETE(self._delete)

    def __enter__(self) -> "_Shim":
        self._library.sqlite3_vfs_register(byref(self._vfs), 1)
        return self

    def __exit__(self, *_: object) -> None:
        self._library.sqlite3_vfs_unregister(byref(self._vfs))
        self._library.sqlite3_vfs_register(self._base, 1)

    def _open(self, vfs: int, name: int | None, file: int, flags: int, told: Any) -> int:
        base: _Vfs = self._base.contents
        path = ctypes.string_at(name).decode() if name else ""
        # An empty file that SQLite has not had yet was made for it a moment ago, readable by its owner only.
        there = path in self._had or (Path(path).exists() and Path(path).stat().st_size > 0)
        code: int = base.xOpen(cast(self._base, c_void_p), name, file, flags, told)
        if code == OK and path and flags & _OPEN_DURABLE:
            self._paths[file] = path
            self._had.add(path)
            self._recorder.opened(path, created=bool(flags & _OPEN_CREATE) and not there)
            self._divert(cast(file, POINTER(_File)).contents)
        return code

    def _divert(self, file: _File) -> None:
        original = cast(file.pMethods, c_void_p).value or 0
        if original not in self._tables:
            kept = _Methods.from_buffer_copy(file.pMethods.contents)
            diverted = _Methods.from_buffer_copy(kept)
            diverted.xClose = _CLOSE(lambda file: self._close(kept, file))
            diverted.xWrite = _WRITE(lambda file, *given: self._write(kept, file, *given))
            diverted.xTruncate = _TRUNCATE(lambda file, size: self._truncate(kept, file, size))
            diverted.xSync = _SYNC(lambda file, flags: self._sync(kept, file, flags))
            self._tables[original] = (kept, diverted)
        file.pMethods = ctypes.pointer(self._tables[original][1])

    def _close(self, kept: _Methods, file: int) -> int:
        self._paths.pop(file, None)
        code: int = kept.xClose(file)
        return code

    def _write(self, kept: _Methods, file: int, data: int, amount: int, offset: int) -> int:
        refused = self._recorder.write(self._paths[file], offset, ctypes.string_at(data, amount))
        code: int = refused or kept.xWrite(file, data, amount, offset)
        return code

    def _truncate(self, kept: _Methods, file: int, size: int) -> int:
        code: int = self._recorder.truncate(self._paths[file], size) or kept.xTruncate(file, size)
        return code

    def _sync(self, kept: _Methods, file: int, flags: int) -> int:
        # The real sync is left out: nobody pulls this machine's plug, and the recorder knows the promise.
        return self._recorder.sync(self._paths[file])

    def _delete(self, vfs: int, name: bytes, synced: int) -> int:
        base: _Vfs = self._base.contents
        code: int = base.xDelete(cast(self._base, c_void_p), name, synced)
        if code == OK:
            self._recorder.delete(name.decode(), directory_synced=bool(synced))
        return code


@contextlib.contextmanager
def recording(recorder: Recorder) -> Iterator[None]:
    """Let every database that is opened inside, by whatever code, tell the recorder what it does."""
    with _Shim(_library(), recorder):
        yield


def _library() -> Any:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "libsqlite3" in line:
            return ctypes.CDLL(line.split(maxsplit=5)[5])
    own = getattr(__import__("_sqlite3"), "__file__", None)
    library = ctypes.CDLL(own)
    if not hasattr(library, "sqlite3_vfs_find"):
        pytest.skip(f"needs libsqlite3: this Python hides SQLite {sqlite3.sqlite_version} inside itself")
    return library
