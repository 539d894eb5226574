"""What nodes ask: to become one, for a credential, for what they were given; and what they report."""

from __future__ import annotations

import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from toft.api import bodies, downloads, permits
from toft.api.central import polls
from toft.api.central.credentials import check_active, count_failure, node_of
from toft.api.central.service import Serves, Service
from toft.api.guard import address_of
from toft.central import admission
from toft.central.nodes import Node
from toft.kernel import errors
from toft.managed import messages, protocol
from toft.managed.messages import Enrolled
from toft.managed.signatures import SignatureError

router = APIRouter(tags=["nodes"])
_OWN_PROOF = permits.public("a node proves who it is by its own credential, or by its key")
PATHS = (
    protocol.ENROLL,
    protocol.REFRESH,
    protocol.ROTATE_KEY,
    protocol.CONFIG,
    protocol.ROOTS,
    protocol.REPORT,
    protocol.ARTIFACTS,
    protocol.INGEST,
)
"""Where nodes ask; tokens of administrators are not looked at there."""


def is_for_nodes(path: str) -> bool:
    """Say whether a path is one where nodes ask."""
    return any(path == each or path.startswith(each + "/") for each in PATHS)


def _shown(request: Request, serves: Service) -> Node:
    return node_of(serves, request.headers.get("authorization", ""), address_of(request.scope))


@router.post(protocol.ENROLL, status_code=201, dependencies=[_OWN_PROOF])
async def enroll(request: Request, serves: Serves) -> Response:
    """Become a node, with a join token and a key; asked again with the same ones, the same node."""
    address = address_of(request.scope)
    try:
        wish = messages.read_enroll(await _json(request))
    except SignatureError as error:
        count_failure(serves, address, error.message)
        raise errors.RefusedError("this may not join", code="join_refused") from None
    # Whoever has the key may ask again for a lost answer, and is given another credential each time.
    serves.pace.step(wish.key.key_id)
    try:
        node, text, expires_at, is_new = await serves.central.admission.enroll(wish)
    except admission.JoinRefusedError as error:
        # Guesses are counted by address: whoever made them is let in once they have a good token.
        serves.pace.give_back(wish.key.key_id)
        # Counted first: anybody can be refused as often as they like, and the audit log keeps every line.
        count_failure(serves, address, error.message)
        await serves.central.admission.note_refused(error)
        raise
    return bodies.answer(_enrolled(serves, node, text, expires_at), status=201 if is_new else 200)


@router.post(protocol.REFRESH, dependencies=[_OWN_PROOF])
async def refresh(request: Request, serves: Serves) -> Response:
    """Get a new credential: for the old one, or by the node's key once that one is over."""
    body = await request.body()
    if not body:
        node = _shown(request, serves)
        serves.pace.step(node.id)
        text, expires_at = await serves.central.admission.refresh(node)
    else:
        try:
            wish = messages.read_refresh(await _json(request))
            node, text, expires_at = await serves.central.admission.signed_refresh(
                wish, counted=lambda node: serves.pace.step(node.id)
            )
        except errors.RefusedError as error:
            _count_refused(serves, request, error)
            raise
    return bodies.answer(_enrolled(serves, node, text, expires_at))


@router.post(protocol.ROTATE_KEY, status_code=204, dependencies=[_OWN_PROOF])
async def rotate_key(request: Request, serves: Serves) -> Response:
    """Change the key of a node; signed by the old one and by the new one."""
    try:
        wish = messages.read_rotate_key(await _json(request))
        await serves.central.admission.rotate(wish, counted=lambda node: serves.pace.step(node.id))
    except SignatureError as error:
        count_failure(serves, address_of(request.scope), error.message)
        raise admission.refused_credential() from None
    except errors.RefusedError as error:
        _count_refused(serves, request, error)
        raise
    return Response(status_code=204)


@router.get(protocol.CONFIG, dependencies=[_OWN_PROOF])
async def config(request: Request, serves: Serves) -> Response:
    """Return the document that this node is to run; 304 when it says that it runs that already.

    With `Prefer: wait=SECONDS` that answer comes when something changes, or after so long, 55 at most.
    """
    status, said, body = await polls.answer(serves, dict(request.scope["headers"]), address_of(request.scope))
    answer = Response(body, status_code=status)
    answer.raw_headers = said
    return answer


@router.get(protocol.CONFIG + "/{sha256}", dependencies=[_OWN_PROOF])
async def served(request: Request, serves: Serves, sha256: str) -> Response:
    """Return a document that this node was given once, by its hash."""
    node = _shown(request, serves)
    check_active(node)
    found = await serves.central.given(node, sha256)
    if found is None:
        raise errors.NotFoundError("this node was never given that", code="no_document")
    answer = downloads.Download(found.data, media_type="application/json", digest=found.sha256)
    answer.headers[protocol.REPR_DIGEST] = protocol.digest(found.data)
    answer.headers[protocol.REVISION] = str(found.revision)
    if found.signatures:
        answer.headers[protocol.SIGNATURES] = found.signatures
    return answer


@router.get(protocol.ROOTS, dependencies=[_OWN_PROOF])
async def roots(request: Request, serves: Serves, after: int = -1) -> Response:
    """Return the trust roots that follow on one of this version, each vouched for by the one before."""
    node = _shown(request, serves)
    found = serves.central.trusts.after(node.tenant, after)
    return bodies.answer(messages.roots_value(found))


@router.post(protocol.REPORT, status_code=204, dependencies=[_OWN_PROOF])
async def report(request: Request, serves: Serves) -> Response:
    """Take what a node says of itself."""
    node = _shown(request, serves)
    body = await request.body()
    if len(body) > protocol.MAX_REPORT_BYTES:
        raise errors.RefusedError(
            f"a report has up to {protocol.MAX_REPORT_BYTES} bytes", code="request.too_large"
        )
    serves.reporting.step(node.id)
    await serves.central.reports.take(node, _parsed(body))
    return Response(status_code=204)


@router.post(protocol.INGEST + "/{signal}", status_code=202, dependencies=[_OWN_PROOF])
async def ingest(request: Request, serves: Serves, signal: str) -> Response:
    """Take rows of a node's log or of its samples; once it is answered they are on disk."""
    node = _shown(request, serves)
    check_active(node)
    with serves.chunks.coming(node.id):
        body = await request.body()
        await serves.central.ingest.take(
            node,
            signal,
            request.headers.get(protocol.CHUNK_KEY, ""),
            body,
            counted=lambda: serves.chunks.count(node.id, len(body)),
        )
    return Response(status_code=202)


@router.get(protocol.ARTIFACTS + "/{sha256}", dependencies=[_OWN_PROOF])
@router.head(protocol.ARTIFACTS + "/{sha256}", include_in_schema=False, dependencies=[_OWN_PROOF])
async def artifact(request: Request, serves: Serves, sha256: str) -> Response:
    """Return a wheel of the node's tenant; in pieces, too."""
    node = _shown(request, serves)
    check_active(node)
    found = await serves.artifacts.get(node.tenant, sha256)
    path = serves.artifacts.path(found["sha256"])
    return await downloads.Download.of_file(path, digest=sha256, media_type="application/octet-stream")


def _enrolled(serves: Service, node: Node, text: str, expires_at: float) -> dict[str, Any]:
    return Enrolled(
        node_id=node.id,
        access_token=text,
        expires_at=expires_at,
        root=serves.central.trusts.root(node.tenant),
        control_urls=tuple(serves.central.urls),
        tenant=node.tenant,
    ).to_value()


def _count_refused(serves: Service, request: Request, error: errors.RefusedError) -> None:
    if error.code == "credential_refused":
        count_failure(serves, address_of(request.scope), error.message)


async def _json(request: Request) -> Any:
    """Return the body of a request as JSON; what nobody would sign is too long."""
    body = await request.body()
    if len(body) > protocol.MAX_REQUEST_BYTES:
        raise errors.RefusedError(
            f"this may carry {protocol.MAX_REQUEST_BYTES} bytes", code="request.too_large"
        )
    return _parsed(body)


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise errors.UsageError(f"the body is not JSON: {error}", code="request.body") from None
