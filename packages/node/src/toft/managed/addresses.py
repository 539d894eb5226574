"""Whether a text in a document is an address that somebody can be asked at."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit


def is_url(text: str) -> bool:
    """Say whether a text is a URL: with a host and a port that can be ones, or of a file that can be one."""
    try:
        parts = urlsplit(text)
        is_whole = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
    return "\0" not in unquote(parts.path) and (is_whole or parts.scheme == "file")


def is_place(text: str) -> bool:
    """Say whether a text is `HOST:PORT`, with a port that can be one."""
    return is_url(f"tcp://{text}")
