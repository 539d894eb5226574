"""Documents: saved, looked at, compared, signed and published."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from toft.access.resources import Action, Kind
from toft.api import bodies, permits
from toft.api.central import bodies as taken
from toft.api.central.service import Serves, actor, tenant_of, within
from toft.central import layers, saving
from toft.central.documents import Document
from toft.central.room import Central
from toft.kernel import errors
from toft.managed import messages, signatures

router = APIRouter(tags=["documents"])
_ROOT = "/v1/admin/documents"
_READS = [permits.needs(Action.READ, Kind.DOCUMENT, id=None, within=within)]
_WRITES = [permits.needs(Action.WRITE, Kind.DOCUMENT, id=None, within=within)]


@router.get(_ROOT, dependencies=_READS)
async def list_documents(request: Request, serves: Serves) -> Response:
    """List the documents of a tenant: its own, those of groups, those of nodes."""
    return bodies.answer([each.to_dict() for each in serves.central.documents.of(tenant_of(request))])


@router.post(_ROOT, status_code=201, dependencies=_WRITES)
async def save_document(
    request: Request, serves: Serves, dry_run: Annotated[bool, Query()] = False
) -> Response:
    """Save a layer as a new revision; with `dry_run=1` only tell what would change for whom."""
    tenant = tenant_of(request)
    wanted = bodies.taken(await bodies.fields(request), **taken.SAVE.kinds)
    target = wanted["target"] or ""
    if wanted["scope"] == "node" and target:
        target = serves.central.nodes.get(tenant, target).id
    wish = saving.Wish(
        tenant=tenant,
        scope=wanted["scope"] or "tenant",
        target=target,
        layer=wanted["layer"],
        author=actor(request),
        message=wanted["message"] or "",
        base=wanted["base"],
    )
    is_published = bool(wanted["publish"]) and not dry_run
    if is_published and serves.central.trusts.root(tenant) is not None:
        raise errors.ConflictError(
            "nodes ask for signatures here, and nobody can have signed what is not saved yet",
            code="central.unsigned",
            hint="save it without publish, have its payloads signed, then publish it",
        )
    preview = await serves.central.saving.save(wish, dry_run=dry_run)
    if is_published:
        await serves.central.publish(preview.document, preview.number, by=wish.author)
    return bodies.answer(preview.to_dict(), status=200 if dry_run else 201)


@router.get(_ROOT + "/{id}", dependencies=_READS)
async def show_document(
    request: Request, serves: Serves, id: str, number: Annotated[int | None, Query(ge=1)] = None
) -> Response:
    """Tell of a document and its revisions, and what one of them says: the newest by default."""
    documents = serves.central.documents
    found = documents.get(tenant_of(request), id)
    revisions = await documents.revisions(found)
    shown = number or (revisions[0]["number"] if revisions else None)
    layer = None if shown is None else await documents.layer(found, shown)
    return bodies.answer({**found.to_dict(), "number": shown, "layer": layer, "revisions": revisions})


@router.get(_ROOT + "/{id}/diff", dependencies=_READS)
async def diff_document(
    request: Request,
    serves: Serves,
    id: str,
    before: Annotated[int | None, Query(ge=1)] = None,
    after: Annotated[int | None, Query(ge=1)] = None,
) -> Response:
    """Tell how two revisions of a document differ: the published one and the newest by default."""
    documents = serves.central.documents
    found = documents.get(tenant_of(request), id)
    revisions = await documents.revisions(found, most=1)
    first, second = before or found.published, after or (revisions[0]["number"] if revisions else None)
    values: list[Any] = [
        None if number is None else await documents.layer(found, number) for number in (first, second)
    ]
    text = layers.diff(values[0], values[1], [layers.called(first), layers.called(second)])
    return bodies.answer({"before": first, "after": second, "diff": text})


@router.post(_ROOT + "/{id}/publish", dependencies=_WRITES)
async def publish_document(request: Request, serves: Serves, id: str) -> Response:
    """Let every node have a revision at once, without a rollout."""
    found = serves.central.documents.get(tenant_of(request), id)
    wanted = bodies.taken(await bodies.fields(request), **taken.PUBLISH.kinds)
    await serves.central.publish(found, wanted["number"], by=actor(request))
    return bodies.answer(found.to_dict())


@router.get(_ROOT + "/{id}/payloads", dependencies=_READS)
async def list_payloads(
    request: Request, serves: Serves, id: str, number: Annotated[int, Query(ge=1)]
) -> Response:
    """List what has to be signed before nodes can be given a revision: exact bytes, in base64."""
    document = serves.central.documents.get(tenant_of(request), id)
    return bodies.answer(await _payloads(serves.central, document, number))


@router.post("/v1/admin/signatures/{sha256}", dependencies=_WRITES)
async def add_signatures(request: Request, serves: Serves, sha256: str) -> Response:
    """Keep signatures that were made elsewhere over bytes that are to be served."""
    tenant, central = tenant_of(request), serves.central
    wanted = bodies.taken(await bodies.fields(request), **taken.SIGNATURES.kinds)
    served = await central.offers.find(tenant, sha256)
    if served is None:
        raise errors.NotFoundError(
            f"nothing that is to be served has the sha256 {sha256[:80]}", code="central.no_payload"
        )
    given = messages.read_signatures(wanted["signatures"])
    kept = await central.trusts.sign(tenant, served.data, given, by=actor(request))
    is_enough = central.trusts.is_vouched(tenant, served.data, kept)
    return bodies.answer({"sha256": sha256, "keys": [each.key_id for each in kept], "is_enough": is_enough})


async def _payloads(central: Central, document: Document, number: int) -> list[dict[str, Any]]:
    found = []
    for served in await central.payloads(document, number):
        found.append(
            {
                "sha256": served.sha256,
                "type": signatures.DOCUMENT_TYPE,
                "payload": signatures.to_base64(served.data),
                "document": json.loads(served.data),
                "is_signed": served.is_vouched,
            }
        )
    return found
