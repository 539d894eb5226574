"""Which bytes a node is to run: its layers, merged once and kept: the same is served for the same.

`offered` costs no look into the database for what was merged before; ten thousand nodes ask it at once.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toft.central import layers, trust
from toft.central.documents import Document, Documents, Group
from toft.central.nodes import Node
from toft.kernel import clock as clocks
from toft.kernel import log, schemas
from toft.managed import document as documents_of_nodes
from toft.managed import messages
from toft.managed.signatures import Signature
from toft.store import database

_QUERIES = database.read_queries("toft.central")
_log = log.get_logger("central.offers")

Choose = Callable[[Node, Document], tuple[int | None, int]]
"""Which revision of a document a node is to have, and which attempt at it that is."""

Layers = tuple[tuple[str, int], ...]
"""What was merged: ids of documents and numbers of their revisions, the weakest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """Bytes as nodes get them.

    Attributes:
        tenant: Whose nodes may have them.
        signatures: As a header carries them; empty where nobody has signed.
        is_vouched: Enough of the tenant's keys signed them, or it has none.
        problems: Why no node takes them; empty for what can be served.
    """

    tenant: str
    data: bytes
    etag: str
    revision: int
    not_after: str = ""
    poll_interval_s: float = float(documents_of_nodes.DEFAULT_POLL_S)
    signatures: str = ""
    is_vouched: bool = True
    problems: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """Return the hash of the bytes."""
        return self.etag.removeprefix("sha256-")

    @property
    def is_fit(self) -> bool:
        """Say whether a node may be given it."""
        return self.is_vouched and not self.problems


@dataclass(frozen=True, slots=True)
class Offer:
    """What a node is to run now.

    Attributes:
        served: The bytes.
        attempt: Higher than before when it is to try again what it has refused.
    """

    served: Served
    attempt: int


def published(node: Node, document: Document) -> tuple[int | None, int]:
    """Choose as where there are no rollouts."""
    return document.published, 0


class Offers:
    """What is offered to whom.

    Args:
        store: The database.
        documents: The layers.
        trusts: Who must have signed.
        clock: The time.
    """

    def __init__(
        self,
        store: database.Store,
        documents: Documents,
        trusts: trust.Trusts,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self._store = store
        self._documents = documents
        self._trusts = trusts
        self._clock = clock
        self._merged: dict[tuple[str, Layers], Served] = {}
        self._by_hash: dict[tuple[str, str], Served] = {}
        self._merging = asyncio.Lock()
        self._forgotten = 0
        self.choose: Choose = published

    async def offered(self, node: Node) -> Offer | None:
        """Return what a node is to run now; None where there is nothing for it.

        What is not signed yet, or whose layers do not fit together, is not served: the node stays on what it
        was given last.
        """
        if node.pinned is not None:
            kept = await self.find(node.tenant, node.pinned)
            return Offer(kept, node.attempt) if kept is not None else None
        chosen, attempt = self.chosen(node)
        served = await self.merged(node.tenant, chosen) if chosen else None
        if served is not None and not served.is_fit:
            last = (node.offered_etag or "").removeprefix("sha256-")
            served = await self.find(node.tenant, last) if last else None
        return Offer(served, attempt) if served is not None else None

    def chosen(
        self, node: Node, among: Sequence[Group] | None = None
    ) -> tuple[list[tuple[Document, int]], int]:
        """Return which revisions make what a node is to run now, and which attempt at it that is.

        Args:
            node: As it is, or would be.
            among: The groups that there would be; None for those there are.
        """
        chosen, attempt = [], node.attempt
        for each in self._documents.of_node(node, among):
            number, tries = self.choose(node, each)
            # A sum grows whenever one of them does: a node tries again when the number is higher.
            attempt += tries
            if number is not None:
                chosen.append((each, number))
        return chosen, attempt

    async def merged(self, tenant: str, chosen: Sequence[tuple[Document, int]]) -> Served:
        """Return what layers make together, kept from now on."""
        key = (tenant, tuple((each.id, number) for each, number in chosen))
        known = self._merged.get(key)
        if known is not None:
            return known
        # Ten thousand nodes want the same at once; one of them makes it.
        async with self._merging:
            known = self._merged.get(key)
            if known is None:
                values = [await self._documents.layer(each, number) for each, number in chosen]
                data, found = compose(tenant, values, max(number for _, number in chosen))
                known = await self._keep(tenant, key[1], data, found)
                self._merged[key] = known
        return known

    async def find(self, tenant: str, sha256: str) -> Served | None:
        """Return bytes that were made for a tenant, by their hash."""
        known = self._by_hash.get((tenant, sha256))
        if known is not None:
            return known
        values = {"tenant": tenant, "sha256": sha256}
        row = await self._store.read(
            lambda connection: connection.execute(_QUERIES["find_served"], values).fetchone()
        )
        return None if row is None else await self._vouched(tenant, row["data"].encode(), ())

    def forget(self, tenant: str) -> None:
        """Look anew at what vouches for the bytes of a tenant."""
        self._forgotten += 1
        self._merged = {key: each for key, each in self._merged.items() if key[0] != tenant}
        self._by_hash = {key: each for key, each in self._by_hash.items() if key[0] != tenant}

    def tidy(self, current: Collection[tuple[str, int]]) -> None:
        """Let go of bytes in memory that are made of anything but what is given to nodes now.

        Args:
            current: Ids of documents, and the numbers of their revisions.
        """
        self._merged = {
            key: each for key, each in self._merged.items() if all(one in current for one in key[1])
        }
        kept = {(each.tenant, each.sha256) for each in self._merged.values()}
        self._by_hash = {key: each for key, each in self._by_hash.items() if key in kept}

    async def _keep(self, tenant: str, made_of: Layers, data: bytes, found: tuple[str, ...]) -> Served:
        if found:
            _log.warning("layers_do_not_fit", tenant=tenant, layers=list(made_of), problems=list(found)[:5])
        values = {
            "tenant": tenant,
            "sha256": hashlib.sha256(data).hexdigest(),
            "layers": json.dumps(made_of),
            "revision": max(number for _, number in made_of),
            "data": data.decode(),
            "now": self._clock.now(),
        }
        await self._store.write(lambda connection: connection.execute(_QUERIES["put_served"], values).close())
        return await self._vouched(tenant, data, found)

    async def _vouched(self, tenant: str, data: bytes, found: tuple[str, ...]) -> Served:
        sha256 = hashlib.sha256(data).hexdigest()
        signatures = await self._signatures(tenant, sha256)
        value: Mapping[str, Any] = json.loads(data)
        served = Served(
            tenant=tenant,
            data=data,
            etag=f"sha256-{sha256}",
            revision=int(value.get("revision", 0)),
            not_after=str(value.get("expires_at", "")),
            poll_interval_s=float(
                value.get("control", {}).get("poll_interval_s", documents_of_nodes.DEFAULT_POLL_S)
            ),
            signatures=messages.encode_signatures(signatures) if signatures else "",
            is_vouched=self._trusts.is_vouched(tenant, data, signatures),
            problems=found,
        )
        self._by_hash[tenant, sha256] = served
        return served

    async def _signatures(self, tenant: str, sha256: str) -> Sequence[Signature]:
        """Return what was signed of some bytes, no older than what was forgotten last."""
        while True:
            forgotten = self._forgotten
            found = await self._trusts.signatures(tenant, sha256)
            if forgotten == self._forgotten:
                return found


def compose(tenant: str, values: Sequence[Mapping[str, Any]], revision: int) -> tuple[bytes, tuple[str, ...]]:
    """Return the bytes that layers make together, and why they are no document, if they are none."""
    merged = {
        "schema_version": documents_of_nodes.SCHEMA_VERSION,
        **layers.merge(values),
        "tenant": tenant,
        "revision": revision,
    }
    data = documents_of_nodes.encode(merged)
    found = [f"{schemas.path_text(each.path)}: {each.message}" for each in problems(merged)]
    if len(data) > documents_of_nodes.MAX_BYTES:
        found.append(f"it has {len(data)} bytes; {documents_of_nodes.MAX_BYTES} is the most")
    return data, tuple(found)


def problems(merged: Mapping[str, Any]) -> list[schemas.Problem]:
    """Return everything wrong with a merged document, as a node would say it."""
    return documents_of_nodes.problems(merged)
