"""Where wheels come from may be anything: a server that lies, stalls or never ends, a file that is a pipe."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from toft.kernel import errors
from toft.managed.install_errors import InstallError
from toft.managed.pins import Wheel
from toft.managed.wheels import Places, Wheels
from toft.store import durable

DATA = os.urandom(1 << 12) * 600
DIGEST = hashlib.sha256(DATA).hexdigest()
NAME = "ocr-1.0-py3-none-any.whl"
Serve = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


def wheel(url: str = "", *, data: bytes = DATA, sha256: str = "") -> Wheel:
    digest = sha256 or hashlib.sha256(data).hexdigest()
    return Wheel(name="ocr", version="1.0", filename=NAME, sha256=digest, size_bytes=len(data), url=url)


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[str]:
    """Yield the address of a server that answers each request as told."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            await serve(head.split(" ")[1], writer)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def answering(body: bytes = DATA, status: str = "200 OK", *headers: str, length: int | None = None) -> Serve:
    said = (f"Content-Length: {len(body) if length is None else length}", "Connection: close", *headers)

    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        lines = "".join(f"{each}\r\n" for each in said)
        writer.write(f"HTTP/1.1 {status}\r\n{lines}".encode())
        writer.write(b"\r\n" + body)

    return serve


async def _endless(path: str, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
        await writer.drain()


@pytest.fixture
def wheels(tmp_path: Path) -> Wheels:
    return Wheels(tmp_path / "home", Places())


def left(wheels: Wheels) -> list[str]:
    return sorted(os.listdir(wheels.directory)) if wheels.directory.exists() else []


async def refused(wheels: Wheels, wanted: Wheel) -> InstallError:
    with pytest.raises(InstallError) as caught:
        await wheels.obtain([wanted])
    assert left(wheels) == []
    return caught.value


async def test_what_was_pinned_is_kept_and_never_fetched_again(wheels: Wheels) -> None:
    asked = []

    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        asked.append(path)
        await answering()(path, writer)

    async with serving(serve) as url:
        await wheels.obtain([wheel(f"{url}/a b/ö.whl?x=1"), wheel(url)])
        await wheels.obtain([wheel(url)])
    assert asked == ["/a%20b/%C3%B6.whl?x=1"]
    assert left(wheels) == [f"{DIGEST}.whl"]
    path = wheels.path(DIGEST)
    assert path.read_bytes() == DATA
    # what rots on the disk is fetched anew, not trusted
    path.chmod(0o600)
    path.write_bytes(b"rotten")
    async with serving(answering()) as url:
        await wheels.obtain([wheel(url)])
    assert path.read_bytes() == DATA


HASH, FAILED = "artifact_hash_mismatch", "plugin_install_failed"


@pytest.mark.parametrize(
    ("serve", "kind", "is_transient"),
    [
        (answering(DATA[::-1]), HASH, False),
        (answering(DATA[:-1]), HASH, False),
        (answering(b"<html>log in first</html>"), HASH, False),
        (_endless, HASH, False),
        (answering(DATA[:5000], length=len(DATA)), FAILED, True),
        (answering(b"", "404 Not Found"), FAILED, False),
        (answering(b"", "403 Forbidden"), FAILED, False),
        (answering(b"", "408 Request Timeout"), FAILED, True),
        (answering(b"", "429 Too Many Requests"), FAILED, True),
        (answering(b"", "503 Service Unavailable"), FAILED, True),
        (answering(b"", "302 Found", "Location: /again"), FAILED, False),
        (answering(b"", "302 Found", "Location: file:///etc/passwd"), FAILED, False),
        (answering(b"", "302 Found", "Location: https://127.0.0.1:1/"), FAILED, False),
        (answering(b"", "302 Found", "Location: http://me:word@127.0.0.1/"), FAILED, False),
    ],
    ids=lambda value: None if callable(value) else str(value),
)
async def test_what_a_server_does_is_told_for_what_it_is(
    wheels: Wheels, serve: Serve, kind: str, is_transient: bool
) -> None:
    async with serving(serve) as url:
        error = await refused(wheels, wheel(url))
    assert (error.kind, error.is_transient) == (kind, is_transient), error
    assert "me:word" not in str(error.to_dict())


@pytest.mark.parametrize("came", [DATA[::-1], DATA[:-7]])
async def test_what_came_instead_stands_in_the_log_alone(
    wheels: Wheels, came: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(answering(came)) as url:
        error = await refused(wheels, wheel(url))
    said = str(error.to_dict())
    assert hashlib.sha256(came).hexdigest() not in said
    assert str(len(came)) not in said.replace(url, "")
    assert f"size_bytes={len(came)}" in caplog.text


async def test_a_server_that_is_not_there_may_be_later(wheels: Wheels) -> None:
    async with serving(answering()) as url:
        pass
    assert (await refused(wheels, wheel(url))).is_transient
    assert (await refused(wheels, wheel("http://no-such-host.invalid/x"))).is_transient


async def test_a_redirect_is_followed_and_a_second_place_is_asked(tmp_path: Path) -> None:
    async def serve(path: str, writer: asyncio.StreamWriter) -> None:
        there = answering() if path == "/there" else answering(b"", "302 Found", "Location: /there")
        await there(path, writer)

    class Central:
        async def open(self, sha256: str) -> AsyncGenerator[bytes]:
            assert sha256 == DIGEST
            yield DATA

    async with serving(serve) as url:
        await Wheels(tmp_path / "one", Places()).obtain([wheel(url)])
    two = Wheels(tmp_path / "two", Places(source=Central()))
    async with serving(answering(DATA[::-1])) as url:
        await two.obtain([wheel(url)])
    assert left(two) == [f"{DIGEST}.whl"]
    offline = Wheels(tmp_path / "three", Places(offline=True))
    assert "nobody says where" in (await refused(offline, wheel("http://127.0.0.1:1/"))).message


@pytest.mark.parametrize(
    ("error", "is_transient"),
    [(errors.UnavailableError("not now"), True), (errors.NotFoundError("no such wheel"), False)],
)
async def test_what_central_says_counts(tmp_path: Path, error: Exception, is_transient: bool) -> None:
    class Central:
        async def open(self, sha256: str) -> AsyncGenerator[bytes]:
            yield DATA[:100]
            raise error

    found = await refused(Wheels(tmp_path, Places(source=Central())), wheel())
    assert (found.kind, found.is_transient) == (FAILED, is_transient)


async def test_files_are_read_where_the_owner_of_the_machine_said_so_and_nowhere_else(tmp_path: Path) -> None:
    house, other = tmp_path / "house", tmp_path / "other"
    for each in (house, other):
        each.mkdir()
    (other / NAME).write_bytes(DATA)
    wheels = Wheels(tmp_path / "home", Places(houses=(house,)))
    for url in (f"file://{other / NAME}", f"file://{house}/../other/{NAME}", "file:///dev/zero", "file:///"):
        error = await refused(wheels, wheel(url))
        assert not error.is_transient
        assert "wheelhouses" in error.message
    (house / "link.whl").symlink_to(other / NAME)
    assert "wheelhouses" in (await refused(wheels, wheel(f"file://{house}/link.whl"))).message
    assert "there is no" in (await refused(wheels, wheel(f"file://{house}/{NAME}"))).message
    os.mkfifo(house / "pipe.whl")
    assert "is no file" in (await refused(wheels, wheel(f"file://{house}/pipe.whl"))).message
    (house / "sub dir").mkdir()
    (house / "sub dir" / NAME).write_bytes(DATA)
    await wheels.obtain([wheel(f"file://{house}/sub%20dir/{NAME}")])
    assert left(wheels) == [f"{DIGEST}.whl"]


async def test_a_wheelhouse_is_looked_into_before_anybody_is_asked(tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    (house / NAME).write_bytes(DATA[::-1])
    wheels = Wheels(tmp_path / "home", Places(houses=(house,)))
    assert (await refused(wheels, wheel())).kind == HASH
    async with serving(answering()) as url:
        await wheels.obtain([wheel(url)])
    (house / NAME).write_bytes(DATA)
    again = Wheels(tmp_path / "again", Places(houses=(house,)))
    await again.obtain([wheel()])
    assert left(again) == [f"{DIGEST}.whl"]


async def test_a_full_disk_passes_and_a_wheel_that_would_fill_it_is_not_begun(tmp_path: Path) -> None:
    class Full(durable.SystemOperations):
        def append(self, path: str, data: durable.Buffer) -> None:
            raise OSError(28, "No space left on device", path)

    house = tmp_path / "house"
    house.mkdir()
    (house / NAME).write_bytes(DATA)
    places = Places(houses=(house,))
    error = await refused(Wheels(tmp_path / "one", places, operations=Full()), wheel())
    assert error.is_transient
    assert error.details["errno"] == 28
    small = Wheels(tmp_path / "two", places, free_bytes=lambda: len(DATA))
    assert (await refused(small, wheel())).details["resource"] == "disk"


async def test_giving_up_ends_at_once_and_leaves_nothing(wheels: Wheels) -> None:
    began = asyncio.Event()

    async def stall(path: str, writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode() + DATA[:2_000_000])
        await writer.drain()
        began.set()
        await asyncio.sleep(30)

    async with serving(stall) as url:
        fetching = asyncio.create_task(wheels.obtain([wheel(url)]))
        await asyncio.wait_for(began.wait(), 10)
        fetching.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(asyncio.CancelledError):
                await fetching
    assert left(wheels) == []
