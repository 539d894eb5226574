"""Installed plugins, and what is remembered of their instances."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, permits, schemas, service
from toft.api.service import Service
from toft.plugins import configuring

router = APIRouter(tags=["plugins"])
Serves = Annotated[Service, Depends(service.of)]
Instance = Annotated[str | None, Query()]
Count = Annotated[int, Query(ge=0, le=100_000)]


@router.get("/v1/plugins", dependencies=[permits.needs(Action.READ, Kind.PLUGIN, id=None)])
async def list_plugins(request: Request, serves: Serves) -> Response:
    """List what is installed, with the state of what is loaded."""
    found = [each.to_dict() for each in await serves.node.plugins()]
    limit_to = permits.visible_of(request, Kind.PLUGIN)
    return bodies.answer([each for each in found if limit_to is None or each["name"] in limit_to])


@router.get("/v1/plugins/{name}", dependencies=[permits.needs(Action.READ, Kind.PLUGIN, id="name")])
async def show(serves: Serves, name: str) -> Response:
    """Show the manifest of a plugin."""
    return bodies.answer((await serves.node.installed.get(name)).to_dict())


@router.delete("/v1/plugins/{name}", dependencies=[permits.needs(Action.ADMIN, Kind.PLUGIN, id="name")])
async def remove(serves: Serves, name: str, keep_environment: bool = False) -> Response:
    """Unload a plugin's instances, forget them, and take the plugin away."""
    removed = await serves.node.remove(name, keep_environment=keep_environment)
    return bodies.answer({"removed": removed})


@router.get("/v1/plugins/{name}/config", dependencies=[permits.needs(Action.READ, Kind.PLUGIN, id="name")])
async def show_config(serves: Serves, name: str, instance: Instance = None) -> Response:
    """Show the configuration an instance has or would be loaded with."""
    await configuring.check_owner(serves.node, name, instance)
    return bodies.answer(await serves.node.config(name, instance=instance))


@router.post("/v1/plugins/{name}/config", dependencies=[permits.needs(Action.WRITE, Kind.PLUGIN, id="name")])
async def configure(request: Request, serves: Serves, name: str) -> Response:
    """Change a configuration and remember it."""
    wanted = await _changes(request)
    await configuring.check_owner(serves.node, name, wanted["instance"])
    return bodies.answer(
        await serves.node.configure(
            name, wanted["changes"], instance=wanted["instance"], replace=bool(wanted["replace"])
        )
    )


@router.post("/v1/plugins/{name}/options", dependencies=[permits.needs(Action.ADMIN, Kind.PLUGIN, id="name")])
async def set_options(request: Request, serves: Serves, name: str) -> Response:
    """Change how an instance is run from its next load on."""
    wanted = await _changes(request)
    await configuring.check_owner(serves.node, name, wanted["instance"])
    found = await serves.node.set_options(
        name, wanted["changes"], instance=wanted["instance"], replace=bool(wanted["replace"])
    )
    return bodies.answer(found.to_dict())


async def _changes(request: Request) -> dict[str, Any]:
    return bodies.taken(await bodies.fields(request), **schemas.CONFIGURE.kinds)


@router.post("/v1/plugins/{name}/enabled", dependencies=[permits.needs(Action.WRITE, Kind.PLUGIN, id="name")])
async def set_enabled(request: Request, serves: Serves, name: str) -> Response:
    """Switch an instance on or off and remember it."""
    wanted = bodies.taken(await bodies.fields(request), **schemas.SET_ENABLED.kinds)
    await configuring.check_owner(serves.node, name, wanted["instance"])
    await serves.node.set_enabled(name, wanted["enabled"], instance=wanted["instance"])
    return bodies.answer({})


@router.get("/v1/plugins/{name}/logs", dependencies=[permits.needs(Action.READ, Kind.PLUGIN, id="name")])
async def logs(serves: Serves, name: str, count: Count = 50, instance: Instance = None) -> Response:
    """Return the last lines an instance printed, loaded or not."""
    await configuring.check_owner(serves.node, name, instance)
    return bodies.answer(await serves.node.logs(name, count, instance=instance))


@router.get("/v1/system", dependencies=[permits.needs(Action.READ, Kind.NODE, id=None)])
async def system(serves: Serves, what: Literal["status", "processes"] = "status") -> Response:
    """Return what the machine is doing: `status`, or `processes` on its GPUs."""
    return bodies.answer(await serves.node.system(what))
