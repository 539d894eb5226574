"""Join tokens: shown once, kept as a hash, used up in the transaction that makes the node."""

from __future__ import annotations

import base64
import hmac
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toft.central import audit, layers
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.managed import protocol
from toft.store import database

_QUERIES = database.read_queries("toft.central")
_ID = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
LASTS_S = 3600.0
MOST_S = 7 * 86_400.0
MOST_FLEET_S = 90 * 86_400.0
MOST_USES = 100_000
_KEPT_S = 90 * 86_400.0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a join token is to allow.

    Attributes:
        group: The group whose nodes it makes; None leaves that to their labels.
        labels: What those nodes are labelled with.
        max_uses: How many nodes may join with it.
        lasts_s: Seconds until it ends.
        needs_approval: Its nodes wait until somebody lets them in.
    """

    group: str | None = None
    labels: Mapping[str, str]
    max_uses: int = 1
    lasts_s: float = LASTS_S
    needs_approval: bool = False

    def check(self) -> None:
        """Refuse what no token may allow.

        Raises:
            UsageError: It lasts too long, or for too many nodes that belong to no group.
        """
        layers.check_labels(self.labels)
        longest = MOST_S if self.max_uses == 1 else MOST_FLEET_S
        if not 1 <= self.max_uses <= MOST_USES:
            raise _bad(f"a join token is for 1 to {MOST_USES} nodes, not {self.max_uses}")
        if not 0 < self.lasts_s <= longest:
            raise _bad(f"this join token may last up to {longest / 86_400:g} days, not {self.lasts_s:g} s")
        if self.max_uses > 1 and self.group is None:
            raise _bad("a join token for several nodes is for one group", hint="name it: --group NAME")


@dataclass(frozen=True)
class Refusal:
    """Why somebody may not join; told to nobody but the audit log.

    Attributes:
        reason: In words.
        tenant: Whose token it was; empty where it was none.
    """

    reason: str
    tenant: str = ""


class Tokens:
    """The join tokens of all tenants.

    Args:
        store: The database.
        clock: The time.
        randomness: Makes tokens.
    """

    def __init__(
        self,
        store: database.Store,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._store = store
        self._clock = clock
        self._randomness = randomness

    async def create(self, tenant: str, wish: Wish, *, by: str) -> tuple[dict[str, Any], str]:
        """Make a token; its text is returned once and kept nowhere."""
        wish.check()
        now = self._clock.now()
        id = "".join(_ID[each % 32] for each in self._randomness(8))
        secret = base64.urlsafe_b64encode(self._randomness(32)).decode().rstrip("=")
        text = f"jt_{id}_{secret}"
        row = {
            "id": id,
            "tenant": tenant,
            "sha256": protocol.fingerprint(text),
            "node_group": wish.group,
            "labels": json.dumps(dict(wish.labels), sort_keys=True),
            "max_uses": wish.max_uses,
            "needs_approval": int(wish.needs_approval),
            "created_by": by,
            "created_at": now,
            "expires_at": now + wish.lasts_s,
        }

        def insert(connection: database.Connection) -> None:
            connection.execute(_QUERIES["forget_tokens"], {"before": now - _KEPT_S})
            connection.execute(_QUERIES["insert_token"], row)
            told = {
                "max_uses": wish.max_uses,
                "group": wish.group,
                "expires_at": clocks.rfc3339(now + wish.lasts_s),
            }
            audit.add(
                connection,
                now,
                audit.Entry(tenant=tenant, actor=by, action="token.create", subject=id, details=told),
            )

        await self._store.write(insert)
        return self._told({**row, "uses": 0, "revoked_at": None}), text

    async def list(self, tenant: str) -> list[dict[str, Any]]:
        """Return the tokens of a tenant that are remembered, the oldest first."""
        rows = await self._store.read(
            lambda connection: connection.execute(_QUERIES["list_tokens"], {"tenant": tenant}).fetchall()
        )
        return [self._told(dict(row)) for row in rows]

    async def revoke(self, tenant: str, id: str, *, by: str) -> dict[str, Any]:
        """End a token; the nodes that joined with it stay.

        Raises:
            NotFoundError: There is none of that id.
        """
        now = self._clock.now()
        values = {"tenant": tenant, "id": id, "now": now}

        def change(connection: database.Connection) -> dict[str, Any]:
            row = connection.execute(_QUERIES["find_token"], {"id": id}).fetchone()
            if row is None or row["tenant"] != tenant:
                raise errors.NotFoundError(
                    f"there is no join token {id[:80]!r}",
                    code="central.no_token",
                    hint="toft central token list",
                )
            if connection.execute(_QUERIES["revoke_token"], values).rowcount:
                told = audit.Entry(tenant=tenant, actor=by, action="token.revoke", subject=id, details={})
                audit.add(connection, now, told)
            return dict(connection.execute(_QUERIES["find_token"], {"id": id}).fetchone())

        return self._told(await self._store.write(change))

    def _told(self, row: Mapping[str, Any]) -> dict[str, Any]:
        state = "valid"
        if row["revoked_at"] is not None:
            state = "revoked"
        elif row["expires_at"] <= self._clock.now():
            state = "expired"
        elif row["uses"] >= row["max_uses"]:
            state = "used"
        revoked = row["revoked_at"]
        return {
            "id": row["id"],
            "state": state,
            "tenant": row["tenant"],
            "group": row["node_group"],
            "labels": json.loads(row["labels"]),
            "max_uses": row["max_uses"],
            "uses": row["uses"],
            "needs_approval": bool(row["needs_approval"]),
            "created_by": row["created_by"],
            "created_at": clocks.rfc3339(row["created_at"]),
            "expires_at": clocks.rfc3339(row["expires_at"]),
            "revoked_at": None if revoked is None else clocks.rfc3339(revoked),
        }


def find(connection: database.Connection, text: str) -> Mapping[str, Any] | Refusal:
    """Return the row of a token that is not revoked, whether it still has a use or not."""
    id = protocol.token_id(text)
    row = connection.execute(_QUERIES["find_token"], {"id": id}).fetchone() if id else None
    # Compared either way: how long it takes tells nothing about whether there is such an id.
    is_it = hmac.compare_digest(protocol.fingerprint(text), row["sha256"] if row else "0" * 64)
    if row is None or not is_it:
        return Refusal("unknown token")
    if row["revoked_at"] is not None:
        return Refusal("revoked token", row["tenant"])
    return dict(row)


def use(connection: database.Connection, token: Mapping[str, Any], now: float) -> Refusal | None:
    """Use a token once; as part of the transaction that makes the node."""
    if connection.execute(_QUERIES["use_token"], {"id": token["id"], "now": now}).fetchone():
        return None
    return Refusal("expired token" if token["expires_at"] <= now else "used token", token["tenant"])


def _bad(message: str, hint: str = "toft central token create --help") -> errors.UsageError:
    return errors.UsageError(message, code="central.token", hint=hint)
