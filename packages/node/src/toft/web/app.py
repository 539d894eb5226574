"""Adds the pages to the application that serves the API."""

from __future__ import annotations

from fastapi import FastAPI

from toft.web import assets, overview

ROUTERS = (assets.router, overview.router)


def mount(app: FastAPI) -> None:
    """Let an application serve the pages too."""
    for router in ROUTERS:
        # Not included: a route of an included router is matched twice.
        app.router.routes.extend(router.routes)
