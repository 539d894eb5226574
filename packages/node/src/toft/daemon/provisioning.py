"""Joins a node with what whoever installed the machine has left for it: a credential of its service.

systemd gives the service `toft.join` from /etc/credstore: the URL of a central, a token, and perhaps the key
that must have signed its documents, as words. It is used once: a node that has left stays away until there is
another one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from toft.kernel.errors import NodeError, UsageError
from toft.managed import generations, joining
from toft.store import durable

NAME = "toft.join"
_USED = "provisioned"
_LONGEST = 1 << 16


def take(engine: generations.Generations, environ: Mapping[str, str]) -> str:
    """Join with the credential of this service, unless the node belongs somewhere or has used it; blocks.

    Returns:
        What was done or is wrong, as a sentence; empty for nothing.

    Durability: The join first, then that it was used; a stop in between is mended by the next start.
    """
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        return ""
    try:
        with (Path(directory) / NAME).open(encoding="utf-8", errors="replace") as file:
            text = file.read(_LONGEST)
    except OSError:
        return ""
    mark = hashlib.sha256(text.encode()).hexdigest().encode()
    used = engine.directory / _USED
    try:
        if not text.strip() or _is_used(used, mark):
            return ""
        joined = not joining.is_member(engine)
        if joined:
            joining.join(engine, _seed(text))
        durable.write_file(used, mark, mode=0o600)
    except (NodeError, OSError) as error:
        return f"the credential {NAME} joins nothing: {error}"
    return f"joined with the credential {NAME}" if joined else ""


def _seed(text: str) -> joining.Seed:
    words = text.split()
    if len(words) not in (2, 3):
        raise UsageError("it is not a URL, a token, and perhaps a key", code="join.bad_credential")
    return joining.seed(words[0], words[1], server_key=words[2] if len(words) > 2 else "")


def _is_used(path: Path, mark: bytes) -> bool:
    try:
        return path.read_bytes() == mark
    except OSError:
        return False
