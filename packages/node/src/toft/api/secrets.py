"""Secrets of plugins: their names and whether they have a value, and never the value."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, permits, schemas, service
from toft.api.service import Service

router = APIRouter(tags=["secrets"])
Serves = Annotated[Service, Depends(service.of)]


@router.get("/v1/secrets", dependencies=[permits.needs(Action.READ, Kind.SECRET, id=None)])
async def list_secrets(serves: Serves) -> Response:
    """List what plugins declare and what is stored for them."""
    return bodies.answer([each.to_dict() for each in await serves.node.installed.secrets()])


@router.get("/v1/plugins/{name}/secrets", dependencies=[permits.needs(Action.READ, Kind.SECRET, id="name")])
async def show_secrets(serves: Serves, name: str) -> Response:
    """List what a plugin declares and what is stored for it."""
    return bodies.answer([each.to_dict() for each in await serves.node.installed.secrets(name)])


@router.put(
    "/v1/plugins/{name}/secrets/{key}", dependencies=[permits.needs(Action.WRITE, Kind.SECRET, id="name")]
)
async def set_secret(request: Request, serves: Serves, name: str, key: str) -> Response:
    """Store a secret and replace the workers that were started without it."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.SET_SECRET.kinds)
    await serves.node.set_secret(name, key, wanted["value"])
    return bodies.answer({})


@router.delete(
    "/v1/plugins/{name}/secrets/{key}", dependencies=[permits.needs(Action.WRITE, Kind.SECRET, id="name")]
)
async def remove_secret(serves: Serves, name: str, key: str) -> Response:
    """Remove a secret for good; workers that have it keep it until they are replaced."""
    await asyncio.to_thread(serves.node.rooms.secrets.delete, name, key)
    return bodies.answer({"removed": True})
