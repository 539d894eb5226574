"""Everything one can ask of a central, once: what it is called, its route, and its command."""

from __future__ import annotations

from collections.abc import Mapping

from toft.api import frames
from toft.api.asked import Operation
from toft.api.central import answers, bodies
from toft.api.schemas import Body

_ROOT = "/v1/admin"
_NODE = "- toft join and the daemon ask it"
_CLIENT = "- the command line, or any HTTP client"
_PAGE = "- for nodes"
_COMMAND = "- a command does it"
_PROOF = (400, 401, 403, 429)


def _agent(
    name: str,
    route: str,
    *,
    gives: str = "Nothing",
    status: int = 200,
    media: str = "",
    fails: tuple[int, ...] = (),
) -> Operation:
    kinds = (media,) if media else (frames.JSON_TYPE,)
    return Operation(
        name, route, _NODE, _NODE, _PAGE, gives=gives, status=status, media=kinds, fails=(*_PROOF, *fails)
    )


def _admin(
    name: str,
    route: str,
    cli: str,
    gives: str,
    *,
    takes: Body | None = None,
    status: int = 200,
    fails: tuple[int, ...] = (),
    brings: str = "",
    page: str = _COMMAND,
) -> Operation:
    method, _, path = route.partition(" ")
    return Operation(
        name,
        f"{method} {_ROOT}/{path}",
        f"toft central {cli}",
        _CLIENT,
        page,
        takes=takes,
        gives=gives,
        status=status,
        fails=(404, *fails),
        brings=brings,
    )


AGENTS = (
    _agent("node.enroll", "POST /v1/enroll", gives="Enrolled", status=201, fails=(409, 413)),
    _agent("node.refresh", "POST /v1/identity/refresh", gives="Enrolled", fails=(413,)),
    _agent("node.rotate_key", "POST /v1/identity/rotate-key", status=204, fails=(409, 413)),
    _agent("node.config", "GET /v1/config", gives="Document", fails=(404,)),
    _agent("node.config_again", "GET /v1/config/{sha256}", gives="Document", fails=(404,)),
    _agent("node.roots", "GET /v1/roots", gives="Roots"),
    _agent("node.report", "POST /v1/report", status=204, fails=(413, 422)),
    _agent("node.ingest", "POST /v1/ingest/{signal}", status=202, fails=(404, 413, 422, 503)),
    _agent("node.artifact", "GET /v1/artifacts/{sha256}", media=frames.BYTES_TYPE, fails=(404, 416)),
)
FLEET = (
    _admin("fleet.status", "GET status", "status", "FleetStatus"),
    _admin("tenant.list", "GET tenants", "tenant list", "Tenants"),
    _admin("tenant.create", "POST tenants", "tenant create", "Tenant", takes=bodies.TENANT, status=201),
    _admin("join_token.list", "GET tokens", "token list", "JoinTokens"),
    _admin(
        "join_token.create",
        "POST tokens",
        "token create",
        "NewJoinToken",
        takes=bodies.JOIN_TOKEN,
        status=201,
        fails=(409,),
    ),
    _admin("join_token.revoke", "DELETE tokens/{id}", "token revoke", "JoinToken"),
    _admin("fleet_node.list", "GET nodes", "node list", "FleetNodes"),
    _admin("fleet_node.show", "GET nodes/{id}", "node show", "FleetNodeWhole"),
    _admin("fleet_node.diff", "GET nodes/{id}/diff", "node diff", "NodeDifference"),
    _admin("fleet_node.telemetry", "GET nodes/{id}/telemetry/{signal}", "node logs", "NodeRows"),
    _admin("fleet_node.samples", "GET nodes/{id}/samples", "node metrics", "NodeSamples"),
    _admin("fleet_node.revoke", "POST nodes/{id}/revoke", "node revoke", "FleetNode"),
    _admin("fleet_node.approve", "POST nodes/{id}/approve", "node approve", "FleetNode", fails=(409,)),
    _admin(
        "fleet_node.label",
        "POST nodes/{id}/label",
        "node label",
        "FleetNode",
        takes=bodies.LABEL,
        fails=(409,),
    ),
    _admin("fleet_node.pin", "POST nodes/{id}/pin", "node pin", "FleetNode", takes=bodies.PIN, fails=(409,)),
    _admin("fleet_node.unpin", "POST nodes/{id}/unpin", "node unpin", "FleetNode", fails=(409,)),
    _admin("fleet_node.retry", "POST nodes/{id}/retry", "node retry", "FleetNode"),
)
DOCUMENTS = (
    _admin("group.list", "GET groups", "group list", "Groups"),
    _admin("group.put", "PUT groups/{name}", "group put", "Group", takes=bodies.GROUP, fails=(409,)),
    _admin("group.delete", "DELETE groups/{name}", "group delete", "Deleted", fails=(409,)),
    _admin("document.list", "GET documents", "document list", "Documents"),
    _admin(
        "document.save",
        "POST documents",
        "document save",
        "Preview",
        takes=bodies.SAVE,
        status=201,
        fails=(409,),
    ),
    _admin("document.show", "GET documents/{id}", "document show", "DocumentWhole"),
    _admin("document.diff", "GET documents/{id}/diff", "document diff", "Difference"),
    _admin(
        "document.publish",
        "POST documents/{id}/publish",
        "document publish",
        "DocumentLayer",
        takes=bodies.PUBLISH,
        fails=(409,),
    ),
    _admin("document.payloads", "GET documents/{id}/payloads", "document payloads", "Payloads"),
    _admin(
        "document.sign",
        "POST signatures/{sha256}",
        "document sign",
        "Signed",
        takes=bodies.SIGNATURES,
        fails=(409,),
    ),
    _admin("artifact.list", "GET artifacts", "artifact list", "Wheels"),
    _admin(
        "artifact.add",
        "PUT artifacts/{sha256}",
        "artifact add",
        "Wheel",
        status=201,
        brings=frames.BYTES_TYPE,
    ),
    _admin("root.list", "GET roots", "root list", "Roots"),
    _admin("root.add", "POST roots", "root add", "Root", takes=bodies.ROOT, status=201, fails=(409,)),
    _admin("audit.list", "GET audit", "audit", "AuditLines"),
    _admin("audit.verify", "GET audit/verify", "audit", "AuditVerified"),
)
ROLLOUTS = (
    _admin("fleet.show", "GET fleet", "fleet", "Fleet"),
    _admin("rollout.list", "GET rollouts", "rollout list", "Rollouts"),
    _admin(
        "rollout.create",
        "POST rollouts",
        "rollout create",
        "RolloutWhole",
        takes=bodies.ROLLOUT,
        status=201,
        fails=(409,),
    ),
    _admin("rollout.show", "GET rollouts/{id}", "rollout show", "RolloutWhole"),
    *(
        _admin(
            f"rollout.{verb}",
            f"POST rollouts/{{id}}/{verb}",
            f"rollout {verb}",
            "RolloutWhole",
            takes=bodies.REASON,
            fails=(409,),
        )
        for verb in ("start", "pause", "resume", "promote", "abort", "emergency")
    ),
)
OPERATIONS: tuple[Operation, ...] = (*AGENTS, *FLEET, *DOCUMENTS, *ROLLOUTS)

COMMANDS_APART: Mapping[str, str] = {
    "toft central serve": "- of the machine itself, for whoever is on it",
    "toft central admin create": "- POST /v1/tokens, as on a node",
    "toft central admin list": "- GET /v1/tokens, as on a node",
    "toft central admin revoke": "- DELETE /v1/tokens/{name}, as on a node",
}
"""Commands that ask for nothing that stands above, and why."""

NAMED = answers.NAMED
BY_ROUTE = {each.route: each for each in OPERATIONS}
