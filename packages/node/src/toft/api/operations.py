"""Everything one can ask of a node, once: what it is called, its route, command, client method and page.

Where a face lacks an operation its column says why, after a dash. A test holds every column against the
face it names, and every route, command and method against this list.
"""

from __future__ import annotations

import re

from toft.api import document_operations, frames, schemas
from toft.api.asked import Operation as Operation

FRAMES, JSON, LINES = frames.MEDIA_TYPE, frames.JSON_TYPE, frames.LINES_TYPE
EVENTS, BYTES = frames.EVENTS_TYPE, frames.BYTES_TYPE
_AUTHORING = "- reads and writes files of the machine it is typed on"
_LOCAL = "- of the machine itself, for whoever is on it"
_NO_PAGE = "- for programs"
_UPLOADED = "- installed.add uploads what it needs, and what is not needed goes by itself"
_INSTALLED_FROM = "- toft plugin add uploads what it installs"
_ASKED = "- for pages; a program asks the route"


# What a plugin does wrong, and what its environment, its worker or the machine cannot do.
_RUNS = (409, 422, 502, 504, 507)
_CHANGES = (409, 422, 507)

NODE = (
    Operation("node.live", "GET /livez", "toft status", _NO_PAGE, _NO_PAGE, gives="Alive"),
    Operation("node.healthy", "GET /healthz", "toft status", _NO_PAGE, _NO_PAGE, gives="Ready"),
    Operation("node.ready", "GET /readyz", "toft status", _NO_PAGE, _NO_PAGE, gives="Ready"),
    Operation("node.status", "GET /v1/status", "toft status", "system", "/", gives="Status"),
    Operation("node.queue", "GET /v1/queue", "toft top", "jobs.status", "/", gives="Queue"),
    Operation("node.system", "GET /v1/system", "toft top", "system", "/", gives="System"),
    Operation(
        "node.metrics",
        "GET /metrics",
        "- toft top shows what is now",
        "- for Prometheus",
        _NO_PAGE,
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
    Operation("node.describe", "GET /v1/openapi.json", _NO_PAGE, _NO_PAGE, _NO_PAGE),
    Operation("session.open", "POST /v1/sessions", _NO_PAGE, "connect", _NO_PAGE, media=(FRAMES,)),
)
JOBS = (
    Operation(
        "job.submit",
        "POST /v1/jobs",
        "toft job submit",
        "jobs.submit",
        "/plugins/{name}",
        takes=schemas.SUBMIT,
        gives="Job",
        status=201,
        fails=(404, *_CHANGES),
    ),
    Operation(
        "job.submit_many",
        "POST /v1/jobs/batch",
        "- toft job submit takes one; a loop is as fast",
        "jobs.submit_many",
        _NO_PAGE,
        takes=schemas.SUBMIT_MANY,
        gives="Jobs",
        status=201,
        fails=(404, *_CHANGES),
    ),
    Operation("job.list", "GET /v1/jobs", "toft job list", "jobs.list", "/jobs", gives="Jobs", fails=(404,)),
    Operation("job.show", "GET /v1/jobs/{id}", "toft job show", "jobs.get", "/jobs/{id}", gives="Job"),
    Operation(
        "job.wait",
        "GET /v1/jobs/{id}/wait",
        "toft job wait",
        "jobs.wait",
        "/jobs/{id}",
        gives="Job",
        fails=(409,),
    ),
    Operation(
        "job.result",
        "GET /v1/jobs/{id}/result",
        "toft job result",
        "jobs.result",
        "/jobs/{id}",
        gives="Value",
        media=(JSON, frames.VALUE_TYPE),
        fails=(409, 416, 422, 502, 504, 507),
    ),
    Operation(
        "job.attempts",
        "GET /v1/jobs/{id}/attempts",
        "toft job show",
        "jobs.attempts",
        "/jobs/{id}",
        gives="Attempts",
    ),
    Operation(
        "job.logs", "GET /v1/jobs/{id}/logs", "toft job logs", "jobs.logs", "/jobs/{id}", gives="Lines"
    ),
    Operation("job.why", "GET /v1/jobs/{id}/why", "toft why", "jobs.why", "/jobs/{id}", gives="Story"),
    Operation(
        "job.samples",
        "GET /v1/jobs/{id}/samples",
        "toft why",
        "jobs.samples",
        "/jobs/{id}",
        gives="JobSamples",
    ),
    Operation(
        "job.cancel",
        "POST /v1/jobs/{id}/cancel",
        "toft job cancel",
        "jobs.cancel",
        "/jobs/{id}",
        takes=schemas.CANCEL_JOB,
        gives="Job",
        fails=(409,),
    ),
    Operation(
        "job.retry",
        "POST /v1/jobs/{id}/retry",
        "toft job retry",
        "jobs.retry",
        "/jobs/{id}",
        gives="Job",
        fails=(409,),
    ),
    Operation(
        "job.reorder",
        "POST /v1/jobs/{id}/reorder",
        "toft job reorder",
        "jobs.reorder",
        "/jobs",
        takes=schemas.REORDER,
        gives="Job",
        fails=(409,),
    ),
    Operation("event.list", "GET /v1/events", "toft job events", "jobs.events", "/jobs/{id}", gives="Events"),
    Operation(
        "event.watch",
        "GET /v1/events/stream",
        "toft events",
        "jobs.watch",
        "/jobs",
        gives="Event",
        media=(EVENTS, LINES),
    ),
)
SEQUENCES = (
    Operation(
        "sequence.submit",
        "POST /v1/sequences",
        "toft sequence submit",
        "jobs.submit_graph",
        "- graphs are files",
        takes=schemas.SUBMIT_GRAPH,
        gives="Sequence",
        status=201,
        fails=(404, *_CHANGES),
    ),
    Operation(
        "sequence.list",
        "GET /v1/sequences",
        "toft sequence list",
        "jobs.sequences",
        "/sequences",
        gives="Sequences",
        fails=(404,),
    ),
    Operation(
        "sequence.show",
        "GET /v1/sequences/{id}",
        "toft sequence show",
        "jobs.sequence",
        "/sequences/{id}",
        gives="Sequence",
    ),
    Operation(
        "sequence.wait",
        "GET /v1/sequences/{id}/wait",
        "toft sequence wait",
        "jobs.wait_sequence",
        "/sequences/{id}",
        gives="Sequence",
        fails=(409,),
    ),
    Operation(
        "sequence.cancel",
        "POST /v1/sequences/{id}/cancel",
        "toft sequence cancel",
        "jobs.cancel_sequence",
        "/sequences/{id}",
        gives="Sequence",
        fails=(409,),
    ),
    Operation(
        "sequence.retry",
        "POST /v1/sequences/{id}/retry",
        "toft sequence retry",
        "jobs.retry_sequence",
        "/sequences/{id}",
        gives="Sequence",
        fails=(409,),
    ),
)
PLUGINS = (
    Operation("plugin.list", "GET /v1/plugins", "toft plugin list", "plugins", "/plugins", gives="Plugins"),
    Operation(
        "plugin.show",
        "GET /v1/plugins/{name}",
        "toft plugin show",
        "installed.get",
        "/plugins/{name}",
        gives="Manifest",
    ),
    Operation(
        "plugin.add",
        "POST /v1/plugins",
        "toft plugin add",
        "installed.add",
        "/plugins",
        takes=schemas.INSTALL,
        gives="Added",
        status=201,
        media=(JSON, LINES),
        fails=(404, *_RUNS),
    ),
    Operation(
        "plugin.refresh",
        "POST /v1/plugins/{name}/refresh",
        "toft plugin refresh",
        "refresh",
        "/plugins/{name}",
        gives="Manifest",
        media=(JSON, LINES),
        fails=_RUNS,
    ),
    Operation(
        "plugin.regenerate",
        "POST /v1/plugins/{name}/regenerate",
        "toft plugin regenerate",
        "installed.regenerate",
        "- refreshing does it too",
        gives="Manifest",
        media=(JSON, LINES),
        fails=_RUNS,
    ),
    Operation(
        "plugin.check",
        "POST /v1/plugins/{name}/check",
        "toft plugin check",
        "installed.check",
        _NO_PAGE,
        gives="Findings",
        media=(JSON, LINES),
        fails=_RUNS,
    ),
    Operation(
        "plugin.remove",
        "DELETE /v1/plugins/{name}",
        "toft plugin remove",
        "remove",
        "/plugins/{name}",
        gives="Removed",
        fails=_CHANGES,
    ),
    Operation(
        "plugin.config",
        "GET /v1/plugins/{name}/config",
        "toft plugin config",
        "config",
        "/plugins/{name}",
        gives="Config",
        fails=(422,),
    ),
    Operation(
        "plugin.configure",
        "POST /v1/plugins/{name}/config",
        "toft plugin config",
        "configure",
        "/plugins/{name}",
        takes=schemas.CONFIGURE,
        gives="Config",
        fails=_RUNS,
    ),
    Operation(
        "plugin.set_options",
        "POST /v1/plugins/{name}/options",
        "toft plugin options",
        "set_options",
        "/plugins/{name}",
        takes=schemas.CONFIGURE,
        gives="Options",
        fails=_RUNS,
    ),
    Operation(
        "plugin.set_enabled",
        "POST /v1/plugins/{name}/enabled",
        "toft plugin enable",
        "set_enabled",
        "/plugins/{name}",
        takes=schemas.SET_ENABLED,
        fails=_RUNS,
    ),
    Operation(
        "plugin.logs",
        "GET /v1/plugins/{name}/logs",
        "toft plugin logs",
        "logs",
        "/plugins/{name}",
        gives="Lines",
    ),
    Operation(
        "plugin.config_schema",
        "GET /v1/plugins/{name}/config/schema",
        "toft plugin config",
        "configuration.schema",
        "/plugins/{name}",
        gives="ConfigSchema",
        fails=(409, 422),
    ),
    Operation(
        "plugin.config_options",
        "GET /v1/plugins/{name}/config/options",
        "toft plugin config",
        "configuration.options",
        "/plugins/{name}",
        gives="ConfigOptions",
    ),
    Operation(
        "plugin.check_config",
        "POST /v1/plugins/{name}/config/validate",
        "toft plugin config",
        "configuration.validate",
        "/plugins/{name}",
        takes=schemas.CONFIGURE,
        gives="ConfigCheck",
        fails=(409, 422),
    ),
    Operation(
        "secret.list_all",
        "GET /v1/secrets",
        "toft secret list",
        "secrets.list",
        "- beside each plugin",
        gives="Secrets",
    ),
    Operation(
        "secret.list",
        "GET /v1/plugins/{name}/secrets",
        "toft secret list",
        "installed.variables",
        "/plugins/{name}",
        gives="Secrets",
    ),
    Operation(
        "secret.set",
        "PUT /v1/plugins/{name}/secrets/{key}",
        "toft secret set",
        "set_secret",
        "/plugins/{name}",
        takes=schemas.SET_SECRET,
        fails=_RUNS,
    ),
    Operation(
        "secret.remove",
        "DELETE /v1/plugins/{name}/secrets/{key}",
        "toft secret rm",
        "secrets.remove",
        "- what cannot be undone is not one click away",
        gives="Removed",
    ),
)
ENVIRONMENTS = (
    Operation(
        "environment.list",
        "GET /v1/environments",
        "toft env list",
        "installed.environments",
        _NO_PAGE,
        gives="Environments",
    ),
    Operation(
        "environment.show",
        "GET /v1/environments/{hash}",
        "toft env list",
        _ASKED,
        _NO_PAGE,
        gives="Environment",
    ),
    Operation(
        "environment.remove",
        "DELETE /v1/environments/{hash}",
        "toft env gc",
        "installed.remove_environment",
        _NO_PAGE,
        gives="Freed",
        fails=(409,),
    ),
    Operation(
        "environment.size",
        "POST /v1/environments/size",
        "toft plugin size",
        "installed.size",
        _NO_PAGE,
        takes=schemas.SIZE,
        gives="Size",
        media=(JSON, LINES),
        fails=(404, *_RUNS),
    ),
    Operation(
        "environment.collect",
        "POST /v1/environments/collect",
        "toft env gc",
        "installed.collect_environments",
        _NO_PAGE,
        gives="Collected",
        fails=(409,),
    ),
)
ARTIFACTS = (
    Operation(
        "artifact.list",
        "GET /v1/artifacts",
        _INSTALLED_FROM,
        _UPLOADED,
        _NO_PAGE,
        gives="Artifacts",
    ),
    Operation(
        "artifact.upload",
        "PUT /v1/artifacts/{sha256}",
        _INSTALLED_FROM,
        "installed.add",
        "/plugins",
        brings=BYTES,
        gives="Artifact",
        status=201,
        fails=(507,),
    ),
    Operation(
        "artifact.download",
        "GET /v1/artifacts/{sha256}",
        _INSTALLED_FROM,
        _UPLOADED,
        _NO_PAGE,
        gives="Nothing",
        media=(BYTES,),
        fails=(416,),
    ),
    Operation(
        "artifact.remove",
        "DELETE /v1/artifacts/{sha256}",
        _INSTALLED_FROM,
        _UPLOADED,
        _NO_PAGE,
        gives="Removed",
        fails=(409,),
    ),
)
INSTANCES = (
    Operation(
        "instance.list", "GET /v1/instances", "toft status", "instances", "/plugins", gives="Instances"
    ),
    Operation(
        "instance.load",
        "POST /v1/instances",
        "toft run",
        "load",
        "- a job loads what it needs",
        takes=schemas.LOAD,
        gives="Instance",
        fails=(404, *_RUNS),
    ),
    Operation(
        "instance.show",
        "GET /v1/instances/{name}",
        "toft status",
        "instance",
        "/plugins/{name}",
        gives="Instance",
    ),
    Operation(
        "instance.unload",
        "DELETE /v1/instances/{name}",
        _NO_PAGE,
        "unload",
        "- it ends unused by itself",
        fails=_RUNS,
    ),
    Operation(
        "instance.reconfigure",
        "POST /v1/instances/{name}/reconfigure",
        "toft plugin config",
        "instance.reconfigure",
        "/plugins/{name}",
        takes=schemas.RECONFIGURE,
        gives="Instance",
        fails=_RUNS,
    ),
    Operation(
        "instance.act",
        "POST /v1/instances/{name}/{step}",
        "toft plugin enable",
        "instance.reload",
        "/plugins/{name}",
        gives="Instance",
        fails=_RUNS,
    ),
    Operation(
        "instance.stats",
        "GET /v1/instances/{name}/stats",
        "toft top",
        "instance.stats",
        "/plugins/{name}",
        gives="Stats",
    ),
    Operation(
        "instance.logs",
        "GET /v1/instances/{name}/logs",
        "toft plugin logs",
        "instance.logs",
        "/plugins/{name}",
        gives="Lines",
    ),
    Operation(
        "instance.config_options",
        "GET /v1/instances/{name}/config_options",
        "toft plugin config",
        "instance.config_options",
        "/plugins/{name}",
        gives="Options",
        fails=_RUNS,
    ),
    Operation(
        "call.begin",
        "POST /v1/instances/{name}/calls",
        "toft run",
        "instance.call",
        "- a job is kept, a call is not",
        takes=schemas.CALL,
        media=(FRAMES,),
        fails=_RUNS,
    ),
    Operation(
        "call.cancel",
        "POST /v1/instances/{name}/calls/{number}/cancel",
        "- Ctrl-C",
        "call.cancel",
        "- a job is kept, a call is not",
        takes=schemas.CANCEL_CALL,
        gives="Cancelled",
    ),
)
_KEYS = "- whoever makes tokens does so with toft token, or over HTTP"
ACCESS = (
    Operation("token.list", "GET /v1/tokens", "toft token list", _KEYS, _NO_PAGE, gives="Tokens"),
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
        _NO_PAGE,
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
    *JOBS,
    *SEQUENCES,
    *PLUGINS,
    *ENVIRONMENTS,
    *ARTIFACTS,
    *INSTANCES,
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
