"""Answers the plainest routes without the framework's way to them: a submission costs a third less.

Such a route has a path without parts that vary and takes nothing but the request; so does what it depends on.
All that the framework adds is then to look for values that are not there. Errors are answered alike.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Response
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from toft.api import problems, table

_Step = tuple[str | None, Callable[..., Awaitable[Any]], str | None]
_TAKEN = ("path_params", "query_params", "header_params", "cookie_params", "body_params")
_GIVEN = (
    "websocket_param_name",
    "http_connection_param_name",
    "response_param_name",
    "background_tasks_param_name",
    "security_scopes_param_name",
    "concurrency",
)


class Direct:
    """Stands before an application, and answers in its place where nothing is lost.

    Args:
        app: With all its routes.
    """

    def __init__(self, app: FastAPI) -> None:
        self._app = app
        self._known: dict[tuple[str, str], ASGIApp] = {}
        routes = [each for each in app.routes if isinstance(each, APIRoute)]
        known = table.Table(routes)
        for route in filter(is_plain, routes):
            # What would be hidden by an earlier route stays hidden.
            for method in route.methods or ():
                match, found = known.matches({"type": "http", "method": method, "path": route.path})
                if match is Match.FULL and found["route"] is route:
                    self._known[method, route.path] = self._answering(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        found = self._known.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
        else:
            scope["app"] = self._app
            await found(scope, receive, send)

    def _answering(self, route: APIRoute) -> ASGIApp:
        steps = [_step(each) for each in route.dependant.dependencies]
        _, endpoint, own = _step(route.dependant)

        async def found(request: Request) -> Response:
            values: dict[str, Any] = {} if own is None else {own: request}
            for name, call, takes in steps:
                value = await (call() if takes is None else call(**{takes: request}))
                if name is not None:
                    values[name] = value
            response: Response = await endpoint(**values)
            return response

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            scope.update(route=route, endpoint=route.endpoint, path_params={})
            try:
                response = await found(Request(scope, receive, send))
            except problems.EXPECTED as error:
                response = problems.response(problems.known(error))
            await response(scope, receive, send)

        return answer


def is_plain(route: APIRoute) -> bool:
    """Say whether a route takes nothing but the request, and gives an answer as it is."""
    returns = typing.get_type_hints(route.endpoint).get("return")
    return (
        # One of a kind of its own, such as a page, has something of its own around it.
        type(route) is APIRoute
        and "{" not in route.path
        and isinstance(returns, type)
        and issubclass(returns, Response)
        and _takes_nothing(route.dependant)
        and all(_takes_nothing(each) and not each.dependencies for each in route.dependant.dependencies)
    )


def _takes_nothing(dependant: Dependant) -> bool:
    return (
        inspect.iscoroutinefunction(dependant.call)
        and not any(getattr(dependant, name) for name in _TAKEN)
        and all(getattr(dependant, name) is None for name in _GIVEN)
    )


def _step(dependant: Dependant) -> _Step:
    assert dependant.call is not None
    return dependant.name, dependant.call, dependant.request_param_name
