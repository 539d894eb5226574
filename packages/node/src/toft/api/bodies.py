"""Bodies of requests and answers: objects whose members are known, and values exactly as they are."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request
from fastapi.responses import Response

from toft.api import frames
from toft.kernel import errors, ids

_KINDS = (frames.JSON_TYPE, frames.VALUE_TYPE)


def answer(value: Any, *, status: int = 200) -> Response:
    """Return a value as an answer: JSON when it is nothing more."""
    body = frames.pack(value)
    kind = frames.VALUE_TYPE if body[:1] == b"\0" else frames.JSON_TYPE
    return Response(body, status_code=status, media_type=kind)


async def fields(request: Request) -> dict[str, Any]:
    """Return the body of a request, which must be an object with text as keys; none is an empty one.

    Raises:
        UsageError: It is something else.
    """
    body = await request.body()
    if not body:
        return {}
    _check_kind(request)
    value = await asyncio.to_thread(frames.unpack, body) if len(body) > frames.LARGE else frames.unpack(body)
    return checked(value)


def _check_kind(request: Request) -> None:
    """Refuse what says that it is something else; a browser sends forms to strangers unasked, JSON never."""
    kind = request.headers.get("content-type")
    if kind is not None and kind.partition(";")[0].strip().lower() not in _KINDS:
        raise errors.UsageError(
            f"a body is {' or '.join(_KINDS)}, not {kind[:80]!r}",
            code="request.media_type",
            hint="curl: -H 'Content-Type: application/json'",
        )
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise errors.UsageError(
            f"a body comes as it is, not as {encoding[:80]!r}",
            code="request.media_type",
            hint="do not pack it",
        )


def checked(value: Any) -> dict[str, Any]:
    """Return a value that must be an object with text as keys.

    Raises:
        UsageError: It is something else.
    """
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise errors.UsageError("the body of the request must be an object", code="request.body")
    return value


def taken(found: dict[str, Any], **kinds: Any) -> dict[str, Any]:
    """Return the members of a body that a route knows, each of the kind it must have.

    Args:
        found: The body.
        kinds: Name to the kind, or to a tuple of kinds; None among them lets it be left out.

    Raises:
        UsageError: One is missing, unknown or of another kind; all problems at once.
    """
    bad = {name: "there is no such member" for name in found if name not in kinds}
    chosen: dict[str, Any] = {}
    for name, kind in kinds.items():
        allowed = kind if isinstance(kind, tuple) else (kind,)
        value = found.get(name)
        if value is None and None in allowed:
            chosen[name] = None
        elif name not in found:
            bad[name] = "missing"
        elif not isinstance(value, tuple(each for each in allowed if each is not None)) or (
            isinstance(value, bool) and bool not in allowed
        ):
            bad[name] = "has another kind than it must"
        elif isinstance(value, str) and not ids.is_text(value):
            bad[name] = "holds half of a character"
        else:
            chosen[name] = value
    if bad:
        listed = "; ".join(f"{name}: {problem}" for name, problem in bad.items())
        raise errors.UsageError(
            f"the request does not fit: {listed}", code="request.fields", details={"fields": bad}
        )
    return chosen
