"""Whose signatures a tenant's nodes ask for: its chain of trust roots, and what was signed.

The keys that sign may be far away: what is to be signed is handed out, and its signatures come back.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence

from toft.central import audit, writing
from toft.kernel import clock as clocks
from toft.kernel import errors
from toft.managed import messages, signatures
from toft.managed.signatures import Root, Signature, SignedRoot
from toft.store import database

_QUERIES = database.read_queries("toft.central")


class Trusts:
    """The trust roots and signatures of all tenants.

    Args:
        store: The database.
        clock: The time.
    """

    def __init__(self, store: database.Store, *, clock: clocks.Clock = clocks.SYSTEM) -> None:
        self._store = store
        self._clock = clock
        self._chains: dict[str, list[SignedRoot]] = {}
        self._roots: dict[str, Root] = {}
        self.changed: list[Callable[[str], None]] = []
        """Told of each tenant for which something else may be vouched for now."""

    async def open(self) -> None:
        """Read what there is."""
        rows = await self._store.read(
            lambda connection: connection.execute(_QUERIES["list_roots"]).fetchall()
        )
        for row in rows:
            signed = messages.read_signatures(json.loads(row["signatures"]))
            self._keep(row["tenant"], SignedRoot(row["data"].encode(), signed))

    def root(self, tenant: str) -> Root | None:
        """Return who must sign for a tenant now; None where nobody has to."""
        return self._roots.get(tenant)

    def after(self, tenant: str, version: int) -> list[SignedRoot]:
        """Return the trust roots of a tenant that follow on one of this version, in their order."""
        chain = self._chains.get(tenant, [])
        return [each for each in chain if Root.parse(each.data).version > version][: signatures.MAX_STEPS]

    async def add_root(self, tenant: str, signed: SignedRoot, *, by: str) -> Root:
        """Take a trust root that the one before it vouches for; the first one vouches for itself.

        Raises:
            SignatureError: It is not signed by enough keys of the one before it and of its own.
            ConflictError: It does not follow on the one that counts.
        """
        found = Root.parse(signed.data)
        before = self._roots.get(tenant)
        signatures.verify(signatures.ROOT_TYPE, signed.data, signed.signatures, found)
        if before is not None and found.version != before.version + 1:
            raise errors.ConflictError(
                f"trust root {found.version} does not follow on {before.version}",
                code="central.root_order",
                details={"version": found.version, "newest": before.version},
                hint=f"make it version {before.version + 1}, signed by the keys of {before.version} too",
            )
        if before is not None:
            signatures.verify(signatures.ROOT_TYPE, signed.data, signed.signatures, before)
        now = self._clock.now()
        values = {
            "tenant": tenant,
            "version": found.version,
            "data": signed.data.decode(),
            "signatures": json.dumps(messages.signatures_value(signed.signatures)),
            "now": now,
        }

        def change(connection: database.Connection) -> None:
            connection.execute(_QUERIES["insert_root"], values)
            told = {"version": found.version, "threshold": found.threshold, "keys": sorted(found.keys)}
            entry = audit.Entry(tenant=tenant, actor=by, action="root.add", subject=tenant, details=told)
            audit.add(connection, now, entry)

        def written(_: None) -> None:
            self._keep(tenant, signed)
            self._tell(tenant)

        await writing.commit(self._store, change, written)
        return found

    async def sign(
        self, tenant: str, data: bytes, given: Sequence[Signature], *, by: str
    ) -> Sequence[Signature]:
        """Keep signatures over bytes that are to be served; returns all there are now.

        Raises:
            SignatureError: One of them is by no key of the tenant's root, or not over these bytes.
            ConflictError: The tenant has no root that could say whose signatures count.
        """
        root = self._roots.get(tenant)
        if root is None:
            raise errors.ConflictError(
                f"{tenant} has no trust root, and its nodes ask for no signature",
                code="central.no_root",
                hint="toft central root add FILE",
            )
        for each in given:
            signatures.verify(signatures.DOCUMENT_TYPE, data, (each,), Root(root.version, 1, root.keys))
        now, sha256 = self._clock.now(), _sha256(data)

        def change(connection: database.Connection) -> None:
            for each in given:
                values = {
                    "tenant": tenant,
                    "sha256": sha256,
                    "key_id": each.key_id,
                    "signature": signatures.to_base64(each.value),
                    "now": now,
                }
                connection.execute(_QUERIES["put_signature"], values)
            told = {"keys": sorted(each.key_id for each in given)}
            entry = audit.Entry(tenant=tenant, actor=by, action="document.sign", subject=sha256, details=told)
            audit.add(connection, now, entry)

        await writing.commit(self._store, change, lambda _: self._tell(tenant))
        return await self.signatures(tenant, sha256)

    async def signatures(self, tenant: str, sha256: str) -> tuple[Signature, ...]:
        """Return what was signed of some bytes."""
        values = {"tenant": tenant, "sha256": sha256}
        rows = await self._store.read(
            lambda connection: connection.execute(_QUERIES["list_signatures"], values).fetchall()
        )
        return messages.read_signatures(
            [{"key_id": row["key_id"], "signature": row["signature"]} for row in rows]
        )

    def is_vouched(self, tenant: str, data: bytes, given: Sequence[Signature]) -> bool:
        """Say whether enough keys of a tenant signed some bytes; true where it has no root."""
        root = self._roots.get(tenant)
        if root is None:
            return True
        try:
            signatures.verify(signatures.DOCUMENT_TYPE, data, given, root)
        except signatures.SignatureError:
            return False
        return True

    def _tell(self, tenant: str) -> None:
        for each in self.changed:
            each(tenant)

    def _keep(self, tenant: str, signed: SignedRoot) -> None:
        self._chains.setdefault(tenant, []).append(signed)
        self._roots[tenant] = Root.parse(signed.data)


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
