"""Blobs on a disk: whole or not there, durable before they are named, never taken from those who use them."""

import errno
import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from toft.kernel import errors
from toft.store import blobs, durable


class Stopping(durable.SystemOperations):
    """A disk that stops before the n-th step, as at a power cut, or that fails it with an error."""

    def __init__(self, at: int, number: int | None = None) -> None:
        self.at = at
        self.number = number
        self.steps: list[str] = []

    def _step(self, name: str) -> None:
        self.steps.append(name)
        if len(self.steps) - 1 == self.at or (self.number is None and len(self.steps) > self.at >= 0):
            raise OSError(self.number or errno.EIO, name)

    def write(self, path: str, data: durable.Buffer | Iterable[durable.Buffer], mode: int) -> None:
        self._step("write")
        super().write(path, data, mode)

    def rename(self, source: str, target: str) -> None:
        self._step("rename")
        super().rename(source, target)

    def sync_directory(self, path: str) -> None:
        self._step("sync")
        super().sync_directory(path)

    def remove(self, path: str) -> None:
        if self.number is None and self.at >= 0:
            raise OSError(errno.EIO, path)
        super().remove(path)


def pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


def files(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


@pytest.mark.parametrize("form", ["bytes", "list", "stream"])
def test_the_same_bytes_are_one_file_under_their_hash(tmp_path: Path, form: str) -> None:
    data = os.urandom(10_000)
    store = blobs.Blobs(tmp_path)
    given = {"bytes": data, "list": [memoryview(data)[:7], data[7:]], "stream": pieces(data)}[form]
    digest = store.put(given)
    assert digest == hashlib.sha256(data).hexdigest()
    assert store.put(data) == digest
    assert files(tmp_path) == [f"sha256/{digest[:2]}/{digest[2:]}"]
    with store.open(digest) as file:
        assert file.read() == data
    assert (tmp_path / "sha256").stat().st_mode & 0o777 == 0o700
    assert store.path(digest).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_power_cut_at_any_step_leaves_the_blob_whole_or_nothing(tmp_path: Path, is_stream: bool) -> None:
    data = os.urandom(5000)
    digest = hashlib.sha256(data).hexdigest()
    at = 0
    while True:
        home = tmp_path / str(at)
        store = blobs.Blobs(home, operations=Stopping(at))
        try:
            assert store.put(pieces(data) if is_stream else data) == digest
            break
        except errors.NodeError:
            at += 1
        again = blobs.Blobs(home)
        if again.path(digest).exists():
            assert again.path(digest).read_bytes() == data
        again.sweep(frozenset({digest}))
        assert again.put(data) == digest
        assert files(home) == [f"sha256/{digest[:2]}/{digest[2:]}"], "nothing is left over"
    assert at >= 4, "write, rename and the names of the directories are steps"


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    store = blobs.Blobs(tmp_path, operations=Stopping(2, errno.ENOSPC))
    with pytest.raises(errors.UnavailableError) as caught:
        store.put(os.urandom(100))
    assert caught.value.code == "store.disk_full"
    assert caught.value.hint
    assert not any(name.rpartition("/")[2].startswith(".tmp") for name in files(tmp_path))


@pytest.mark.parametrize("digest", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n"])
def test_what_is_no_digest_becomes_no_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(errors.UsageError):
        blobs.Blobs(tmp_path).path(digest)


async def test_a_damaged_blob_is_not_handed_out(tmp_path: Path) -> None:
    store = blobs.Blobs(tmp_path)
    digest = await store.save(b"good" * 1000)
    store.path(digest).write_bytes(b"evil" * 1000)
    with pytest.raises(errors.IntegrityError) as caught:
        await store.load(digest)
    assert caught.value.code == "blob.damaged"
    assert store.remove(digest) is True
    assert store.remove(digest) is False
    with pytest.raises(errors.NotFoundError):
        await store.load(digest)


async def test_what_was_stored_a_moment_ago_is_not_removed(tmp_path: Path) -> None:
    old = blobs.Blobs(tmp_path).put(b"old")
    store = blobs.Blobs(tmp_path)
    fresh = await store.save(b"fresh")
    assert await store.discard([old, fresh]) == [fresh]
    assert files(tmp_path) == [f"sha256/{fresh[:2]}/{fresh[2:]}"]


def test_a_sweep_keeps_what_it_is_told_and_nothing_else(tmp_path: Path) -> None:
    store = blobs.Blobs(tmp_path)
    kept, gone = store.put(b"kept"), store.put(b"gone")
    (store.path(kept).parent / ".tmp-torn").write_bytes(b"half")
    assert store.sweep(frozenset({kept})) == [gone]
    assert files(tmp_path) == [f"sha256/{kept[:2]}/{kept[2:]}"]
    assert blobs.Blobs(tmp_path / "none").sweep(frozenset()) == []
