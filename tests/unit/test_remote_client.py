"""What a client of a node elsewhere decides before and after a connection, without one."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path, PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest

from toft.cli import app, reach
from toft.client import connection, faults, origins, paths, streams, target
from toft.kernel import errors

TOKEN = "toft_ABCDEFGHIJKLMNOP"


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://gpu1.example:7433", "https://gpu1.example:7433"),
        ("https://gpu1.example/", "https://gpu1.example"),
        ("https://gpu1.example:443", "https://gpu1.example"),
        ("http://[::1]:8000", "http://[::1]:8000"),
    ],
)
def test_an_address_is_read(text: str, url: str) -> None:
    assert target.read(text, token=TOKEN).url == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "gpu1.example:7433",
        "ftp://x.example",
        "https://",
        "https://x.example:99999",
        "https://me:pw@x.example",
        "https://x.example/v1",
        "https://x.example?a",
    ],
)
def test_what_is_no_address_is_refused_without_telling_a_password(text: str) -> None:
    with pytest.raises(errors.UsageError) as refused:
        target.read(text)
    assert refused.value.code == "remote.url"
    assert "pw" not in str(refused.value)


def test_a_token_is_one_word_and_comes_from_one_place(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    read = target.read("https://x.example", token_file=file)
    assert (read.token, TOKEN in repr(read)) == (TOKEN, False)
    for bad in ("", "two words", "line\nline", "toft_é"):
        file.write_text(bad)
        with pytest.raises(errors.UsageError):
            target.read("https://x.example", token_file=file)
        with pytest.raises(errors.UsageError):
            target.read("https://x.example", token=bad)
    with pytest.raises(errors.UsageError) as refused:
        target.read("https://x.example", token_file=tmp_path / "none")
    assert refused.value.code == "remote.token_file"


def test_a_token_that_others_can_read_is_warned_about(tmp_path: Path) -> None:
    file = tmp_path / "my token"
    file.write_text(TOKEN)
    for mode, is_told in ((0o600, False), (0o700, False), (0o640, True), (0o604, True)):
        file.chmod(mode)
        told: list[str] = []
        assert target.read("https://x.example", token_file=file, on_warning=told.append).token == TOKEN
        assert [f"chmod 600 '{file}'" in each for each in told] == [True] * is_told
        assert TOKEN not in "".join(told)
    reading, writing = os.pipe()
    os.write(writing, TOKEN.encode())
    os.close(writing)
    told = []
    target.read("https://x.example", token_file=f"/dev/fd/{reading}", on_warning=told.append)
    os.close(reading)
    assert told == []


def test_a_token_crosses_a_network_only_protected_or_when_somebody_says_so() -> None:
    with pytest.raises(errors.RefusedError) as refused:
        target.read("http://gpu1.example", token=TOKEN)
    assert refused.value.code == "remote.plain"
    assert target.read("http://gpu1.example", token=TOKEN, insecure=True).token == TOKEN
    for here in ("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"):
        assert target.read(here, token=TOKEN).token == TOKEN


def test_a_path_of_the_node_is_one_that_starts_at_its_root() -> None:
    schema = {"parameters": {"a": {"x-toft-type": "path"}, "b": {}}}
    good = {"a": "/data/x", "b": ["relative text", PurePosixPath("/y")]}
    assert paths.of_the_node(schema, good, where="") == good
    for bad in ({"a": "x"}, {"b": Path("/x")}, {"b": {"c": [PurePosixPath("x")]}}):
        with pytest.raises(errors.UsageError) as refused:
            paths.of_the_node(schema, bad, where="")
        assert len(refused.value.details["fields"]) == 1


class Stream:
    """A connection that breaks after each part of what it has to tell."""

    def __init__(self, *parts: list[Mapping[str, Any]], is_here: bool = False) -> None:
        self.parts = list(parts)
        self.asked: list[Any] = []
        self.origin = SimpleNamespace(is_here=is_here, broken=lambda error: broken())

    async def ask(self, method: str, route: str) -> Mapping[str, Any]:
        return {"cursor": 7}

    async def lines(self, route: str, query: Mapping[str, Any]) -> AsyncIterator[Mapping[str, Any]]:
        self.asked.append(query["after"])
        for each in self.parts.pop(0):
            yield each
        if not self.parts:
            raise errors.NodeError("enough", code="test.enough")
        raise broken()


def broken() -> errors.UnavailableError:
    return errors.UnavailableError("broke", code="remote.gone")


async def test_events_from_now_on_know_what_now_was() -> None:
    told = [{"type": "state", "cursor": 9}, {"type": "lost", "cursor": 30}], [{"type": "state", "cursor": 12}]
    asked: Any = Stream([], told[0], told[1], [])
    with pytest.raises(errors.NodeError, match="enough"):
        assert [each async for each in streams.events(asked, {}, after=None)] == []
    # Again after what was seen, not after what was only said to be lost.
    assert asked.asked == [7, 7, 9, 12]


async def test_only_a_connection_to_another_machine_is_tried_again() -> None:
    for given, error in ((True, broken()), (False, errors.UnavailableError("no", code="daemon.draining"))):
        with pytest.raises(errors.UnavailableError):
            await streams.Patience(Stream(is_here=given)).again(error)  # type: ignore[arg-type]
    patience = streams.Patience(Stream(), patience_s=0.0)  # type: ignore[arg-type]
    await patience.again(broken())
    with pytest.raises(errors.UnavailableError):
        await patience.again(broken())


def test_every_command_is_for_a_node_elsewhere_by_its_name_or_refused() -> None:
    commands = set(_paths(app.app))
    assert sorted((reach.ASK | reach.NEED_NO_NODE) - commands) == []
    for each in sorted(commands - reach.ASK - reach.NEED_NO_NODE):
        with pytest.raises(errors.UsageError):
            reach.check(f"toft {each}", "https://x.example", is_typed=True)


def _paths(tree: Any, before: str = "") -> list[str]:
    found = []
    for each in tree.registered_commands:
        found.append(f"{before}{each.name or each.callback.__name__}")
    for group in tree.registered_groups:
        found += _paths(group.typer_instance, f"{before}{group.name} ")
    return found


@pytest.mark.parametrize(
    "end", [ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLWantReadError, ssl.SSLSyscallError]
)
def test_the_end_of_a_protected_connection_is_no_quarrel_about_protection(end: type[ssl.SSLError]) -> None:
    cut = ConnectionError("")
    cut.__cause__ = end("The operation did not complete (read)")
    told = faults.unreachable("https://node.example:8765", cut)
    assert isinstance(told, errors.UnavailableError)
    assert told.code == "remote.gone"
    quarrel = ssl.SSLError("wrong version number")
    quarrel.reason = "WRONG_VERSION_NUMBER"
    assert faults.unreachable("https://node.example:8765", quarrel).code == "remote.tls"


async def test_a_proxy_that_answers_an_upload_with_a_page_is_no_node() -> None:
    class Said(connection.Connection):
        @contextlib.asynccontextmanager
        async def _asking(self, *_: Any) -> AsyncGenerator[Any, None]:
            async def page() -> bytes:
                return b"<html>sign in</html>"

            yield SimpleNamespace(status=200, aread=page)

    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    origin = origins.NodeOrigin(target.read("https://x.example", token=TOKEN))
    with pytest.raises(errors.NodeError) as refused:
        await Said(origin).upload("/v1/artifacts/x", 0, nothing)
    assert refused.value.code == origin.strange(200).code
