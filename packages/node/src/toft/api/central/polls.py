"""`GET /v1/config`, without the framework: ten thousand nodes wait in it at the same time.

Each is one coroutine and one future; nothing is read from the database while it waits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from toft.api import problems
from toft.api.central.credentials import check_active, node_of
from toft.api.central.service import Service
from toft.api.guard import address_of
from toft.central.nodes import Node
from toft.central.offers import Offer
from toft.central.room import Central
from toft.kernel import errors
from toft.managed import protocol

_LONGEST_S = 55.0
_WAIT = re.compile(rb"(?:^|[,;\s])wait\s*=\s*(\d{1,5})(?=$|[,;\s])")


class Polls:
    """Answers the one path, and passes everything else on.

    Args:
        app: The rest.
        service: What it works with.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if (
            scope["type"] != "http"
            or scope["path"] != protocol.CONFIG
            or scope["method"] not in ("GET", "HEAD")
        ):
            await self._app(scope, receive, send)
            return
        try:
            status, headers, body = await answer(self._service, dict(scope["headers"]), address_of(scope))
        except errors.NodeError as error:
            await problems.response(error)(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body if scope["method"] == "GET" else b""})


async def answer(
    service: Service, headers: Mapping[bytes, bytes], address: str
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Return status, headers and body for a node that asks what it is to run.

    Raises:
        NodeError: It is none that may ask, or there is nothing for it.
    """
    central, clock = service.central, service.central.clock
    node = node_of(service, headers.get(b"authorization", b"").decode("latin-1"), address)
    service.pace.step(node.id)
    runs = protocol.read_etag(headers.get(b"if-none-match", b"").decode("latin-1"))
    central.nodes.see(node, runs)
    check_active(node)
    seen = central.waiting.changes
    offer = await _offered(central, node)
    until = clock.monotonic() + _wait_s(headers.get(b"prefer", b""))
    while (
        offer.served.etag == runs
        and (left_s := until - clock.monotonic()) > 0
        and central.waiting.may(node.id)
    ):
        has_changed = await central.waiting.wait(node.id, left_s, since=seen)
        seen = central.waiting.changes
        check_active(node)
        offer = await _offered(central, node)
        if not has_changed:
            break
    if offer.served.etag == runs:
        return 304, _headers(offer), b""
    # Before it leaves: what a node was given it may ask for again, whatever becomes of this answer.
    await central.note_offer(node, offer.served.sha256)
    size = (b"content-length", b"%d" % len(offer.served.data))
    return 200, [*_headers(offer), (b"content-type", b"application/json"), size], offer.served.data


async def _offered(central: Central, node: Node) -> Offer:
    offer = await central.offers.offered(node)
    if offer is None:
        raise errors.NotFoundError(
            "there is no document for this node yet",
            code="no_document",
            hint="toft central document save FILE --publish",
        )
    return offer


def _wait_s(prefer: bytes) -> float:
    found = _WAIT.search(prefer)
    return min(float(found[1]), _LONGEST_S) if found else 0.0


def _headers(offer: Offer) -> list[tuple[bytes, bytes]]:
    served = offer.served
    said = {
        "etag": protocol.quoted(served.etag),
        "repr-digest": protocol.digest(served.data),
        "cache-control": "private, no-store",
        protocol.REVISION.lower(): str(served.revision),
        protocol.ATTEMPT.lower(): str(offer.attempt),
        protocol.NOT_AFTER.lower(): served.not_after,
        protocol.SIGNATURES.lower(): served.signatures,
    }
    return [(name.encode(), value.encode("latin-1")) for name, value in said.items() if value]
