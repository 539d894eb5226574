"""Loaded plugins: load, look at, configure, end."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from toft.access.resources import Action, Kind
from toft.api import bodies, frames, permits, schemas, service
from toft.api.service import Service
from toft.api.sessions import Session
from toft.plugins import configuring
from toft.plugins import instances as records
from toft.plugins.instance import Instance

router = APIRouter(tags=["instances"])
Serves = Annotated[Service, Depends(service.of)]
Count = Annotated[int, Query(ge=0, le=100_000)]


class _Lifeline(Response):
    """An answer that lasts as long as its client; with it ends what only the client had."""

    media_type = frames.MEDIA_TYPE

    def __init__(self, serves: Service, session: Session) -> None:
        super().__init__()
        self._serves = serves
        self._session = session

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Say who the session is, and wait for the client to go away."""
        del self.headers["content-length"]
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            told = {
                "session": self._session.id,
                "pid": self._serves.pid,
                "version": self._serves.version,
                "settings": self._serves.settings,
            }
            for piece in frames.frame(told):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            await asyncio.shield(self._serves.sessions.close(self._session))


@router.post(
    "/v1/sessions",
    dependencies=[
        permits.anybody("it holds what its own client loads, and each of those steps is asked about")
    ],
)
async def open_session(serves: Serves) -> Response:
    """Begin a session: it lasts as long as the answer is read."""
    return _Lifeline(serves, serves.sessions.open())


@router.get("/v1/instances", dependencies=[permits.needs(Action.READ, Kind.INSTANCE, id=None)])
async def list_instances(request: Request, serves: Serves) -> Response:
    """List what is loaded, by name."""
    found = serves.sessions.instances(service.session_of(request))
    limit_to = permits.visible_of(request, Kind.INSTANCE)
    return bodies.answer([_described(each) for each in found if limit_to is None or each.plugin in limit_to])


@router.post("/v1/instances", dependencies=[permits.needs(Action.WRITE, Kind.INSTANCE, id=None)])
async def load(request: Request, serves: Serves) -> Response:
    """Load a plugin."""
    serves.admit()
    wanted = bodies.taken(await bodies.fields(request), **schemas.LOAD.kinds)
    session = service.session_of(request)
    options = records.checked_options(wanted["options"] or {})
    # Options say what of the machine an instance may touch; that is more than using it.
    action = Action.ADMIN if options else Action.WRITE
    await permits.require(request, action, Kind.INSTANCE, plugins=[wanted["plugin"]])
    if permits.visible_of(request, Kind.INSTANCE, action) is not None:
        # Whoever is limited to a plugin takes no name that another one goes by.
        await configuring.check_owner(serves.node, wanted["plugin"], wanted["instance"])
    if session is None:
        found = await serves.node.load(
            wanted["plugin"],
            wanted["config"],
            instance=wanted["instance"],
            new=bool(wanted["new"]),
            **options,
        )
    else:
        found = await serves.sessions.load(
            session,
            wanted["plugin"],
            wanted["config"],
            instance=wanted["instance"],
            new=bool(wanted["new"]),
            options=options,
        )
    return bodies.answer(_described(found))


@router.get("/v1/instances/{name}", dependencies=[permits.needs(Action.READ, Kind.INSTANCE, id="name")])
async def show(request: Request, serves: Serves, name: str) -> Response:
    """Show an instance."""
    return bodies.answer(_described(_found(request, serves, name)))


@router.delete("/v1/instances/{name}", dependencies=[permits.needs(Action.WRITE, Kind.INSTANCE, id="name")])
async def unload(request: Request, serves: Serves, name: str) -> Response:
    """End an instance; one that others use too stays for them."""
    await serves.sessions.unload(service.session_of(request), name)
    return bodies.answer({})


@router.post(
    "/v1/instances/{name}/reconfigure", dependencies=[permits.needs(Action.WRITE, Kind.INSTANCE, id="name")]
)
async def reconfigure(request: Request, name: str) -> Response:
    """Change a configuration between two calls."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.RECONFIGURE.kinds)
    found = await permits.instance(request, Action.WRITE, name)
    await found.reconfigure(wanted["changes"], replace=bool(wanted["replace"]))
    return bodies.answer(_described(found))


@router.post(
    "/v1/instances/{name}/{step}", dependencies=[permits.needs(Action.WRITE, Kind.INSTANCE, id="name")]
)
async def act(request: Request, serves: Serves, name: str, step: str) -> Response:
    """Do one of `enable`, `disable`, `reload`, `prefetch`."""
    found = _found(request, serves, name)
    steps = {
        "enable": found.enable,
        "disable": found.disable,
        "reload": found.reload,
        "prefetch": found.prefetch,
    }
    if step not in steps:
        raise service.no_route(request)
    await steps[step]()
    return bodies.answer(_described(found))


@router.get("/v1/instances/{name}/stats", dependencies=[permits.needs(Action.READ, Kind.INSTANCE, id="name")])
async def stats(request: Request, serves: Serves, name: str) -> Response:
    """Show what an instance has done and uses now."""
    return bodies.answer(await _found(request, serves, name).stats())


@router.get("/v1/instances/{name}/logs", dependencies=[permits.needs(Action.READ, Kind.INSTANCE, id="name")])
async def logs(request: Request, serves: Serves, name: str, count: Count = 50) -> Response:
    """Return the last lines an instance printed."""
    return bodies.answer(await _found(request, serves, name).logs(count))


@router.get(
    "/v1/instances/{name}/config_options", dependencies=[permits.needs(Action.READ, Kind.INSTANCE, id="name")]
)
async def config_options(request: Request, serves: Serves, name: str) -> Response:
    """Return what each setting can be right now."""
    return bodies.answer(await _found(request, serves, name).config_options())


def _found(request: Request, serves: Service, name: str) -> Instance:
    return serves.sessions.instance(service.session_of(request), name)


def _described(found: Instance) -> dict[str, Any]:
    drift = found.drift
    return {
        "instance": found.id,
        "plugin": found.plugin,
        "config": dict(found.config),
        "options": found.options.to_dict(),
        "state": str(found.state),
        "enabled": found.is_enabled,
        "drift": None if drift is None else {**drift.to_dict(), "live_schema": dict(drift.live_schema)},
        "actions": dict(found.loaded_from.manifest.runtime.actions),
    }
