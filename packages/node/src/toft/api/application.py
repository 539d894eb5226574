"""An application of routes alone, and its description; what guards them comes around it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI

from toft.api import problems


class Application(FastAPI):
    """Routes over a service.

    Args:
        title: What it is called.
        routers: Its routes.
        service: What they work with; None where it is only described.
        described: Returns what it is in the words of OpenAPI.
    """

    def __init__(
        self,
        title: str,
        routers: Sequence[APIRouter],
        service: object,
        described: Callable[[FastAPI], dict[str, Any]],
    ) -> None:
        super().__init__(
            title=title, version="1", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False
        )
        self._described = described
        self.state.service = service
        problems.install(self)
        for router in routers:
            # Included as a router, each would be matched twice, with bookkeeping around each try.
            self.router.routes.extend(router.routes)

    def openapi(self) -> dict[str, Any]:
        """Return what it is in the words of OpenAPI, made once."""
        if not self.openapi_schema:
            self.openapi_schema = self._described(self)
        return self.openapi_schema
