"""What a node keeps of its membership: the seed of a join, where it is enrolled, and who it is.

    seed.json        where to ask first, with the token of the join; gone after the first confirmed document
    enrollment.json  where the node is enrolled, and whom it trusts there
    identity.json    its key and its credential

The key is on disk before it is shown to anybody, so that an answer that got lost is asked for again by the
same node. Every write looks first, under the lock, whether somebody has joined or left meanwhile.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toft.kernel import clock as clocks
from toft.kernel.errors import ConflictError
from toft.managed import belonging, protocol
from toft.managed.transport import Trust
from toft.store import durable

SCHEMA = 1


@dataclass(frozen=True, kw_only=True)
class Membership:
    """Where a node belongs: from a seed, or from where it was enrolled with one.

    Attributes:
        urls: Where it asks, the first one first.
        trust: Who counts as the central.
        root: Who signs its documents, as JSON; None where nobody does.
        token: Of the join; empty once it is gone.
        node_id: Empty before it is enrolled.
        tenant: Whose node it is at its central; empty where that was not told.
        joined_at: In seconds since 1970.
    """

    urls: tuple[str, ...]
    trust: Trust = field(default_factory=Trust)
    root: Mapping[str, Any] | None = None
    token: str = field(default="", repr=False)
    node_id: str = ""
    tenant: str = ""
    joined_at: float = 0.0

    def to_enrollment(self) -> dict[str, Any]:
        """Return it as `enrollment.json` keeps it: without the token."""
        return {
            "schema": SCHEMA,
            "node_id": self.node_id,
            "tenant": self.tenant,
            "control_urls": list(self.urls),
            "root": self.root,
            "joined_at": clocks.rfc3339(self.joined_at),
            "ca_file": self.trust.ca_file,
            "pin_sha256": self.trust.pin_sha256,
            "insecure_http": self.trust.insecure_http,
        }


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who a node is.

    Attributes:
        private_key: In base64.
        key_made_at: When, in seconds since 1970.
        next_private_key: The one it is changing to; perhaps the central knows it already, perhaps not.
        node_id: Empty before it is enrolled.
        access_token: The credential.
        expires_at: When that ends, by the clock of the central.
        life_s: How long it was good for when it was given out.
        url: Where it was given out.
        urls: Where else it may be shown, because the central there said so.
        token_fp: SHA-256 of the token that it was given out for.
    """

    private_key: str = field(repr=False)
    key_made_at: float = 0.0
    next_private_key: str = field(default="", repr=False)
    node_id: str = ""
    access_token: str = field(default="", repr=False)
    expires_at: float = 0.0
    life_s: float = float(protocol.CREDENTIAL_S)
    url: str = ""
    urls: tuple[str, ...] = ()
    token_fp: str = ""
    enrollment: Mapping[str, Any] = field(default_factory=dict)
    """What `enrollment.json` says, once more: a node that lost that would never ask again."""

    def to_value(self) -> dict[str, Any]:
        """Return it as `identity.json` keeps it."""
        value: dict[str, Any] = {
            "schema": SCHEMA,
            "private_key": self.private_key,
            "key_made_at": clocks.rfc3339(self.key_made_at),
            "node_id": self.node_id,
            "access_token": self.access_token,
            "expires_at": clocks.rfc3339(self.expires_at),
            "life_s": self.life_s,
            "url": self.url,
            "urls": list(self.urls),
            "token_fp": self.token_fp,
            "enrollment": dict(self.enrollment),
        }
        return {**value, "next_private_key": self.next_private_key} if self.next_private_key else value

    @classmethod
    def of_value(cls, value: Mapping[str, Any]) -> Identity | None:
        """Read what `to_value` wrote; None for what it cannot have written."""
        try:
            found = cls(
                private_key=_text(value["private_key"]),
                key_made_at=clocks.from_rfc3339(value["key_made_at"]),
                next_private_key=_text(value.get("next_private_key", "")),
                node_id=_text(value["node_id"]),
                access_token=_text(value["access_token"]),
                expires_at=clocks.from_rfc3339(value["expires_at"]),
                life_s=float(value["life_s"]),
                url=_text(value["url"]),
                urls=tuple(_text(each) for each in value["urls"]),
                token_fp=_text(value["token_fp"]),
                enrollment=dict(value["enrollment"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return None
        return found if found.private_key else None


@dataclass(frozen=True)
class Found:
    """What is on disk.

    Attributes:
        seed_sha256: Of the seed; empty without one.
        problems: What was there and could not be read.
        is_mended: `enrollment.json` could not be, and is taken from `identity.json`.
    """

    seed: Membership | None = None
    enrollment: Membership | None = None
    identity: Identity | None = None
    seed_sha256: str = ""
    problems: tuple[str, ...] = ()
    is_mended: bool = False

    @property
    def is_enrolled(self) -> bool:
        """Say whether there is a credential, and it was given for the seed that is here, if one still is."""
        known, seed = self.identity, self.seed
        if known is None or not (known.node_id and known.access_token):
            return False
        if seed is None or not seed.token:
            return True
        return known.url in seed.urls and known.token_fp == protocol.fingerprint(seed.token)

    @property
    def membership(self) -> Membership | None:
        """Return where the node belongs; None for one that belongs nowhere.

        A seed with another token, or for another place, wins over what was enrolled before it.
        """
        wanted = self.seed if self.seed is not None and self.seed.token else None
        return self.enrollment or self.seed if self.is_enrolled else wanted or self.enrollment or self.seed

    def is_still(self, now: Found) -> bool:
        """Say whether nobody has joined or left from this to what is found now.

        The node itself enrols with its seed, and takes that away once it is proven.
        """
        if now.seed_sha256 and now.seed_sha256 != self.seed_sha256:
            return False
        if self.enrollment is not None:
            return now.enrollment is not None and now.enrollment.node_id == self.enrollment.node_id
        return bool(now.seed_sha256) == bool(self.seed_sha256) or now.enrollment is not None


class Files:
    """The three files.

    Args:
        directory: `managed/` of the home.
        operations: The steps of a durable write.
        hold: Keeps other processes out while something is written.
    """

    def __init__(
        self,
        directory: Path,
        operations: durable.Operations = durable.SYSTEM,
        *,
        hold: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
    ) -> None:
        self._directory = directory
        self._operations = operations
        self._hold = hold

    @classmethod
    def at(cls, home: Path) -> Files:
        """Return those of a home on this machine."""
        directory = home / "managed"
        return cls(directory, hold=lambda: belonging.hold(directory))

    def read(self) -> Found:
        """Return what is on disk; never raises for what the files hold."""
        problems: list[str] = []
        seed_data = self._bytes(belonging.SEED)
        seed = _membership(seed_data, belonging.SEED, problems)
        enrolled = self._bytes(belonging.ENROLLMENT)
        enrollment = _membership(enrolled, belonging.ENROLLMENT, problems)
        value = _value(self._bytes(belonging.IDENTITY), belonging.IDENTITY, problems)
        identity = None if value is None else Identity.of_value(value)
        if value is not None and identity is None:
            problems.append(f"{belonging.IDENTITY} has not the form of one")
        is_mended = False
        if enrollment is None and identity is not None and identity.node_id:
            spare = json.dumps(identity.enrollment).encode()
            enrollment = _membership(spare, belonging.ENROLLMENT, problems)
            is_mended = enrollment is not None
        digest = hashlib.sha256(seed_data).hexdigest() if seed_data else ""
        return Found(seed, enrollment, identity, digest, tuple(problems), is_mended)

    def keep_key(self, identity: Identity, *, before: Found) -> None:
        """Write a key before it is shown to anybody.

        Raises:
            ConflictError: Somebody has joined or left since that was found.
            OSError: The disk did not take it.
        """
        with self._hold():
            self._check(before)
            self._write(belonging.IDENTITY, identity.to_value())

    def keep_enrolled(self, membership: Membership, identity: Identity, *, before: Found) -> None:
        """Write where the node is enrolled, then who it is: who has a credential knows where it is from.

        Raises:
            ConflictError: As for `keep_key`.
            OSError: As for `keep_key`.
        """
        with self._hold():
            self._check(before)
            value = membership.to_enrollment()
            self._write(belonging.ENROLLMENT, value)
            self._write(belonging.IDENTITY, replace(identity, enrollment=value).to_value())

    def keep_identity(self, identity: Identity) -> None:
        """Write a new credential, or a new key, of the same node.

        Raises:
            ConflictError: Another node is here by now, or none.
            OSError: As for `keep_key`.
        """
        with self._hold():
            there = self.read().identity
            if there is None or there.node_id != identity.node_id:
                raise _changed()
            # The root may have been changed meanwhile, by the same process.
            known = there.enrollment or identity.enrollment
            self._write(belonging.IDENTITY, replace(identity, enrollment=known).to_value())

    def mend(self) -> None:
        """Write `enrollment.json` again where it is gone or damaged, and known from elsewhere.

        Raises:
            OSError: As for `keep_key`.
        """
        with self._hold():
            found = self.read()
            if found.is_mended and found.enrollment is not None:
                self._write(belonging.ENROLLMENT, found.enrollment.to_enrollment())

    def keep_root(self, node_id: str, root: Mapping[str, Any]) -> None:
        """Write who signs from now on.

        Raises:
            ConflictError: Another node is here by now, or none.
            OSError: As for `keep_key`.
        """
        with self._hold():
            found = self.read()
            if found.enrollment is None or found.identity is None or found.enrollment.node_id != node_id:
                raise _changed()
            value = replace(found.enrollment, root=root).to_enrollment()
            self._write(belonging.ENROLLMENT, value)
            self._write(belonging.IDENTITY, replace(found.identity, enrollment=value).to_value())

    def _check(self, before: Found) -> None:
        if not before.is_still(self.read()):
            raise _changed()

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        durable.write_json(self._directory / name, value, mode=0o600, operations=self._operations)

    def _bytes(self, name: str) -> bytes:
        try:
            return self._operations.read(str(self._directory / name))
        except OSError:
            return b""


def _changed() -> ConflictError:
    return ConflictError(
        "somebody has joined or left meanwhile; what was on its way is not kept",
        code="membership.changed",
        hint="nothing is lost: the daemon starts again with what is there now",
    )


def _value(data: bytes, name: str, problems: list[str]) -> Mapping[str, Any] | None:
    if not data:
        return None
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        problems.append(f"{name} is no JSON: {error}")
        return None
    if not isinstance(value, dict):
        problems.append(f"{name} is no object")
        return None
    return value


def _membership(data: bytes, name: str, problems: list[str]) -> Membership | None:
    value = _value(data, name, problems)
    if value is None:
        return None
    try:
        return _read_membership(value)
    except (KeyError, TypeError, ValueError, protocol.MessageError) as error:
        problems.append(f"{name} has not the form of one: {error}")
        return None


def _read_membership(value: Mapping[str, Any]) -> Membership:
    # Nothing is left out here: without the root that somebody has pinned, everything would be believed.
    root = value.get("root")
    if root is not None and not isinstance(root, dict):
        raise ValueError("its root is no object")
    urls = tuple(protocol.check_url(each) for each in value.get("control_urls") or value["urls"])
    if not urls:
        raise ValueError("it has no URLs")
    return Membership(
        urls=tuple(dict.fromkeys(urls)),
        trust=Trust(
            ca_file=_text(value.get("ca_file") or ""),
            pin_sha256=_text(value.get("pin_sha256") or ""),
            insecure_http=value.get("insecure_http") is True,
        ),
        root=root,
        token=_text(value.get("token") or ""),
        node_id=_text(value.get("node_id") or ""),
        tenant=_text(value.get("tenant") or ""),
        joined_at=clocks.from_rfc3339(value["joined_at"]) if value.get("joined_at") else 0.0,
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.40} is no text")
    return value
