"""The one table from errors to HTTP status codes, and the body that tells every field of an error."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from toft.api import frames, operations, service
from toft.kernel import errors, log
from toft.plugins import errors as faults
from toft.plugins.plugin_errors import PluginError

_log = log.get_logger("api")
MEDIA_TYPE = "application/problem+json"

EXPECTED = (errors.NodeError, PluginError, OSError)
"""What a route may raise; anything else is a fault of the node."""

_STATUS: tuple[tuple[type[errors.NodeError], int], ...] = (
    (faults.CallTimeoutError, 504),
    (faults.BusyError, 429),
    (errors.UsageError, 400),
    (errors.NotFoundError, 404),
    (errors.ConflictError, 409),
    (errors.RefusedError, 403),
    (errors.UnavailableError, 503),
)
_BY_CODE = {
    "request.too_large": 413,
    "report.invalid": 422,
    "ingest.invalid": 422,
    "request.range": 416,
    "request.too_slow": 408,
    "request.media_type": 415,
    "request.no_route": 404,
    "request.method": 405,
    # Whoever asked set the limit, and nothing is wrong with the node.
    "job.wait_timeout": 409,
    "access.unauthenticated": 401,
    "access.host": 421,
    "access.too_many_failures": 429,
    "artifact.too_large": 413,
    "artifact.no_room": 507,
    "join_refused": 401,
    "credential_refused": 401,
    "too_many_requests": 429,
    "environment.build_failed": 502,
    "environment.hash_mismatch": 502,
}
_BY_CATEGORY = {"user_input": 422, "transient": 503, "resource": 507, "cancelled": 409}

_OF_NODE = {"user_input": 422, "resource": 507}


def status_of(error: errors.NodeError | PluginError) -> int:
    """Return the status code of an error."""
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    if isinstance(error, PluginError):
        return _BY_CATEGORY.get(error.category, 502)
    unnamed = _OF_NODE.get(error.category, 500)
    return next((status for kind, status in _STATUS if isinstance(error, kind)), unnamed)


def body_of(error: errors.NodeError | PluginError) -> dict[str, Any]:
    """Return an error as the members of a problem document: the standard ones, and all of ours."""
    fields = describe(error)
    return {
        "type": f"urn:toft:error:{error.code}",
        "title": type(error).__name__,
        "status": status_of(error),
        "detail": error.message,
        **fields,
    }


def describe(error: errors.NodeError | PluginError) -> dict[str, Any]:
    """Return an error with its class, as it crosses to a client."""
    if isinstance(error, PluginError):
        return {"family": "plugin", **error.to_dict()}
    bases = [each.__name__ for each in type(error).__mro__ if issubclass(each, errors.NodeError)]
    return {"family": "node", "kind": bases[0], "bases": bases[1:], **error.to_dict()}


def known(error: BaseException) -> errors.NodeError | PluginError:
    """Return an error of ours for anything that was raised; what nobody expected is a fault of the node."""
    if isinstance(error, (errors.NodeError, PluginError)):
        return error
    if isinstance(error, OSError):
        return errors.NodeError(
            str(error),
            code="node.os_error",
            details={"errno": error.errno, "path": str(error.filename or "")},
        )
    return errors.NodeError(
        f"the node failed at this request: {type(error).__name__}: {error}",
        code="node.fault",
        hint="toft logs shows where; please report it",
    )


def logged(error: Exception, path: str) -> errors.NodeError | PluginError:
    """Return as `known` does; what nobody expected is in the log."""
    if not isinstance(error, EXPECTED):
        _log.error("request_failed", path=path, error=repr(error), exc_info=error)
    return known(error)


def described(error: Exception) -> dict[str, Any]:
    """Return any error as it crosses to a client."""
    return describe(known(error))


def response(error: errors.NodeError | PluginError) -> Response:
    """Return the answer for an error."""
    headers = {}
    after = getattr(error, "retry_after_s", None)
    if after is not None:
        headers["Retry-After"] = str(max(1, round(after)))
    if error.code == "access.unauthenticated":
        headers["WWW-Authenticate"] = "Bearer"
    body = frames.text(body_of(error))
    return Response(body, status_code=status_of(error), media_type=MEDIA_TYPE, headers=headers)


def install(app: FastAPI) -> None:
    """Let an application answer errors with problem documents."""
    for kind in EXPECTED:
        app.add_exception_handler(kind, _answer)
    app.add_exception_handler(HTTPException, _routing)
    app.add_exception_handler(RequestValidationError, _invalid)
    # Starlette answers this one itself and raises it on, so that `Faults` logs it.
    app.add_exception_handler(Exception, _answer)


async def _answer(request: Request, error: Exception) -> Response:
    return response(known(error))


async def _routing(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    where = f"{request.method} {request.url.path[:200]}"
    if status == 405:
        answer = response(errors.UsageError(f"{where}: another method is needed", code="request.method"))
        answer.headers["Allow"] = ", ".join(operations.methods(request.url.path))
        return answer
    if status == 404:
        return response(service.no_route(request))
    return response(errors.UsageError(f"{where}: {error}", code="request.invalid"))


async def _invalid(request: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else []
    fields = {".".join(map(str, each["loc"][1:])) or str(each["loc"][0]): str(each["msg"]) for each in found}
    listed = "; ".join(f"{name}: {problem}" for name, problem in fields.items())
    return response(
        errors.UsageError(
            f"the request does not fit: {listed}", code="request.fields", details={"fields": fields}
        )
    )


class Faults:
    """The outermost layer: whatever a route raises that nobody expected is logged and answered.

    Args:
        app: What it guards.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        begun = False

        async def sending(message: Any) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except ClientDisconnect:
            _log.debug("client_gone", path=scope.get("path"))
        except Exception as error:
            _log.error("request_failed", path=scope.get("path"), error=repr(error), exc_info=True)
            if begun:
                raise
            await response(known(error))(scope, receive, send)
