"""What a revision would do: for whom it changes what, what is wrong with that, and what nodes would fetch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from toft.central import layers, literals, offers
from toft.central.documents import Document, Documents
from toft.central.nodes import Nodes
from toft.kernel import schemas
from toft.managed import document as node_documents
from toft.managed import protocol
from toft.store import database

_QUERIES = database.read_queries("toft.central")
_MOST_DIFF = 64 << 10


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


class Previews:
    """Looks what layers would do, before anything is stored.

    Args:
        store: The database; only read.
        documents: The layers there are.
        nodes: Whom they reach.
        urls: By which addresses nodes reach this central.
    """

    def __init__(
        self, store: database.Store, documents: Documents, nodes: Nodes, urls: Sequence[str]
    ) -> None:
        self._store = store
        self._documents = documents
        self._nodes = nodes
        self.urls = [protocol.check_url(each) for each in urls]

    async def look(self, document: Document, layer: Mapping[str, Any]) -> Preview:
        """Return what a layer would do as the next revision of a document.

        Raises:
            DocumentError: Somebody who gets it would have no document; every problem is named.
        """
        number = await self._next(document.tenant)
        changes, problems, pins = [], _Problems(), _Pins()
        for name, told in (("revision", None), ("tenant", document.tenant)):
            if layer.get(name, told) != told:
                said = "is counted here" if told is None else f"is {told} here, whatever a layer says"
                problems.add(_Reached(None, None), [schemas.Problem((name,), said, "central")])
        for reached in self._reached(document):
            change, merged = await self._change(document, layer, reached, number)
            changes.append(change)
            wrong = offers.problems(merged)
            lacking = [] if wrong else await self._lacking(document.tenant, merged, pins)
            problems.add(reached, wrong or [*self._unfit(merged), *lacking])
        problems.refuse()
        return Preview(document=document, number=number, changes=changes, artifacts=pins.listed())

    def combinations(self, document: Document, number: int) -> list[list[tuple[Document, int]]]:
        """Return what a revision would be merged with: once for every kind of node that it reaches."""
        found = []
        for reached in self._reached(document):
            chosen = []
            for scope, target in reached.places:
                each = self._documents.find(document.tenant, scope, target)
                if each is document or (each is not None and each.id == document.id):
                    chosen.append((each, number))
                elif each is not None and each.published is not None:
                    chosen.append((each, each.published))
            found.append(chosen)
        return found

    async def _next(self, tenant: str) -> int:
        rows = await self._store.read(
            lambda connection: connection.execute(_QUERIES["list_tenants"]).fetchall()
        )
        return int(next(row["counter"] for row in rows if row["id"] == tenant)) + 1

    def _reached(self, document: Document) -> list[_Reached]:
        """Return every kind of node that a layer reaches: each group, and each node with a document."""
        tenant, scope, target = document.tenant, document.scope, document.target
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
        self, document: Document, layer: Mapping[str, Any], reached: _Reached, number: int
    ) -> tuple[Change, Mapping[str, Any]]:
        before, after = [], []
        for scope, target in reached.places:
            found = self._documents.find(document.tenant, scope, target)
            is_this = (scope, target) == (document.scope, document.target)
            if found is not None and found.published is not None:
                published = (await self._documents.layer(found, found.published), found.published)
                before.append(published)
                if not is_this:
                    after.append(published)
            if is_this:
                after.append((layer, number))
        data = _composed(document.tenant, after)
        old = _composed(document.tenant, before) if before else None
        change = Change(
            group=reached.group,
            node=reached.node,
            nodes=reached.nodes,
            data=data,
            diff=layers.diff(_bare(old), _bare(data), ("now", layers.called(number))),
            etag=node_documents.etag_of(data),
            before=None if old is None else node_documents.etag_of(old),
        )
        return change, json.loads(data)

    def _unfit(self, merged: Mapping[str, Any]) -> Iterator[schemas.Problem]:
        """Yield why nodes would not take what is a document, or would be lost with it."""
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
        found = []
        for path, name, pin in _pinned(merged):
            pins.add(name, pin)
            if not await self._has_artifact(tenant, pin["sha256"]):
                said = f"pins a wheel that is not here: {pin['sha256']}; toft central artifact add"
                found.append(schemas.Problem(path, said, "artifact"))
        return found

    async def _has_artifact(self, tenant: str, sha256: str) -> bool:
        values = {"tenant": tenant, "sha256": sha256}
        row = await self._store.read(
            lambda connection: connection.execute(_QUERIES["find_artifact"], values).fetchone()
        )
        return row is not None


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


def _composed(tenant: str, numbered: Sequence[tuple[Mapping[str, Any], int]]) -> bytes:
    """Return what layers make together, the weakest first, each with the number of its revision."""
    data, _ = offers.compose(tenant, [layer for layer, _ in numbered], max(number for _, number in numbered))
    return data


def _bare(data: bytes | None) -> Mapping[str, Any] | None:
    """Return what a document says but for its number, which changes always."""
    if data is None:
        return None
    return {name: each for name, each in json.loads(data).items() if name != "revision"}
