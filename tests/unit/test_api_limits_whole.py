"""A request that has come whole is passed on as it is; one of which more may come is watched."""

from __future__ import annotations

from typing import Any

import pytest

from toft.api import limits


@pytest.mark.parametrize(
    ("said", "passed_on"),
    [
        ({limits.WHOLE: True, "headers": [(b"content-length", b"2")]}, True),
        ({limits.WHOLE: False, "headers": [(b"content-length", b"2")]}, False),
        ({"headers": [(b"content-length", b"2")]}, False),
        # Nobody said how long it is, so its size is looked at while it is read.
        ({limits.WHOLE: True, "headers": [(b"transfer-encoding", b"chunked")]}, False),
    ],
)
async def test_only_what_is_whole_and_of_known_length_is_not_watched(
    said: dict[str, Any], passed_on: bool
) -> None:
    given: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        given.append(receive)

    async def receive() -> Any:
        raise AssertionError("nobody asks for it here")

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/jobs", **said}
    await limits.Limits(app, most_bytes=100)(scope, receive, send)
    assert (given == [receive]) is passed_on


async def test_what_is_whole_and_too_large_is_refused_before_it_is_passed_on() -> None:
    told: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("it was passed on")

    async def receive() -> Any:
        raise AssertionError("nobody reads it")

    async def send(message: Any) -> None:
        told.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/jobs",
        limits.WHOLE: True,
        "headers": [(b"content-length", b"101")],
    }
    await limits.Limits(app, most_bytes=100)(scope, receive, send)
    assert told[0]["status"] == 413
