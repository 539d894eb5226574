"""Counts requests and how long their answers took to begin, by route; bounded, whatever is asked for."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toft.dispatch.tally import OTHER, Durations

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Traffic:
    """All requests since the start.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._counts: dict[tuple[str, str, int], int] = {}
        self._durations: dict[tuple[str, str], Durations] = {}

    def around(self, app: ASGIApp) -> ASGIApp:
        """Return an application whose requests are counted.

        What is timed ends when the answer begins: a stream of events would last for days.
        """
        clock, note = self._clock, self._note

        async def counted(scope: Scope, receive: Receive, send: Send) -> None:
            began = clock()

            def sending(message: Message) -> Awaitable[None]:
                if message["type"] == "http.response.start":
                    note(scope, message["status"], clock() - began)
                return send(message)

            await app(scope, receive, sending)

        return counted

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        # A route stands there also when it refuses the method, which may then be any word.
        method = scope["method"] if scope["method"] in METHODS else OTHER
        route = scope.get("route")
        # Refused before there was one: all told as one, whatever was asked for.
        path = OTHER if route is None else route.path
        each, whole = (method, path, status), (method, path)
        self._counts[each] = self._counts.get(each, 0) + 1
        durations = self._durations.get(whole)
        if durations is None:
            durations = self._durations[whole] = Durations(BOUNDS_S)
        durations.add(seconds)

    def counts(self) -> Mapping[tuple[str, str, str], int]:
        """Return how many requests there were, by method, route and class of status, such as `2xx`."""
        found: dict[tuple[str, str, str], int] = {}
        for (method, path, status), count in self._counts.items():
            key = (method, path, f"{status // 100}xx")
            found[key] = found.get(key, 0) + count
        return found

    def durations(self) -> Mapping[tuple[str, str], Durations]:
        """Return how long answers took to begin, by method and route."""
        return {each: durations.copy() for each, durations in self._durations.items()}
