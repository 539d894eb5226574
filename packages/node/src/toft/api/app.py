"""Puts the application together: routes, limits, errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from toft.api import calls, description, events, instances, jobs, limits, plugins, problems, sequences, state
from toft.api.service import Service

ROUTERS = (
    state.router,
    plugins.router,
    calls.router,
    instances.router,
    jobs.router,
    sequences.router,
    events.router,
)


def build(service: Service) -> ASGIApp:
    """Return the ASGI application over a node."""
    most = service.node.rooms.settings.request_bytes
    return problems.Faults(limits.Limits(routes(service), most_bytes=most))


def routes(service: Service | None = None) -> FastAPI:
    """Return the application without its guards; for its description, without a node too."""
    app = _Application(
        title="toft",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url="/v1/openapi.json",
        redirect_slashes=False,
    )
    app.state.service = service
    problems.install(app)
    for router in ROUTERS:
        app.include_router(router)
    return app


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return what it is in the words of OpenAPI, made once."""
        if not self.openapi_schema:
            self.openapi_schema = description.document(self)
        return self.openapi_schema
