"""What crosses the routes, as JSON Schema: bodies, which are checked by it too, and answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Schema = Mapping[str, Any]

_KINDS: Mapping[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "object": (dict,),
    "array": (list, tuple),
}


class Body:
    """What a request carries: one table that is checked and described.

    Args:
        members: Name to schema; one that is not required may also be null or left out.
        required: Those that must be there.
        example: One that works.
        is_large: It may be as large as the setting `request_bytes` says.
    """

    def __init__(
        self,
        members: Mapping[str, Schema],
        *,
        required: tuple[str, ...] = (),
        example: Mapping[str, Any],
        is_large: bool = False,
    ) -> None:
        self.members = members
        self.required = required
        self.example = example
        self.is_large = is_large
        self.kinds: Mapping[str, Any] = {
            name: _kinds(schema, may_lack=name not in required) for name, schema in members.items()
        }

    def schema(self) -> dict[str, Any]:
        """Return it as JSON Schema."""
        return {
            "type": "object",
            "properties": {
                name: dict(schema) if name in self.required else optional(schema)
                for name, schema in self.members.items()
            },
            "required": list(self.required),
            "additionalProperties": False,
        }


def _kinds(schema: Schema, *, may_lack: bool) -> tuple[Any, ...]:
    named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    found = tuple(kind for each in named for kind in _KINDS[each])
    return (*found, None) if may_lack else found


def optional(schema: Schema) -> dict[str, Any]:
    """Return a schema that takes null too."""
    if "$ref" in schema:
        return {"anyOf": [dict(schema), {"type": "null"}]}
    named = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    found = {**schema, "type": [*named, "null"]}
    if "enum" in schema:
        found["enum"] = [*schema["enum"], None]
    return found


def listed(schema: Schema) -> dict[str, Any]:
    """Return the schema of a list."""
    return {"type": "array", "items": dict(schema)}


def of(name: str) -> dict[str, Any]:
    """Return a reference to one of the named schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Mapping[str, Schema], *, required: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return the schema of an answer; members may be added to answers, so more of them are no error."""
    return {
        "type": "object",
        "properties": {name: dict(schema) for name, schema in properties.items()},
        "required": list(properties) if required is None else list(required),
    }


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
WHOLE: Schema = {"type": "integer"}
YES: Schema = {"type": "boolean"}
SECONDS: Schema = {"type": "number", "minimum": 0}
ANY: Schema = {}
OBJECT: Schema = {"type": "object"}
TIME: Schema = {"type": "string", "format": "date-time"}
NAME: Schema = {
    "type": "string",
    "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$",
    "description": "1 to 64 of a-z, 0-9, `_` and `-`, starting with a letter or digit.",
}
JOB_STATES = ("pending", "running", "completed", "failed", "cancelled", "interrupted")
JOB_STATE: Schema = {"type": "string", "enum": list(JOB_STATES)}
LINES: Schema = {"type": "array", "items": {"type": "string"}}

_SUBMITTED: Mapping[str, Schema] = {
    "plugin": NAME,
    "arguments": {"type": "object", "description": "What the action takes, by name."},
    "action": {"type": "string", "description": "`execute` when left out."},
    "instance": {**NAME, "description": "The plugin's own when left out."},
    "priority": {
        "type": "integer",
        "minimum": -1_000_000,
        "maximum": 1_000_000,
        "description": "Higher goes first; one step is worth a minute of waiting.",
    },
    "delay_s": {**SECONDS, "description": "Not before so many seconds have passed."},
    "start_at": {"type": "number", "description": "Not before this moment: seconds since 1970, UTC."},
    "timeout_s": {**SECONDS, "description": "How long one attempt may take."},
    "deadline_s": {**SECONDS, "description": "Seconds after which it is too late to start or go on."},
    "idempotent": {"type": "boolean", "description": "Running it twice does no harm."},
    "idempotency_key": {
        "type": "string",
        "minLength": 1,
        "maxLength": 256,
        "description": "The same key and the same arguments are the same job.",
    },
    "retry": {
        "type": ["object", "integer"],
        "description": "Attempts in all, or `{max_attempts, on, first_s, factor, most_s, jitter}`.",
    },
    "after": {"type": "array", "items": {"type": "string"}, "description": "Jobs that must complete first."},
}

SUBMIT = Body(
    _SUBMITTED,
    required=("plugin",),
    example={"plugin": "resize", "arguments": {"path": "/data/a.png"}, "priority": 1},
    is_large=True,
)
SUBMIT_MANY = Body(
    {"jobs": {"type": "array", "items": of("Submission")}},
    required=("jobs",),
    example={"jobs": [{"plugin": "resize", "arguments": {"path": "/data/a.png"}}]},
    is_large=True,
)
CANCEL_JOB = Body(
    {"grace_s": {**SECONDS, "description": "Seconds it may take to end by itself."}}, example={"grace_s": 2}
)
REORDER = Body(
    {
        "priority": _SUBMITTED["priority"],
        "before": {"type": "string", "description": "The job it goes before."},
        "first": YES,
        "last": YES,
    },
    example={"first": True},
)
SUBMIT_GRAPH = Body(
    {
        "steps": {
            "type": ["array", "object"],
            "description": "A list runs in its order; an object has `steps`, each runs once its references"
            " are there.",
        },
        "name": TEXT,
        "mode": {"type": "string", "enum": ["fail_fast", "best_effort"]},
        "priority": _SUBMITTED["priority"],
    },
    required=("steps",),
    example={"steps": [{"plugin": "fetch", "arguments": {"url": "https://example.org"}}], "name": "nightly"},
    is_large=True,
)
LOAD = Body(
    {
        "plugin": NAME,
        "config": {"type": "object", "description": "What differs from the remembered configuration."},
        "instance": NAME,
        "new": {"type": "boolean", "description": "Load one more, under a fresh name."},
        "options": {"type": "object", "description": "How it is run."},
    },
    required=("plugin",),
    example={"plugin": "resize", "config": {"quality": 90}},
)
RECONFIGURE = Body(
    {"changes": OBJECT, "replace": {"type": "boolean", "description": "All other keys get their defaults."}},
    required=("changes",),
    example={"changes": {"quality": 80}},
)
CALL = Body(
    {
        "action": TEXT,
        "arguments": OBJECT,
        "timeout_s": SECONDS,
        "grace_s": SECONDS,
        "stream": {"type": "boolean", "description": "Tell each value the action yields."},
        "quiet": {"type": "boolean", "description": "Tell neither progress nor lines."},
    },
    example={"action": "execute", "arguments": {"path": "/data/a.png"}},
    is_large=True,
)
CANCEL_CALL = Body({"reason": TEXT, "grace_s": SECONDS}, example={"reason": "not needed any more"})
CONFIGURE = Body(
    {**RECONFIGURE.members, "instance": NAME}, required=("changes",), example={"changes": {"quality": 80}}
)
SET_ENABLED = Body({"enabled": YES, "instance": NAME}, required=("enabled",), example={"enabled": False})
SET_SECRET = Body({"value": TEXT}, required=("value",), example={"value": "s3cret"})
_SOURCE: Mapping[str, Schema] = {
    "source": {
        "type": "string",
        "maxLength": 2000,
        "description": "A requirement, `git+https://…`, or what was uploaded: `artifact:SHA256/FILE`, where"
        " FILE ends in `.whl`, `.py`, or `.tar` for a directory.",
    },
    "python": {"type": "string", "description": "A version or a range."},
    "requirements": {
        "type": "array",
        "items": {"type": "string"},
        "description": "More for the same environment, each named as `source` is.",
    },
    "lock": {"type": "string", "description": "`artifact:SHA256/FILE` of hashed requirements."},
    "env_file": {"type": "string", "description": "The same, or an address, of an `environment.yml`."},
    "offline": {"type": "boolean", "description": "Never use the network."},
}
SIZE = Body(_SOURCE, required=("source",), example={"source": "hello==1.0"})
INSTALL = Body(
    {
        **_SOURCE,
        "name": {**NAME, "description": "What to call it; its own name when left out."},
        "force": {"type": "boolean", "description": "Replace a plugin of that name from elsewhere."},
        "env_vars": {"type": "object", "description": "Variables for its worker, stored openly."},
        "env_name": TEXT,
        "origin": {
            "type": "string",
            "maxLength": 500,
            "description": "Where the source is, for people; the same again replaces what was installed.",
        },
    },
    required=("source",),
    example={"source": "hello==1.0", "name": "hello"},
)
CREATE_TOKEN = Body(
    {
        "name": NAME,
        "scopes": {
            "type": "array",
            "items": {"type": "string"},
            "description": "`KIND:ACTION[:PLUGIN]` each.",
        },
        "lasts_s": {**SECONDS, "description": "Seconds until it expires; it does not when left out."},
    },
    required=("name", "scopes"),
    example={"name": "ci", "scopes": ["job:write", "result:read"], "lasts_s": 86400},
)

_JOB = {
    "id": TEXT,
    "plugin": TEXT,
    "instance": TEXT,
    "action": TEXT,
    "state": JOB_STATE,
    "attempt": COUNT,
    "priority": WHOLE,
    "submitted_at": TIME,
    "ready_at": optional(TIME),
    "started_at": optional(TIME),
    "finished_at": optional(TIME),
    "timeout_s": optional(SECONDS),
    "deadline_at": optional(TIME),
    "progress": optional({"type": "number"}),
    "message": optional(TEXT),
    "block_reason": optional(OBJECT),
    "result": ANY,
    "error": optional(of("Error")),
    "usage": OBJECT,
    "sequence": optional(TEXT),
    "step": optional(TEXT),
    "idempotency_key": optional(TEXT),
}
_ERROR: Mapping[str, Schema] = {
    "code": {"type": "string", "pattern": "^[a-z_]+(\\.[a-z_]+)*$"},
    "blame": TEXT,
    "category": {"type": "string", "enum": ["user_input", "transient", "resource", "fatal", "cancelled"]},
    "message": TEXT,
    "details": OBJECT,
}
_INSTANCE = {
    "instance": TEXT,
    "plugin": TEXT,
    "config": OBJECT,
    "options": OBJECT,
    "state": TEXT,
    "enabled": YES,
    "drift": optional(OBJECT),
    "actions": OBJECT,
}
_NAMED_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_TOKEN = {
    "id": TEXT,
    "name": TEXT,
    "state": {"type": "string", "enum": ["valid", "expired", "revoked"]},
    "scopes": listed(TEXT),
    "created_at": TIME,
    "expires_at": optional(TIME),
    "revoked_at": optional(TIME),
    "last_used_at": optional(TIME),
}
_NUMBERS: Schema = {"type": "array", "items": {"type": ["number", "null"]}}
_COLUMNS: Schema = {"type": "object", "additionalProperties": _NUMBERS}
_COUNTED: Schema = {"type": "object", "additionalProperties": {"type": "integer"}}

NAMED: Mapping[str, Schema] = {
    "Submission": SUBMIT.schema(),
    "Error": _object({**_ERROR, "hint": TEXT, "retry": TEXT}, required=("code", "message")),
    "Problem": _object(
        {
            "type": {"type": "string", "description": "`urn:toft:error:` and the code."},
            "title": TEXT,
            "status": {"type": "integer", "minimum": 400, "maximum": 599},
            "detail": TEXT,
            **_ERROR,
            "hint": TEXT,
            "retry": TEXT,
            "retry_after_s": optional(SECONDS),
            "family": {"type": "string", "enum": ["node", "plugin"]},
            "kind": TEXT,
            "bases": listed(TEXT),
        },
        required=("type", "title", "status", "detail", "code", "blame", "category", "message", "details"),
    ),
    "Token": _object(_TOKEN),
    "NewToken": _object(
        {**_TOKEN, "token": {"type": "string", "description": "Shown here and never again."}}
    ),
    "Tokens": listed(of("Token")),
    "Decision": _object(
        {
            "allowed": YES,
            "rule": TEXT,
            "reason": TEXT,
            "needed": {"type": "string", "description": "A scope that would do, when it is refused."},
            "principal": TEXT,
            "scopes": listed(TEXT),
            "action": TEXT,
            "resource": OBJECT,
        }
    ),
    "Link": _object({"url": TEXT, "lasts_s": SECONDS}),
    "SignedOut": _object({"signed_out": YES}),
    "Nothing": {"type": "object"},
    "Lines": LINES,
    "Value": {"description": "Whatever a plugin returned."},
    "Job": _object(_JOB),
    "Jobs": listed(of("Job")),
    "Attempts": listed(
        _object(
            {
                "attempt": COUNT,
                "state": JOB_STATE,
                "started_at": TIME,
                "finished_at": optional(TIME),
                "because": optional(TEXT),
                "error": optional(of("Error")),
                "usage": OBJECT,
                "lane": OBJECT,
            }
        )
    ),
    "Story": listed(_object({"at": TIME, "what": TEXT, "because": TEXT, "evidence": OBJECT})),
    "Event": _object(
        {
            "cursor": COUNT,
            "at": TIME,
            "type": TEXT,
            "job": optional(TEXT),
            "attempt": COUNT,
            "sequence": optional(TEXT),
        }
    ),
    "Events": listed(of("Event")),
    "Sequence": _object(
        {
            "id": TEXT,
            "name": TEXT,
            "mode": TEXT,
            "priority": WHOLE,
            "state": TEXT,
            "submitted_at": TIME,
            "started_at": optional(TIME),
            "finished_at": optional(TIME),
            "cancel_requested_at": optional(TIME),
            "error": optional(OBJECT),
            "counts": _COUNTED,
            "steps": listed(OBJECT),
        }
    ),
    "Sequences": listed(of("Sequence")),
    "Queue": _object(
        {"at": TIME, "queue": _COUNTED, "memory": OBJECT, "gpu": listed(OBJECT), "instances": OBJECT}
    ),
    "Samples": _object(
        {"from": TIME, "to": TIME, "step_s": SECONDS, "at": _NUMBERS, "series": _COLUMNS},
    ),
    "JobSamples": _object({"job": TEXT, "at": _NUMBERS, "series": _COLUMNS}),
    "Plugin": _object(
        {
            "name": TEXT,
            "version": TEXT,
            "state": {"type": "string", "enum": ["ready", "disabled", "incomplete", "broken"]},
            "environment": TEXT,
            "python": TEXT,
            "drift": YES,
            "instances": listed(TEXT),
        }
    ),
    "Plugins": listed(of("Plugin")),
    "Manifest": _object({"format_version": TEXT, "install": OBJECT, "code": OBJECT, "toft": OBJECT}),
    "Added": _object({"plugins": listed(of("Manifest"))}),
    "Findings": listed(_object({"check": TEXT, "ok": YES, "evidence": TEXT, "next": TEXT})),
    "Size": _object(
        {
            "download_bytes": COUNT,
            "installed_bytes": optional(COUNT),
            "packages": OBJECT,
            "unknown": LINES,
            "is_complete": YES,
            "exists": YES,
        }
    ),
    "Artifact": _object({"sha256": TEXT, "size_bytes": COUNT, "used_at": TIME}),
    "Artifacts": listed(of("Artifact")),
    "Removed": _object({"removed": YES}),
    "Cancelled": _object({"cancelled": YES}),
    "Config": {"type": "object", "description": "Every setting and its value."},
    "Options": {"type": "object", "description": "What differs from the defaults."},
    "ConfigSchema": _object(
        {
            "plugin": TEXT,
            "instance": TEXT,
            "schema": optional(OBJECT),
            "drift": YES,
            "defaults": OBJECT,
            "given": OBJECT,
            "config": optional(OBJECT),
            "problems": _NAMED_TEXTS,
            "enabled": YES,
            "loaded": YES,
        }
    ),
    "ConfigOptions": _object({"plugin": TEXT, "instance": TEXT, "loaded": YES, "options": OBJECT}),
    "ConfigCheck": _object(
        {"valid": YES, "config": optional(OBJECT), "problems": _NAMED_TEXTS, "message": TEXT}
    ),
    "Secrets": listed(
        _object(
            {
                "plugin": TEXT,
                "key": TEXT,
                "declared": YES,
                "secret": YES,
                "required": YES,
                "satisfied": YES,
                "stored": YES,
                "label": TEXT,
                "description": TEXT,
            }
        )
    ),
    "Environment": _object(
        {
            "hash": TEXT,
            "path": TEXT,
            "kind": TEXT,
            "python": TEXT,
            "python_version": TEXT,
            "packages": OBJECT,
            "size_bytes": COUNT,
            "created_at": TEXT,
            "origin": TEXT,
            "plugins": LINES,
        }
    ),
    "Environments": listed(of("Environment")),
    "Freed": _object({"removed": YES, "freed_bytes": COUNT}),
    "Collected": _object({"removed": LINES, "freed_bytes": COUNT}),
    "Instance": _object(_INSTANCE),
    "Instances": listed(of("Instance")),
    "Stats": _object(
        {
            "instance": TEXT,
            "plugin": TEXT,
            "state": TEXT,
            "enabled": YES,
            "running": COUNT,
            "waiting": COUNT,
            "calls": COUNT,
            "failures": COUNT,
            "memory_bytes": optional(COUNT),
        }
    ),
    "System": {"type": ["object", "array"], "items": {"type": "object"}},
    "Alive": _object({"ok": YES}),
    "Ready": _object(
        {
            "ok": YES,
            "state": {"type": "string", "enum": ["starting", "ready", "draining"]},
            "checks": listed(_object({"check": TEXT, "ok": YES, "evidence": TEXT, "hint": TEXT})),
        }
    ),
    "Status": _object(
        {
            "state": {"type": "string", "enum": ["starting", "ready", "draining"]},
            "pid": COUNT,
            "version": TEXT,
            "uptime_s": SECONDS,
            "lanes": optional(COUNT),
            "queue": _COUNTED,
            "memory": OBJECT,
            "gpu": listed(OBJECT),
            "instances": listed(OBJECT),
        }
    ),
}
