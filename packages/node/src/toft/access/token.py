"""A token: a name and scopes for whoever has a secret text; only its hash is kept."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from toft.access.principals import Principal
from toft.kernel import clock as clocks

PREFIX = "toft_"


@dataclass(frozen=True, kw_only=True)
class Token:
    """A token as it is known; not the text that proves it.

    Attributes:
        id: Never used again.
        name: What people call it; free again once it is revoked.
        scopes: What it allows.
        created_at: Seconds since 1970, as the other times.
        expires_at: None when it does not expire.
        revoked_at: None while it holds.
        last_used_at: To about a minute.
        expired_at: When it was seen to have expired; it stays so, though the clock be set back.
        declared_by: The document that it is from; empty for one that was made on this node.
    """

    id: str
    name: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    last_used_at: float | None = None
    expired_at: float | None = None
    declared_by: str = ""

    def principal(self) -> Principal:
        """Return who has it."""
        return Principal(f"token:{self.name}", "local", self.id, "token", self.scopes)

    def to_dict(self, state: str) -> dict[str, Any]:
        """Return it as JSON, with the state that it is in."""
        times = ("created_at", "expires_at", "revoked_at", "last_used_at")
        told = {name: None if (at := getattr(self, name)) is None else clocks.rfc3339(at) for name in times}
        return {
            "id": self.id,
            "name": self.name,
            "state": state,
            "scopes": list(self.scopes),
            "declared_by": self.declared_by or None,
            **told,
        }


def make_up(randomness: Callable[[int], bytes]) -> str:
    """Return the text of a new token."""
    return PREFIX + base64.b32encode(randomness(20)).decode().lower()


def declared(name: str, sha256: str, scopes: Sequence[str], **known: Any) -> tuple[bytes, Token]:
    """Return a token of a document, by its hash; `known` is what else `Token` takes."""
    # The same id as long as the text is the same: what is told of it goes on.
    return bytes.fromhex(sha256), Token(
        id=f"token_{sha256[:26]}", name=name, scopes=tuple(dict.fromkeys(scopes)), **known
    )


def digest_of(text: str) -> bytes:
    """Return what is kept of the text of a token."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()


def read(row: Any) -> Token:
    """Return a token as it is stored."""
    return Token(
        id=row["id"],
        name=row["name"],
        scopes=tuple(json.loads(row["scopes"])),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        revoked_at=row["revoked_at"],
        last_used_at=row["last_used_at"],
        expired_at=row["expired_at"],
    )
