"""What is counted of requests: by route and not by address, and never more than there are routes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from toft.api.traffic import BOUNDS_S, Traffic


async def nothing() -> Any:
    raise AssertionError("nothing is read")


async def unheard(message: Any) -> None:
    pass


async def ask(traffic: Traffic, method: str, route: Any, status: int = 200, pieces: int = 1) -> None:
    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if route is not None:
            scope["route"] = route
        await send({"type": "http.response.start", "status": status})
        for _ in range(pieces):
            await send({"type": "http.response.body", "body": b""})

    await traffic.around(answer)({"type": "http", "method": method}, nothing, unheard)


async def test_requests_are_counted_by_route_and_timed_until_the_answer_begins() -> None:
    ticks = iter((0.0, 0.004, 1.0, 1.2, 2.0, 22.0))
    traffic, route = Traffic(lambda: next(ticks)), SimpleNamespace(path="/v1/jobs/{id}")
    await ask(traffic, "GET", route, pieces=100)
    await ask(traffic, "GET", route, 404)
    await ask(traffic, "GET", route, 206)
    path = "/v1/jobs/{id}"
    assert traffic.counts() == {("GET", path, "2xx"): 2, ("GET", path, "4xx"): 1}
    took = traffic.durations()["GET", path]
    assert took.total_s == pytest.approx(20.204)
    counts = dict(zip((*BOUNDS_S, None), took.cumulative(), strict=True))
    assert (counts[0.0025], counts[0.005], counts[0.1], counts[0.25], counts[10.0]) == (0, 1, 1, 2, 2)
    assert counts[None] == 3


async def test_whatever_is_asked_for_makes_no_more_labels() -> None:
    traffic = Traffic()
    route = SimpleNamespace(path="/v1/jobs")  # the framework names the route that refuses a method, too
    for number in range(1000):
        await ask(traffic, f"METHOD{number}", route if number % 2 else None, 405)
    await ask(traffic, "GET", None, 401)
    assert traffic.counts() == {
        ("other", "other", "4xx"): 500,
        ("other", "/v1/jobs", "4xx"): 500,
        ("GET", "other", "4xx"): 1,
    }
    assert len(traffic._counts) == 3


async def test_an_answer_that_never_begins_is_not_counted() -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        pass

    traffic = Traffic()
    await traffic.around(silent)({"type": "http", "method": "GET"}, nothing, unheard)
    assert traffic.counts() == {}
