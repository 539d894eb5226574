"""What a node says about what it was offered: how far it is, and whether it follows at all. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from toft.central.nodes import Node
from toft.central.rollouts import Stage
from toft.managed import phases

DETAIL = 2048
_ENDS: Mapping[str, Stage] = {
    "applied": Stage.APPLIED,
    "rolled_back": Stage.ROLLED_BACK,
    "rejected": Stage.FAILED,
    "stranded": Stage.FAILED,
}
_SAID = (*_ENDS, "staged")


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that a node says has happened to a document.

    Attributes:
        at: When, by the node's clock.
        received_at: When that was heard first, by the clock here.
        is_over: Of what went wrong: a document has proven itself on the node since.
    """

    etag: str
    event: str
    at: str
    received_at: float
    reason: str = ""
    detail: str = ""
    is_over: bool = False


@dataclass(frozen=True)
class Reached:
    """How far a node is."""

    stage: Stage
    reason: str = ""
    detail: str = ""


def reached(node: Node, etag: str, since: float, events: Iterable[Event]) -> Reached:
    """Return how far a node is with a document.

    Args:
        node: As it is known now.
        etag: Of the document.
        since: When it was offered; what was heard before is about an earlier attempt.
        events: What the node said of itself, in any order.
    """
    said = [
        each for each in events if each.etag == etag and each.event in _SAID and each.received_at >= since
    ]
    # By when it was heard first: the clock of a node may have jumped back between two of them.
    last = max(said, key=lambda each: (each.received_at, each.at), default=None)
    if last is not None and last.event in _ENDS:
        return Reached(_ENDS[last.event], last.reason, last.detail)
    if (node.reported_at or 0.0) >= since:
        running = node.report.get("running") or {}
        if running.get("etag") == etag:
            is_proven = node.report.get("phase") == str(phases.Phase.IDLE)
            return Reached(Stage.APPLIED if is_proven else Stage.PROBATION)
    if runs(node) == etag:
        return Reached(Stage.PROBATION)
    if last is not None:
        return Reached(Stage.STAGED)
    return Reached(Stage.DOWNLOADED if node.offered_etag == etag else Stage.OFFERED)


class Standing(enum.StrEnum):
    """How a node stands to what it is offered."""

    CURRENT = "current"
    TRIAL = "trial"
    FOLLOWING = "following"
    LAGGING = "lagging"
    WENT_BACK = "went_back"
    SILENT = "silent"
    NEW = "new"
    PENDING = "pending"
    REVOKED = "revoked"


TOLD_S = 24 * 3600.0
"""So long a node that went back is told of after what it refused was taken from it."""
TROUBLE = (Standing.WENT_BACK, Standing.LAGGING, Standing.SILENT)


def patience_s(interval_s: float) -> float:
    """Return how long a node that asks so often may take to follow: two questions and a trial."""
    return 2 * interval_s + phases.window_s(interval_s)


def standing(node: Node, offered: str | None, patience: float, now: float, bad: Event | None) -> Standing:
    """Return how a node stands.

    Args:
        node: As it is known now.
        offered: The document that it is to run; None for nothing.
        patience: See `patience_s`.
        now: The moment.
        bad: The last thing that it says went wrong with a document.
    """
    if node.state == "revoked":
        return Standing.REVOKED
    if node.state == "pending":
        return Standing.PENDING
    if node.heard_at is None:
        return Standing.NEW
    if now - node.heard_at > patience:
        return Standing.SILENT
    if offered is None or runs(node) == offered:
        is_trial = node.report.get("phase") == str(phases.Phase.STAGED)
        if is_trial and offered is not None:
            return Standing.TRIAL
        return Standing.WENT_BACK if _is_told(node, bad, now) else Standing.CURRENT
    if bad is not None and bad.etag == offered:
        return Standing.WENT_BACK
    since = node.offered_at if node.offered_etag == offered else now
    return Standing.LAGGING if now - (since or now) > patience else Standing.FOLLOWING


def _is_told(node: Node, bad: Event | None, now: float) -> bool:
    """Say whether a node that follows went back lately: who ended a rollout still has to learn why."""
    if bad is None or bad.is_over or bad.etag == runs(node):
        return False
    return now - bad.received_at <= TOLD_S


def runs(node: Node) -> str | None:
    """Return the document that a node runs, by what was heard last: what it asked with, or its report."""
    if node.reported_at is not None and node.reported_at >= (node.last_seen_at or 0.0):
        running = node.report.get("running") or {}
        return running.get("etag") or node.asked_etag or None
    return node.asked_etag or None


def event_of(row: Mapping[str, Any], data: Mapping[str, Any]) -> Event:
    """Return what a row of a node's history tells."""
    return Event(
        etag=str(row["etag"]),
        event=str(row["event"]),
        at=str(row["happened_at"]),
        received_at=float(row["received_at"]),
        reason=str(data.get("reason") or "")[:200],
        detail=str(data.get("detail") or "")[:DETAIL],
    )
