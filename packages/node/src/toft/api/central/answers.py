"""What the routes of central answer, as JSON Schema; members may be added, so more of them are no error."""

from __future__ import annotations

from collections.abc import Mapping

from toft.api.schemas import Schema, listed, of, optional

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_YES: Schema = {"type": "boolean"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_OBJECT: Schema = {"type": "object"}
_SHA256: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "properties": {name: dict(each) for name, each in properties.items()}}


_ROLLOUT: Mapping[str, Schema] = {
    "id": _TEXT,
    "tenant": _TEXT,
    "document": _TEXT,
    "number": _COUNT,
    "previous": optional(_COUNT),
    "attempt": _COUNT,
    "state": {"type": "string", "enum": ["draft", "running", "paused", "aborted", "done"]},
    "is_emergency": _YES,
    "wave": {"type": "integer", "minimum": -1, "description": "The newest open one, counted from 0."},
    "wave_opened_at": optional(_TIME),
    "rules": _OBJECT,
    "counts": {"type": "object", "description": "How many nodes are how far."},
    "reason": {"type": "string", "description": "What paused or aborted it."},
    "message": _TEXT,
    "created_by": _TEXT,
    "created_at": _TIME,
    "ended_at": optional(_TIME),
}
_STAGE: Schema = {
    "type": "string",
    "enum": ["offered", "downloaded", "staged", "probation", "applied", "rolled_back", "failed", "skipped"],
}
_JOIN_TOKEN: Mapping[str, Schema] = {
    "id": _TEXT,
    "state": {"type": "string", "enum": ["valid", "used", "expired", "revoked"]},
    "tenant": _TEXT,
    "group": optional(_TEXT),
    "labels": _OBJECT,
    "max_uses": _COUNT,
    "uses": _COUNT,
    "needs_approval": _YES,
    "created_by": _TEXT,
    "created_at": _TIME,
    "expires_at": _TIME,
    "revoked_at": optional(_TIME),
}
_NODE: Mapping[str, Schema] = {
    "id": _TEXT,
    "tenant": _TEXT,
    "name": _TEXT,
    "state": {"type": "string", "enum": ["pending", "active", "revoked"]},
    "group": optional(_TEXT),
    "labels": _OBJECT,
    "hostname": _TEXT,
    "os": _TEXT,
    "agent_version": _TEXT,
    "attempt": _COUNT,
    "join_token": _TEXT,
    "pinned": optional(_SHA256),
    "asked_etag": optional({"type": "string", "description": "What it says it runs, when it last asked."}),
    "offered_etag": optional({"type": "string", "description": "What it was given last."}),
    "offered_at": optional(_TIME),
    "running": _object(etag=optional(_TEXT), revision=optional(_COUNT)),
    "phase": optional(_TEXT),
    "created_at": _TIME,
    "last_seen_at": optional(_TIME),
    "reported_at": optional(_TIME),
    "restored_at": optional(
        {**_TIME, "description": "When it was seen to have come back from a copy of an earlier moment."}
    ),
}
_LAYER: Mapping[str, Schema] = {
    "id": _TEXT,
    "scope": {"type": "string", "enum": ["tenant", "group", "node"]},
    "target": {"type": "string", "description": "The group's name or the node's id; empty for the tenant."},
    "published": optional(_COUNT),
    "created_at": _TIME,
}
_WHEEL = _object(
    sha256=_SHA256,
    name=_TEXT,
    version=_TEXT,
    filename=_TEXT,
    size_bytes=_COUNT,
    added_by=_TEXT,
    added_at=_TIME,
)
_SIGNATURES = listed(_object(key_id=_TEXT, signature=_TEXT))

NAMED: Mapping[str, Schema] = {
    "Nothing": {"type": "null"},
    "Enrolled": _object(
        node_id=_TEXT,
        access_token=_TEXT,
        expires_at=_TIME,
        root=optional(_OBJECT),
        control_urls=listed(_TEXT),
    ),
    "Document": {"type": "object", "description": "As docs/reference/document.schema.json says."},
    "Roots": _object(roots=listed(_object(root=_TEXT, signatures=_SIGNATURES))),
    "Root": _object(version=_COUNT, threshold=_COUNT, keys=_OBJECT),
    "FleetStatus": _object(version=_TEXT, urls=listed(_TEXT), nodes=_OBJECT, waiting=_COUNT),
    "Tenant": _object(name=_TEXT),
    "Tenants": listed(of("Tenant")),
    "JoinToken": _object(**_JOIN_TOKEN),
    "JoinTokens": listed(of("JoinToken")),
    "NewJoinToken": _object(token=_TEXT, **_JOIN_TOKEN),
    "FleetNode": _object(**_NODE),
    "FleetNodes": listed(of("FleetNode")),
    "FleetNodeWhole": _object(
        **_NODE,
        offered=optional(_object(etag=_TEXT, revision=_COUNT, attempt=_COUNT)),
        documents=listed(of("DocumentLayer")),
        report=_OBJECT,
        history=listed(_OBJECT),
        effective=optional(_object(sha256=_SHA256, body=optional(_OBJECT), received_at=_TIME)),
    ),
    "NodeDifference": _object(
        runs=optional(_TEXT), is_known=_YES, offered=optional(_TEXT), diff={"type": "string"}
    ),
    "NodeSamples": _object(at=listed({"type": "number"}), step_s={"type": "number"}, series=_OBJECT),
    "NodeRows": _object(rows=listed(_object(id=_TEXT, received_at=_TIME, row=_OBJECT)), more=_YES),
    "Group": _object(name=_TEXT, selector=_OBJECT, priority={"type": "integer"}),
    "Groups": listed(of("Group")),
    "Deleted": _object(deleted=_TEXT),
    "DocumentLayer": _object(**_LAYER),
    "Documents": listed(of("DocumentLayer")),
    "DocumentWhole": _object(
        **_LAYER,
        number=optional(_COUNT),
        layer=optional(_OBJECT),
        revisions=listed(
            _object(
                number=_COUNT,
                sha256=_SHA256,
                author=_TEXT,
                message=_TEXT,
                created_at=_TIME,
                is_published=_YES,
            )
        ),
    ),
    "Preview": _object(
        document=of("DocumentLayer"),
        number=_COUNT,
        is_saved=_YES,
        nodes={"type": "integer", "description": "How many would change."},
        changes=listed(
            _object(
                group=optional(_TEXT),
                node=optional(_TEXT),
                nodes=_COUNT,
                etag=_TEXT,
                before=optional(_TEXT),
                is_changed=_YES,
                diff=_TEXT,
            )
        ),
        artifacts=listed(_OBJECT),
    ),
    "Difference": _object(before=optional(_COUNT), after=optional(_COUNT), diff=_TEXT),
    "Payloads": listed(
        _object(
            sha256=_SHA256,
            type=_TEXT,
            payload={"type": "string", "description": "The exact bytes, in base64."},
            document=_OBJECT,
            is_signed=_YES,
        )
    ),
    "Signed": _object(sha256=_SHA256, keys=listed(_TEXT), is_enough=_YES),
    "Wheel": _WHEEL,
    "Wheels": listed(of("Wheel")),
    "AuditLines": listed(
        _object(
            seq=_COUNT,
            at=_TIME,
            tenant=_TEXT,
            actor=_TEXT,
            action=_TEXT,
            subject=_TEXT,
            details=_OBJECT,
            sha256=_SHA256,
        )
    ),
    "AuditVerified": _object(is_whole=_YES, lines=_COUNT, head=_SHA256, broken_at=optional(_COUNT)),
    "Rollout": _object(**_ROLLOUT),
    "Rollouts": listed(of("Rollout")),
    "RolloutWhole": _object(
        **_ROLLOUT,
        nodes=listed(
            _object(
                node=_TEXT,
                name=_TEXT,
                runs=optional(_TEXT),
                wave=_COUNT,
                stage=_STAGE,
                reason=_TEXT,
                detail=_TEXT,
                etag=_TEXT,
                changed_at=_TIME,
            )
        ),
    ),
    "Fleet": _object(
        nodes=_COUNT,
        counts={"type": "object", "description": "How many nodes stand how."},
        listed=listed(
            _object(
                node=_TEXT,
                name=_TEXT,
                standing=_TEXT,
                runs=optional(_TEXT),
                offered=optional(_TEXT),
                revision=optional(_COUNT),
                last_seen_at=optional(_TIME),
                trouble=optional(_OBJECT),
            )
        ),
    ),
}
