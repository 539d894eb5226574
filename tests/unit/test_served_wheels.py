"""A wheel asked of one central after the other, with a credential that may be refused once."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any

import pytest

from toft.kernel import errors
from toft.managed import served_wheels

DIGEST = "7" * 64


class Streams:
    """Answers as told, an address and a credential at a time."""

    def __init__(self, answers: Mapping[tuple[str, str], int | errors.NodeError]) -> None:
        self._answers = answers
        self.asked: list[str] = []

    @contextlib.asynccontextmanager
    async def stream(
        self, url: str, *, headers: Mapping[str, str], **more: Any
    ) -> AsyncIterator[tuple[int, Mapping[str, str], AsyncGenerator[bytes]]]:
        origin, _, path = url.partition("/v1/")
        assert path == f"artifacts/{DIGEST}"
        self.asked.append(origin)
        found = self._answers[origin, headers["Authorization"].removeprefix("Bearer ")]
        if isinstance(found, errors.NodeError):
            raise found
        yield found, {}, self._parts()

    async def _parts(self) -> AsyncGenerator[bytes]:
        yield b"the "
        yield b"wheel"


class Credentials:
    async def credential(self, url: str, *, refused: str = "") -> str:
        return "new" if refused else "old"


async def read(streams: Streams, *urls: str) -> bytes:
    pieces = served_wheels.read(streams, Credentials(), urls, DIGEST)  # type: ignore[arg-type]
    return b"".join([each async for each in pieces])


async def test_the_first_that_has_it_gives_it() -> None:
    streams = Streams({("a", "old"): 404, ("b", "old"): errors.UnavailableError("down"), ("c", "old"): 200})
    assert await read(streams, "a", "b", "c", "d") == b"the wheel"
    assert streams.asked == ["a", "b", "c"]


async def test_a_refused_credential_is_renewed_once() -> None:
    assert await read(Streams({("a", "old"): 401, ("a", "new"): 200}), "a") == b"the wheel"
    with pytest.raises(errors.UnavailableError):
        await read(Streams({("a", "old"): 401, ("a", "new"): 401}), "a")


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        ({("a", "old"): 404, ("b", "old"): 404}, errors.NotFoundError),
        ({("a", "old"): 404, ("b", "old"): 503}, errors.UnavailableError),
        ({("a", "old"): 403, ("b", "old"): 404}, errors.UnavailableError),
        ({("a", "old"): errors.UnavailableError("down"), ("b", "old"): 404}, errors.UnavailableError),
    ],
)
async def test_what_may_pass_is_told_before_what_may_not(
    answers: dict[tuple[str, str], int | errors.NodeError], kind: type[errors.NodeError]
) -> None:
    with pytest.raises(kind):
        await read(Streams(answers), "a", "b")


async def test_without_an_address_nobody_has_it() -> None:
    with pytest.raises(errors.NotFoundError):
        await read(Streams({}))
