"""Joining a central and leaving it: what a person says becomes a seed, and what was there before is cleared.

The seed is a file of its own. Nothing that the user wrote is touched; what comes of a join is in `managed/`.
Both verbs go through `Generations.reset`, which the next boot brings to its end wherever it was cut off; both
can be repeated. Who enrols with the seed is the daemon; here nobody is asked.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from toft.kernel.errors import ConflictError, RefusedError
from toft.managed import admission, belonging, generations, identity, protocol, transport
from toft.managed.identity import Found
from toft.managed.phases import Phase
from toft.managed.transport import Trust

if TYPE_CHECKING:
    from toft.managed.signatures import Root

LONGEST_TOKEN = 4096
_PIN = re.compile(r"[0-9a-f]{64}", re.ASCII)


class TokenError(RefusedError):
    """What was given as the token of a join is none."""

    code = "join.bad_token"


@dataclass(frozen=True, kw_only=True)
class Seed:
    """What a person says when a node is to join: all of it, checked.

    Attributes:
        url: Of the central.
        token: Of the join.
        trust: Who counts as the central.
        root: Who must sign its documents; None takes whom the central names.
    """

    url: str
    token: str = field(repr=False)
    trust: Trust = field(default_factory=Trust)
    root: Root | None = None

    def to_value(self, name: str) -> dict[str, Any]:
        """Return it as `seed.json` keeps it; `name` makes the bytes of two joins differ."""
        return {
            "id": name,
            "urls": [self.url],
            "token": self.token,
            "ca_file": self.trust.ca_file,
            "pin_sha256": self.trust.pin_sha256,
            "insecure_http": self.trust.insecure_http,
            "root": None if self.root is None else self.root.to_value(),
        }


@dataclass(frozen=True)
class Joined:
    """What a join has come to.

    Attributes:
        action: `joined`; `already_joining` or `already_joined` when the same was said before.
        node_id: Empty until the central has given one.
    """

    action: str
    node_id: str = ""


def seed(
    url: str,
    token: str,
    *,
    ca_file: str = "",
    pin_sha256: str = "",
    server_key: str = "",
    insecure_http: bool = False,
) -> Seed:
    """Check what a person says; reads the file of the authorities.

    Args:
        url: Of the central.
        token: Of the join; what is around it is cut off.
        ca_file: PEM of who may have signed its certificate.
        pin_sha256: Of its certificate; colons and capitals are fine.
        server_key: Who must sign documents: a key in base64, or the JSON of a trust root.
        insecure_http: Plain HTTP may be spoken with another machine.

    Raises:
        MessageError: The URL is none.
        TokenError: The token is none.
        BadKeyError: The key is none.
        TrustError: Nobody may be told a credential there, or the file or the pin is none.
    """
    place, text = protocol.check_url(url), token.strip()
    if not protocol.token_id(text):
        raise TokenError(
            "that is no token of a join: jt_, 8 characters, _, 43 characters",
            details={"length": min(len(text), LONGEST_TOKEN)},
            hint="toft central token create makes one; it is shown once",
        )
    trust = Trust(
        ca_file=os.path.abspath(ca_file) if ca_file else "",
        pin_sha256=pin_sha256.lower().replace(":", "").strip(),
        insecure_http=insecure_http,
    )
    from toft.managed import connections  # noqa: PLC0415 - 50 ms that only a join pays, and no daemon

    made = Seed(url=place, token=text, trust=trust)
    transport.check(made.url, trust)
    connections.check_trust(trust)
    if server_key:
        from toft.managed import signatures  # noqa: PLC0415 - 10 MB that a join without a key goes without

        made = replace(made, root=signatures.read_key(server_key))
    return made


def join(
    engine: generations.Generations,
    wanted: Seed,
    *,
    randomness: Callable[[int], bytes] = os.urandom,
) -> Joined:
    """Make a node belong to a central; blocks for some fsyncs.

    The same said again changes nothing. Another token for the same central joins anew.

    Raises:
        ConflictError: It belongs to another central, or trusts others; leave first.
        UnavailableError: Another command stands still with the lock.
        OSError: The disk did not take it; the next boot brings it to its end or takes it back.

    Durability: On disk when it returns. Cut off anywhere, the next boot has the old membership whole or the
    new one whole.
    """
    there: list[Joined] = []

    def is_new() -> bool:
        found = _files(engine).read()
        known = _same(found, wanted)
        if known is not None and not _is_resetting(engine):
            there.append(known)
            return False
        _refuse_other(found, wanted)
        return True

    # Looked at under the lock: of two equal joins at once the second one must not take the key of the first,
    # which its token may be used up for.
    engine.reset(wanted.to_value(randomness(8).hex()), only_if=is_new)
    return there[0] if there else Joined("joined")


def leave(engine: generations.Generations) -> bool:
    """Make a node belong to nobody: its identity, its token and its documents go; blocks for some fsyncs.

    Returns:
        False when it belonged to nobody; then what somebody has applied by hand stays.

    Raises:
        UnavailableError: Another command stands still with the lock.
        OSError: The disk did not take it; said again, or by the next boot, it comes to its end.
    """
    return engine.reset(None, only_if=lambda: is_member(engine))


def is_member(engine: generations.Generations) -> bool:
    """Say whether anything of a membership is there, whole or not."""
    names = {belonging.SEED, belonging.ENROLLMENT, belonging.IDENTITY}
    return _is_resetting(engine) or not names.isdisjoint(engine.operations.list(str(engine.directory)))


def trust(engine: generations.Generations, root: Root | None) -> None:
    """Have a node of nobody take only what others have signed; None takes that back. Blocks for some fsyncs.

    Raises:
        ConflictError: It belongs to a central, and that says whom to trust.
        OSError: The disk did not take it.
    """

    def check() -> None:
        if is_member(engine):
            raise ConflictError(
                "this node belongs to a central, and trusts whom it was told when it joined",
                code="join.member_trust",
                hint="toft join with --server-key says whom to trust there; toft leave first",
            )

    engine.trust(None if root is None else root.to_value(), only_if=check)


def vouched(engine: generations.Generations, data: bytes, signatures_text: str) -> tuple[str, ...]:
    """Return whose signatures on a document of a file count; for a node that no central reaches.

    Args:
        engine: Of the node.
        data: The exact bytes of the document.
        signatures_text: What `toft key sign` wrote; empty for none.

    Raises:
        UnsignedError: Too few of those whom this node trusts have signed it.
        MessageError: The signatures are damaged.
        IntegrityError: Whom this node trusts cannot be read.
    """
    node = admission.Node.of_membership(engine.belonging.membership())
    if node.root is None:
        return ()
    from toft.managed import messages  # noqa: PLC0415 - cryptography, which only who signs pays for

    try:
        value = json.loads(signatures_text) if signatures_text.strip() else []
    except (ValueError, RecursionError) as error:
        raise protocol.MessageError("the file of signatures is no JSON") from error
    return admission.vouch(data, signed=messages.read_signatures(value), root=node.root)


def _files(engine: generations.Generations) -> identity.Files:
    return identity.Files(engine.directory, engine.operations)


def _is_resetting(engine: generations.Generations) -> bool:
    return engine.read().state.phase is Phase.RESETTING


def _same(found: Found, wanted: Seed) -> Joined | None:
    """Return what there is when exactly this was asked for before."""
    member, known = found.enrollment, found.identity
    root = None if wanted.root is None else wanted.root.to_value()
    if member is not None and known is not None and _is_enrolled(found) and wanted.url in member.urls:
        if known.token_fp != protocol.fingerprint(wanted.token):
            return None
        if member.trust != wanted.trust or root not in (None, member.root):
            raise ConflictError(
                f"this node has joined {wanted.url} with this token, and trusts others there",
                code="join.other_trust",
                details={"url": wanted.url, "node_id": member.node_id},
                hint="leave the options out that say whom to trust, or begin anew: toft leave",
            )
        return Joined("already_joined", known.node_id)
    seeded = found.seed
    if seeded is None or (seeded.urls, seeded.token) != ((wanted.url,), wanted.token):
        return None
    return Joined("already_joining") if (seeded.trust, seeded.root) == (wanted.trust, root) else None


def _refuse_other(found: Found, wanted: Seed) -> None:
    member = found.enrollment
    if member is not None and _is_enrolled(found) and wanted.url not in member.urls:
        raise ConflictError(
            f"this node belongs to {member.urls[0]} as {member.node_id}",
            code="join.other_central",
            details={"url": member.urls[0], "node_id": member.node_id, "asked": wanted.url},
            hint=f"toft leave gives it up; then toft join {wanted.url} again",
        )


def _is_enrolled(found: Found) -> bool:
    return found.identity is not None and bool(found.identity.node_id and found.identity.access_token)
