"""What becomes a revision: only a layer with which every node that it reaches still has a document.

The same look tells, before anything is stored, what would change for whom.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toft.central import audit, layers, literals, offers
from toft.central.documents import Document, Documents
from toft.central.nodes import Nodes
from toft.kernel import clock as clocks
from toft.kernel import errors, ids, schemas
from toft.managed import document as node_documents
from toft.managed import protocol
from toft.store import database

_QUERIES = database.read_queries("toft.central")
_MOST_MESSAGE = 2000
_MOST_DIFF = 64 << 10


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


@dataclass(kw_only=True)
class Change:
    """What a revision changes for nodes that are made of the same layers.

    Attributes:
        group: Their group; None for those in none.
        node: The one node, where it has a document of its own.
        nodes: How many there are.
        data: The bytes that they would get.
        diff: From what they get now; empty when nothing changes.
    """

    group: str | None
    node: str | None
    nodes: int
    data: bytes
    diff: str
    etag: str
    before: str | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        fields = {name: getattr(self, name) for name in ("group", "node", "nodes", "etag", "before")}
        return {**fields, "is_changed": bool(self.diff), "diff": self.diff[:_MOST_DIFF]}


@dataclass(kw_only=True)
class Preview:
    """What a revision would do, or has done.

    Attributes:
        document: Where it belongs; its id is empty for one that is not there yet.
        number: The revision's number; what it would be, when nothing was stored.
        changes: For whom what changes.
        artifacts: What nodes would have to fetch.
    """

    document: Document
    number: int
    changes: list[Change]
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    is_saved: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "document": self.document.to_dict(),
            "number": self.number,
            "is_saved": self.is_saved,
            "nodes": sum(each.nodes for each in self.changes if each.diff),
            "changes": [each.to_dict() for each in self.changes],
            "artifacts": self.artifacts,
        }


class Saving:
    """Checks layers and stores them.

    Args:
        store: The database.
        documents: The layers there are.
        nodes: Whom they reach.
        urls: By which addresses nodes reach this central.
        clock: The time.
    """

    def __init__(
        self,
        store: database.Store,
        documents: Documents,
        nodes: Nodes,
        urls: Sequence[str],
        *,
        clock: clocks.Clock = clocks.SYSTEM,
    ) -> None:
        self._store = store
        self._documents = documents
        self._nodes = nodes
        self.urls = [protocol.check_url(each) for each in urls]
        self._clock = clock

    async def save(self, wish: Wish, *, dry_run: bool = False) -> Preview:
        """Store a layer as a new revision of its document, or only look what that would do.

        Raises:
            DocumentError: Somebody who gets it would have no document; every problem is named.
            ConflictError: Somebody else has saved one meanwhile.
        """
        if len(wish.message) > _MOST_MESSAGE or not ids.is_text(wish.message):
            raise errors.UsageError(f"a message has up to {_MOST_MESSAGE} characters", code="central.message")
        document = self._place(wish)
        strange = [
            schemas.Problem(path, f"{found} is nothing JSON can say", "type")
            for path, found in schemas.not_json(dict(wish.layer))
        ]
        node_documents.refuse(strange, "the layer")
        text = node_documents.encode(wish.layer)
        if len(text) > node_documents.MAX_BYTES:
            raise node_documents.DocumentError(
                f"the layer has {len(text)} bytes; {node_documents.MAX_BYTES} is the most",
                code="document.too_large",
            )
        preview = await self._look(wish, document)
        if dry_run:
            return preview
        now = self._clock.now()

        def insert(connection: database.Connection) -> int:
            return self._insert(connection, wish, document, text, now)

        preview.number = await self._store.write(insert)
        preview.is_saved = True
        self._documents.note(document, preview.number, wish.layer)
        return preview

    def combinations(self, document: Document, number: int) -> list[list[tuple[Document, int]]]:
        """Return what a revision would be merged with: once for every kind of node that it reaches."""
        found = []
        for reached in self._reached(document.tenant, document.scope, document.target):
            chosen = []
            for scope, target in reached.places:
                each = self._documents.find(document.tenant, scope, target)
                if each is document or (each is not None and each.id == document.id):
                    chosen.append((each, number))
                elif each is not None and each.published is not None:
                    chosen.append((each, each.published))
            found.append(chosen)
        return found

    def _insert(
        self, connection: database.Connection, wish: Wish, document: Document, text: bytes, now: float
    ) -> int:
        number = connection.execute(_QUERIES["count_up"], {"tenant": wish.tenant}).fetchone()["counter"]
        if self._documents.find(wish.tenant, wish.scope, wish.target) is None:
            place = {"id": document.id, "tenant": wish.tenant, "scope": wish.scope, "target": wish.target}
            connection.execute(_QUERIES["insert_document"], {**place, "now": document.created_at})
        newest = connection.execute(_QUERIES["newest_revision"], {"document": document.id}).fetchone()
        if wish.base is not None and wish.base != (newest["number"] if newest else 0):
            raise errors.ConflictError(
                f"revision {newest['number'] if newest else 0} was saved after {wish.base}",
                code="central.revision_conflict",
                details={"base": wish.base, "newest": newest["number"] if newest else 0},
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
        return int(number)

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

    async def _look(self, wish: Wish, document: Document) -> Preview:
        await self._refuse_downgrade(wish, document)
        number = await self._next(wish.tenant)
        changes, problems, pins = [], _Problems(), _Pins()
        for name, told in (("revision", None), ("tenant", wish.tenant)):
            if wish.layer.get(name, told) != told:
                said = "is counted here" if told is None else f"is {told} here, whatever a layer says"
                problems.add(_Reached(None, None), [schemas.Problem((name,), said, "central")])
        for reached in self._reached(wish.tenant, wish.scope, wish.target):
            change, merged = await self._change(wish, reached, document, number)
            changes.append(change)
            problems.add(reached, [*self._wrong(merged), *(await self._lacking(wish.tenant, merged, pins))])
        problems.refuse()
        return Preview(document=document, number=number, changes=changes, artifacts=pins.listed())

    async def _refuse_downgrade(self, wish: Wish, document: Document) -> None:
        version = wish.layer.get("schema_version", node_documents.SCHEMA_VERSION)
        before = 0
        if document.published is not None:
            layer = await self._documents.layer(document, document.published)
            before = layer.get("schema_version", node_documents.SCHEMA_VERSION)
        if isinstance(version, int) and version < before:
            raise node_documents.DocumentError(
                f"this is written for schema {version}, and what nodes have is for {before}",
                code="central.schema_downgrade",
                details={"schema_version": version, "published": before},
                hint="write it for the newer schema: docs/reference/document.md",
            )

    async def _next(self, tenant: str) -> int:
        rows = await self._store.read(
            lambda connection: connection.execute(_QUERIES["list_tenants"]).fetchall()
        )
        return int(next(row["counter"] for row in rows if row["id"] == tenant)) + 1

    def _reached(self, tenant: str, scope: str, target: str) -> list[_Reached]:
        """Return every kind of node that a layer reaches: each group, and each node with a document."""
        found: dict[tuple[str | None, str | None], _Reached] = {}
        for name in (None, *(each.name for each in self._documents.groups(tenant))):
            if scope == "tenant" or (scope == "group" and target == name):
                found[name, None] = _Reached(name, None)
        for node in self._nodes.of(tenant):
            group = self._documents.group_of(node)
            name = group.name if group else None
            is_meant = scope == "node" and target == node.id
            is_own = is_meant or self._documents.find(tenant, "node", node.id) is not None
            is_reached = is_meant or scope == "tenant" or (scope == "group" and target == name)
            if is_reached and node.state != "revoked":
                key = (name, node.id if is_own else None)
                found.setdefault(key, _Reached(*key)).nodes += 1
        return list(found.values())

    async def _change(
        self, wish: Wish, reached: _Reached, document: Document, number: int
    ) -> tuple[Change, Mapping[str, Any]]:
        before, after = [], []
        numbers = [number]
        for scope, target in reached.places:
            found = self._documents.find(wish.tenant, scope, target)
            if found is not None and found.published is not None:
                layer = await self._documents.layer(found, found.published)
                before.append((layer, found.published))
                if (scope, target) != (wish.scope, wish.target):
                    after.append(layer)
                    numbers.append(found.published)
            if (scope, target) == (wish.scope, wish.target):
                after.append(wish.layer)
        data, _ = offers.compose(wish.tenant, after, max(numbers))
        merged = json.loads(data)
        old = None
        if before:
            old, _ = offers.compose(
                wish.tenant, [layer for layer, _ in before], max(each for _, each in before)
            )
        change = Change(
            group=reached.group,
            node=reached.node,
            nodes=reached.nodes,
            data=data,
            diff=layers.diff(_bare(old), _bare(data), ("now", f"revision {number}")),
            etag=node_documents.etag_of(data),
            before=None if old is None else node_documents.etag_of(old),
        )
        return change, merged

    def _wrong(self, merged: Mapping[str, Any]) -> Iterator[schemas.Problem]:
        """Yield why nodes would not take a document, or would be lost with it."""
        found = offers.problems(merged)
        yield from found
        if found:
            return
        served = node_documents.Document(b"", merged)
        yield from served.not_served()
        urls = {each.rstrip("/") for each in served.control_urls}
        if not urls & set(self.urls):
            yield schemas.Problem(
                ("control", "urls"), f"names no address of this central, such as {self.urls[0]}", "control"
            )
        yield from literals.found_in(merged)
        if len(node_documents.encode(merged)) > node_documents.MAX_BYTES:
            yield schemas.Problem((), f"is longer than {node_documents.MAX_BYTES} bytes", "size")

    async def _lacking(
        self, tenant: str, merged: Mapping[str, Any], pins: _Pins
    ) -> Sequence[schemas.Problem]:
        """Return which pinned wheels nobody has given to this central."""
        if offers.problems(merged):
            return ()
        found = []
        for path, name, pin in _pinned(merged):
            values = {"tenant": tenant, "sha256": pin["sha256"]}
            row = await self._store.read(
                lambda connection, values=values: connection.execute(  # type: ignore[misc]
                    _QUERIES["find_artifact"], values
                ).fetchone()
            )
            pins.add(name, pin)
            if row is None:
                found.append(
                    schemas.Problem(
                        path,
                        f"pins a wheel that is not here: {pin['sha256']}; toft central artifact add",
                        "artifact",
                    )
                )
        return found


@dataclass
class _Reached:
    group: str | None
    node: str | None
    nodes: int = 0

    @property
    def places(self) -> list[tuple[str, str]]:
        named = (("tenant", ""), ("group", self.group), ("node", self.node))
        return [(scope, target) for scope, target in named if target is not None]

    def __str__(self) -> str:
        if self.node is not None:
            return f"the node {self.node}"
        return f"nodes of the group {self.group}" if self.group is not None else "nodes without a group"


class _Problems:
    """What is wrong for whom; the same thing is told once."""

    def __init__(self) -> None:
        self._found: dict[tuple[tuple[str | int, ...], str, str], list[str]] = {}

    def add(self, reached: _Reached, found: Sequence[schemas.Problem]) -> None:
        for each in found:
            self._found.setdefault((each.path, each.message, each.keyword), []).append(str(reached))

    def refuse(self) -> None:
        listed = [
            schemas.Problem(path, f"{message} (for {', '.join(whom[:3])})", keyword)
            for (path, message, keyword), whom in self._found.items()
        ]
        node_documents.refuse(listed, "what nodes would get")


class _Pins:
    """Wheels by their hash."""

    def __init__(self) -> None:
        self._by_hash: dict[str, dict[str, Any]] = {}

    def add(self, name: str, pin: Mapping[str, Any]) -> None:
        told = {each: pin.get(each) for each in ("version", "filename", "sha256", "size_bytes")}
        self._by_hash[pin["sha256"]] = {"name": name, **told}

    def listed(self) -> list[dict[str, Any]]:
        return list(self._by_hash.values())


def _pinned(merged: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str, Mapping[str, Any]]]:
    for name, pin in merged.get("plugins", {}).items():
        if not pin.get("enabled", True):
            continue
        yield ("plugins", name), name, pin
        for index, wheel in enumerate(pin.get("packages", ())):
            yield ("plugins", name, "packages", index), str(wheel.get("name", name)), wheel


def _bare(data: bytes | None) -> Mapping[str, Any] | None:
    """Return what a document says but for its number, which changes always."""
    if data is None:
        return None
    return {name: each for name, each in json.loads(data).items() if name != "revision"}
