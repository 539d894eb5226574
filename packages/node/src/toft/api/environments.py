"""The environments plugins run in: look at them, remove what nothing uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, permits, service
from toft.api.service import Service
from toft.kernel import errors

router = APIRouter(tags=["environments"])
Serves = Annotated[Service, Depends(service.of)]


@router.get("/v1/environments", dependencies=[permits.needs(Action.READ, Kind.ENVIRONMENT, id=None)])
async def list_environments(serves: Serves) -> Response:
    """List the environments, and the plugins that run in each."""
    return bodies.answer(await _rows(serves))


@router.get("/v1/environments/{hash}", dependencies=[permits.needs(Action.READ, Kind.ENVIRONMENT, id="hash")])
async def show(serves: Serves, hash: str) -> Response:
    """Show an environment: its interpreter and its packages."""
    for each in await _rows(serves):
        if each["hash"] == hash:
            return bodies.answer(each)
    raise errors.NotFoundError(
        f"there is no environment {hash[:80]!r}", code="environment.not_found", hint="toft env list"
    )


@router.delete(
    "/v1/environments/{hash}", dependencies=[permits.needs(Action.ADMIN, Kind.ENVIRONMENT, id="hash")]
)
async def remove(serves: Serves, hash: str) -> Response:
    """Remove an environment that nothing uses."""
    removed = await serves.node.installed.remove_environment(hash)
    return bodies.answer({"removed": True, "freed_bytes": removed.size_bytes})


@router.post(
    "/v1/environments/collect", dependencies=[permits.needs(Action.ADMIN, Kind.ENVIRONMENT, id=None)]
)
async def collect(serves: Serves) -> Response:
    """Remove all environments that no plugin needs, and what interrupted work left behind."""
    removed = await serves.node.installed.collect_environments()
    freed = sum(each.size_bytes for each in removed)
    return bodies.answer({"removed": [each.hash for each in removed], "freed_bytes": freed})


async def _rows(serves: Service) -> Sequence[Mapping[str, Any]]:
    users: dict[str, list[str]] = {}
    for plugin in await serves.node.plugins():
        users.setdefault(plugin.environment, []).append(plugin.name)
    found = await serves.node.installed.environments()
    return [{**each.to_dict(), "plugins": users.get(each.hash, [])} for each in found]
