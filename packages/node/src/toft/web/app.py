"""Adds the pages to the application that serves the API."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from toft.web import assets, configuration, jobs, overview, plugins, running, samples, sequences

ROUTERS = (
    assets.router,
    overview.router,
    jobs.router,
    sequences.router,
    plugins.router,
    running.router,
    samples.router,
    configuration.router,
)
ROUTES = tuple(route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute))


def mount(app: FastAPI) -> None:
    """Let an application serve the pages too."""
    # Not by including the routers: a route of an included one is matched twice.
    app.router.routes.extend(ROUTES)
