"""Who is a node: enrolment, credentials and keys.

A credential is a random text, kept as its hash, here and in memory. Everything that refuses somebody who
wants to join says the same; why, stands in the audit log.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from toft.central import audit, nodes, tokens, writing
from toft.central.nodes import Node
from toft.kernel import clock as clocks
from toft.kernel import errors, ids, log
from toft.managed import messages, protocol
from toft.managed.signatures import PublicKey, SignatureError
from toft.store import database

_QUERIES = database.read_queries("toft.central")
_log = log.get_logger("central.admission")
_LATEST_S = 30 * 86_400.0
_NONCES_S = 4 * protocol.SKEW_S
_KEPT_S = 86_400.0
Counted = Callable[[Node], None]


class JoinRefusedError(errors.RefusedError):
    """Somebody may not join; why, they are not told.

    Attributes:
        refusal: Why.
        wish: What they asked for.
    """

    def __init__(self, refusal: tokens.Refusal, wish: messages.Enroll) -> None:
        super().__init__("this may not join", code=protocol.JOIN_REFUSED)
        self.refusal = refusal
        self.wish = wish


class Admission:
    """Lets nodes in, and knows them again.

    Args:
        store: The database.
        known: All nodes.
        clock: The time.
        randomness: Makes credentials.
    """

    def __init__(
        self,
        store: database.Store,
        known: nodes.Nodes,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._nodes = known
        self._clock = clock
        self._randomness = randomness
        self._credentials: dict[str, tuple[str, float]] = {}

    async def open(self) -> None:
        """Read which credentials there are."""
        now = {"now": self._clock.now()}
        rows = await self._store.read(
            lambda connection: connection.execute(_QUERIES["list_credentials"], now).fetchall()
        )
        self._credentials = {row["sha256"]: (row["node"], row["expires_at"]) for row in rows}

    def node_of(self, credential: str) -> Node:
        """Return the node that shows a credential.

        Raises:
            RefusedError: It is none, or not any more; or its node is revoked.
        """
        node_id, expires_at = self._credentials.get(protocol.fingerprint(credential), ("", 0.0))
        node = self._nodes.find(node_id)
        if node is not None and node.state == "revoked":
            raise revoked(node)
        if node is None or expires_at <= self._clock.now():
            raise refused_credential()
        return node

    async def enroll(self, wish: messages.Enroll) -> tuple[Node, str, float, bool]:
        """Make a node of whoever shows a join token, or find the one that this key is already.

        Returns:
            The node, its credential, when that ends, and whether the node is new.

        Raises:
            JoinRefusedError: They may not join.
            ConflictError: The key is one of another tenant's node.
        """
        text = self._credential()

        def written(done: tokens.Refusal | tuple[Node, float, bool]) -> None:
            if not isinstance(done, tokens.Refusal):
                self._let_in(done[0], text, done[1])

        done = await writing.commit(
            self._store, lambda connection: self._enroll(connection, wish, text), written
        )
        if isinstance(done, tokens.Refusal):
            raise JoinRefusedError(done, wish)
        node, expires_at, is_new = done
        _log.info("enrolled", node=node.id, tenant=node.tenant, is_new=is_new)
        return self._nodes.find(node.id) or node, text, expires_at, is_new

    def _let_in(self, node: Node, text: str, expires_at: float) -> None:
        known = self._nodes.find(node.id)
        if known is None:
            self._credentials[protocol.fingerprint(text)] = (node.id, expires_at)
            self._nodes.add(node)
        else:
            self._given(node.id, text, expires_at)
            _copy(known, node)
            self._nodes.tell(known)

    async def note_refused(self, error: JoinRefusedError) -> None:
        """Write down why somebody may not join; for whoever bounds how often that is done."""
        wish, refusal = error.wish, error.refusal
        told = {"reason": refusal.reason, "key": wish.key.key_id, "hostname": wish.facts.hostname}
        entry = audit.Entry(
            tenant=refusal.tenant,
            actor="",
            action="node.join_refused",
            subject=protocol.token_id(wish.token),
            details=told,
        )
        now = self._clock.now()
        await self._store.write(lambda connection: audit.add(connection, now, entry))

    def _enroll(
        self, connection: database.Connection, wish: messages.Enroll, text: str
    ) -> tokens.Refusal | tuple[Node, float, bool]:
        now = self._clock.now()
        token = tokens.find(connection, wish.token)
        if isinstance(token, tokens.Refusal):
            return token
        row = connection.execute(_QUERIES["find_node_by_key"], {"public_key": wish.key.text}).fetchone()
        if row is not None and row["tenant"] != token["tenant"]:
            raise errors.ConflictError(
                "this key is one of a node of somebody else", code="central.key_of_another_tenant"
            )
        if row is not None and row["state"] == "revoked":
            return tokens.Refusal("revoked node", token["tenant"])
        is_repeated = row is not None and row["join_token"] == token["id"]
        # The answer may have been lost: asking again with the same key uses nothing up.
        if not is_repeated and (refusal := tokens.use(connection, token, now)) is not None:
            return refusal
        node = self._node(row, token, wish, now)
        values = {
            **{name: getattr(node, name) for name in _WRITTEN},
            "labels": json.dumps(node.labels, sort_keys=True),
        }
        connection.execute(_QUERIES["insert_node" if row is None else "rejoin_node"], values)
        expires_at = _give(connection, node.id, text, now)
        if not is_repeated:
            told = {
                "token": token["id"],
                "hostname": node.hostname,
                "key": wish.key.key_id,
                "state": node.state,
            }
            entry = audit.Entry(
                tenant=node.tenant, actor=node.id, action="node.join", subject=node.id, details=told
            )
            audit.add(connection, now, entry)
        return node, expires_at, row is None

    def _node(
        self, row: Mapping[str, Any] | None, token: Mapping[str, Any], wish: messages.Enroll, now: float
    ) -> Node:
        facts = {name: getattr(wish.facts, name) for name in _FACTS}
        if row is not None:
            node = nodes.of_row(row)
            node.join_token, node.assigned_group = token["id"], token["node_group"] or node.assigned_group
            for name, value in facts.items():
                setattr(node, name, value)
            return node
        id = f"node_{ids.ulid(self._clock, self._randomness)}"
        return Node(
            id=id,
            tenant=token["tenant"],
            name=_name(wish.facts.hostname) or id,
            labels=json.loads(token["labels"]),
            public_key=wish.key.text,
            state="pending" if token["needs_approval"] else "active",
            join_token=token["id"],
            assigned_group=token["node_group"],
            created_at=now,
            **facts,
        )

    async def refresh(self, node: Node) -> tuple[str, float]:
        """Give a node a new credential; the old one is good for ten minutes more."""
        text = self._credential()
        now = self._clock.now()

        def change(connection: database.Connection) -> float:
            # That of a node which is silent is kept for as long as its key may bring it back.
            connection.execute(_QUERIES["forget_credentials"], {"before": now - _LATEST_S})
            return _give(connection, node.id, text, now)

        def written(expires_at: float) -> None:
            self._given(node.id, text, expires_at)

        return text, await writing.commit(self._store, change, written)

    async def signed_refresh(
        self, wish: messages.Refresh, *, counted: Counted = lambda node: None
    ) -> tuple[Node, str, float]:
        """Give a new credential to a node whose old one is over, by its key.

        Args:
            wish: What it signed.
            counted: Told who asks, once that is proven and before anything is written.

        Raises:
            RefusedError: Its key did not sign this, its clock is wrong, it was asked for before, or the last
                credential was over more than 30 days ago.
        """
        node = self._by_key(wish.node_id, wish.check)
        counted(node)
        await self._once(node, wish.nonce, wish.at)
        last = await self._store.read(
            lambda connection: connection.execute(_QUERIES["last_credential"], {"node": node.id}).fetchone()
        )
        if (last["expires_at"] or 0.0) < self._clock.now() - _LATEST_S:
            raise refused_credential()
        text, expires_at = await self.refresh(node)
        return node, text, expires_at

    async def rotate(self, wish: messages.RotateKey, *, counted: Counted = lambda node: None) -> None:
        """Give a node another key; asked again with the same one, nothing happens.

        Args:
            wish: What it signed.
            counted: Told who asks, once that is proven and before anything is written.

        Raises:
            RefusedError: The old key did not sign this, its clock is wrong, or it was asked for before.
            ConflictError: Another node has that key.
        """
        node = self._nodes.find(wish.node_id)
        if node is not None and node.public_key == wish.new_key.text:
            # The answer was lost. That the new key signed this was looked at when it was read.
            return
        node = self._by_key(wish.node_id, wish.check)
        counted(node)
        await self._once(node, wish.nonce, wish.at)
        now = self._clock.now()

        def change(connection: database.Connection) -> None:
            key = {"public_key": wish.new_key.text}
            if connection.execute(_QUERIES["find_node_by_key"], key).fetchone():
                raise errors.ConflictError("another node has this key", code="central.key_taken")
            connection.execute(_QUERIES["set_key"], {"id": node.id, **key})
            told = {"key": wish.new_key.key_id}
            entry = audit.Entry(
                tenant=node.tenant, actor=node.id, action="node.rotate_key", subject=node.id, details=told
            )
            audit.add(connection, now, entry)

        def written(_: None) -> None:
            node.public_key = wish.new_key.text

        await writing.commit(self._store, change, written)

    def forget(self, node: Node) -> None:
        """Know nothing of a node's credentials any more."""
        self._credentials = {key: each for key, each in self._credentials.items() if each[0] != node.id}

    def tidy(self) -> None:
        """Let go of credentials that ended long ago."""
        before = self._clock.now() - _KEPT_S
        self._credentials = {key: each for key, each in self._credentials.items() if each[1] > before}

    def _by_key(self, node_id: str, check: Callable[[Any], None]) -> Node:
        node = self._nodes.find(node_id)
        if node is None:
            raise refused_credential()
        if node.state == "revoked":
            raise revoked(node)
        try:
            check(PublicKey.of_text(node.public_key))
        except SignatureError:
            raise refused_credential() from None
        return node

    async def _once(self, node: Node, nonce: str, at: float) -> None:
        """Refuse what was signed too long ago, or sent before."""
        now = self._clock.now()
        if abs(now - at) > protocol.SKEW_S:
            raise errors.RefusedError(
                f"this was signed {abs(now - at):.0f} s from now, and {protocol.SKEW_S} is the most",
                code="credential_refused",
                details={"now": clocks.rfc3339(now)},
                hint="the answer's Date says what time it is here: sign with that",
            )

        def note(connection: database.Connection) -> bool:
            connection.execute(_QUERIES["forget_nonces"], {"before": now - _NONCES_S})
            values = {"node": node.id, "nonce": nonce, "now": now}
            return connection.execute(_QUERIES["insert_nonce"], values).fetchone() is not None

        if not await self._store.write(note):
            raise refused_credential()

    def _given(self, node: str, text: str, expires_at: float) -> None:
        until = expires_at - protocol.CREDENTIAL_S + protocol.OVERLAP_S
        for key, (owner, ends_at) in list(self._credentials.items()):
            if owner == node and ends_at > until:
                self._credentials[key] = (owner, until)
        self._credentials[protocol.fingerprint(text)] = (node, expires_at)

    def _credential(self) -> str:
        return "nt_" + base64.urlsafe_b64encode(self._randomness(32)).decode().rstrip("=")


def _give(connection: database.Connection, node: str, text: str, now: float) -> float:
    """Give a node a credential, and return when that ends; those before it are good for a while only."""
    until = now + protocol.OVERLAP_S
    connection.execute(_QUERIES["shorten_credentials"], {"node": node, "until": until})
    connection.execute(_QUERIES["forget_ended"], {"node": node, "now": now})
    expires_at = now + protocol.CREDENTIAL_S
    values = {"sha256": protocol.fingerprint(text), "node": node, "now": now, "expires_at": expires_at}
    connection.execute(_QUERIES["insert_credential"], values)
    return expires_at


_FACTS = ("hostname", "os", "agent_version", "machine_id_hash")
_WRITTEN = (
    "id",
    "tenant",
    "name",
    "public_key",
    "state",
    "join_token",
    "assigned_group",
    "created_at",
    *_FACTS,
)


def _copy(known: Node, joined: Node) -> None:
    for name in ("join_token", "assigned_group", *_FACTS):
        setattr(known, name, getattr(joined, name))


def _name(hostname: str) -> str:
    return "".join(each for each in hostname if each.isprintable()).strip()[:255]


def refused_credential() -> errors.RefusedError:
    """Return the error for a credential that is none."""
    return errors.RefusedError(
        "this credential is not good",
        code="credential_refused",
        hint="the node asks for another one by its key; a new machine joins: toft join URL TOKEN",
    )


def revoked(node: Node) -> errors.RefusedError:
    """Return the error for a node that was thrown out."""
    return errors.RefusedError(
        "this node was revoked",
        code="node_revoked",
        details={"node": node.id},
        hint="it keeps what it runs; toft leave, then toft join with a new token makes another node of it",
    )
