"""What is uploaded stays while somebody needs it, goes when nobody does, and never takes all of the disk."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from toft.api import problems
from toft.kernel import errors
from toft.kernel.clock import ManualClock
from toft.plugins.artifacts import KEPT_S, Artifacts
from toft.plugins.environments import artifact_names
from toft.plugins.environments.wishes import Wish
from toft.store import blobs, durable


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1000):
        yield data[start : start + 1000]


def named(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wish(data: bytes) -> Wish:
    return Wish(source=f"artifact:{named(data)}/x.py", origin="there")


def read(placed: Wish) -> bytes:
    return Path(placed.source).read_bytes()


def nobody(_: str) -> bool:
    return False


def files(directory: Path) -> list[str]:
    """Whatever lies in the store of uploads but its directories of digests."""
    found = (path.relative_to(directory / "artifacts") for path in directory.rglob("*") if path.is_file())
    return sorted(str(path).removeprefix("sha256/").replace("/", "") for path in found)


class Slowly(Artifacts):
    """Lays out when it may, whoever waits for it."""

    def __init__(self, home: Path) -> None:
        super().__init__(home)
        self.began, self.may = threading.Semaphore(0), threading.Event()
        self.at_once = self.most_at_once = 0
        self.works: list[bool] = []

    def _lay_out(self, named: artifact_names.Named, directory: Path) -> str:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.began.release()
        self.may.wait(10)
        try:
            return super()._lay_out(named, directory)
        finally:
            self.at_once -= 1
            self.works.append((directory / "nothing").is_dir())


async def test_who_gives_up_leaves_nothing_that_a_thread_still_makes(tmp_path: Path) -> None:
    uploads = Slowly(tmp_path)
    await uploads.save(named(b"x"), pieces(b"x"))

    async def install() -> None:
        async with uploads.placed(wish(b"x")):
            pass

    installing = [asyncio.create_task(install()) for _ in range(4)]
    for _ in range(2):
        assert await asyncio.to_thread(uploads.began.acquire, timeout=10)
    for _ in range(3):
        for each in installing:
            each.cancel()
        await asyncio.sleep(0)
    # Nobody may have it while somebody lays it out.
    with pytest.raises(errors.ConflictError) as used:
        await uploads.remove(named(b"x"), is_named=nobody)
    assert used.value.code == "artifact.in_use"
    uploads.may.set()
    await asyncio.wait(installing)
    assert (uploads.most_at_once, uploads.works) == (2, [True, True])
    assert files(tmp_path) == [named(b"x")]
    assert os.listdir(tmp_path / "artifacts") == ["sha256"]
    assert await uploads.remove(named(b"x"), is_named=nobody)


async def test_an_upload_given_up_at_any_moment_leaves_nothing(tmp_path: Path) -> None:
    uploads = Artifacts(tmp_path)
    data = os.urandom(3 << 20)

    async def many() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1 << 20):
            yield data[start : start + (1 << 20)]

    for turns in range(12):
        saving = asyncio.create_task(uploads.save(named(data), many()))
        for _ in range(turns):
            await asyncio.to_thread(lambda: None)
        saving.cancel()
        await asyncio.wait((saving,))
        # It may have been too late.
        assert files(tmp_path) in ([], [named(data)])
        assert saving.cancelled() or files(tmp_path)
        await uploads.remove(named(data), is_named=nobody)


async def test_what_is_being_installed_is_not_collected_however_long_it_takes(tmp_path: Path) -> None:
    clock = ManualClock()
    uploads = Artifacts(tmp_path, clock=clock)
    await uploads.save(named(b"x"), pieces(b"x"))
    async with uploads.placed(wish(b"x")) as (placed, _):
        clock.advance(KEPT_S * 1e6)
        assert uploads.collect(nobody) == []
        assert read(placed) == b"x"
        await uploads.get(named(b"x"))
    assert uploads.collect(nobody) == [named(b"x")]


async def test_an_upload_that_is_used_while_others_are_collected_stays(tmp_path: Path) -> None:
    clock = ManualClock()
    uploads = Artifacts(tmp_path, clock=clock)
    for data in (b"a", b"b"):
        await uploads.save(named(data), pieces(data))
    clock.advance(KEPT_S * 2)
    looked: list[str] = []

    def is_named(digest: str) -> bool:
        # The other is used again after the first look at it.
        looked.append(digest)
        [other] = {named(b"a"), named(b"b")} - {digest}
        os.utime(uploads.path(other), (clock.now(), clock.now()))
        return False

    assert uploads.collect(is_named) == looked
    assert len(looked) == 1


async def test_a_damaged_upload_is_not_installed_and_is_mended_by_another(tmp_path: Path) -> None:
    uploads = Artifacts(tmp_path)
    await uploads.save(named(b"x = 1"), pieces(b"x = 1"))
    path = uploads.path(named(b"x = 1"))
    path.write_bytes(b"x = 2")
    with pytest.raises(errors.IntegrityError) as damaged:
        async with uploads.placed(wish(b"x = 1")):
            pass
    assert (damaged.value.code, damaged.value.details["path"]) == ("artifact.damaged", str(path))
    await uploads.save(named(b"x = 1"), pieces(b"x = 1"))
    async with uploads.placed(wish(b"x = 1")) as (placed, _):
        assert read(placed) == b"x = 1"


async def test_what_no_plugin_needs_has_its_room_and_no_more(tmp_path: Path) -> None:
    uploads = Artifacts(tmp_path, most=10_000)
    one, two = os.urandom(6_000), os.urandom(6_000)
    await uploads.save(named(one), pieces(one))
    with pytest.raises(errors.UnavailableError) as refused:
        await uploads.save(named(two), pieces(two))
    assert (refused.value.code, problems.status_of(refused.value)) == ("artifact.no_room", 507)
    assert files(tmp_path) == [named(one)]
    # What a plugin was installed from does not count.
    await uploads.save(named(two), pieces(two), is_named=lambda digest: digest == named(one))
    assert len(await uploads.list()) == 2
    for data in (one, two):
        await uploads.remove(named(data), is_named=nobody)
    # Several that come at once share it.
    both = [uploads.save(named(data), pieces(data)) for data in (one, two)]
    ended = await asyncio.gather(*both, return_exceptions=True)
    assert any(isinstance(each, errors.UnavailableError) for each in ended)


async def test_what_a_killed_daemon_left_goes_when_the_next_begins(tmp_path: Path) -> None:
    looked = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Later(ManualClock):
        """Says when it was asked, which is after the sweep."""

        def now(self) -> float:
            loop.call_soon_threadsafe(looked.set)
            return super().now()

    uploads = Artifacts(tmp_path, clock=Later())
    await uploads.save(named(b"x"), pieces(b"x"))
    left = blobs.Blobs(tmp_path / "artifacts").stage()
    left.write_bytes(b"half of it")
    deep = tmp_path / "artifacts" / ".tmp-placed-x" / "deep"
    deep.mkdir(parents=True)
    async with uploads.placed(wish(b"x")) as (placed, _):
        await asyncio.sleep(0)
        looked.clear()
        tidying = asyncio.create_task(uploads.keep_tidy(nobody))
        await asyncio.wait_for(looked.wait(), 10)
        tidying.cancel()
        await asyncio.wait((tidying,))
        assert read(placed) == b"x"
        assert not left.exists()
        assert not deep.parent.exists()
        assert [each.digest for each in await uploads.list()] == [named(b"x")]


class Unremovable(durable.SystemOperations):
    """Takes nothing away."""

    def remove(self, path: str) -> None:
        raise OSError(errno.EIO, "broken", path)


async def test_what_cannot_be_collected_is_left_for_later(tmp_path: Path) -> None:
    clock = ManualClock()
    uploads = Artifacts(tmp_path, clock=clock, operations=Unremovable())
    await uploads.save(named(b"x"), pieces(b"x"))
    clock.advance(KEPT_S * 2)
    assert uploads.collect(nobody) == []
