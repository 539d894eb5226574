"""What administrators do with tenants, join tokens, groups, wheels, trust roots and the audit log."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, permits
from toft.api.central import bodies as taken
from toft.api.central.service import Serves, actor, tenant_of, within
from toft.central import audit, tokens
from toft.central.documents import Group
from toft.central.nodes import STATES
from toft.kernel.version import VERSION
from toft.managed import messages

router = APIRouter(tags=["administration"])
_ROOT = "/v1/admin"


def _needs(action: Action, kind: Kind) -> list[Any]:
    return [permits.needs(action, kind, id=None, within=within)]


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
    await serves.central.documents.add_tenant(wanted["name"], by=actor(request))
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
    made, text = await serves.central.tokens.create(tenant, wish, by=actor(request))
    return bodies.answer({**made, "token": text}, status=201)


@router.delete(_ROOT + "/tokens/{id}", dependencies=_needs(Action.ADMIN, Kind.FLEET))
async def revoke_token(request: Request, serves: Serves, id: str) -> Response:
    """End a join token; nodes that joined with it stay."""
    return bodies.answer(await serves.central.tokens.revoke(tenant_of(request), id, by=actor(request)))


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
    await serves.central.put_group(group, by=actor(request))
    return bodies.answer(group.to_dict())


@router.delete(_ROOT + "/groups/{name}", dependencies=_needs(Action.WRITE, Kind.DOCUMENT))
async def delete_group(request: Request, serves: Serves, name: str) -> Response:
    """Take away a group that has no document."""
    await serves.central.delete_group(tenant_of(request), name, by=actor(request))
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
    made = await serves.artifacts.add(
        tenant_of(request), sha256, filename, request.stream(), by=actor(request)
    )
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
    root = await serves.central.trusts.add_root(tenant, signed, by=actor(request))
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
    tenant = tenant_of(request) if request.query_params.get("tenant") else "*"
    found = await audit.entries(serves.central.store, tenant=tenant, before=before, most=most)
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
