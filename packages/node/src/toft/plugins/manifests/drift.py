"""Whether a plugin's code still says what its manifest recorded.

A manifest is written when a plugin is added; its code can change afterwards. The hash of the configuration
schema tells whether the two still agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toft.plugins.manifests.manifest import Manifest, schema_hash


@dataclass(frozen=True)
class Drift:
    """How a live description differs from the manifest.

    Attributes:
        expected: Hash the manifest recorded.
        live: Hash of what the code says now.
        changes: What differs, as short sentences.
        live_schema: The configuration schema the code has now.
    """

    expected: str
    live: str
    changes: tuple[str, ...]
    live_schema: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return what `toft plugin list --json` shows."""
        return {"expected": self.expected, "live": self.live, "changes": list(self.changes)}


def detect(manifest: Manifest, live_schema: Mapping[str, Any] | None) -> Drift | None:
    """Compare the configuration schema of the running code with the recorded one.

    Args:
        manifest: The recorded one; without a hash (format 1.0) there is nothing to compare.
        live_schema: What the worker says; None when it could not say, which is no drift.

    Returns:
        The difference; None when there is none or nobody can tell.
    """
    if manifest.config_schema_hash is None or live_schema is None:
        return None
    live = schema_hash(live_schema)
    if live == manifest.config_schema_hash:
        return None
    changes = tuple(_changes(manifest.code.config_schema or {}, live_schema))
    return Drift(manifest.config_schema_hash, live, changes, live_schema)


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    old, new = _properties(before), _properties(after)
    changes = [f"new setting {name}" for name in sorted(new.keys() - old.keys())]
    changes += [f"setting {name} is gone" for name in sorted(old.keys() - new.keys())]
    changes += [
        f"setting {name} changed" for name in sorted(old.keys() & new.keys()) if old[name] != new[name]
    ]
    return changes or ["the schema changed"]


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}
