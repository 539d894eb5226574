"""The words between a node and its central: paths, headers, codes, and the form of what stands in them.

Nothing here sends, signs or decides; `messages` has what is signed and needs a library for it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import urllib.parse
from typing import Any

from toft.kernel.errors import UsageError

ENROLL = "/v1/enroll"
REFRESH = "/v1/identity/refresh"
ROTATE_KEY = "/v1/identity/rotate-key"
CONFIG = "/v1/config"
ROOTS = "/v1/roots"
REPORT = "/v1/report"
ARTIFACTS = "/v1/artifacts"
INGEST = "/v1/ingest"
"""The paths; below `CONFIG` and `ARTIFACTS` there is one for each SHA-256, below `INGEST` for each signal."""

LOGS, METRICS = "logs", "metrics"
SIGNALS = (LOGS, "traces", METRICS, "proxy")
"""What a central takes in chunks of rows; a node itself sends its log and its samples."""
LEVELS = ("debug", "info", "warning", "error")
"""Of rows of `LOGS`, the least first."""

SIGNATURES = "X-Toft-Signatures"
REVISION = "X-Revision"
ATTEMPT = "X-Attempt"
NOT_AFTER = "X-Not-After"
POLL_INTERVAL = "X-Poll-Interval"
RUNNING_REVISION = "X-Running-Revision"
REPR_DIGEST = "Repr-Digest"
CHUNK_KEY = "Idempotency-Key"
"""Headers of our own, and the one of RFC 9530; the rest are plain HTTP."""

ENROLL_TYPE = "application/vnd.toft.enroll+json"
REFRESH_TYPE = "application/vnd.toft.refresh+json"
ROTATE_KEY_TYPE = "application/vnd.toft.rotate-key+json"
"""What a request is signed as."""

JOIN_REFUSED = "join_refused"
CREDENTIAL_REFUSED = "credential_refused"
NODE_REVOKED = "node_revoked"
PENDING_APPROVAL = "pending_approval"
NO_DOCUMENT = "no_document"
TOO_MANY_REQUESTS = "too_many_requests"
"""What stands as `code` in the problem that a central answers with."""

MAX_REPORT_BYTES = 256 << 10
MAX_REQUEST_BYTES = 64 << 10
MAX_CHUNK_ROWS = 5000
MAX_CHUNK_BYTES = 4 << 20
MAX_URLS = 16
PENDING_S = 60
CREDENTIAL_S = 24 * 3600
OVERLAP_S = 600
"""So long an old credential stays good after a new one was given out."""
SKEW_S = 300
"""So far the clock of a node may be off the central's when it signs a request."""

_TOKEN = re.compile(r"jt_([0-9A-Za-z]{8})_([0-9A-Za-z_-]{43})", re.ASCII)
_CREDENTIAL = re.compile(r"nt_[0-9A-Za-z_-]{43}", re.ASCII)
_CHUNK_KEY = re.compile(r"[0-9a-f]{32}", re.ASCII)
_NODE_ID = re.compile(r"node_[0-9A-HJKMNP-TV-Z]{26}", re.ASCII)
_ETAG = re.compile(r'(?:W/)?"?(sha256-[0-9a-f]{64})(?:[-;](?:gzip|br|zstd|deflate))?"?', re.ASCII)
_DIGEST = re.compile(r"\s*sha-256=:([A-Za-z0-9+/]{43}=):\s*", re.ASCII)


class MessageError(UsageError):
    """A message has not the form it must have; nothing of it is believed."""

    code = "message.invalid"


def quoted(etag: str) -> str:
    """Return a name of bytes as `ETag` and `If-None-Match` carry it."""
    return f'"{etag}"'


def read_etag(text: str | None) -> str:
    """Return the name that such a header carries, without what proxies add to it; empty for any other."""
    found = _ETAG.fullmatch(text.strip()) if text else None
    return found[1] if found else ""


def digest(data: bytes) -> str:
    """Return what `Repr-Digest` says of bytes."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(data).digest()).decode()}:"


def read_digest(text: str | None) -> str:
    """Return the SHA-256, in hexadecimal, that such a header carries; empty without one."""
    for part in (text or "").split(","):
        if found := _DIGEST.fullmatch(part):
            try:
                return base64.b64decode(found[1], validate=True).hex()
            except (binascii.Error, ValueError):
                return ""
    return ""


def is_credential(text: str) -> bool:
    """Say whether a text can be the credential of a node."""
    return _CREDENTIAL.fullmatch(text) is not None


def chunk_key(signal: str, partition: str, start: int, body: bytes) -> str:
    """Return what names a chunk of rows: the same whenever it is sent again, another one anywhere else.

    Args:
        signal: One of `SIGNALS`.
        partition: What the node reads from, such as one file of its log.
        start: Where in that the chunk begins.
        body: The exact bytes.
    """
    where = f"{signal}\n{partition}\n{start}\n".encode()
    return hashlib.sha256(where + body).hexdigest()[:32]


def is_chunk_key(text: str) -> bool:
    """Say whether a text can name a chunk of rows."""
    return _CHUNK_KEY.fullmatch(text) is not None


def is_node_id(text: str) -> bool:
    """Say whether a text can be the name of a node."""
    return _NODE_ID.fullmatch(text) is not None


def token_id(text: str) -> str:
    """Return the part of a join token that a central finds it by; empty for what is none."""
    found = _TOKEN.fullmatch(text)
    return found[1] if found else ""


def fingerprint(secret: str) -> str:
    """Return what is kept of a secret in the place of it: the SHA-256 of its text, in hexadecimal."""
    return hashlib.sha256(secret.encode()).hexdigest()


def check_url(value: Any) -> str:
    """Return the URL of a central without a slash at its end.

    Raises:
        MessageError: It is no http or https URL of a host, or names a user, a query or a fragment.
    """
    parts = _split(value)
    if parts is None or len(value) > 2048:
        # What stands before an @ is a password, as a rule.
        shown = str(value)[:80].rpartition("@")[2]
        raise MessageError(f"{shown!r} is no URL of a central: http or https, a host, nothing after a path")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _split(value: Any) -> urllib.parse.SplitResult | None:
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or " " in value:
        return None
    try:
        parts = urllib.parse.urlsplit(value)
        port = parts.port
    except ValueError:
        return None
    is_plain = parts.username is None and not parts.query and not parts.fragment and "?" not in value
    return parts if parts.scheme in ("http", "https") and parts.hostname and port != 0 and is_plain else None
