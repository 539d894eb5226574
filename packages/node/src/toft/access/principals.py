"""Who asks: what an identity makes of a token, a cookie or a socket."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Principal:
    """Somebody who asks.

    Attributes:
        principal_id: Stable; what is logged and told.
        org_id: Whose they are; `local` for this node's own.
        external_id: What the identity that vouches for them calls them.
        principal_type: A label for people.
        scopes: What they may do; see `toft.access.scopes`.
    """

    principal_id: str
    org_id: str
    external_id: str
    principal_type: str
    scopes: tuple[str, ...]


OWNER = Principal("owner", "local", "local", "owner", ("*",))
"""Whoever is at the other end of the node's own socket: it lets in nobody else."""


class Identity(Protocol):
    """Something that knows principals by what they show."""

    async def resolve(self, raw_token: str) -> Principal | None:
        """Return whose token this is; None when this identity does not know it."""
        ...
