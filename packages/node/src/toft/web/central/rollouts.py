"""Rollouts: the list, and one live with its waves, its order and every node."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import permits
from toft.api.central.service import Serves, Service, tenant_of, within
from toft.central import convergence, layers, rollouts
from toft.central.documents import Document
from toft.central.ledger import Record
from toft.central.nodes import Node
from toft.central.rollouts import Stage, State
from toft.web import rendering
from toft.web.central import showing

router = APIRouter(include_in_schema=False, route_class=rendering.PageRoute)
READS = [permits.needs(Action.READ, Kind.ROLLOUT, id=None, within=within)]
_LISTED = 50
_SQUARES = 1000
_NODES = 200
_ORDER = (*rollouts.BAD, *reversed(rollouts.UNDER_WAY), Stage.APPLIED, Stage.SKIPPED)


@router.get("/rollouts", dependencies=READS)
async def list_rollouts(
    request: Request, serves: Serves, before: Annotated[str, Query(max_length=64)] = ""
) -> Response:
    """Show rollouts, the newest first."""
    tenant = tenant_of(request)
    found = await serves.central.rollouts.list(tenant, before=before, most=_LISTED + 1)
    named = {each.id: called(serves, each) for each in serves.central.documents.of(tenant)}
    return showing.page(
        request,
        serves,
        "rollouts",
        rollouts=[{**each.to_dict(), "of": named[each.document]} for each in found[:_LISTED]],
        older=found[_LISTED - 1].id if len(found) > _LISTED else None,
        is_first=not before,
    )


@router.get("/rollouts/{id}", dependencies=READS)
async def rollout(
    request: Request, serves: Serves, id: str, stage: Annotated[str, Query(max_length=20)] = ""
) -> Response:
    """Show a rollout as it stands."""
    tenant, central = tenant_of(request), serves.central
    record = await central.rollouts.get(tenant, id)
    document = central.documents.get(tenant, record.document)
    order = _order(serves, record, document)
    now = central.clock.now()
    listed = sorted(
        (each for each in order if each["stage"] and (not stage or each["stage"] == stage)),
        key=lambda each: (_ORDER.index(each["stage"]), each["wave"], each["bucket"]),
    )
    return showing.page(
        request,
        serves,
        "rollout",
        rollout=record.to_dict(),
        of=called(serves, document),
        waves=_waves(record, order, now),
        order=order if len(order) <= _SQUARES else [],
        total=len(order),
        nodes=listed[:_NODES],
        left_out=max(len(listed) - _NODES, 0),
        stage=stage,
        stages=[(str(each), count) for each in Stage if (count := record.counts().get(str(each), 0))],
        diff=await _diff(serves, record, document),
        verbs=_verbs(record),
    )


def called(serves: Service, document: Document) -> str:
    """Return a document in words."""
    if document.scope == "tenant":
        return "all nodes"
    if document.scope == "group":
        return f"group {document.target}"
    node = serves.central.nodes.find(document.target)
    return f"node {node.name if node else document.target}"


def _order(serves: Service, record: Record, document: Document) -> list[dict[str, Any]]:
    """Return the nodes in the order in which they get it, each with how far it is."""
    nodes = {node.id: node for node in serves.central.rollouts.about(document)}
    for id in record.places:
        node = serves.central.nodes.find(id)
        if node is not None:
            nodes.setdefault(id, node)
    found = [_placed(record, node) for node in nodes.values()]
    return sorted(found, key=lambda each: (each["bucket"], each["node"]))


def _placed(record: Record, node: Node) -> dict[str, Any]:
    place = record.places.get(node.id)
    told: dict[str, Any] = {"stage": "", "reason": "", "detail": "", "wave": -1, "changed_at": None}
    if place is not None:
        told = place.to_dict()
    return {
        **told,
        "node": node.id,
        "name": node.name,
        "labels": node.labels,
        "bucket": rollouts.bucket(record.salt, node.id),
        "is_back": place is not None and bool(place.etag) and convergence.runs(node) != place.etag,
    }


def _waves(record: Record, order: Sequence[dict[str, Any]], now: float) -> list[dict[str, Any]]:
    found = []
    for number, wave in enumerate(record.rules.waves):
        mine = [each for each in order if each["wave"] == number and each["stage"] != Stage.SKIPPED]
        about = sum(layers.matches(wave.selector, each["labels"]) for each in order)
        is_open = number <= record.wave
        is_last = number == record.wave and record.state in (State.RUNNING, State.PAUSED)
        left_s = None
        if is_last and record.state is State.RUNNING and record.wave_opened_at is not None:
            left_s = max(record.wave_opened_at + wave.bake_s - now, 0.0)
        found.append(
            {
                **wave.to_dict(),
                "selector": wave.selector,
                "nodes": len(mine),
                "wanted": rollouts.quota(wave.percent, about),
                "applied": sum(each["stage"] == Stage.APPLIED for each in mine),
                "bad": sum(each["stage"] in rollouts.BAD for each in mine),
                "is_open": is_open,
                "is_last": is_last,
                "left_s": left_s,
            }
        )
    return found


async def _diff(serves: Service, record: Record, document: Document) -> list[str]:
    documents = serves.central.documents
    before = None if record.previous is None else await documents.layer(document, record.previous)
    after = await documents.layer(document, record.number)
    names = (layers.called(record.previous), layers.called(record.number))
    return layers.diff(before, after, names).splitlines()


def _verbs(record: Record) -> list[str]:
    known = record.known()
    return [verb for verb in rollouts.VERBS if rollouts.may(verb, known)]
