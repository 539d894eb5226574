"""Layered documents: what a tenant, its groups and its nodes add, each with its numbered revisions."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toft.central import audit, layers, writing
from toft.central.nodes import Node
from toft.kernel import clock as clocks
from toft.kernel import errors, ids
from toft.store import database

_QUERIES = database.read_queries("toft.central")
MOST_REVISIONS = 500


@dataclass(frozen=True, kw_only=True)
class Group:
    """Nodes that are meant together.

    Attributes:
        selector: The labels that its nodes have; nodes that joined by a token of this group are in it anyway.
        priority: Of all groups that a node could be in, the highest counts; of equal ones the first by name.
    """

    tenant: str
    name: str
    selector: Mapping[str, Any]
    priority: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"name": self.name, "selector": dict(self.selector), "priority": self.priority}


@dataclass(slots=True, kw_only=True)
class Document:
    """One layer.

    Attributes:
        scope: One of `layers.SCOPES`.
        target: The group's name, or the node's id; empty for the tenant.
        published: The number of the revision that nodes get; None before one was published.
    """

    id: str
    tenant: str
    scope: str
    target: str
    published: int | None
    created_at: float

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "id": self.id,
            "scope": self.scope,
            "target": self.target,
            "published": self.published,
            "created_at": clocks.rfc3339(self.created_at),
        }


class Documents:
    """The groups and documents of all tenants.

    Args:
        store: The database.
        clock: The time.
    """

    def __init__(self, store: database.Store, *, clock: clocks.Clock = clocks.SYSTEM) -> None:
        self._store = store
        self._clock = clock
        self._tenants: dict[str, float] = {}
        self._groups: dict[str, list[Group]] = {}
        self._by_id: dict[str, Document] = {}
        self._by_place: dict[tuple[str, str, str], Document] = {}
        self._layers: dict[tuple[str, int], Mapping[str, Any]] = {}
        self.changed: list[Callable[[str], None]] = []
        """Told of each tenant whose nodes may be made of something else now."""

    async def open(self) -> None:
        """Read what there is, and the layers that nodes get now."""

        def read(connection: database.Connection) -> tuple[list[Any], ...]:
            names = ("list_tenants", "list_groups", "list_documents", "list_published")
            return tuple(connection.execute(_QUERIES[name]).fetchall() for name in names)

        tenants, groups, documents, published = await self._store.read(read)
        self._tenants = {row["id"]: row["created_at"] for row in tenants}
        for row in groups:
            self._groups.setdefault(row["tenant"], []).append(_group(row))
        for row in documents:
            self._note(Document(**{name: row[name] for name in Document.__slots__}))
        for row in published:
            self._layers[row["document"], row["number"]] = json.loads(row["layer"])

    @property
    def tenants(self) -> Sequence[str]:
        """Return the names of all tenants."""
        return sorted(self._tenants)

    def check_tenant(self, tenant: str) -> str:
        """Return the name of a tenant that there is.

        Raises:
            NotFoundError: There is none of that name.
        """
        if tenant not in self._tenants:
            raise errors.NotFoundError(
                f"there is no tenant {tenant[:80]!r}",
                code="central.no_tenant",
                hint="toft central tenant list",
            )
        return tenant

    async def add_tenant(self, tenant: str, *, by: str) -> None:
        """Make a tenant; one that is there stays as it is."""
        ids.check_name(tenant, "name of a tenant")
        if tenant in self._tenants:
            return
        now = self._clock.now()

        def change(connection: database.Connection) -> None:
            if connection.execute(_QUERIES["insert_tenant"], {"id": tenant, "now": now}).fetchone():
                _audit(connection, now, tenant, by, "tenant.create", tenant)

        def written(_: None) -> None:
            self._tenants[tenant] = now

        await writing.commit(self._store, change, written)

    def groups(self, tenant: str) -> Sequence[Group]:
        """Return the groups of a tenant, the one that counts first in front."""
        return list(self._groups.get(tenant, ()))

    def group(self, tenant: str, name: str) -> Group:
        """Return a group.

        Raises:
            NotFoundError: There is none of that name.
        """
        for each in self._groups.get(tenant, ()):
            if each.name == name:
                return each
        raise no_group(name)

    async def put_group(self, group: Group, *, by: str) -> None:
        """Make a group, or change which nodes are in it."""
        ids.check_name(group.name, "name of a group")
        layers.check_selector(group.selector)
        now = self._clock.now()
        values = {
            "tenant": group.tenant,
            "name": group.name,
            "selector": json.dumps(dict(group.selector), sort_keys=True),
            "priority": group.priority,
            "now": now,
        }

        def change(connection: database.Connection) -> None:
            connection.execute(_QUERIES["put_group"], values)
            _audit(connection, now, group.tenant, by, "group.put", group.name, **group.to_dict())

        def written() -> None:
            self._groups[group.tenant] = self.regrouped(group.tenant, group.name, group)

        await self._commit(change, written, group.tenant)

    async def delete_group(self, tenant: str, name: str, *, by: str) -> None:
        """Take a group away that has no document.

        Raises:
            NotFoundError: There is none of that name.
            ConflictError: It has a document, and its nodes would lose what that says.
        """
        self.group(tenant, name)
        now = self._clock.now()

        def change(connection: database.Connection) -> None:
            # Its first revision may be saved in this moment.
            values = {"tenant": tenant, "name": name}
            if connection.execute(_QUERIES["delete_group"], values).fetchone() is None:
                raise errors.ConflictError(
                    f"the group {name} has a document, and its nodes would lose what that says",
                    code="central.group_used",
                    hint="publish an empty document for it first, or give it a selector that no node fits",
                )
            _audit(connection, now, tenant, by, "group.delete", name)

        def written() -> None:
            self._groups[tenant] = self.regrouped(tenant, name, None)

        await self._commit(change, written, tenant)

    def regrouped(self, tenant: str, name: str, group: Group | None) -> list[Group]:
        """Return the groups of a tenant as they are when one of that name is this, or is there no more."""
        others = [each for each in self._groups.get(tenant, ()) if each.name != name]
        found = others if group is None else [*others, group]
        return sorted(found, key=lambda each: (-each.priority, each.name))

    def group_of(self, node: Node, among: Sequence[Group] | None = None) -> Group | None:
        """Return the one group that counts for a node, of those there are or would be."""
        groups = self._groups.get(node.tenant, ()) if among is None else among
        if node.assigned_group is not None:
            return next((each for each in groups if each.name == node.assigned_group), None)
        return next((each for each in groups if layers.matches(each.selector, node.labels)), None)

    def of_node(self, node: Node, among: Sequence[Group] | None = None) -> list[Document]:
        """Return the documents that a node is made of, the weakest first; see `group_of`."""
        group = self.group_of(node, among)
        places = (("tenant", ""), ("group", group.name if group else ""), ("node", node.id))
        found = (self._by_place.get((node.tenant, *place)) for place in places)
        return [each for each in found if each is not None]

    def find(self, tenant: str, scope: str, target: str) -> Document | None:
        """Return a document by its place."""
        return self._by_place.get((tenant, scope, target))

    def get(self, tenant: str, id: str) -> Document:
        """Return a document by its id.

        Raises:
            NotFoundError: The tenant has none of that id.
        """
        found = self._by_id.get(id)
        if found is None or found.tenant != tenant:
            raise errors.NotFoundError(
                f"there is no document {id[:80]!r}",
                code="central.no_document",
                hint="toft central document list",
            )
        return found

    def of(self, tenant: str) -> list[Document]:
        """Return the documents of a tenant: its own, then those of groups, then those of nodes."""
        found = [each for each in self._by_id.values() if each.tenant == tenant]
        return sorted(found, key=lambda each: (layers.SCOPES.index(each.scope), each.target))

    async def layer(self, document: Document, number: int) -> Mapping[str, Any]:
        """Return what a revision says.

        Raises:
            NotFoundError: There is no such revision.
        """
        known = self._layers.get((document.id, number))
        if known is None:
            known = json.loads((await self.revision(document, number))["layer"])
            self._layers[document.id, number] = known
        return known

    def tidy(self, current: Collection[tuple[str, int]]) -> None:
        """Let go of revisions in memory that are given to no node now."""
        self._layers = {key: each for key, each in self._layers.items() if key in current}

    async def revision(self, document: Document, number: int) -> Mapping[str, Any]:
        """Return the row of a revision.

        Raises:
            NotFoundError: There is no such revision.
        """
        values = {"document": document.id, "number": number}
        row = await self._store.read(
            lambda connection: connection.execute(_QUERIES["find_revision"], values).fetchone()
        )
        if row is None:
            raise errors.NotFoundError(
                f"there is no revision {number} of this document",
                code="central.no_revision",
                details={"document": document.id},
                hint="toft central document list shows which there are",
            )
        return dict(row)

    async def revisions(self, document: Document, *, most: int = 50) -> list[dict[str, Any]]:
        """Return the revisions of a document, the newest first."""
        values = {"document": document.id, "most": min(max(1, most), MOST_REVISIONS)}
        rows = await self._store.read(
            lambda connection: connection.execute(_QUERIES["list_revisions"], values).fetchall()
        )
        return [
            {
                **{name: row[name] for name in ("number", "sha256", "author", "message")},
                "created_at": clocks.rfc3339(row["created_at"]),
                "is_published": row["number"] == document.published,
            }
            for row in rows
        ]

    async def publish(self, document: Document, number: int | None, *, by: str) -> None:
        """Let every node have a revision that no rollout has given another one; None takes the layer away."""
        if number is not None:
            await self.layer(document, number)
        now = self._clock.now()

        def change(connection: database.Connection) -> None:
            connection.execute(_QUERIES["set_published"], {"document": document.id, "number": number})
            told = {"number": number, "scope": document.scope, "target": document.target}
            _audit(connection, now, document.tenant, by, "document.publish", document.id, **told)

        def published() -> None:
            document.published = number

        await self._commit(change, published, document.tenant)

    async def _commit(
        self, work: Callable[[database.Connection], None], then: Callable[[], None], tenant: str
    ) -> None:
        def written(_: None) -> None:
            then()
            for each in self.changed:
                each(tenant)

        await writing.commit(self._store, work, written)

    def note(self, document: Document, number: int, layer: Mapping[str, Any]) -> None:
        """Take note of a revision that a transaction has written."""
        self._note(document)
        self._layers[document.id, number] = layer

    def _note(self, document: Document) -> None:
        self._by_id[document.id] = document
        self._by_place[document.tenant, document.scope, document.target] = document


def no_group(name: str) -> errors.NotFoundError:
    """Return the error for a group that there is not."""
    return errors.NotFoundError(
        f"there is no group {name[:80]!r}", code="central.no_group", hint="toft central group list"
    )


def _group(row: Mapping[str, Any]) -> Group:
    return Group(
        tenant=row["tenant"],
        name=row["name"],
        selector=json.loads(row["selector"]),
        priority=row["priority"],
    )


def _audit(
    connection: database.Connection,
    now: float,
    tenant: str,
    by: str,
    action: str,
    subject: str,
    **details: Any,
) -> None:
    entry = audit.Entry(tenant=tenant, actor=by, action=action, subject=subject, details=details)
    audit.add(connection, now, entry)
