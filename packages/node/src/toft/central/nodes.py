"""The nodes of all tenants: in memory for whoever asks on behalf of one, in the database for good.

One process has them; ten thousand that ask at the same time cost no look into the database.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from toft.central import audit, layers, writing
from toft.kernel import clock as clocks
from toft.kernel import errors, ids
from toft.store import database

_QUERIES = database.read_queries("toft.central")
STATES = ("pending", "active", "revoked")


@dataclass(slots=True, kw_only=True)
class Node:
    """One node as it is known now.

    Attributes:
        id: Never used again.
        tenant: Whose it is.
        name: What people call it.
        labels: By these, groups and rollouts choose it.
        public_key: In base64; whoever has the other half is this node.
        state: One of `STATES`.
        join_token: The id of the one it came with.
        assigned_group: The group of that token; None leaves it to the labels.
        pinned: The hash of the document that it is kept on; None for whatever is offered.
        attempt: How often somebody has asked it to try again.
        asked_etag: What it said that it runs, when it last asked; empty before its first document.
        offered_etag: What it was given last.
        report: The latest report, without its history; empty before the first one.
        boot_nonce: Of the boot that report is from.
        seq: Its number.
        restored_at: When it was seen to have come back from a copy of an earlier moment.
    """

    id: str
    tenant: str
    name: str
    labels: dict[str, str]
    public_key: str
    state: str
    join_token: str
    assigned_group: str | None
    created_at: float
    hostname: str = ""
    os: str = ""
    agent_version: str = ""
    machine_id_hash: str = ""
    pinned: str | None = None
    attempt: int = 0
    last_seen_at: float | None = None
    asked_etag: str | None = None
    offered_etag: str | None = None
    offered_at: float | None = None
    boot_nonce: str | None = None
    seq: int | None = None
    restored_at: float | None = None
    report: Mapping[str, Any] = field(default_factory=dict)
    reported_at: float | None = None

    @property
    def heard_at(self) -> float | None:
        """Return when it was heard of last; None for never.

        When it asked is written down now and then only: after a kill, what it said and what it was given tell
        that it was there.
        """
        known = (self.last_seen_at, self.reported_at, self.offered_at)
        return max((each for each in known if each is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        times = ("created_at", "offered_at", "restored_at", "reported_at")
        plain = ("id", "tenant", "name", "state", "hostname", "os", "agent_version", "attempt", "join_token")
        moments = {**{name: getattr(self, name) for name in times}, "last_seen_at": self.heard_at}
        told = {name: None if at is None else clocks.rfc3339(at) for name, at in moments.items()}
        running = self.report.get("running") or {}
        return {
            **{name: getattr(self, name) for name in plain},
            "labels": dict(self.labels),
            "pinned": self.pinned,
            "asked_etag": self.asked_etag or None,
            "offered_etag": self.offered_etag,
            "running": {"etag": running.get("etag"), "revision": running.get("revision")},
            "phase": self.report.get("phase"),
            **told,
        }


Listener = Callable[[Node], None]


class Nodes:
    """All of them.

    Args:
        store: The database.
        clock: The time.
    """

    def __init__(self, store: database.Store, *, clock: clocks.Clock = clocks.SYSTEM) -> None:
        self._store = store
        self._clock = clock
        self._by_id: dict[str, Node] = {}
        self._seen: set[str] = set()
        self.changed: list[Listener] = []
        """Told of each node for which something else may have to be offered now."""

    async def open(self) -> None:
        """Read what there is."""
        rows, reports = await self._store.read(_read_all)
        self._by_id = {row["id"]: of_row(row) for row in rows}
        for row in reports:
            node = self._by_id[row["node"]]
            node.report, node.reported_at = json.loads(row["data"]), row["received_at"]

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._by_id)

    def __iter__(self) -> Iterator[Node]:
        """Go through all of them, in the order in which they joined."""
        return iter(list(self._by_id.values()))

    def of(self, tenant: str) -> list[Node]:
        """Return the nodes of a tenant, in the order in which they joined."""
        return [node for node in self._by_id.values() if node.tenant == tenant]

    def find(self, id: str) -> Node | None:
        """Return a node by its id."""
        return self._by_id.get(id)

    def get(self, tenant: str, name: str) -> Node:
        """Return a node of a tenant by its id, or by its name where only one has it.

        Raises:
            NotFoundError: There is none.
            ConflictError: Several have that name.
        """
        found = self._by_id.get(name)
        if found is not None and found.tenant == tenant:
            return found
        named = [node for node in self.of(tenant) if node.name == name]
        if len(named) > 1:
            raise errors.ConflictError(
                f"{len(named)} nodes are called {name[:80]}",
                code="central.node_ambiguous",
                details={"nodes": [node.id for node in named[:20]]},
                hint="name the one you mean by its id",
            )
        if not named:
            raise errors.NotFoundError(
                f"there is no node {name[:80]!r}", code="central.no_node", hint="toft central node list"
            )
        return named[0]

    def add(self, node: Node) -> None:
        """Take note of a node that a transaction has made, or changed."""
        self._by_id[node.id] = node
        self.tell(node)

    def tell(self, node: Node) -> None:
        """Tell whoever waits that something may have to be offered to a node now."""
        for each in self.changed:
            each(node)

    async def set_state(self, node: Node, state: str, *, by: str) -> None:
        """Let a node in, or throw it out; what is thrown out stays out.

        Raises:
            ConflictError: It was revoked before.
        """
        if node.state == state:
            return
        stays = errors.ConflictError(
            f"{node.name} was revoked, and stays so",
            code="central.node_revoked",
            details={"node": node.id},
            hint="join that machine again with a new key: toft leave, then toft join",
        )
        if node.state == "revoked":
            raise stays

        def change(connection: database.Connection) -> None:
            values = {"id": node.id, "state": state}
            # Somebody may have thrown it out while this waited for its turn.
            if connection.execute(_QUERIES["set_state"], values).fetchone() is None:
                if state == "revoked":
                    return
                raise stays
            if state == "revoked":
                connection.execute(_QUERIES["delete_credentials"], {"node": node.id})
            self._audit(connection, node, f"node.{_VERBS[state]}", by)

        await self._commit(node, change, state=state)

    async def label(
        self, node: Node, labels: Mapping[str, str], *, name: str, group: str | None, by: str
    ) -> None:
        """Give a node other labels, another name, or another group."""
        labels = layers.check_labels(labels)
        _check_node_name(name)
        values = {
            "id": node.id,
            "labels": json.dumps(labels, sort_keys=True),
            "name": name,
            "assigned_group": group,
        }

        def change(connection: database.Connection) -> None:
            connection.execute(_QUERIES["set_labels"], values)
            self._audit(connection, node, "node.label", by, labels=labels, name=name, group=group)

        await self._commit(node, change, labels=dict(labels), name=name, assigned_group=group)

    async def pin(self, node: Node, sha256: str | None, *, by: str) -> None:
        """Keep a node on one document, whatever is published; None lets it go on."""

        def change(connection: database.Connection) -> None:
            connection.execute(_QUERIES["set_pinned"], {"id": node.id, "pinned": sha256})
            self._audit(connection, node, "node.unpin" if sha256 is None else "node.pin", by, sha256=sha256)

        await self._commit(node, change, pinned=sha256)

    async def retry(self, node: Node, *, by: str) -> int:
        """Ask a node to try again what it has refused; returns which attempt that is."""

        def change(connection: database.Connection) -> int:
            attempt = int(
                connection.execute(_QUERIES["count_attempt"], {"id": node.id}).fetchone()["attempt"]
            )
            self._audit(connection, node, "node.retry", by, attempt=attempt)
            return attempt

        def written(attempt: int) -> None:
            node.attempt = attempt
            self.tell(node)

        return await writing.commit(self._store, change, written)

    async def _commit(self, node: Node, work: Callable[[database.Connection], None], **changed: Any) -> None:
        """Write, and give a node what is so from then on."""

        def written(_: None) -> None:
            for name, value in changed.items():
                setattr(node, name, value)
            self.tell(node)

        await writing.commit(self._store, work, written)

    def see(self, node: Node, etag: str) -> None:
        """Take note that a node asked, and what it runs; written later, many at once."""
        node.last_seen_at = self._clock.now()
        node.asked_etag = etag
        self._seen.add(node.id)

    async def write_seen(self) -> None:
        """Write down who was seen since the last time."""
        seen, self._seen = self._seen, set()
        rows = [
            {"id": each.id, "last_seen_at": each.last_seen_at, "asked_etag": each.asked_etag}
            for each in map(self._by_id.__getitem__, seen)
        ]
        if not rows:
            return
        try:
            await self._store.write(
                lambda connection: connection.executemany(_QUERIES["note_seen"], rows).close()
            )
        except errors.NodeError:
            self._seen |= seen
            raise

    def _audit(
        self, connection: database.Connection, node: Node, action: str, by: str, **details: Any
    ) -> None:
        audit.add(
            connection,
            self._clock.now(),
            audit.Entry(tenant=node.tenant, actor=by, action=action, subject=node.id, details=details),
        )


_VERBS = {"active": "approve", "revoked": "revoke"}


def of_row(row: Mapping[str, Any]) -> Node:
    """Return the node that a row of the table tells of."""
    fields = {name: row[name] for name in Node.__slots__ if name not in ("labels", "report", "reported_at")}
    return Node(labels=json.loads(row["labels"]), **fields)


def _read_all(connection: database.Connection) -> tuple[list[Any], list[Any]]:
    return (
        connection.execute(_QUERIES["list_nodes"]).fetchall(),
        connection.execute(_QUERIES["latest_reports"]).fetchall(),
    )


def _check_node_name(name: str) -> None:
    if not name or len(name) > 255 or not ids.is_text(name) or not name.isprintable():
        raise errors.UsageError(
            f"{name[:80]!r} is no name of a node: 1 to 255 characters that can be seen",
            code="central.node_name",
        )
