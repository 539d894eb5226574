"""What the routes answer, as JSON Schema, by the names that operations give their answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toft.api.schemas import (
    ANY,
    COUNT,
    JOB_STATE,
    LINES,
    OBJECT,
    SECONDS,
    SUBMIT,
    TEXT,
    TIME,
    WHOLE,
    YES,
    Schema,
    listed,
    of,
    optional,
)


def _object(properties: Mapping[str, Schema], *, required: tuple[str, ...] | None = None) -> dict[str, Any]:
    """Return the schema of an answer; members may be added to answers, so more of them are no error."""
    return {
        "type": "object",
        "properties": {name: dict(schema) for name, schema in properties.items()},
        "required": list(properties) if required is None else list(required),
    }


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
    "state": {"type": "string", "enum": ["valid", "expired", "revoked", "overridden"]},
    "scopes": listed(TEXT),
    "declared_by": optional(TEXT),
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
