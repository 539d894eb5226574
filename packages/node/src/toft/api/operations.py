"""Everything one can ask of a node, once: what it is called, its route, command, client method and page.

Where a face lacks an operation its column says why, after a dash. A test holds every column against the
face it names, and every route, command and method against this list.
"""

from __future__ import annotations

import re

from toft.api import (
    asked,
    document_operations,
    frames,
    instance_operations,
    job_operations,
    plugin_operations,
    schemas,
)
from toft.api.asked import Operation as Operation

_AUTHORING = "- reads and writes files of the machine it is typed on"
_LOCAL = "- of the machine itself, for whoever is on it"

NODE = (
    Operation("node.live", "GET /livez", "toft status", asked.NO_PAGE, asked.NO_PAGE, gives="Alive"),
    Operation("node.healthy", "GET /healthz", "toft status", asked.NO_PAGE, asked.NO_PAGE, gives="Ready"),
    Operation("node.ready", "GET /readyz", "toft status", asked.NO_PAGE, asked.NO_PAGE, gives="Ready"),
    Operation("node.status", "GET /v1/status", "toft status", "system", "/", gives="Status"),
    Operation("node.queue", "GET /v1/queue", "toft top", "jobs.status", "/", gives="Queue"),
    Operation("node.system", "GET /v1/system", "toft top", "system", "/", gives="System"),
    Operation(
        "node.metrics",
        "GET /metrics",
        "- toft top shows what is now",
        "- for Prometheus",
        asked.NO_PAGE,
        media=("text/plain",),
    ),
    Operation(
        "node.samples",
        "GET /v1/samples",
        "- plots are for pages; toft top shows what is now",
        "jobs.samples",
        "/samples",
        gives="Samples",
    ),
    Operation("node.describe", "GET /v1/openapi.json", asked.NO_PAGE, asked.NO_PAGE, asked.NO_PAGE),
    Operation(
        "session.open",
        "POST /v1/sessions",
        asked.NO_PAGE,
        "connect",
        asked.NO_PAGE,
        media=(frames.MEDIA_TYPE,),
    ),
)
_KEYS = "- whoever makes tokens does so with toft token, or over HTTP"
ACCESS = (
    Operation("token.list", "GET /v1/tokens", "toft token list", _KEYS, asked.NO_PAGE, gives="Tokens"),
    Operation(
        "token.create",
        "POST /v1/tokens",
        "toft token create",
        _KEYS,
        "- a page of a stolen session must make none",
        takes=schemas.CREATE_TOKEN,
        gives="NewToken",
        status=201,
        fails=(409,),
    ),
    Operation(
        "token.revoke",
        "DELETE /v1/tokens/{name}",
        "toft token revoke",
        _KEYS,
        "- a page of a stolen session must make none",
        gives="Token",
    ),
    Operation(
        "access.why",
        "GET /v1/access/why",
        "toft why-denied",
        "- a refusal says itself which scope is missing",
        asked.NO_PAGE,
        gives="Decision",
        fails=(404,),
    ),
    Operation(
        "link.make", "POST /v1/links", "toft open", "- for browsers", "- a page is in already", gives="Link"
    ),
    Operation(
        "session.sign_out", "POST /v1/sign-out", "- for browsers", "- for browsers", "/", gives="SignedOut"
    ),
)

OPERATIONS: tuple[Operation, ...] = (
    *NODE,
    *job_operations.JOBS,
    *job_operations.SEQUENCES,
    *plugin_operations.PLUGINS,
    *plugin_operations.ENVIRONMENTS,
    *plugin_operations.ARTIFACTS,
    *instance_operations.INSTANCES,
    *ACCESS,
    *document_operations.DOCUMENTS,
)
COMMANDS_APART = {
    **dict.fromkeys(("toft up", "toft down", "toft logs", "toft backup", "toft doctor"), _LOCAL),
    **dict.fromkeys(("toft service install", "toft service remove", "toft env setup-runtime"), _LOCAL),
    **dict.fromkeys(("toft plugin new", "toft plugin test", "toft plugin validate"), _AUTHORING),
    "toft plugin pin": _AUTHORING,
    "toft token hash": _AUTHORING,
    **dict.fromkeys(("toft join", "toft leave", "toft key trust"), _LOCAL),
    **dict.fromkeys((f"toft key {each}" for each in ("new", "show", "sign")), _AUTHORING),
    **dict.fromkeys((f"toft key root {each}" for each in ("new", "sign", "show")), _AUTHORING),
    "toft config history": "- a part of toft config show",
    "toft plugin find": "- looks through what GET /v1/plugins gives",
    "toft plugin disable": "- the other half of toft plugin enable",
    **dict.fromkeys(
        ("toft demo", *(f"toft bench {each}" for each in ("runtime", "jobs", "api", "central"))),
        "- a node of its own",
    ),
}
"""Commands that ask a node for nothing that stands above, and why."""

BY_ROUTE = {each.route: each for each in OPERATIONS}


def pattern(route: str) -> str:
    """Return the regular expression of a route: any text without a slash where it has a name in braces."""
    return re.sub(r"\{\w+\}", "[^/]+", route)


def methods(path: str) -> list[str]:
    """Return the methods that a path takes."""
    routes = (each.route.partition(" ") for each in OPERATIONS)
    return sorted(method for method, _, each in routes if re.fullmatch(pattern(each), path))
