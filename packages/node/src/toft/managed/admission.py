"""Whether a node takes a document: what was promised of the bytes, who signed them, for whom, and when.

The checks have an order: the bytes are what was announced, enough trusted keys signed exactly them, and only
then is anything of what they say believed: whom it is for, which revision it is, when it may be applied, and
by how new a node. Nothing here reads a clock or a file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from packaging.version import Version

from toft.kernel import clock as clocks
from toft.kernel.errors import RefusedError, UnavailableError
from toft.kernel.version import VERSION
from toft.managed import document
from toft.managed.document import Document
from toft.managed.phases import Severity

if TYPE_CHECKING:
    from toft.managed.signatures import KeyId, Root, Signature


class AdmissionError(RefusedError):
    """A document is not for this node, or not now.

    Attributes:
        reason: The word that is remembered for it.
        severity: Whether what is wrong may right itself: a clock, or where the node belongs.
    """

    code = "document.refused"
    reason: ClassVar[str] = "validation_failed"
    severity: ClassVar[Severity] = Severity.PERMANENT


class DigestError(AdmissionError):
    """The bytes are others than were announced; they are no document, so that nothing is remembered."""

    code = "document.other_bytes"


class UnsignedError(AdmissionError):
    """Too few of the trusted keys signed exactly these bytes."""

    code = "document.signature_invalid"
    reason = "signature_invalid"


class AudienceError(AdmissionError):
    """It is for other nodes."""

    code = "document.other_audience"
    severity = Severity.SUSPECT


class DowngradeError(AdmissionError):
    """It is older than what this node may go back to."""

    code = "document.downgrade_refused"
    reason = "downgrade_refused"


class ExpiredError(AdmissionError):
    """Its time is over; who runs it goes on, and nobody begins with it."""

    code = "document.expired"
    reason = "document_expired"
    severity = Severity.SUSPECT


class TooOldNodeError(AdmissionError):
    """It is written for a newer toft."""

    code = "document.needs_newer"


@dataclass(frozen=True, kw_only=True)
class Node:
    """What decides whether a document is for this node.

    Attributes:
        root: Who must have signed; None where nobody has to.
        node_id: Its name at its central; empty for one that belongs nowhere.
        tenant: Whose node it is, as far as it was told.
        group: Which group it is in, as far as it was told.
        floor: The lowest revision it may take.
    """

    root: Root | None = None
    node_id: str = ""
    tenant: str = ""
    group: str = ""
    floor: int = 0

    @classmethod
    def of_membership(cls, membership: Mapping[str, Any] | None, *, floor: int = 0) -> Node:
        """Return what `enrollment.json`, or the seed, says of a node.

        Raises:
            BadKeyError: Its root is damaged: nothing can be admitted until the node joins again.
        """
        known = membership or {}
        root = None
        if known.get("root") is not None:
            from toft.managed import signatures  # noqa: PLC0415 - 10 MB that a node without a root goes without

            root = signatures.Root.of_value(known["root"])
        told = {
            name: known[name] for name in ("node_id", "tenant", "group") if isinstance(known.get(name), str)
        }
        return cls(root=root, floor=floor, **told)


def admit(
    data: bytes,
    *,
    etag: str = "",
    signed: Sequence[Signature] = (),
    node: Node,
    now_s: float,
) -> tuple[Document, tuple[KeyId, ...]]:
    """Return a document that this node may try, and whose signatures on it count.

    Args:
        data: The exact bytes.
        etag: What they were announced as; empty when nobody has.
        signed: Signatures that came along.
        node: For whom.
        now_s: Seconds since 1970, by the later of the clocks that are known.

    Raises:
        AdmissionError: It is refused; a subclass says why.
        DocumentError: It is no document.
        UnavailableError: Its time is still to come.
    """
    key_ids = vouch(data, etag=etag, signed=signed, root=node.root)
    found = document.parse(data)
    fit(found, key_ids, node=node, now_s=now_s)
    return found, key_ids


def vouch(
    data: bytes, *, etag: str = "", signed: Sequence[Signature] = (), root: Root | None
) -> tuple[KeyId, ...]:
    """Return who vouches for bytes of which nothing is believed yet; nobody does where nobody has to.

    Raises:
        DigestError: They are not what was announced.
        UnsignedError: Somebody has to vouch for them, and too few do.
    """
    if etag and etag != document.etag_of(data):
        raise DigestError(
            "the document has other bytes than it was announced with",
            details={"announced": etag[:80], "sha256": hashlib.sha256(data).hexdigest()},
            hint="something between the node and its central changes what passes",
        )
    if root is None:
        return ()
    from toft.managed import signatures  # noqa: PLC0415 - cryptography, which only who signs pays for

    try:
        return signatures.verify(signatures.DOCUMENT_TYPE, data, signed, root)
    except signatures.SignatureError as error:
        raise UnsignedError(
            f"the document is not signed as this node asks for: {error.message}",
            details=error.details,
            hint="sign it with the keys that this node trusts: docs/how-to/sign-documents.md",
        ) from error


def fit(
    found: Document,
    key_ids: Sequence[KeyId],
    *,
    node: Node,
    now_s: float,
    sent_s: float | None = None,
    is_asked: bool = False,
) -> None:
    """Refuse a document that nobody has vouched for, or that is not for this node, or not now.

    Args:
        found: The document.
        key_ids: What `vouch` returned for its bytes.
        node: For whom.
        now_s: Seconds since 1970, by the later of the clocks that are known.
        sent_s: The same by the clock of whoever sent it; None where that is not known.
        is_asked: Somebody at this machine asks for it; where nobody signs, they may go back further.

    Raises:
        AdmissionError: It is for others, older than what the node may go back to, over, or too new.
        UnavailableError: Its time is still to come; or it is over by the clock of this machine alone.
    """
    if node.root is not None and len(set(key_ids)) < node.root.threshold:
        raise UnsignedError(
            "this node takes signed documents only, and nobody has vouched for this one",
            details={"signed_by": sorted(key_ids), "threshold": node.root.threshold},
            hint="toft config apply FILE --signatures FILE; docs/how-to/sign-documents.md",
        )
    _check_audience(found, node)
    if node.root is not None or not is_asked:
        _check_floor(found, node)
    _check_time(found, now_s, sent_s)
    _check_version(found)


def floor(found: Document, *, revision: int | None, is_signed: bool) -> int:
    """Return the lowest revision that may follow a document once it has proven itself.

    What its author says counts. Where documents are signed and the author says nothing, one step back stays
    possible: to what runs now; whoever has old documents and no key cannot go further.

    Args:
        found: The document.
        revision: Of what runs when it is committed; None for none.
        is_signed: Somebody vouches for it.
    """
    said = found.value.get("revision_floor")
    if said is not None:
        return int(said)
    if not is_signed or revision is None or found.revision is None:
        return 0
    return min(revision, found.revision)


def _check_audience(found: Document, node: Node) -> None:
    audience = found.section("audience")
    wanted = {
        "node_id": (audience.get("node_id"), node.node_id),
        "tenant": (found.value.get("tenant"), node.tenant),
        "group": (audience.get("group"), node.group),
    }
    for name, (theirs, ours) in wanted.items():
        # What nobody has told this node it cannot hold against a document; who it is, it always knows.
        is_known = bool(ours) or name == "node_id"
        if theirs is not None and is_known and theirs != ours:
            raise AudienceError(
                f"the document is for the {name} {theirs[:80]!r}, and this is {ours or 'none'!r}",
                details={"what": name, "document": theirs, "node": ours},
                hint="the central serves this node what belongs to another one",
            )


def _check_floor(found: Document, node: Node) -> None:
    if node.floor == 0:
        return
    if found.revision is None:
        if node.root is None:  # written by hand, for a node where the hand counts
            return
        raise DowngradeError(
            f"the document has no revision, and this node takes {node.floor} and later",
            details={"floor": node.floor, "revision": None},
            hint="give it a revision, and sign it again",
        )
    if found.revision < node.floor:
        raise DowngradeError(
            f"the document is revision {found.revision}, and this node takes {node.floor} and later",
            details={"floor": node.floor, "revision": found.revision},
            hint="save the older content as a new revision; toft config rollback goes back by hand",
        )


def _check_time(found: Document, now_s: float, sent_s: float | None) -> None:
    end = found.value.get("expires_at")
    if end is not None and now_s >= clocks.from_rfc3339(end):
        if sent_s is not None and sent_s < clocks.from_rfc3339(end):
            # One of the two clocks is wrong: no fault of the document, and no reason to begin with it.
            raise UnavailableError(
                f"the document can be applied until {end}, and here it is {clocks.rfc3339(now_s)} already",
                code="document.clock_ahead",
                details={"expires_at": end, "now": clocks.rfc3339(now_s), "sender": clocks.rfc3339(sent_s)},
                hint="set the clock of this machine; the document comes again by itself",
            )
        raise ExpiredError(
            f"the document could be applied until {end}, and that is over",
            details={"expires_at": end, "now": clocks.rfc3339(now_s)},
            hint="look whether the clock of this machine is right; else its author makes a new one",
        )
    start = found.value.get("not_before")
    if start is not None and now_s < clocks.from_rfc3339(start):
        raise UnavailableError(
            f"the document is for {start} and later",
            code="document.too_early",
            details={"not_before": start, "now": clocks.rfc3339(now_s)},
            hint="apply it again then",
        )


def _check_version(found: Document) -> None:
    wanted = found.value.get("min_agent_version")
    if wanted is None:
        return
    try:
        is_new_enough = Version(VERSION) >= Version(wanted)
    except ValueError:
        is_new_enough = False
    if not is_new_enough:
        raise TooOldNodeError(
            f"the document needs toft {wanted}, and this is {VERSION}",
            details={"min_agent_version": wanted, "version": VERSION},
            hint="bring toft on this machine up to date",
        )
