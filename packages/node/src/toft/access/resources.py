"""What is asked for: a kind of thing, perhaps one of that kind, and what is to be done with it."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class Kind(enum.StrEnum):
    """What there is to ask for."""

    NODE = "node"
    PLUGIN = "plugin"
    ENVIRONMENT = "environment"
    INSTANCE = "instance"
    JOB = "job"
    SEQUENCE = "sequence"
    RESULT = "result"
    SECRET = "secret"
    TOKEN = "token"
    SYSTEM = "system"
    FLEET = "fleet"
    DOCUMENT = "document"
    ROLLOUT = "rollout"
    AUDIT = "audit"


class Action(enum.StrEnum):
    """What may be done; each includes those before it."""

    READ = "read"
    CANCEL = "cancel"
    WRITE = "write"
    ADMIN = "admin"


OF_PLUGINS = frozenset({Kind.PLUGIN, Kind.INSTANCE, Kind.JOB, Kind.SEQUENCE, Kind.RESULT})
"""Kinds whose things belong to plugins, so that a scope can be limited to some of those."""

OF_TENANTS = frozenset({Kind.FLEET, Kind.DOCUMENT, Kind.ROLLOUT, Kind.AUDIT})
"""Kinds of a central, whose things belong to tenants; there a scope is limited to one of those."""

LIMITED = OF_PLUGINS | OF_TENANTS


@dataclass(frozen=True)
class Resource:
    """What somebody asks for.

    Attributes:
        kind: Of what kind it is.
        id: Which one; None for the kind as a whole.
        metadata: What is known of it; `plugin` names the plugin, or the tenant, it belongs to.
    """

    kind: Kind
    id: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def plugin(self) -> str | None:
        """Return the plugin it belongs to, as far as that is known."""
        return self.id if self.kind is Kind.PLUGIN else self.metadata.get("plugin")
