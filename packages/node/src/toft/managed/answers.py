"""What an answer of a central that is none of the good ones means to a node."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from toft.kernel.errors import RefusedError
from toft.managed import protocol, retrying, transport


class CentralError(RefusedError):
    """A central refused what a node asked it.

    Attributes:
        status: Of HTTP.
        word: The `code` that stood in its answer; empty without one.
    """

    code = "control.http_error"
    blame = "environment"
    status: int = 0
    word: str = ""


_AT_THE_OTHER_END = "look into the log of the central, or of what stands in front of it"


def refusal(url: str, answer: transport.Answer, now: float) -> CentralError:
    """Return the error for an answer.

    Args:
        url: Who gave it.
        answer: What it was.
        now: The time of the central.
    """
    said = word(answer)
    error = _error(said, answer.status)(
        f"{url} answers {answer.status}{f', {said}' if said else ''}",
        details={"url": url, "status": answer.status, "word": said},
        retry_after_s=retrying.retry_after_s(answer.headers.get("retry-after"), now),
    )
    error.status, error.word = answer.status, said
    return error


def _error(said: str, status: int) -> Callable[..., CentralError]:
    make = functools.partial
    if said == protocol.JOIN_REFUSED:
        return make(
            CentralError, code="control.join_refused", hint="ask for a new token, then toft join again"
        )
    if said == protocol.CREDENTIAL_REFUSED:
        return make(
            CentralError, code="control.credential_refused", hint="join it again: toft join URL TOKEN"
        )
    if said == protocol.NODE_REVOKED:
        return make(
            CentralError,
            code="control.node_revoked",
            hint="somebody revoked this node on the central; it goes on with what it runs",
        )
    if said == protocol.PENDING_APPROVAL:
        return make(
            CentralError, code="control.pending_approval", hint="somebody has to approve it on the central"
        )
    if status in (429, 503):
        return make(CentralError, code="control.busy", hint="nothing to do: the node asks again by itself")
    return make(CentralError, hint=_AT_THE_OTHER_END)


def word(answer: transport.Answer) -> str:
    """Return the `code` of the problem that stands in an answer; empty without one that reads like a word."""
    found = value(answer, default={})
    said = found.get("code") if isinstance(found, dict) else ""
    return said if isinstance(said, str) and said.isidentifier() and len(said) <= 64 else ""


def value(answer: transport.Answer, default: Any = None) -> Any:
    """Return what the body says as JSON, the default for what is none.

    Raises:
        AnswerError: It is none, and there is no default.
    """
    try:
        return json.loads(answer.body)
    except (ValueError, RecursionError) as error:
        if default is not None:
            return default
        raise transport.AnswerError(f"the answer is no JSON: {error}") from error
