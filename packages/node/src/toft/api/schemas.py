"""What the routes take, as JSON Schema, by which it is checked too; and the words of all such schemas."""

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
