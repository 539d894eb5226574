"""How far back nodes of a signed fleet may be sent: what is older, each of them refuses for good."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from toft.central.nodes import Node
from toft.central.trust import Trusts
from toft.kernel import errors
from toft.store import database

_QUERIES = database.read_queries("toft.central")
_LISTED = 100


@dataclass(frozen=True, kw_only=True)
class Move:
    """A node that would be given another document.

    Attributes:
        revision: The number of that one.
        document: Whose revision that is, by id; empty for a document that it was given before.
    """

    node: Node
    revision: int
    document: str = ""


class Floors:
    """Refuses moves that would only be refused by the nodes themselves.

    Args:
        store: The database; only read.
        trusts: Which fleets are signed.
    """

    def __init__(self, store: database.Store, trusts: Trusts) -> None:
        self._store = store
        self._trusts = trusts

    def are_there(self, tenant: str) -> bool:
        """Say whether nodes of a tenant refuse anything for its age."""
        return self._trusts.root(tenant) is not None

    async def check(self, tenant: str, moves: Sequence[Move]) -> None:
        """Refuse moves of which one is to something older than what its node may go back to.

        Raises:
            ConflictError: Names such a node, and the layer that has to be saved again.
        """
        if not self.are_there(tenant):
            return
        floors = await self._store.read(
            lambda connection: [_floor(connection, tenant, each.node.id) for each in moves]
        )
        refusing = [(each, floor) for each, floor in zip(moves, floors, strict=True) if each.revision < floor]
        if not refusing:
            return
        move, floor = refusing[0]
        told: dict[str, Any] = {"node": move.node.id, "revision": move.revision, "floor": floor}
        hint = f"toft central node show {move.node.id} tells what it was given; one step back is possible"
        if move.document:
            told["document"] = move.document
            hint = (
                f"toft central document show {move.document} tells what it says; save that again, have it "
                "signed and publish it, then do this once more"
            )
        also = ""
        if len(refusing) > 1:
            told["nodes"] = [each.node.id for each, _ in refusing[:_LISTED]]
            also = f"; so with {len(refusing)} nodes"
        raise errors.ConflictError(
            f"{move.node.name} would be given revision {move.revision}, and refuses what is older than "
            f"{floor}{also}",
            code="central.older_layer",
            details=told,
            hint=hint,
        )


def _floor(connection: database.Connection, tenant: str, node: str) -> int:
    """Return the lowest revision that a node takes as far as is known here; 0 for any."""
    given = connection.execute(_QUERIES["last_offers"], {"tenant": tenant, "node": node}).fetchall()
    said = json.loads(given[0]["data"]).get("revision_floor") if given else 0
    if said is not None:
        return int(said)
    # One step back stays possible where the document says nothing.
    return min(each["revision"] for each in given) if len(given) > 1 else 0
