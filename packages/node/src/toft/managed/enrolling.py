"""The credential of a node: got with the token of a join, renewed with its key, shown where it was given.

Whoever asks a central goes through `Credentials.ask`. Twenty that need a new credential at the same time
share one request for it; a stop at any step leaves either the old credential, which stays good for a while,
or a key that the central knows.

Importing this loads `cryptography`: a node that belongs nowhere goes without.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import platform
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from toft.kernel import clock as clocks
from toft.kernel import log
from toft.kernel.errors import ConflictError, NodeError, RefusedError
from toft.kernel.version import VERSION
from toft.managed import answers, messages, protocol, retrying, signatures, transport
from toft.managed.identity import Files, Found, Identity
from toft.managed.signatures import PrivateKey

_log = log.get_logger("managed.enrolling")

RENEWED_AT = 1 / 3
"""A credential is renewed with the first question after so much of its life is left."""
KEY_LIFE_S = 30 * 86_400.0
_ROTATE_AGAIN_S = 3600.0
_SIGN_AGAIN_S = 60.0
_SIGNED_AT_MOST = 3
"""Behind one address there may be clocks that never agree."""
_MACHINE_ID = Path("/etc/machine-id")
_JSON = {"Content-Type": "application/json"}


class NotToldError(RefusedError):
    """A credential was not sent, because nobody has said that it may be shown there."""

    code = "control.other_url"


class Credentials:
    """Who this node is to its central.

    Args:
        asks: Sends requests.
        files: Keep what comes of them.
        found: What was on disk.
        facts: What the node says of itself.
        clock: For signatures, and for when something ends.
        randomness: For keys and nonces.
    """

    def __init__(
        self,
        asks: transport.Asks,
        files: Files,
        found: Found,
        *,
        facts: messages.Facts,
        clock: clocks.Clock = clocks.SYSTEM,
        randomness: Callable[[int], bytes] = os.urandom,
    ) -> None:
        if found.membership is None:
            raise AssertionError("a node that belongs nowhere has no credentials")
        self._asks = asks
        self._files = files
        self.found = found
        self._facts = facts
        self._clock = clock
        self._randomness = randomness
        self._renewing: asyncio.Task[None] | None = None
        self._vouched: tuple[str, ...] = ()
        self._rotates_from = 0.0
        self.membership = found.membership
        self.skew_s: float | None = None
        """By how much the central's clock is ahead of this machine's; None before the first answer."""

    @property
    def identity(self) -> Identity | None:
        """Return who this node is by now; None before it has a key."""
        return self.found.identity

    @property
    def is_enrolled(self) -> bool:
        """Say whether there is a credential that a central gave for this membership."""
        return self.found.is_enrolled

    def vouch(self, urls: Iterable[str]) -> None:
        """Take note of addresses that a document of the central names: the credential may be shown there."""
        self._vouched = tuple(urls)

    def may_be_told(self, url: str) -> bool:
        """Say whether the credential may be shown to an address."""
        known = self.identity
        if known is None or not self.is_enrolled:
            return url in self.membership.urls
        return _origin(url) in {_origin(each) for each in (known.url, *known.urls, *self._vouched)}

    async def ask(
        self,
        method: str,
        url: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        deadline_s: float = transport.DEADLINE_S,
    ) -> transport.Answer:
        """Ask the central at an address as this node; again with a new credential when this one is refused.

        Returns:
            Whatever it answered, a second refusal too.

        Raises:
            NotToldError: Nobody has said that the credential may be shown there.
            CentralError: There is no credential, and the central gave none.
            UnreachableError: As `transport.Asks.ask`; AnswerError and TrustError too.
        """
        token = await self.credential(url)
        for is_last in (False, True):
            sent = {"Authorization": f"Bearer {token}", **(headers or {})}
            answer = await self._ask(method, url + path, headers=sent, body=body, deadline_s=deadline_s)
            if answer.status != 401 or is_last:
                break
            token = await self.credential(url, refused=token)
        return answer

    async def credential(self, url: str, *, refused: str = "") -> str:
        """Return the credential, after renewing it when it is nearly over, or when it is the refused one.

        Raises:
            NodeError: As `ask`.

        Cancellation: Safe; who else waits for the same renewal still gets it.
        """
        if not self.may_be_told(url):
            raise NotToldError(
                f"the credential of this node is from {self._given_by()}, and {url} is another place",
                details={"url": url, "given_by": self._given_by()},
                hint=f"if the node is to belong there: toft join {url} TOKEN",
            )
        token = self._good(refused)
        if token and not self._is_due():
            return token
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew(url, is_refused=not token))
            self._renewing.add_done_callback(self._renewed)
        try:
            await asyncio.shield(self._renewing)
        except NodeError as error:
            if not token or isinstance(error, ConflictError):
                raise
            # What is only nearly over is still good; the next question tries again.
            _log.warning("not renewed", url=url, error=str(error))
            return token
        return self.identity.access_token if self.identity else ""

    async def keep_up(self, url: str) -> None:
        """Change the key when it is old, or finish a change that was cut off."""
        known = self.identity
        if known is None or not self.is_enrolled or self._clock.monotonic() < self._rotates_from:
            return
        if known.next_private_key or self.server_now() - known.key_made_at > KEY_LIFE_S:
            self._rotates_from = self._clock.monotonic() + _ROTATE_AGAIN_S
            try:
                await self.rotate_key(url)
            except (NodeError, OSError) as error:
                _log.warning("key not changed", url=url, error=str(error))

    async def rotate_key(self, url: str) -> None:
        """Change the key of this node: the new one is on disk before the central is told of it.

        Raises:
            NodeError: As `ask`, or the central took no other key; the next call goes on with the same one.
        """
        known = self.identity
        if known is None or not self.is_enrolled:
            return
        if not known.next_private_key:
            fresh = PrivateKey.make(self._randomness).text
            await self._keep(replace(known, next_private_key=fresh))
        known = self.identity or known
        old, new = PrivateKey.of_text(known.private_key), PrivateKey.of_text(known.next_private_key)
        body = messages.rotate_key(known.node_id, old, new, self._nonce(), self.server_now())
        answer = await self.ask("POST", url, protocol.ROTATE_KEY, headers=_JSON, body=_encode(body))
        if answer.status != 204:
            raise answers.refusal(url, answer, self.server_now())
        # A credential may have been renewed while the answer was on its way.
        await self._promote(self.identity or known)
        _log.info("key changed", key_id=new.public.key_id)

    async def keep_root(self, root: signatures.Root) -> None:
        """Take note of who signs documents from now on.

        Raises:
            ConflictError: Somebody has joined or left meanwhile.
            OSError: The disk did not take it.
        """
        value = root.to_value()
        await asyncio.to_thread(self._files.keep_root, self.membership.node_id, value)
        self.membership = replace(self.membership, root=value)
        known = self.found.enrollment
        if known is not None:
            # A later enrolment starts from this: it must not bring back the keys of before.
            self.found = replace(self.found, enrollment=replace(known, root=value))

    def server_now(self) -> float:
        """Return the time of the central, as far as it is known."""
        return self._clock.now() + (self.skew_s or 0.0)

    async def close(self) -> None:
        """End what is on its way."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.wait({self._renewing})

    def _good(self, refused: str) -> str:
        known = self.identity
        if known is None or not self.is_enrolled or known.access_token == refused:
            return ""
        return known.access_token

    def _is_due(self) -> bool:
        known = self.identity
        return known is None or known.expires_at - self.server_now() <= known.life_s * RENEWED_AT

    def _given_by(self) -> str:
        return self.identity.url if self.identity else ""

    def _renewed(self, task: asyncio.Task[None]) -> None:
        self._renewing = None
        if not task.cancelled():
            task.exception()  # heard here, when nobody waits for it any more

    async def _renew(self, url: str, *, is_refused: bool) -> None:
        if self.identity is None or not self.is_enrolled:
            await self._enroll(url)
            return
        try:
            await self._refresh(url)
        except answers.CentralError as error:
            # The token that made this node may still be there, and be good for the same key.
            if not (is_refused and error.status == 401 and self._token()):
                raise
            await self._enroll(url)

    def _token(self) -> str:
        """Return the token of the join; empty once it is gone."""
        return self.found.seed.token if self.found.seed else ""

    async def _enroll(self, url: str) -> None:
        token = self._token()
        if not token:
            raise RefusedError(
                "there is no token to enrol with, and no credential",
                code="control.no_token",
                blame="caller",
                hint=f"toft join {url} TOKEN",
            )
        key = await self._key(url, token)
        body = messages.enroll(token, key, self._nonce(), self._facts)
        answer = await self._post(url, protocol.ENROLL, body)
        if answer.status not in (200, 201):
            raise answers.refusal(url, answer, self.server_now())
        given = messages.Enrolled.of_value(answers.value(answer))
        was = self.found.membership or self.membership
        root = was.root if was.root is not None else given.root.to_value() if given.root else None
        membership = replace(
            was,
            # The one that has answered stays the first one, whatever the central believes its address to be.
            urls=tuple(dict.fromkeys((url, *given.control_urls, *was.urls)))[: protocol.MAX_URLS],
            root=root,
            token="",
            node_id=given.node_id,
            tenant=given.tenant,
            joined_at=self.server_now(),
        )
        known = self.identity or Identity(private_key=key.text)
        identity = replace(self._with(known, given), url=url, urls=membership.urls)
        await asyncio.to_thread(self._files.keep_enrolled, membership, identity, before=self.found)
        self.membership = membership
        self.found = replace(self.found, enrollment=membership, identity=identity)
        _log.info("enrolled", node_id=given.node_id, url=url)

    async def _key(self, url: str, token: str) -> PrivateKey:
        """Return the key for an enrolment with a token: the one of the last try with it, or a new one."""
        known, mark = self.identity, protocol.fingerprint(token)
        if known is not None and known.token_fp == mark:
            return PrivateKey.of_text(known.private_key)
        key = PrivateKey.make(self._randomness)
        fresh = Identity(private_key=key.text, key_made_at=self.server_now(), url=url, token_fp=mark)
        await asyncio.to_thread(self._files.keep_key, fresh, before=self.found)
        self.found = replace(self.found, identity=fresh)
        return key

    async def _refresh(self, url: str) -> None:
        known = self.identity
        if known is None:
            return
        try:
            given = await self._refresh_with(url, known.private_key)
        except answers.CentralError as error:
            if error.status != 401 or not known.next_private_key:
                raise
            # The central has taken the new key, and the answer that said so got lost.
            given = await self._refresh_with(url, known.next_private_key)
            await self._promote(self._with(known, given))
            return
        await self._renewed_to(self._with(self.identity or known, given))

    async def _refresh_with(self, url: str, private_key: str) -> messages.Enrolled:
        key, node_id = PrivateKey.of_text(private_key), self.identity.node_id if self.identity else ""
        for _ in range(_SIGNED_AT_MOST):
            at = self.server_now()
            answer = await self._post(
                url, protocol.REFRESH, messages.refresh(node_id, key, self._nonce(), at)
            )
            # It says in every answer how late it is there; a signature of another time is refused.
            if answer.status != 401 or abs(self.server_now() - at) < _SIGN_AGAIN_S:
                break
        if answer.status != 200:
            raise answers.refusal(url, answer, self.server_now())
        given = messages.Enrolled.of_value(answers.value(answer))
        if given.node_id != node_id:
            raise transport.AnswerError(
                f"{url} renewed the credential of another node: {given.node_id[:64]!r}"
            )
        return given

    def _with(self, known: Identity, given: messages.Enrolled) -> Identity:
        return replace(
            known,
            node_id=given.node_id,
            access_token=given.access_token,
            expires_at=given.expires_at,
            life_s=max(0.0, given.expires_at - self.server_now()),
        )

    async def _promote(self, known: Identity) -> None:
        await self._renewed_to(
            replace(
                known,
                private_key=known.next_private_key or known.private_key,
                next_private_key="",
                key_made_at=self.server_now(),
            )
        )

    async def _renewed_to(self, identity: Identity) -> None:
        """Go on with what a central has given already, also while the disk does not take it.

        On disk is a key that gets another credential; a node with a full disk must still be reached.
        """
        try:
            await self._keep(identity)
        except OSError as error:
            _log.warning("not kept", error=str(error))
            self.found = replace(self.found, identity=identity)

    async def _keep(self, identity: Identity) -> None:
        await asyncio.to_thread(self._files.keep_identity, identity)
        self.found = replace(self.found, identity=identity)

    async def _post(self, url: str, path: str, body: Mapping[str, Any]) -> transport.Answer:
        return await self._ask("POST", url + path, headers=_JSON, body=_encode(body))

    async def _ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes = b"",
        deadline_s: float = transport.DEADLINE_S,
    ) -> transport.Answer:
        sent = {"User-Agent": f"toft/{VERSION}", **headers}
        answer = await self._asks.ask(method, url, headers=sent, body=body, deadline_s=deadline_s)
        date = retrying.http_date(answer.headers.get("date"))
        if date is not None:
            self.skew_s = date - self._clock.now()
        return answer

    def _nonce(self) -> str:
        return self._randomness(16).hex()


def facts() -> messages.Facts:
    """Return what this machine says of itself; blocks for one small file."""
    try:
        machine = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        machine = ""
    # Not the id itself, which other programs of the machine use as a secret.
    hashed = hashlib.sha256(f"toft:{machine}".encode()).hexdigest() if machine else ""
    return messages.Facts(
        hostname=socket.gethostname()[:255],
        os=f"{platform.system()} {platform.release()} {platform.machine()}"[:255],
        agent_version=VERSION,
        machine_id_hash=hashed,
    )


def _origin(url: str) -> tuple[str, str, int]:
    with contextlib.suppress(ValueError):
        parts = urlsplit(url)
        port = parts.port
        return parts.scheme, (parts.hostname or "").lower(), port or (443 if parts.scheme == "https" else 80)
    return "", url, 0


def _encode(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body).encode()
