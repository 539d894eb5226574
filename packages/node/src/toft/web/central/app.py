"""Adds central's pages to the application that serves its API."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from toft.web import assets
from toft.web.central import audits, documents, fleet, live, nodes, rollouts, telemetry
from toft.web.navigation import CENTRAL

ROUTERS = (
    assets.router,
    fleet.router,
    nodes.router,
    telemetry.router,
    rollouts.router,
    documents.router,
    audits.router,
    live.router,
)
ROUTES = tuple(route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute))


def mount(app: FastAPI) -> None:
    """Let an application serve the pages too."""
    app.state.face = CENTRAL
    app.state.changes = live.Changes(app.state.service)
    app.router.routes.extend(ROUTES)
