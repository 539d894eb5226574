import asyncio
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Query, Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.types import Message

from toft.api import app as applications
from toft.api import bodies, direct, problems
from toft.kernel import errors
from toft.web import app as pages
from toft.web import rendering


async def known(request: Request) -> str:
    if request.headers.get("who") == "nobody":
        raise errors.RefusedError("nobody", code="access.refused", details={"who": "nobody"})
    return "somebody"


Who = Annotated[str, Depends(known)]


def application() -> FastAPI:
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    problems.install(app)

    @app.get("/hidden/{by}")
    async def before(by: str) -> Response:
        return bodies.answer(by)

    @app.get("/hidden/behind")
    async def behind(who: Who) -> Response:
        return bodies.answer("never")

    @app.post("/plain", status_code=201, dependencies=[Depends(known)])
    async def plain(request: Request, who: Who) -> Response:
        found = await bodies.fields(request)
        return bodies.answer({"who": who, "app": request.app is app, "asked": found}, status=201)

    @app.get("/broken")
    async def broken() -> Response:
        raise OSError(28, "no space", "/x")

    @app.get("/query")
    async def query(limit: Annotated[int, Query(ge=1)] = 3) -> Response:
        return bodies.answer(limit)

    @app.get("/value")
    async def value() -> dict[str, int]:
        return {"a": 1}

    return app


def asked(app: Any, method: str, path: str, body: bytes, headers: dict[str, str]) -> list[Message]:
    told: list[Message] = []
    scope = {
        "type": "http",
        "http_version": "1.1",
        "method": method,
        "path": path.partition("?")[0],
        "raw_path": path.encode(),
        "query_string": path.partition("?")[2].encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "state": {},
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        told.append(dict(message))

    asyncio.run(app(scope, receive, send))
    return told


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/plain", b'{"a": 1}', {}, 201),
        ("POST", "/plain", b"", {}, 201),
        ("POST", "/plain?more=1", b"[1]", {}, 400),
        ("POST", "/plain", b'{"a": 1}', {"who": "nobody"}, 403),
        ("GET", "/plain", b"", {}, 405),
        ("GET", "/broken", b"", {}, 500),
        ("GET", "/query?limit=0", b"", {}, 400),
        ("GET", "/value", b"", {}, 200),
        ("GET", "/hidden/behind", b"", {}, 200),
        ("GET", "/nowhere", b"", {}, 404),
    ],
)
def test_the_short_way_answers_as_the_long_one(
    method: str, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    app = application()
    told = asked(direct.Direct(app), method, path, body, headers)
    assert told == asked(app, method, path, body, headers)
    assert told[0]["status"] == status


def test_only_what_takes_nothing_but_the_request_is_plain() -> None:
    found = [
        each.path for each in application().routes if isinstance(each, APIRoute) and direct.is_plain(each)
    ]
    assert found == ["/hidden/behind", "/plain", "/broken"]


def test_a_submission_takes_the_short_way() -> None:
    routes = [each for each in applications.routes().routes if isinstance(each, APIRoute)]
    plain = {(method, each.path) for each in routes if direct.is_plain(each) for method in each.methods or ()}
    assert {("POST", "/v1/jobs"), ("POST", "/v1/jobs/batch")} <= plain


def test_a_page_goes_its_own_way_which_makes_a_page_of_what_goes_wrong() -> None:
    own = [each for each in pages.ROUTES if isinstance(each, rendering.PageRoute)]
    assert own
    assert [each.path for each in own if direct.is_plain(each)] == []
