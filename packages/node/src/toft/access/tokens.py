"""The tokens of a node: made, found by their text, listed and ended.

Those that are valid are also in memory, so that a request costs no look into the database.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from toft.access import scopes as words
from toft.access.leases import Leases
from toft.access.principals import Principal
from toft.access.terms import Term
from toft.access.token import PREFIX, Token, digest_of, make_up, read
from toft.kernel import clock as clocks
from toft.kernel import errors, ids, log
from toft.store import database

MOST = 1000
MOST_SCOPES = 100
_KEEP_S = 30 * 86_400.0
_NOTED_S = 60.0
_LONGEST_S = 10 * 366 * 86_400.0
_log = log.get_logger("access.tokens")


class Tokens:
    """The tokens of a node; an identity of the access room.

    Args:
        store: The database, with the tables of `access`.
        clock: The time.
        randomness: Makes tokens.
        most: How many may hold at a time.
        declared: Those of the node's document, by hash. They win over what is stored: neither another token
            of such a name nor another one with such a hash holds beside them.
    """

    def __init__(
        self,
        store: database.Store,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
        randomness: Callable[[int], bytes] = os.urandom,
        most: int = MOST,
        declared: Mapping[bytes, Token] | None = None,
    ) -> None:
        self._store = store
        self._most = most
        self._clock = clock
        self._randomness = randomness
        self._queries = database.read_queries("toft.access")
        self._by_hash: dict[bytes, Token] = {}
        self._declared = dict(declared or {})
        self._terms: dict[str, Term] = {}
        self._noted: dict[str, float] = {}
        self._noting: set[asyncio.Task[None]] = set()
        self.leases = Leases(clock)
        self.leases.when_over.append(self._over)

    async def open(self) -> Tokens:
        """Read what there is."""
        rows = await self._store.read(
            lambda connection: connection.execute(self._queries["list_tokens"]).fetchall()
        )
        self._by_hash = {bytes(row["hash"]): read(row) for row in rows}
        for row in rows:
            self._begin(row["id"], row["expires_at"], max(row["created_at"], row["seen_at"] or 0.0))
        await self._open_declared()
        return self

    async def _open_declared(self) -> None:
        """Take up what was seen of the tokens of the document by earlier processes."""
        limit = {"most": self._most}
        rows = await self._store.read(
            lambda connection: connection.execute(self._queries["list_declared"]).fetchall()
        )
        if len(rows) > 2 * self._most:
            await self._store.write(lambda c: c.execute(self._queries["forget_declared"], limit))
        seen = {(row["id"], row["expires_at"]): row for row in rows}
        for digest, each in self._declared.items():
            row = seen.get((each.id, each.expires_at))
            if row is not None:
                self._declared[digest] = replace(each, expired_at=row["expired_at"])
            self._begin(each.id, each.expires_at, max(each.created_at, row["seen_at"] if row else 0.0))

    async def close(self) -> None:
        """Let what is being noted end."""
        if self._noting:
            await asyncio.wait(self._noting, timeout=5.0)

    async def create(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        lasts_s: float | None = None,
        by: Principal | None = None,
    ) -> tuple[Token, str]:
        """Make a token; its text is returned once and kept nowhere.

        Args:
            name: What people call it.
            scopes: What it allows; at least one.
            lasts_s: Seconds until it expires; None for never.
            by: Who makes it; nobody gives more than they have.

        Raises:
            UsageError: The name or a scope is none.
            RefusedError: A scope is more than its maker has.
            ConflictError: There is one of that name, or too many hold.
        """
        ids.check_name(name, "token name")
        self._check_free(name)
        self._check_maker(by, _parsed(scopes))
        _check_length(lasts_s)
        await self._end_all_over()
        now = self._clock.now()
        text = make_up(self._randomness)
        token = Token(
            id=f"token_{ids.ulid(self._clock, self._randomness)}",
            name=name,
            scopes=tuple(map(str, dict.fromkeys(scopes))),
            created_at=now,
            expires_at=None if lasts_s is None else now + lasts_s,
        )
        digest = digest_of(text)
        forgotten = await self._store.write(lambda connection: self._insert(connection, token, digest, now))
        self._by_hash = {key: each for key, each in self._by_hash.items() if each.id not in forgotten}
        self._terms = {id: term for id, term in self._terms.items() if id not in forgotten}
        self._by_hash[digest] = token
        self._begin(token.id, token.expires_at, now)
        _log.info("token_created", token=token.id, name=name, scopes=list(token.scopes))
        return token, text

    async def list(self) -> list[Token]:
        """Return those of the document, then those that are remembered, the oldest first."""
        await self.close()
        await self._end_all_over()
        return [*self._declared.values(), *self._by_hash.values()]

    async def revoke(self, name: str) -> Token:
        """End a token, and whatever it has open.

        Raises:
            NotFoundError: There is none of that name or id that holds.
            DeclaredError: The document of the node names it.
        """
        self._check_free(name)
        found = [
            (digest, each)
            for digest, each in self._by_hash.items()
            if name in (each.name, each.id) and each.revoked_at is None
        ]
        if not found:
            raise errors.NotFoundError(
                f"there is no token {name[:80]!r}", code="access.no_token", hint="toft token list"
            )
        digest, token = found[0]
        now = self._clock.now()
        await self._store.write(
            lambda connection: connection.execute(self._queries["revoke_token"], {"id": token.id, "now": now})
        )
        revoked = self._by_hash[digest] = replace(self._by_hash[digest], revoked_at=now)
        ended = self.leases.end(token.id)
        _log.info("token_revoked", token=token.id, name=token.name, ended=ended)
        return revoked

    def find(self, raw: str) -> Token | None:
        """Return the token of a text, whether it still holds or not.

        What is compared is the hash, and of that a guess controls nothing: how long the comparison takes
        tells nothing about how close a guess was to a token.
        """
        digest = digest_of(raw)
        return self._declared.get(digest) or self._by_hash.get(digest)

    def get(self, id: str) -> Token | None:
        """Return the token of an id or a name that holds."""
        return next(
            (
                each
                for each in (*self._declared.values(), *self._by_hash.values())
                if id in (each.id, each.name) and self.state(each) == "valid"
            ),
            None,
        )

    def withdraw(self, but: Mapping[bytes, Token]) -> None:
        """End what is open with tokens that the next document does not give exactly so.

        Args:
            but: The tokens of that document, by hash.
        """
        for digest, token in list(self._declared.items()):
            kept = but.get(digest)
            if kept is None or (kept.scopes, kept.expires_at) != (token.scopes, token.expires_at):
                self._declared[digest] = replace(token, revoked_at=self._clock.now())
                ended = self.leases.end(token.id)
                _log.info("token_withdrawn", token=token.id, name=token.name, ended=ended)

    def _named(self, name: str) -> Token | None:
        """Return the token of the document that has a name or an id."""
        return next((each for each in self._declared.values() if name in (each.name, each.id)), None)

    def _check_free(self, name: str) -> None:
        found = self._named(name)
        if found is not None:
            raise errors.DeclaredError.of("token", found.name, found.declared_by)

    def term(self, token: Token) -> Term | None:
        """Return when a token ends by itself; None when it does not."""
        return self._terms.get(token.id)

    def state(self, token: Token) -> str:
        """Return `valid`, `expired`, `revoked`, or `overridden` while the document has one of its name."""
        if token.revoked_at is not None:
            return "revoked"
        if not token.declared_by and self._named(token.name) is not None:
            return "overridden"
        term = self._terms.get(token.id)
        is_over = term is not None and term.is_over(self._clock)
        return "expired" if is_over or token.expired_at is not None else "valid"

    def told(self, token: Token) -> dict[str, Any]:
        """Return a token as JSON."""
        return token.to_dict(self.state(token))

    async def resolve(self, raw_token: str) -> Principal | None:
        """Return whose token this is, when it holds."""
        found = self.find(raw_token) if raw_token.startswith(PREFIX) else None
        state = "unknown" if found is None else self.state(found)
        if found is None or state != "valid":
            if found is not None and state == "expired" and found.expired_at is None:
                # Stored before the answer says so: nothing makes it hold again.
                await self._write_end(self._end(found))
            return None
        self._note(found)
        return found.principal()

    def _check_maker(self, by: Principal | None, wanted: Sequence[words.Scope]) -> None:
        if by is None:
            return
        has = [words.parse(each) for each in by.scopes]
        for scope in wanted:
            if not any(each.includes(scope) for each in has):
                raise errors.RefusedError(
                    f"{by.principal_id} cannot give {scope}: it has no scope that includes it",
                    code="access.refused",
                    details={"rule": "nobody gives more than they have", "principal": by.principal_id},
                )

    def _insert(self, connection: Any, token: Token, digest: bytes, now: float) -> set[str]:
        """Write a token, and return the ids of ended ones that were forgotten for it."""
        limits = {"before": now - _KEEP_S, "most": self._most}
        forgotten = {
            row["id"] for row in connection.execute(self._queries["forget_tokens"], limits).fetchall()
        }
        if connection.execute(self._queries["find_token"], {"name": token.name}).fetchone():
            raise errors.ConflictError(
                f"there is a token {token.name} already",
                code="access.token_exists",
                hint=f"toft token revoke {token.name}, or choose another name",
            )
        if len(connection.execute(self._queries["list_tokens"]).fetchall()) >= self._most:
            raise errors.ConflictError(
                f"{self._most} tokens hold, and there may be no more",
                code="access.too_many_tokens",
                hint="toft token list shows them; toft token revoke NAME ends one",
            )
        connection.execute(
            self._queries["insert_token"],
            {
                "id": token.id,
                "name": token.name,
                "hash": digest,
                "scopes": json.dumps(token.scopes),
                "created_at": token.created_at,
                "expires_at": token.expires_at,
            },
        )
        return forgotten

    def _note(self, token: Token) -> None:
        """Remember that it was used; written at most once a minute, and nobody waits for it."""
        passed = self._clock.monotonic()
        if passed < self._noted.get(token.id, 0.0):
            return
        self._noted[token.id] = passed + _NOTED_S
        now = self._clock.now()
        self._change(token.id, last_used_at=now)
        term = self._terms.get(token.id)
        seen = now if term is None else term.until - term.left_s(self._clock)
        if token.declared_by:
            self._write_later(self._see(token, seen))
        else:
            self._write_later(self._write("use_token", {"id": token.id, "now": now, "seen": seen}))

    async def _see(self, token: Token, seen: float) -> None:
        """Write down a moment of the life of a token of the document; one that lasts for ever needs none."""
        if token.expires_at is not None:
            values = {"id": token.id, "expires_at": token.expires_at}
            await self._write("see_declared", {**values, "seen": seen, "expired": token.expired_at})

    def _begin(self, id: str, expires_at: float | None, since: float) -> None:
        if expires_at is not None:
            self._terms[id] = Term.of(self._clock, expires_at, since=since)

    def _over(self, id: str) -> None:
        """Take note that something of a token was open for too long."""
        for each in [*self._declared.values(), *self._by_hash.values()]:
            # What was open may have ended with the session it came by.
            if each.id == id and each.expired_at is None and self.state(each) == "expired":
                self._write_later(self._write_end(self._end(each)))

    async def _end_all_over(self) -> None:
        """Take note of all that have expired; whoever asks has then seen it."""
        known = (*self._declared.values(), *self._by_hash.values())
        found = [each for each in known if each.expired_at is None]
        for ended in [self._end(each) for each in found if self.state(each) == "expired"]:
            await self._write_end(ended)

    def _end(self, token: Token) -> Token:
        _log.info("token_expired", token=token.id, name=token.name)
        return self._change(token.id, expired_at=self._clock.now())

    async def _write_end(self, token: Token) -> None:
        if token.declared_by:
            await self._see(token, token.expires_at or 0.0)
        else:
            await self._write("expire_token", {"id": token.id, "now": token.expired_at})

    def _change(self, id: str, **fields: Any) -> Token:
        known, digest = next(
            (known, key)
            for known in (self._declared, self._by_hash)
            for key, each in known.items()
            if each.id == id
        )
        changed = known[digest] = replace(known[digest], **fields)
        return changed

    def _write_later(self, writing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(writing)
        self._noting.add(task)
        task.add_done_callback(self._noting.discard)

    async def _write(self, query: str, values: dict[str, Any]) -> None:
        try:
            await self._store.write(lambda connection: connection.execute(self._queries[query], values))
        except errors.NodeError as error:
            # A full disk: what is in memory holds while this process lives.
            _log.debug("not_noted", what=query, token=values["id"], error=error.message)


def _parsed(scopes: Sequence[str]) -> list[words.Scope]:
    if not scopes:
        raise errors.UsageError("a token needs a scope", code="access.scope", hint="such as --scope read")
    if len(scopes) > MOST_SCOPES:  # each is looked at whenever something is decided
        raise errors.UsageError(
            f"a token has at most {MOST_SCOPES} scopes, not {len(scopes)}",
            code="access.scope",
            hint="a scope without a plugin holds for all of them",
        )
    return [words.parse(each) for each in dict.fromkeys(scopes)]


def _check_length(lasts_s: float | None) -> None:
    if lasts_s is not None and not 0 < lasts_s <= _LONGEST_S:
        raise errors.UsageError(
            f"a token lasts more than 0 seconds and less than ten years, not {lasts_s:g}",
            code="access.expiry",
            hint="such as --expires 90d",
        )
