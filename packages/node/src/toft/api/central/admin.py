"""What administrators do with nodes, join tokens, groups, wheels, trust roots and the audit log."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, permits
from toft.api.central import bodies as taken
from toft.api.central.service import Serves, Service, tenant_of, within
from toft.central import audit, layers, tokens
from toft.central.documents import Group
from toft.central.nodes import STATES, Node
from toft.kernel import errors
from toft.kernel.version import VERSION
from toft.managed import messages

router = APIRouter(tags=["administration"])
_ROOT = "/v1/admin"


def _needs(action: Action, kind: Kind) -> list[Any]:
    return [permits.needs(action, kind, id=None, within=within)]


def _by(request: Request) -> str:
    return permits.principal_of(request).principal_id


@router.get(_ROOT + "/status", dependencies=_needs(Action.READ, Kind.FLEET))
async def status(request: Request, serves: Serves) -> Response:
    """Tell how a tenant's fleet is, and how this central."""
    central = serves.central
    nodes = central.nodes.of(tenant_of(request))
    return bodies.answer(
        {
            "version": VERSION,
            "urls": list(central.urls),
            "nodes": {each: sum(node.state == each for node in nodes) for each in STATES},
            "waiting": sum(central.waiting.holds(node.id) for node in nodes),
        }
    )


@router.get(_ROOT + "/tenants", dependencies=[permits.needs(Action.READ, Kind.FLEET, id=None)])
async def list_tenants(request: Request, serves: Serves) -> Response:
    """List the tenants that whoever asks may see."""
    seen = permits.visible_of(request, Kind.FLEET)
    names = serves.central.documents.tenants
    return bodies.answer([{"name": each} for each in names if seen is None or each in seen])


@router.post(
    _ROOT + "/tenants", status_code=201, dependencies=[permits.needs(Action.ADMIN, Kind.FLEET, id=None)]
)
async def create_tenant(request: Request, serves: Serves) -> Response:
    """Make a tenant."""
    wanted = bodies.taken(await bodies.fields(request), **taken.TENANT.kinds)
    # Nobody makes another tenant who may only see one.
    await permits.require(request, Action.ADMIN, Kind.FLEET, plugins=[wanted["name"]])
    await serves.central.documents.add_tenant(wanted["name"], by=_by(request))
    return bodies.answer({"name": wanted["name"]}, status=201)


@router.get(_ROOT + "/tokens", dependencies=_needs(Action.READ, Kind.FLEET))
async def list_tokens(request: Request, serves: Serves) -> Response:
    """List the join tokens of a tenant; not the texts that let nodes in."""
    return bodies.answer(await serves.central.tokens.list(tenant_of(request)))


@router.post(_ROOT + "/tokens", status_code=201, dependencies=_needs(Action.ADMIN, Kind.FLEET))
async def create_token(request: Request, serves: Serves) -> Response:
    """Make a join token; the answer is the only place where its text is ever shown."""
    tenant = tenant_of(request)
    wanted = bodies.taken(await bodies.fields(request), **taken.JOIN_TOKEN.kinds)
    wish = tokens.Wish(
        group=wanted["group"],
        labels=wanted["labels"] or {},
        max_uses=1 if wanted["max_uses"] is None else wanted["max_uses"],
        lasts_s=tokens.LASTS_S if wanted["lasts_s"] is None else wanted["lasts_s"],
        needs_approval=bool(wanted["needs_approval"]),
    )
    wish.check()
    serves.central.check_resolves(tenant, wish.group, wish.labels)
    made, text = await serves.central.tokens.create(tenant, wish, by=_by(request))
    return bodies.answer({**made, "token": text}, status=201)


@router.delete(_ROOT + "/tokens/{id}", dependencies=_needs(Action.ADMIN, Kind.FLEET))
async def revoke_token(request: Request, serves: Serves, id: str) -> Response:
    """End a join token; nodes that joined with it stay."""
    return bodies.answer(await serves.central.tokens.revoke(tenant_of(request), id, by=_by(request)))


@router.get(_ROOT + "/nodes", dependencies=_needs(Action.READ, Kind.FLEET))
async def list_nodes(
    request: Request,
    serves: Serves,
    state: Annotated[str | None, Query(max_length=20)] = None,
    group: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """List the nodes of a tenant, in the order in which they joined."""
    found = [
        _told(serves, node)
        for node in serves.central.nodes.of(tenant_of(request))
        if state is None or node.state == state
    ]
    return bodies.answer([each for each in found if group is None or each["group"] == group])


@router.get(_ROOT + "/nodes/{id}", dependencies=_needs(Action.READ, Kind.FLEET))
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


@router.get(_ROOT + "/nodes/{id}/diff", dependencies=_needs(Action.READ, Kind.FLEET))
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


@router.post(_ROOT + "/nodes/{id}/revoke", dependencies=_needs(Action.ADMIN, Kind.FLEET))
async def revoke_node(request: Request, serves: Serves, id: str) -> Response:
    """Throw a node out: it keeps what it runs, and gets nothing any more."""
    node = serves.central.nodes.get(tenant_of(request), id)
    await serves.central.nodes.set_state(node, "revoked", by=_by(request))
    return bodies.answer(_told(serves, node))


@router.post(_ROOT + "/nodes/{id}/approve", dependencies=_needs(Action.ADMIN, Kind.FLEET))
async def approve_node(request: Request, serves: Serves, id: str) -> Response:
    """Let a node in that waits for it."""
    node = serves.central.nodes.get(tenant_of(request), id)
    await serves.central.nodes.set_state(node, "active", by=_by(request))
    return bodies.answer(_told(serves, node))


@router.post(_ROOT + "/nodes/{id}/label", dependencies=_needs(Action.WRITE, Kind.FLEET))
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
        by=_by(request),
    )
    return bodies.answer(_told(serves, node))


@router.post(_ROOT + "/nodes/{id}/pin", dependencies=_needs(Action.WRITE, Kind.FLEET))
async def pin_node(request: Request, serves: Serves, id: str) -> Response:
    """Keep a node on a document that it was given, whatever is published; the one it has by default."""
    node = serves.central.nodes.get(tenant_of(request), id)
    wanted = bodies.taken(await bodies.fields(request), **taken.PIN.kinds)
    sha256 = wanted["sha256"] or (node.offered_etag or "").removeprefix("sha256-")
    if not sha256 or await serves.central.given(node, sha256) is None:
        raise errors.ConflictError(
            f"{node.name} was never given that document",
            code="central.never_given",
            details={"sha256": sha256[:64]},
            hint=f"toft central node show {node.id} tells what it has",
        )
    await serves.central.nodes.pin(node, sha256, by=_by(request))
    return bodies.answer(_told(serves, node))


@router.post(_ROOT + "/nodes/{id}/unpin", dependencies=_needs(Action.WRITE, Kind.FLEET))
async def unpin_node(request: Request, serves: Serves, id: str) -> Response:
    """Let a node have again what all others have."""
    node = serves.central.nodes.get(tenant_of(request), id)
    await serves.central.nodes.pin(node, None, by=_by(request))
    return bodies.answer(_told(serves, node))


@router.post(_ROOT + "/nodes/{id}/retry", dependencies=_needs(Action.WRITE, Kind.FLEET))
async def retry_node(request: Request, serves: Serves, id: str) -> Response:
    """Ask a node to try again what it has refused, without another revision."""
    node = serves.central.nodes.get(tenant_of(request), id)
    await serves.central.nodes.retry(node, by=_by(request))
    return bodies.answer(_told(serves, node))


@router.get(_ROOT + "/groups", dependencies=_needs(Action.READ, Kind.DOCUMENT))
async def list_groups(request: Request, serves: Serves) -> Response:
    """List the groups of a tenant, the one that counts first in front."""
    return bodies.answer([each.to_dict() for each in serves.central.documents.groups(tenant_of(request))])


@router.put(_ROOT + "/groups/{name}", dependencies=_needs(Action.WRITE, Kind.DOCUMENT))
async def put_group(request: Request, serves: Serves, name: str) -> Response:
    """Make a group, or change which nodes are in it."""
    tenant = tenant_of(request)
    wanted = bodies.taken(await bodies.fields(request), **taken.GROUP.kinds)
    group = Group(
        tenant=tenant, name=name, selector=wanted["selector"] or {}, priority=wanted["priority"] or 0
    )
    await serves.central.documents.put_group(group, by=_by(request))
    return bodies.answer(group.to_dict())


@router.delete(_ROOT + "/groups/{name}", dependencies=_needs(Action.WRITE, Kind.DOCUMENT))
async def delete_group(request: Request, serves: Serves, name: str) -> Response:
    """Take away a group that has no document."""
    await serves.central.documents.delete_group(tenant_of(request), name, by=_by(request))
    return bodies.answer({"deleted": name})


@router.get(_ROOT + "/artifacts", dependencies=_needs(Action.READ, Kind.DOCUMENT))
async def list_artifacts(request: Request, serves: Serves) -> Response:
    """List the wheels of a tenant."""
    return bodies.answer(await serves.artifacts.list(tenant_of(request)))


@router.put(_ROOT + "/artifacts/{sha256}", status_code=201, dependencies=_needs(Action.WRITE, Kind.DOCUMENT))
async def add_artifact(
    request: Request, serves: Serves, sha256: str, filename: Annotated[str, Query(max_length=255)]
) -> Response:
    """Store a wheel under its sha256; its name says what it is."""
    made = await serves.artifacts.add(tenant_of(request), sha256, filename, request.stream(), by=_by(request))
    return bodies.answer(made, status=201)


@router.get(_ROOT + "/roots", dependencies=_needs(Action.READ, Kind.DOCUMENT))
async def list_roots(request: Request, serves: Serves) -> Response:
    """Return the chain of trust roots of a tenant, in order."""
    return bodies.answer(messages.roots_value(serves.central.trusts.after(tenant_of(request), -1)))


@router.post(_ROOT + "/roots", status_code=201, dependencies=_needs(Action.ADMIN, Kind.DOCUMENT))
async def add_root(request: Request, serves: Serves) -> Response:
    """Take the next trust root of a tenant, signed by the one before it and by itself."""
    tenant = tenant_of(request)
    wanted = bodies.taken(await bodies.fields(request), **taken.ROOT.kinds)
    signed = messages.read_roots({"roots": [wanted]})[0]
    root = await serves.central.trusts.add_root(tenant, signed, by=_by(request))
    return bodies.answer(root.to_value(), status=201)


def _everywhere(request: Request) -> list[str]:
    return [request.query_params.get("tenant") or "*"]


@router.get(
    _ROOT + "/audit", dependencies=[permits.needs(Action.READ, Kind.AUDIT, id=None, within=_everywhere)]
)
async def list_audit(
    request: Request,
    serves: Serves,
    before: Annotated[int | None, Query(ge=1)] = None,
    most: Annotated[int, Query(ge=1, le=audit.MOST)] = 100,
) -> Response:
    """List what was done, the newest first: everywhere, or in the tenant that is named."""
    found = await audit.entries(
        serves.central.store, tenant=_everywhere(request)[0], before=before, most=most
    )
    return bodies.answer(found)


@router.get(_ROOT + "/audit/verify", dependencies=[permits.needs(Action.READ, Kind.AUDIT, id=None)])
async def verify_audit(request: Request, serves: Serves) -> Response:
    """Say whether every line of the audit log is what it was; it has one chain for all tenants."""
    found = await audit.verify(serves.central.store)
    return bodies.answer(
        {
            "is_whole": found.broken_at is None,
            "lines": found.lines,
            "head": found.head,
            "broken_at": found.broken_at,
        }
    )


def _told(serves: Service, node: Node) -> dict[str, Any]:
    group = serves.central.documents.group_of(node)
    return {**node.to_dict(), "group": group.name if group else None}
