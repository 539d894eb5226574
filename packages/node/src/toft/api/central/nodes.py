"""What administrators do with nodes: who is there, what each one runs, who may stay, who gets what."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, moments, permits
from toft.api.central import bodies as taken
from toft.api.central.service import Serves, Service, actor, check_word, tenant_of, within
from toft.central import layers
from toft.central.ingest import check_signal
from toft.central.nodes import STATES, Node
from toft.central.rows import MOST, Question, columns
from toft.managed import protocol

router = APIRouter(tags=["administration"])
_ROOT = "/v1/admin/nodes"


def _needs(action: Action) -> list[Any]:
    return [permits.needs(action, Kind.FLEET, id=None, within=within)]


@router.get(_ROOT, dependencies=_needs(Action.READ))
async def list_nodes(
    request: Request,
    serves: Serves,
    state: Annotated[str | None, Query(max_length=20)] = None,
    group: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """List the nodes of a tenant, in the order in which they joined."""
    check_word(state, STATES, "state of a node")
    found = [
        _told(serves, node)
        for node in serves.central.nodes.of(tenant_of(request))
        if state is None or node.state == state
    ]
    return bodies.answer([each for each in found if group is None or each["group"] == group])


@router.get(_ROOT + "/{id}", dependencies=_needs(Action.READ))
async def show_node(request: Request, serves: Serves, id: str) -> Response:
    """Tell everything about a node: what it runs, what it is offered, what happened on it."""
    central = serves.central
    node = central.nodes.get(tenant_of(request), id)
    offer = await central.offers.offered(node)
    offered = None
    if offer is not None:
        served = offer.served
        offered = {"etag": served.etag, "revision": served.revision, "attempt": offer.attempt}
    found = {
        **_told(serves, node),
        "offered": offered,
        "documents": [each.to_dict() for each in central.documents.of_node(node)],
        "report": dict(node.report),
        "history": await central.reports.history(node),
        "effective": await central.reports.effective(node),
    }
    return bodies.answer(found)


@router.get(_ROOT + "/{id}/diff", dependencies=_needs(Action.READ))
async def diff_node(request: Request, serves: Serves, id: str) -> Response:
    """Tell how what a node says that it runs differs from what it is offered now."""
    central = serves.central
    node = central.nodes.get(tenant_of(request), id)
    offer = await central.offers.offered(node)
    runs = (node.asked_etag or "").removeprefix("sha256-")
    before = await central.offers.find(node.tenant, runs) if runs else None
    served = None if offer is None else offer.served
    values = [None if each is None else json.loads(each.data) for each in (before, served)]
    names = [f"runs {runs[:12] or 'none'}", f"offered {served.sha256[:12] if served else 'none'}"]
    return bodies.answer(
        {
            "runs": node.asked_etag or None,
            "is_known": before is not None,
            "offered": served.etag if served else None,
            "diff": layers.diff(values[0], values[1], names),
        }
    )


@router.get(_ROOT + "/{id}/telemetry/{signal}", dependencies=_needs(Action.READ))
async def node_telemetry(
    request: Request,
    serves: Serves,
    id: str,
    signal: str,
    most: Annotated[int, Query(ge=1, le=MOST)] = 100,
    before: Annotated[str, Query(max_length=40)] = "",
    after: Annotated[str, Query(max_length=40)] = "",
    level: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    """Return rows of a node's log, or of its samples: the last ones, or those before or after one of them."""
    check_signal(signal)
    node = serves.central.nodes.get(tenant_of(request), id)
    question = Question(most=most, before=before, after=after, level=level)
    found, is_more = await serves.central.rows.read(node, signal, question)
    return bodies.answer({"rows": [each.to_dict() for each in found], "more": is_more})


@router.get(_ROOT + "/{id}/samples", dependencies=_needs(Action.READ))
async def node_samples(
    request: Request, serves: Serves, id: str, since: Annotated[str | None, Query(alias="from")] = None
) -> Response:
    """Return the last thousand samples that a node has sent here, as columns for a plot."""
    node = serves.central.nodes.get(tenant_of(request), id)
    begins = moments.seconds("from", since)
    found, _ = await serves.central.rows.read(node, protocol.METRICS, Question(most=MOST))
    told = await asyncio.to_thread(columns, found, 0.0 if begins is None else begins)
    return bodies.answer(told)


@router.post(_ROOT + "/{id}/revoke", dependencies=_needs(Action.ADMIN))
async def revoke_node(request: Request, serves: Serves, id: str) -> Response:
    """Throw a node out: it keeps what it runs, and gets nothing any more."""
    node = serves.central.nodes.get(tenant_of(request), id)
    await serves.central.nodes.set_state(node, "revoked", by=actor(request))
    return bodies.answer(_told(serves, node))


@router.post(_ROOT + "/{id}/approve", dependencies=_needs(Action.ADMIN))
async def approve_node(request: Request, serves: Serves, id: str) -> Response:
    """Let a node in that waits for it."""
    node = serves.central.nodes.get(tenant_of(request), id)
    await serves.central.nodes.set_state(node, "active", by=actor(request))
    return bodies.answer(_told(serves, node))


@router.post(_ROOT + "/{id}/label", dependencies=_needs(Action.WRITE))
async def label_node(request: Request, serves: Serves, id: str) -> Response:
    """Change the labels of a node, its name or its group; a label that is null goes."""
    tenant = tenant_of(request)
    node = serves.central.nodes.get(tenant, id)
    wanted = bodies.taken(await bodies.fields(request), **taken.LABEL.kinds)
    labels = {**node.labels, **(wanted["labels"] or {})}
    group = node.assigned_group if wanted["group"] is None else (wanted["group"] or None)
    if group is not None:
        serves.central.documents.group(tenant, group)
    await serves.central.label(
        node,
        {name: each for name, each in labels.items() if each is not None},
        name=node.name if wanted["name"] is None else wanted["name"],
        group=group,
        by=actor(request),
    )
    return bodies.answer(_told(serves, node))


@router.post(_ROOT + "/{id}/pin", dependencies=_needs(Action.WRITE))
async def pin_node(request: Request, serves: Serves, id: str) -> Response:
    """Keep a node on a document that it was given, whatever is published; the one it has by default."""
    node = serves.central.nodes.get(tenant_of(request), id)
    wanted = bodies.taken(await bodies.fields(request), **taken.PIN.kinds)
    sha256 = wanted["sha256"] or (node.offered_etag or "").removeprefix("sha256-")
    await serves.central.pin(node, sha256, by=actor(request))
    return bodies.answer(_told(serves, node))


@router.post(_ROOT + "/{id}/unpin", dependencies=_needs(Action.WRITE))
async def unpin_node(request: Request, serves: Serves, id: str) -> Response:
    """Let a node have again what all others have."""
    node = serves.central.nodes.get(tenant_of(request), id)
    await serves.central.unpin(node, by=actor(request))
    return bodies.answer(_told(serves, node))


@router.post(_ROOT + "/{id}/retry", dependencies=_needs(Action.WRITE))
async def retry_node(request: Request, serves: Serves, id: str) -> Response:
    """Ask a node to try again what it has refused, without another revision."""
    node = serves.central.nodes.get(tenant_of(request), id)
    await serves.central.nodes.retry(node, by=actor(request))
    return bodies.answer(_told(serves, node))


def _told(serves: Service, node: Node) -> dict[str, Any]:
    group = serves.central.documents.group_of(node)
    return {**node.to_dict(), "group": group.name if group else None}
