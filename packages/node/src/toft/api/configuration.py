"""What can be set on an instance, the values it can take, and whether a change would fit."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, permits, schemas, service
from toft.api.service import Service
from toft.plugins import configuring

router = APIRouter(tags=["plugins"])
Serves = Annotated[Service, Depends(service.of)]
Instance = Annotated[str | None, Query()]
_READS = permits.needs(Action.READ, Kind.PLUGIN, id="name")


@router.get("/v1/plugins/{name}/config/schema", dependencies=[_READS])
async def schema(serves: Serves, name: str, instance: Instance = None) -> Response:
    """Show the JSON Schema of a configuration, its defaults, and what is remembered of it.

    `problems` tells what does not fit in what is remembered; then there is no `config`.
    """
    await configuring.check_owner(serves.node, name, instance)
    return bodies.answer(await configuring.describe(serves.node, name, instance=instance))


@router.get("/v1/plugins/{name}/config/options", dependencies=[_READS])
async def options(serves: Serves, name: str, instance: Instance = None) -> Response:
    """Show what each setting can be right now; an instance that is not loaded cannot say."""
    await configuring.check_owner(serves.node, name, instance)
    return bodies.answer(await configuring.options(serves.node, name, instance=instance))


@router.post("/v1/plugins/{name}/config/validate", dependencies=[_READS])
async def validate(request: Request, serves: Serves, name: str) -> Response:
    """Say whether a change would fit; nothing is changed and nothing is started."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.CONFIGURE.kinds)
    await configuring.check_owner(serves.node, name, wanted["instance"])
    found = await configuring.check(
        serves.node, name, wanted["changes"], instance=wanted["instance"], replace=bool(wanted["replace"])
    )
    return bodies.answer(found.to_dict())
