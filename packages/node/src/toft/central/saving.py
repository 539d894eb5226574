"""What becomes a revision: only a layer with which every node that it reaches still has a document."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toft.central import audit, documents, layers, writing
from toft.central.documents import Document, Documents
from toft.central.nodes import Nodes
from toft.central.previews import Preview, Previews
from toft.kernel import clock as clocks
from toft.kernel import errors, ids, schemas
from toft.managed import document as node_documents
from toft.store import database

_QUERIES = database.read_queries("toft.central")


@dataclass(frozen=True, kw_only=True)
class Wish:
    """A layer that somebody wants to save.

    Attributes:
        scope: One of `layers.SCOPES`.
        target: The group's name or the node's id; empty for the tenant.
        layer: What it says.
        message: Why, for people.
        author: Who saves it.
        base: The newest revision that the author has seen; None when they do not care.
    """

    tenant: str
    scope: str
    target: str
    layer: Mapping[str, Any]
    author: str
    message: str = ""
    base: int | None = None


class Saving:
    """Checks layers and stores them.

    Args:
        store: The database.
        documents: The layers there are.
        nodes: Which of them may have a layer of their own.
        previews: Looks what a layer would do.
        clock: The time.
    """

    def __init__(
        self,
        store: database.Store,
        documents: Documents,
        nodes: Nodes,
        previews: Previews,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self._store = store
        self._documents = documents
        self._nodes = nodes
        self._previews = previews
        self._clock = clock

    async def save(self, wish: Wish, *, dry_run: bool = False) -> Preview:
        """Store a layer as a new revision of its document, or only look what that would do.

        Raises:
            DocumentError: Somebody who gets it would have no document; every problem is named.
            ConflictError: Somebody else has saved one meanwhile.
        """
        audit.check_why(wish.message, "message")
        document = self._place(wish)
        text = _text(wish.layer)
        await self._refuse_downgrade(document, wish.layer)
        preview = await self._previews.look(document, wish.layer)
        if dry_run:
            return preview
        now = self._clock.now()

        def written(number: int) -> None:
            preview.number, preview.is_saved = number, True
            self._documents.note(document, number, wish.layer)

        await writing.commit(
            self._store, lambda connection: _insert(connection, wish, document, text, now), written
        )
        return preview

    def _place(self, wish: Wish) -> Document:
        """Return the document that a layer belongs to; a new one where there is none yet."""
        self._documents.check_tenant(wish.tenant)
        if wish.scope not in layers.SCOPES or (wish.scope == "tenant") != (not wish.target):
            raise errors.UsageError(
                "a layer is for the tenant, for one group or for one node", code="central.scope"
            )
        if wish.scope == "group":
            self._documents.group(wish.tenant, wish.target)
        if wish.scope == "node":
            self._nodes.get(wish.tenant, wish.target)
        found = self._documents.find(wish.tenant, wish.scope, wish.target)
        return found or Document(
            id=f"doc_{ids.ulid(self._clock)}",
            tenant=wish.tenant,
            scope=wish.scope,
            target=wish.target,
            published=None,
            created_at=self._clock.now(),
        )

    async def _refuse_downgrade(self, document: Document, layer: Mapping[str, Any]) -> None:
        version = layer.get("schema_version", node_documents.SCHEMA_VERSION)
        before = 0
        if document.published is not None:
            published = await self._documents.layer(document, document.published)
            before = published.get("schema_version", node_documents.SCHEMA_VERSION)
        if isinstance(version, int) and version < before:
            raise node_documents.DocumentError(
                f"this is written for schema {version}, and what nodes have is for {before}",
                code="central.schema_downgrade",
                details={"schema_version": version, "published": before},
                hint="write it for the newer schema: docs/reference/document.md",
            )


def _text(layer: Mapping[str, Any]) -> bytes:
    """Return a layer as it is stored.

    Raises:
        DocumentError: It is too long, or says what JSON cannot say.
    """
    strange = [
        schemas.Problem(path, f"{found} is nothing JSON can say", "type")
        for path, found in schemas.not_json(dict(layer))
    ]
    node_documents.refuse(strange, "the layer")
    text = node_documents.encode(layer)
    if len(text) > node_documents.MAX_BYTES:
        raise node_documents.DocumentError(
            f"the layer has {len(text)} bytes; {node_documents.MAX_BYTES} is the most",
            code="document.too_large",
        )
    return text


def _insert(connection: database.Connection, wish: Wish, document: Document, text: bytes, now: float) -> int:
    """Write a revision and return its number; what was so when it was looked at may not be so any more."""
    number = int(connection.execute(_QUERIES["count_up"], {"tenant": wish.tenant}).fetchone()["counter"])
    place = {"tenant": wish.tenant, "scope": wish.scope, "target": wish.target}
    group = {"tenant": wish.tenant, "name": wish.target}
    if wish.scope == "group" and connection.execute(_QUERIES["find_group"], group).fetchone() is None:
        raise documents.no_group(wish.target)
    known = connection.execute(_QUERIES["find_document"], place).fetchone()
    if known is None:
        row = {**place, "id": document.id, "now": document.created_at}
        connection.execute(_QUERIES["insert_document"], row)
    values = {"document": document.id if known is None else known["id"]}
    found = connection.execute(_QUERIES["newest_revision"], values).fetchone()
    newest = found["number"] if found else 0
    # Whose first revision came second has not seen the one before, whatever they said.
    base = 0 if known is not None and known["id"] != document.id else wish.base
    if base is not None and base != newest:
        raise errors.ConflictError(
            f"the newest revision is {newest}, and not {base}",
            code="central.revision_conflict",
            details={"base": base, "newest": newest},
            hint="toft central document diff shows what changed; save it again on top of that",
        )
    row = {
        "tenant": wish.tenant,
        "number": number,
        "document": document.id,
        "layer": text.decode(),
        "sha256": hashlib.sha256(text).hexdigest(),
        "author": wish.author,
        "message": wish.message,
        "now": now,
    }
    connection.execute(_QUERIES["insert_revision"], row)
    told = {name: row[name] for name in ("number", "sha256", "message")}
    told |= {"scope": wish.scope, "target": wish.target}
    entry = audit.Entry(
        tenant=wish.tenant, actor=wish.author, action="document.save", subject=document.id, details=told
    )
    audit.add(connection, now, entry)
    return number
