"""Rollouts: begun, watched, held and taken back; and how the fleet stands."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, permits
from toft.api.central import bodies as taken
from toft.api.central.service import Serves, actor, check_word, tenant_of, within
from toft.central import convergence, rollouts
from toft.central.launching import Wish
from toft.central.ledger import Record

router = APIRouter(tags=["rollouts"])
_ROOT = "/v1/admin/rollouts"
_MOST_NODES = 1000


def _needs(action: Action) -> list[Any]:
    return [permits.needs(action, Kind.ROLLOUT, id=None, within=within)]


@router.get(_ROOT, dependencies=_needs(Action.READ))
async def list_rollouts(
    request: Request,
    serves: Serves,
    document: Annotated[str, Query(max_length=64)] = "",
    before: Annotated[str, Query(max_length=64)] = "",
    most: Annotated[int, Query(ge=1, le=200)] = 50,
) -> Response:
    """List the rollouts of a tenant, the newest first."""
    found = await serves.central.rollouts.list(
        tenant_of(request), document=document, before=before, most=most
    )
    return bodies.answer([each.to_dict() for each in found])


@router.post(_ROOT, status_code=201, dependencies=_needs(Action.WRITE))
async def create_rollout(request: Request, serves: Serves) -> Response:
    """Bring a revision of a document to its nodes, in waves; the newest revision by default."""
    tenant = tenant_of(request)
    wanted = bodies.taken(await bodies.fields(request), **taken.ROLLOUT.kinds)
    is_emergency = bool(wanted["emergency"])
    if is_emergency:
        await permits.require(request, Action.ADMIN, Kind.ROLLOUT, plugins=[tenant])
    wish = Wish(
        tenant=tenant,
        document=wanted["document"],
        number=wanted["number"],
        rules=wanted["rules"],
        message=wanted["message"] or "",
        is_draft=bool(wanted["draft"]),
        is_emergency=is_emergency,
        by=actor(request),
    )
    return bodies.answer(_told(serves, await serves.central.launching.create(wish)), status=201)


@router.get(_ROOT + "/{id}", dependencies=_needs(Action.READ))
async def show_rollout(
    request: Request, serves: Serves, id: str, stage: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """Tell of a rollout: its waves, why it stands as it does, and how far each node is."""
    return bodies.answer(_told(serves, await serves.central.rollouts.get(tenant_of(request), id), stage))


@router.post(_ROOT + "/{id}/start", dependencies=_needs(Action.WRITE))
async def start_rollout(request: Request, serves: Serves, id: str) -> Response:
    """Begin a rollout that was a draft."""
    return await _ask(request, serves, id, "start")


@router.post(_ROOT + "/{id}/pause", dependencies=_needs(Action.CANCEL))
async def pause_rollout(request: Request, serves: Serves, id: str) -> Response:
    """Offer the revision to nobody else until somebody resumes it."""
    return await _ask(request, serves, id, "pause")


@router.post(_ROOT + "/{id}/resume", dependencies=_needs(Action.WRITE))
async def resume_rollout(request: Request, serves: Serves, id: str) -> Response:
    """Let a paused rollout go on; its wave is given its time once more."""
    return await _ask(request, serves, id, "resume")


@router.post(_ROOT + "/{id}/promote", dependencies=_needs(Action.WRITE))
async def promote_rollout(request: Request, serves: Serves, id: str) -> Response:
    """Open the next wave now; after the last one, give the revision to everybody."""
    return await _ask(request, serves, id, "promote")


@router.post(_ROOT + "/{id}/abort", dependencies=_needs(Action.CANCEL))
async def abort_rollout(request: Request, serves: Serves, id: str) -> Response:
    """Give every node what it had before; nothing has to be signed for that."""
    return await _ask(request, serves, id, "abort")


@router.post(_ROOT + "/{id}/emergency", dependencies=_needs(Action.ADMIN))
async def hurry_rollout(request: Request, serves: Serves, id: str) -> Response:
    """Open all waves at once; signatures are asked for all the same."""
    return await _ask(request, serves, id, "emergency")


@router.get("/v1/admin/fleet", dependencies=[permits.needs(Action.READ, Kind.FLEET, id=None, within=within)])
async def show_fleet(
    request: Request,
    serves: Serves,
    standing: Annotated[str, Query(max_length=20)] = "",
    most: Annotated[int, Query(ge=1, le=_MOST_NODES)] = 200,
) -> Response:
    """Tell how many nodes stand how, and which ones need a look: who lags, fell silent, went back and why."""
    check_word(standing, convergence.Standing, "standing of a node")
    looks = await serves.central.overviews.of(tenant_of(request))
    counts = Counter(str(each.standing) for each in looks)
    chosen = [each for each in looks if (each.standing == standing if standing else each.is_trouble)]
    return bodies.answer(
        {"nodes": len(looks), "counts": counts, "listed": [each.to_dict() for each in chosen[:most]]}
    )


async def _ask(request: Request, serves: Serves, id: str, verb: str) -> Response:
    wanted = bodies.taken(await bodies.fields(request), **taken.REASON.kinds)
    record = await serves.central.launching.ask(
        tenant_of(request),
        id,
        verb,
        by=actor(request),
        reason=wanted["reason"] or "",
    )
    return bodies.answer(_told(serves, record))


def _told(serves: Serves, record: Record, stage: str = "") -> dict[str, Any]:
    check_word(stage, rollouts.Stage, "stage of a node")
    nodes: list[dict[str, Any]] = []
    for id, place in record.places.items():
        if stage and place.stage != stage:
            continue
        if len(nodes) == _MOST_NODES:
            break
        node = serves.central.nodes.find(id)
        runs = None if node is None else convergence.runs(node)
        nodes.append({"node": id, "name": node.name if node else id, "runs": runs, **place.to_dict()})
    return {**record.to_dict(), "nodes": nodes}
