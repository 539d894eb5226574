"""What the routes of central take, as JSON Schema."""

from __future__ import annotations

from toft.api.schemas import Body

_TEXT = {"type": "string"}
_LABELS = {"type": "object", "description": "Name of a label to its value."}

TENANT = Body({"name": _TEXT}, required=("name",), example={"name": "acme"})
JOIN_TOKEN = Body(
    {
        "group": {"type": "string", "description": "The group whose nodes it makes."},
        "labels": _LABELS,
        "max_uses": {"type": "integer", "description": "How many nodes may join with it; one by default."},
        "lasts_s": {"type": "number", "description": "Seconds until it ends; an hour by default."},
        "needs_approval": {"type": "boolean", "description": "Its nodes wait until somebody lets them in."},
    },
    example={"labels": {"role": "gpu"}},
)
LABEL = Body(
    {
        "labels": {"type": "object", "description": "Those to set; null takes one away."},
        "name": _TEXT,
        "group": {"type": "string", "description": "Its group, whatever its labels say; empty for none."},
    },
    example={"labels": {"ring": "canary"}},
)
PIN = Body({"sha256": {"type": "string", "description": "Of a document that it was given."}}, example={})
GROUP = Body(
    {
        "selector": {"type": "object", "description": "Label to the value, or list of values, of its nodes."},
        "priority": {"type": "integer", "description": "Of several groups, the highest counts."},
    },
    example={"selector": {"role": "gpu"}, "priority": 10},
)
SAVE = Body(
    {
        "scope": {"type": "string", "description": "tenant, group or node."},
        "target": {"type": "string", "description": "The group's name, or the node's id or name."},
        "layer": {"type": "object", "description": "What the layer says."},
        "message": {"type": "string", "description": "Why, for people."},
        "base": {"type": "integer", "description": "The newest revision that its author has seen."},
        "publish": {"type": "boolean", "description": "Let every node have it at once, without a rollout."},
    },
    required=("layer",),
    example={"scope": "tenant", "layer": {"control": {"urls": ["https://central.example"]}}},
    is_large=True,
)
PUBLISH = Body(
    {"number": {"type": "integer", "description": "The revision; null takes the layer away."}},
    example={"number": 3},
)
ROOT = Body(
    {
        "root": {"type": "string", "description": "Its exact bytes, in base64."},
        "signatures": {"type": "array", "description": "Objects with key_id and signature."},
    },
    required=("root", "signatures"),
    example={"root": "e30=", "signatures": []},
)
SIGNATURES = Body(
    {"signatures": {"type": "array", "description": "Objects with key_id and signature."}},
    required=("signatures",),
    example={"signatures": [{"key_id": "0123456789abcdef", "signature": "..."}]},
)
ROLLOUT = Body(
    {
        "document": {"type": "string", "description": "The id of the document whose revision it is."},
        "number": {"type": "integer", "description": "The revision; the newest by default."},
        "rules": {
            "type": "object",
            "description": "Any of waves (percent, bake_s, selector), min_success, abort_count, abort_ratio.",
        },
        "message": {"type": "string", "description": "Why, for people."},
        "draft": {"type": "boolean", "description": "It does not begin until somebody starts it."},
        "emergency": {"type": "boolean", "description": "All waves open at once."},
    },
    required=("document",),
    example={"document": "doc_01HF7YAT00WKWKP9KZWC4Z1M9P", "rules": {"min_success": 0.9}},
)
REASON = Body(
    {"reason": {"type": "string", "description": "Why, for people."}}, example={"reason": "too slow"}
)
