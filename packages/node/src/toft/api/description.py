"""The application in the words of OpenAPI: what each route takes and answers, and how it refuses.

FastAPI knows the paths and the queries; bodies and answers come from `operations.py` and
`schemas.py`, by which bodies are checked too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import iter_route_contexts

from toft.api import answers, document_bodies, frames, operations, permits, problems, schemas
from toft.api.operations import Operation
from toft.api.permits import Permit

# How FastAPI would refuse; here a refusal is a problem document.
_UNUSED = ("HTTPValidationError", "ValidationError")
_METHODS = ("get", "put", "post", "delete", "head", "patch")
_ALWAYS = (400, 401, 403, 429, 503)
_WITH_BODY = (408, 413, 415)
_WORDS = {
    400: "The request does not fit.",
    401: "Nobody is known by that token, or there is none.",
    403: "The token does not allow this.",
    404: "There is no such thing.",
    408: "The body came too slowly.",
    409: "It is in a state that does not allow this.",
    413: "The body is too large.",
    415: "The body is neither JSON nor a packed value.",
    416: "There are no such bytes.",
    422: "The plugin does not accept its input.",
    429: "Too much at once; `Retry-After` says when to come again.",
    502: "The plugin failed; `blame` says who is at fault.",
    503: "Not now; the same request may work later.",
    504: "The plugin took too long.",
    507: "The machine lacks what it needs: memory, disk, a GPU.",
}


NAMED: Mapping[str, schemas.Schema] = {**answers.NAMED, **document_bodies.NAMED}


def document(
    app: FastAPI,
    *,
    known: Mapping[str, Operation] = operations.BY_ROUTE,
    named: Mapping[str, schemas.Schema] = NAMED,
    introduction: str = "",
) -> dict[str, Any]:
    """Return the OpenAPI document of an application.

    Args:
        app: It.
        known: What its routes take and answer.
        named: The schemas that those name.
        introduction: What is said above all routes.
    """
    found: dict[str, Any] = get_openapi(
        title=app.title, version=app.version, routes=app.routes, description=introduction or _INTRODUCTION
    )
    asked = _permits(app)
    for path, methods in found["paths"].items():
        for method in _METHODS:
            described = known.get(f"{method.upper()} {path}")
            if method in methods and described is not None:
                _complete(methods[method], path, described, asked[described.route])
    queried = found.get("components", {}).get("schemas", {})
    found["components"] = {
        "schemas": {name: dict(each) for name, each in (queried | named).items() if name not in _UNUSED},
        "responses": {f"Refused{status}": _refusal(status) for status in _WORDS},
        "securitySchemes": {
            "token": {"type": "http", "scheme": "bearer", "description": "On TCP; `toft token create`."}
        },
    }
    # The socket lets in its owner without one.
    found["security"] = [{"token": []}, {}]
    return found


def _permits(app: FastAPI) -> dict[str, Permit]:
    """Return what each route asks for; what stands for other routes in the application asks for nothing."""
    found: dict[str, Permit] = {}
    for route in iter_route_contexts(app.routes):
        permit = permits.permit_of(route)
        if permit is not None:
            found.update((f"{method} {route.path}", permit) for method in route.methods or ())
    return found


def _complete(route: dict[str, Any], path: str, operation: Operation, permit: Permit) -> None:
    route["operationId"] = operation.name
    if operation.takes is not None:
        route["requestBody"] = {
            "required": bool(operation.takes.required),
            "content": {
                frames.JSON_TYPE: {
                    "schema": operation.takes.schema(),
                    "example": dict(operation.takes.example),
                }
            },
        }
    if operation.brings:
        route["requestBody"] = {
            "required": True,
            "content": {operation.brings: {"schema": {"type": "string", "format": "binary"}}},
        }
    route["responses"] = {
        str(operation.status): {
            "description": "Done.",
            "content": {
                media: {"schema": schemas.of(operation.gives)} if media == frames.JSON_TYPE else {}
                for media in operation.media
            },
        },
        **{
            str(status): {"$ref": f"#/components/responses/Refused{status}"}
            for status in failures(operation, path, is_public=permit.is_public)
        },
    }
    if permit.is_public:
        route["security"] = []
    elif permit.kind is not None:
        route["x-toft-scope"] = f"{permit.kind}:{permit.action}"


def failures(operation: Operation, path: str, *, is_public: bool = False) -> list[int]:
    """Return the status codes with which a route refuses."""
    found = {*operation.fails}
    found.update((503,) if is_public else _ALWAYS)
    if "{" in path:
        found.add(404)
    if operation.takes is not None or operation.brings:
        found.update(_WITH_BODY)
    return sorted(found - {operation.status})


def _refusal(status: int) -> dict[str, Any]:
    return {
        "description": _WORDS[status],
        "content": {problems.MEDIA_TYPE: {"schema": schemas.of("Problem")}},
    }


_INTRODUCTION = """\
The node over HTTP. Errors are `application/problem+json` with the codes that the command line and the Python
client tell too; docs/reference/errors.md lists them.
"""
