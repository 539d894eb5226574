"""What crosses the routes about the document of a node."""

from __future__ import annotations

from collections.abc import Mapping

from toft.api.schemas import (
    ANY,
    COUNT,
    LINES,
    OBJECT,
    SECONDS,
    TEXT,
    TIME,
    YES,
    Body,
    Schema,
    listed,
    optional,
)

_GATE: Schema = {
    "type": "object",
    "properties": {
        "name": TEXT,
        "kind": TEXT,
        "required": YES,
        "counts": YES,
        "state": {"type": "string", "enum": ["green", "red", "pending", "idle"]},
        "since": optional(TIME),
        "message": TEXT,
    },
    "required": ["name", "kind", "required", "counts", "state", "since", "message"],
}

CHECK_DOCUMENT = Body(
    {"document": OBJECT}, required=("document",), example={"document": {"schema_version": 1}}, is_large=True
)
APPLY_DOCUMENT = Body(
    {
        "document": {"type": "string", "description": "Its exact JSON text."},
        "signatures": {"type": "string", "description": "Of exactly these bytes: a list, as JSON text."},
        "source": {"type": "string", "description": "Where it is from, for whoever looks later."},
    },
    required=("document",),
    example={"document": '{"schema_version":1,"settings":{"lanes":2}}'},
    is_large=True,
)
WHY = Body(
    {"reason": {"type": "string", "maxLength": 2048, "description": "It is kept."}},
    example={"reason": "jobs wait too long"},
)


def _answer(properties: Mapping[str, Schema], *also: str) -> Schema:
    return {
        "type": "object",
        "properties": {name: dict(schema) for name, schema in properties.items()},
        "required": [*properties],
    }


NAMED: Mapping[str, Schema] = {
    "NodeDocument": _answer(
        {
            "standing": {"type": "string", "enum": ["healthy", "degraded", "not_enrolled", "rolled_back"]},
            "active": optional(TEXT),
            "confirmed": optional(TEXT),
            "phase": TEXT,
            "revision": optional(COUNT),
            "source": optional(TEXT),
            "pinned": optional(TEXT),
            "trial": optional(OBJECT),
            "deadline_remaining_s": optional(SECONDS),
            "boots_in_probation": optional(COUNT),
            "rolled_back": optional(OBJECT),
            "acknowledged": YES,
            "rollbacks": {"type": "object", "additionalProperties": COUNT},
            "bad": listed(OBJECT),
            "history": listed(OBJECT),
            "gates": listed(_GATE),
            "artifacts": listed(OBJECT),
            "overrides": listed(OBJECT),
            "signature": OBJECT,
            "enrolled": YES,
            "node_id": optional(TEXT),
            "control_url": optional(TEXT),
            "last_poll": optional(OBJECT),
            "next_poll_in_s": optional(SECONDS),
            "consecutive_failures": optional(COUNT),
            "clock_skew_s": optional({"type": "number"}),
            "polls": {"type": "object", "additionalProperties": {"type": "integer"}},
            "telemetry": optional(OBJECT),
            "apply_s": optional({"type": "number"}),
            "problems": LINES,
            "diagnostics": listed(OBJECT),
        }
    ),
    "DocumentText": {"type": "object"},
    "Difference": _answer({"against": TEXT, "lines": LINES}),
    "Effective": _answer({"sha256": TEXT, "body": OBJECT}),
    "Explained": _answer({"key": TEXT, "won": TEXT, "value": ANY, "layers": listed(OBJECT)}),
    "Drift": listed(_answer({"kind": TEXT, "key": TEXT, "detail": TEXT})),
    "CheckedDocument": _answer(
        {"ok": YES, "etag": optional(TEXT), "problems": listed(OBJECT), "not_served": LINES}
    ),
    "AppliedDocument": _answer({"action": TEXT, "etag": TEXT, "slot": optional(TEXT)}),
}
