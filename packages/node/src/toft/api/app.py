"""Puts the application together: routes, limits, errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from toft.api import (
    access,
    calls,
    configuration,
    description,
    direct,
    documents,
    environments,
    events,
    guard,
    installing,
    instances,
    jobs,
    limits,
    permits,
    plugins,
    problems,
    samples,
    secrets,
    sequences,
    state,
    table,
)
from toft.api.application import Application
from toft.api.service import Service

ROUTERS = (
    state.router,
    plugins.router,
    installing.router,
    configuration.router,
    documents.router,
    secrets.router,
    environments.router,
    calls.router,
    instances.router,
    jobs.router,
    samples.router,
    sequences.router,
    events.router,
    access.router,
)


@dataclass(frozen=True)
class Built:
    """Routes that have all said who may use them, for as many doors as there are.

    Attributes:
        app: The routes.
        direct: The same, by a shorter way.
        service: What they work with.
        public: Paths that anybody may ask for.
    """

    app: FastAPI
    direct: direct.Direct
    service: Service
    public: Sequence[permits.Pattern]

    def behind(self, door: guard.Door | None = None) -> ASGIApp:
        """Return the ASGI application for those who come in by one door; the owner's by default."""
        settings = self.service.node.rooms.settings
        limited = limits.Limits(self.direct, most_bytes=settings.request_bytes)
        entered: ASGIApp = guard.Guard(limited, door or guard.OwnersDoor(), self.service.gate, self.public)
        if settings.cors_origins and door is not None:
            # Never with cookies: a page of somebody else shows a token of its own, or nothing.
            entered = CORSMiddleware(
                entered,
                allow_origins=settings.cors_origins,
                allow_methods=("GET", "POST", "PUT", "DELETE"),
                allow_headers=("Authorization", "Content-Type", "Last-Event-ID"),
            )
        return self.service.traffic.around(problems.Faults(entered))


def build(service: Service, *, faces: Sequence[Callable[[FastAPI], None]] = ()) -> Built:
    """Return the application over a node.

    Args:
        service: What the routes work with.
        faces: Each adds routes of its own.

    Raises:
        NodeError: A route does not say who may use it.
    """
    app = routes(service)
    for add in faces:
        add(app)
    public = permits.check(app)
    short = direct.Direct(app)
    app.router.routes.insert(0, table.Table(app.router.routes))
    return Built(app, short, service, public)


def routes(service: Service | None = None) -> FastAPI:
    """Return the application without its guards; for its description, without a node too."""
    return Application("toft", ROUTERS, service, description.document)
