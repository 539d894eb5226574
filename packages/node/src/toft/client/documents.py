"""The document of a node elsewhere: how it stands, what it says, another one, and the way back."""

from __future__ import annotations

from typing import Any

from toft.client.connection import Connection


class RemoteDocuments:
    """What a person does with the document of a node.

    Args:
        asked: The session with the node.
    """

    def __init__(self, asked: Connection) -> None:
        self._asked = asked

    async def describe(self) -> dict[str, Any]:
        """Return which document runs, its trial and gates, who is asked for the next one, what happened."""
        return await self._get("")

    async def text(self, which: str = "running") -> dict[str, Any]:
        """Return a document: `running`, `lkg` for the one before it, or `served` by the central."""
        return await self._get("/document", which=which)

    async def diff(self, against: str = "lkg") -> list[str]:
        """Return how the running document differs from another one: `lkg` or `served`."""
        return list((await self._get("/diff", against=against))["lines"])

    async def effective(self) -> dict[str, Any]:
        """Return what the node is, all layers together; what is secret is `<set>`."""
        return await self._get("/effective")

    async def explain(self, key: str) -> dict[str, Any]:
        """Return which layer says what of a key, and which one wins."""
        return await self._get("/explain", key=key)

    async def drift(self) -> list[dict[str, str]]:
        """Return how the machine differs from what its document says."""
        found: list[dict[str, str]] = await self._asked.ask("GET", "/v1/configuration/drift")
        return found

    async def validate(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return everything that is wrong with a document; changes nothing."""
        return await self._post("validate", {"document": document})

    async def apply(self, document: str, *, signatures: str = "", source: str = "") -> dict[str, Any]:
        """Put a document in the place of the one that runs, on trial; the daemon starts again with it.

        Args:
            document: Its exact JSON text.
            signatures: Of exactly these bytes, as a list in JSON.
            source: Where it is from.
        """
        body = {"document": document, "signatures": signatures or None, "source": source or None}
        return await self._post("apply", body)

    async def roll_back(self, reason: str = "") -> dict[str, Any]:
        """Go back to the document before; nothing new is taken until somebody unpins."""
        return await self._post("rollback", {"reason": reason})

    async def pin(self, reason: str = "") -> dict[str, Any]:
        """Take nothing new from anybody but a person who asks for it there."""
        return await self._post("pin", {"reason": reason})

    async def unpin(self) -> dict[str, Any]:
        """Take new documents again."""
        return await self._post("unpin", {})

    async def acknowledge(self) -> dict[str, Any]:
        """Take note of the last way back."""
        return await self._post("acknowledge", {})

    async def _get(self, what: str, **query: Any) -> dict[str, Any]:
        found: dict[str, Any] = await self._asked.ask("GET", f"/v1/configuration{what}", query=query)
        return found

    async def _post(self, verb: str, body: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = await self._asked.ask("POST", f"/v1/configuration/{verb}", body)
        return found
