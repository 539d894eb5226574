"""What the settings of an instance on a node may be, without loading it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toft.client import connection as connections
from toft.client.connection import Connection


class RemoteConfiguration:
    """Looks at configurations; `RemoteNode.configure` changes one.

    Args:
        asked: The session with the node.
    """

    def __init__(self, asked: Connection) -> None:
        self._asked = asked

    async def schema(self, plugin: str, *, instance: str | None = None) -> dict[str, Any]:
        """Return the JSON Schema, the defaults, what is remembered and what is wrong with that."""
        return await self._ask("GET", plugin, "schema", query={"instance": instance})

    async def options(self, plugin: str, *, instance: str | None = None) -> dict[str, Any]:
        """Return the values each setting can take right now; none while the instance is not loaded."""
        return await self._ask("GET", plugin, "options", query={"instance": instance})

    async def validate(
        self,
        plugin: str,
        changes: Mapping[str, Any],
        *,
        instance: str | None = None,
        replace: bool = False,
    ) -> dict[str, Any]:
        """Say whether changes would be taken, and what is wrong with them; changes nothing."""
        body = {"changes": dict(changes), "instance": instance, "replace": replace}
        return await self._ask("POST", plugin, "validate", body)

    async def _ask(
        self,
        method: str,
        plugin: str,
        what: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        route = connections.path("plugins", plugin, "config", what)
        found: dict[str, Any] = await self._asked.ask(method, route, body, query=query)
        return found
