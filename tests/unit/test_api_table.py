import asyncio
import inspect

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Match, Route

from toft.api import app as applications
from toft.api import table


def found(routes: list[Route], method: str, path: str) -> tuple[str, dict[str, str]] | None:
    match, scope = table.Table(routes).matches(
        {"type": "http", "method": method, "path": path, "root_path": "", "path_params": {}}
    )
    return (scope["route"].name, scope["path_params"]) if match is Match.FULL else None


def route(path: str, method: str = "GET", name: str = "") -> Route:
    return Route(path, lambda request: None, methods=[method], name=name or path)


def test_the_first_that_fits_is_found_as_the_router_would() -> None:
    routes = [
        route("/v1/jobs"),
        route("/v1/jobs", "POST", "submit"),
        route("/v1/jobs/{id}"),
        route("/v1/jobs/batch", name="hidden by the one before"),
        route("/files/{rest:path}"),
    ]
    assert found(routes, "POST", "/v1/jobs") == ("submit", {})
    assert found(routes, "GET", "/v1/jobs/batch") == ("/v1/jobs/{id}", {"id": "batch"})
    assert found(routes, "GET", "/files/a/b/c/d/e/f/g") == ("/files/{rest:path}", {"rest": "a/b/c/d/e/f/g"})
    assert found(routes, "DELETE", "/v1/jobs") is None
    assert found(routes, "GET", "/v1/jobs/") is None


@pytest.mark.parametrize("each", [one for one in applications.routes().routes if isinstance(one, APIRoute)])
def test_no_route_depends_on_what_runs_in_a_thread(each: APIRoute) -> None:
    waiting = list(each.dependant.dependencies)
    assert waiting
    while waiting:
        dependency = waiting.pop()
        waiting += dependency.dependencies
        assert inspect.iscoroutinefunction(dependency.call), (each.path, dependency.call)
    assert asyncio.iscoroutinefunction(each.endpoint)
