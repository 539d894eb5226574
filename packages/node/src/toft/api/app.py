"""Puts the application together: routes, limits, errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp

from toft.api import (
    calls,
    configuration,
    description,
    environments,
    events,
    guard,
    instances,
    jobs,
    limits,
    permits,
    plugins,
    problems,
    secrets,
    sequences,
    state,
    table,
)
from toft.api.service import Service

ROUTERS = (
    state.router,
    plugins.router,
    configuration.router,
    secrets.router,
    environments.router,
    calls.router,
    instances.router,
    jobs.router,
    sequences.router,
    events.router,
)


def build(
    service: Service, door: guard.Door | None = None, *, faces: Sequence[Callable[[FastAPI], None]] = ()
) -> ASGIApp:
    """Return the ASGI application over a node.

    Args:
        service: What the routes work with.
        door: Says who those are who come in; the owner by default.
        faces: Each adds routes of its own.

    Raises:
        NodeError: A route does not say who may use it.
    """
    most = service.node.rooms.settings.request_bytes
    app = routes(service)
    for add in faces:
        add(app)
    permits.check(app)
    app.router.routes.insert(0, table.Table(app.router.routes))
    return problems.Faults(guard.Guard(limits.Limits(app, most_bytes=most), door or guard.OwnersDoor()))


def routes(service: Service | None = None) -> FastAPI:
    """Return the application without its guards; for its description, without a node too."""
    app = _Application(
        title="toft",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    app.state.service = service
    problems.install(app)
    for router in ROUTERS:
        # Included as a router, each would be matched twice, with bookkeeping around each try.
        app.router.routes.extend(router.routes)
    return app


class _Application(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Return what it is in the words of OpenAPI, made once."""
        if not self.openapi_schema:
            self.openapi_schema = description.document(self)
        return self.openapi_schema
