"""Who vouches for a document of a central: the keys this node trusts, or those they have named since."""

from __future__ import annotations

from toft.kernel import log
from toft.managed import admission, answers, messages, protocol, signatures
from toft.managed.enrolling import Credentials
from toft.managed.signatures import KeyId, Root

_log = log.get_logger("managed.vouching")
_NO_NEWER = (
    answers.CentralError,
    protocol.MessageError,
    signatures.SignatureError,
    # Of what came, not of what is trusted: that was read before.
    signatures.BadKeyError,
)


async def signers(
    credentials: Credentials, url: str, data: bytes, *, etag: str, header: str
) -> tuple[KeyId, ...]:
    """Return whose signatures on a document count; none where nobody has to sign.

    Args:
        credentials: Of this node; they know whom it trusts.
        url: Where the document is from; asked for newer keys when those known do not vouch for it.
        data: The exact bytes.
        etag: What they were announced as.
        header: The signatures as they came.

    Raises:
        AdmissionError: They are other bytes, or too few have signed them.
        MessageError: The header is damaged.
        BadKeyError: What says whom to trust is damaged: nothing is taken until the node joins again.
        UnavailableError: Nobody could be asked for newer keys.
    """
    signed = messages.decode_signatures(header)
    root = trusted(credentials)
    try:
        return admission.vouch(data, etag=etag, signed=signed, root=root)
    except admission.UnsignedError as refused:
        if root is None:
            raise
        try:
            latest = await find_root(credentials, url, root)
        except _NO_NEWER as error:
            _log.warning("no newer trust root", url=url, error=str(error))
            raise refused from error
        if latest.version == root.version:
            raise
    return admission.vouch(data, etag=etag, signed=signed, root=latest)


def trusted(credentials: Credentials) -> Root | None:
    """Return who must have signed a document; None where nobody has to.

    Raises:
        BadKeyError: What says so is damaged.
    """
    known = credentials.membership.root
    return None if known is None else Root.of_value(known)


async def find_root(credentials: Credentials, url: str, root: Root) -> Root:
    """Ask who signs documents by now, and believe it as far as those trusted so far vouch for it.

    Returns:
        The latest root, on disk when this returns.

    Raises:
        NodeError: As `Credentials.ask`; a SignatureError when what came is not vouched for.
        OSError: The disk did not take it.
    """
    answer = await credentials.ask("GET", url, f"{protocol.ROOTS}?after={root.version}")
    if answer.status != 200:
        raise answers.refusal(url, answer, credentials.server_now())
    latest = signatures.follow(root, messages.read_roots(answers.value(answer)))
    if latest.version > root.version:
        await credentials.keep_root(latest)
        _log.info("trust root changed", version=latest.version)
    return latest
