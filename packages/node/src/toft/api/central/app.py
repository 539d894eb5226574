"""Puts central's application together: what nodes ask, what administrators do, and pages."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from toft.access.gate import Caller
from toft.access.hosts import Hosts
from toft.api import access, description, guard, limits, permits, problems, table
from toft.api import answers as node_answers
from toft.api import operations as node_operations
from toft.api.application import Application
from toft.api.central import admin, agents, documents, nodes, operations, polls, rollouts
from toft.api.central.service import Service
from toft.kernel import clock as clocks
from toft.managed import protocol

ROUTERS = (agents.router, admin.router, nodes.router, documents.router, rollouts.router, access.router)
_LARGE = re.compile(r"PUT /v1/admin/artifacts/[^/]+|POST /v1/admin/documents|POST /v1/admin/signatures/[^/]+")

_OWN = ((re.compile(rf"POST {protocol.INGEST}/[^/]+"), protocol.MAX_CHUNK_BYTES),)


class Door(guard.NetworkDoor):
    """The port of a central: nodes show what only its own routes understand."""

    async def identify(self, scope: Scope) -> Caller | None:
        """Return who administers; for what nodes ask, nobody: there each route looks for itself."""
        if agents.is_for_nodes(scope["path"]):
            return None
        return await super().identify(scope)


def build(
    service: Service, hosts: Sequence[str], *, faces: Sequence[Callable[[FastAPI], None]] = ()
) -> ASGIApp:
    """Return the application.

    Args:
        service: What the routes work with.
        hosts: By which names browsers and administrators may ask.
        faces: Each adds routes of its own.

    Raises:
        NodeError: A route does not say who may use it.
    """
    app = routes(service)
    for add in faces:
        add(app)
    public = permits.check(app)
    app.router.routes.insert(0, table.Table(app.router.routes))
    limited = limits.Limits(app, most_bytes=service.request_bytes, large=_LARGE, own=_OWN)
    guarded = guard.Guard(limited, Door(service.gate, Hosts(hosts)), service.gate, public)
    return service.traffic.around(
        _dated(problems.Faults(polls.Polls(guarded, service)), service.central.clock)
    )


def _dated(app: ASGIApp, clock: clocks.Clock) -> ASGIApp:
    """Return an application that says what time it is: a node whose clock is wrong signs with that."""

    async def dated(scope: Scope, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                date = formatdate(clock.now(), usegmt=True).encode()
                message = {**message, "headers": [*message.get("headers", ()), (b"date", date)]}
            await send(message)

        await app(scope, receive, sending)

    return dated


def routes(service: Service | None = None) -> FastAPI:
    """Return the application without its guards; for its description, without a central too."""
    return Application("toft central", ROUTERS, service, _described)


def _described(app: FastAPI) -> dict[str, Any]:
    known = {**node_operations.BY_ROUTE, **operations.BY_ROUTE}
    named = {**node_answers.NAMED, **operations.NAMED}
    return description.document(app, known=known, named=named, introduction=_INTRODUCTION)


_INTRODUCTION = """\
A central over HTTP: below `/v1/admin` what administrators do, with a token of theirs; the rest is what nodes
ask, with the credential that they were given when they joined. Whose things a request is about says
`?tenant=NAME`; `main` when it says nothing. Errors are `application/problem+json`.
"""
