"""The secrets of a node, by their names: a value goes there and never comes back."""

from __future__ import annotations

from typing import Any

from toft.client import connection as connections
from toft.client.connection import Connection


class RemoteSecrets:
    """Which secrets there are; `RemoteNode.set_secret` stores one.

    Args:
        asked: The session with the node.
    """

    def __init__(self, asked: Connection) -> None:
        self._asked = asked

    async def list(self, plugin: str | None = None) -> list[dict[str, Any]]:
        """Return the variables that plugins declare and the secrets that are stored, of one plugin or all."""
        route = "/v1/secrets" if plugin is None else connections.path("plugins", plugin, "secrets")
        found: list[dict[str, Any]] = await self._asked.ask("GET", route)
        return found

    async def remove(self, plugin: str, key: str) -> None:
        """Remove a secret for good."""
        await self._asked.ask("DELETE", connections.path("plugins", plugin, "secrets", key))
