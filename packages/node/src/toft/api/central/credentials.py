"""Which node asks: by its credential; whoever shows too many that are none is slowed down."""

from __future__ import annotations

from toft.api.central.service import Service
from toft.central import admission
from toft.central.nodes import Node
from toft.kernel import errors
from toft.managed import protocol

_BEARER = "Bearer "


def node_of(service: Service, authorization: str, address: str) -> Node:
    """Return the node that shows a credential.

    Raises:
        RefusedError: It is none, not any more, or its node is revoked.
        UnavailableError: Too many that were none came from there.
    """
    try:
        if not authorization.startswith(_BEARER):
            raise admission.refused_credential()
        return service.central.admission.node_of(authorization[len(_BEARER) :])
    except errors.RefusedError as error:
        if error.code == "credential_refused":
            count_failure(service, address, "a credential that is none")
        raise


def count_failure(service: Service, address: str, why: str) -> None:
    """Take note of somebody who showed what is none.

    Raises:
        UnavailableError: They did so too often.
    """
    try:
        service.failures.add(address, why)
    except errors.RefusedError as error:
        raise errors.UnavailableError(
            "too much that is no token or no credential came from this address",
            code="too_many_requests",
            blame="caller",
            retry_after_s=error.retry_after_s,
            hint="what is good is let in at once",
        ) from None


def check_active(node: Node) -> None:
    """Refuse a node that was not let in yet, or was thrown out.

    Raises:
        RefusedError: It is one of these.
    """
    if node.state == "revoked":
        raise admission.revoked(node)
    if node.state == "pending":
        raise errors.RefusedError(
            "somebody has to let this node in first",
            code="pending_approval",
            details={"node": node.id},
            retry_after_s=float(protocol.PENDING_S),
            hint=f"toft central node approve {node.id}",
        )
