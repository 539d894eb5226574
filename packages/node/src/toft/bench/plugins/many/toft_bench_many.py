"""A plugin that echoes for any number of callers at once."""

from __future__ import annotations

from typing import Any

from toft_sdk import Plugin


class Many(Plugin):
    """Echoes."""

    name = "bench-many"
    concurrency = None

    def execute(self, payload: dict[str, Any]) -> dict[str, Any]:
        """Return what came."""
        return payload
