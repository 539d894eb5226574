"""What came of one question to a central: for the loop, for whoever judges a document, and for people."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from toft.kernel.errors import NodeError
from toft.managed import answers, phases, protocol


class State(enum.StrEnum):
    """How a node stands with its central."""

    ENROLLING = "enrolling"
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    PENDING = "pending_approval"
    REVOKED = "revoked"
    REFUSED = "refused"
    WITHHELD = "withheld"
    NO_DOCUMENT = "no_document"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of one question.

    Attributes:
        kind: One word for it, or the status.
        answer: What the control URL is worth to whoever judges a document by it.
        status: Of HTTP; 0 without an answer.
        gap_s: How long to leave it alone, jitter included.
        state: How the node stands after it.
        problem: What went wrong, for a person.
        hint: What to do about it.
    """

    kind: str
    answer: phases.Answer
    url: str = ""
    status: int = 0
    gap_s: float = 0.0
    state: State = State.DEGRADED
    problem: str = ""
    hint: str = ""
    latency_s: float = 0.0
    retry_after_s: float = 0.0

    @property
    def is_good(self) -> bool:
        """Say whether the central has answered this node as it must."""
        return self.answer is phases.Answer.GOOD


_STATUSES = {
    401: ("config_poll_auth_failed", phases.Answer.REFUSED, State.REFUSED),
    403: ("config_poll_refused", phases.Answer.REFUSED, State.REFUSED),
    404: ("config_no_document", phases.Answer.SILENT, State.NO_DOCUMENT),
    429: ("config_poll_throttled", phases.Answer.BUSY, State.DEGRADED),
    503: ("config_poll_throttled", phases.Answer.BUSY, State.DEGRADED),
}
_WORDS = {
    protocol.NODE_REVOKED: ("config_poll_revoked", phases.Answer.REFUSED, State.REVOKED),
    protocol.PENDING_APPROVAL: ("config_poll_pending", phases.Answer.BUSY, State.PENDING),
}
_CODES = {
    "control.too_large": ("config_document_too_large", phases.Answer.SILENT, State.DEGRADED),
    "control.other_url": ("config_poll_not_told", phases.Answer.REFUSED, State.WITHHELD),
}
_HTTP_ERROR = ("config_poll_http_error", phases.Answer.SILENT, State.DEGRADED)
_ERROR = ("config_poll_error", phases.Answer.SILENT, State.DEGRADED)
_WORTH = (phases.Answer.GOOD, phases.Answer.BUSY, phases.Answer.REFUSED, phases.Answer.SILENT)


def failed(url: str, error: NodeError, *, latency_s: float = 0.0) -> Outcome:
    """Return what an error means; how long to wait for it is the loop's to say."""
    status, said = 0, ""
    if isinstance(error, answers.CentralError):
        status, said = error.status, error.word
    kind, answer, state = (
        _WORDS.get(said)
        or _STATUSES.get(status)
        or (_HTTP_ERROR if status else _CODES.get(error.code, _ERROR))
    )
    return Outcome(
        kind=kind,
        answer=answer,
        url=url,
        status=status,
        state=state,
        problem=error.message,
        hint=error.hint,
        latency_s=latency_s,
        retry_after_s=error.retry_after_s or 0.0,
    )


def nowhere() -> Outcome:
    """Return what comes of asking where there is nobody to ask."""
    return Outcome(
        kind="config_no_url",
        answer=phases.Answer.SILENT,
        problem="there is no control URL",
        hint="toft join URL TOKEN",
    )


def best(found: Sequence[Outcome]) -> Outcome:
    """Return what several control URLs are worth together: as much as the best of them."""
    return min(found, key=lambda each: _WORTH.index(each.answer), default=nowhere())
