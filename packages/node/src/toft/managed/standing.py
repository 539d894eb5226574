"""How a node stands: its document, the trial of that, who tells it what to be.

Read from the files alone, so that it works while no daemon does; what only a daemon knows is added by one
(`with_live`). Nothing that lies in the files makes it fail: what cannot be read is told as a problem.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toft.kernel import clock as clocks
from toft.managed import belonging, document, gates, generations, moments, phases, slots
from toft.managed.moments import Moment

MOST_FAILURES = 3
"""Polls that fail in a row before a node is said to be degraded: one lost answer is nothing."""


class Word(enum.StrEnum):
    """How a node stands, in one word; its exit status beside it in `CODES`."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    NOT_ENROLLED = "not_enrolled"
    ROLLED_BACK = "rolled_back"


CODES: Mapping[str, int] = {
    Word.HEALTHY: 0,
    Word.DEGRADED: 1,
    Word.NOT_ENROLLED: 3,
    Word.ROLLED_BACK: 4,
}
_WAITING = "pending_approval"
_JOIN_ANEW = "toft join URL TOKEN with a new token, or: toft leave"
_THROWN_OUT: Mapping[str | None, tuple[str, str, str]] = {
    "revoked": ("config_revoked", "the central has revoked this node", _JOIN_ANEW),
    "refused": ("config_refused", "the central does not take the credential of this node", _JOIN_ANEW),
    "withheld": (
        "config_withheld",
        "the document names control URLs of another place, which this node does not show its credential",
        "toft config rollback, or a document with the control URLs of its own central",
    ),
}


def describe(home: Path) -> dict[str, Any]:
    """Return everything that the files of a home say; blocks, writes nothing, raises for nothing in them."""
    engine = generations.Generations(home / "managed", moments.read)
    now = moments.read()
    try:
        found = _of_files(engine.read(), now)
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        found = _of_files(
            generations.Standing(phases.State(), None, {}, (f"cannot be read: {error!r}",)), now
        )
    return _judged({**found, **_membership(engine, found["problems"])})


def is_managed(found: Mapping[str, Any]) -> bool:
    """Say whether there is anything to tell: a document, a central, or something that is wrong."""
    return bool(
        found["active"] or found["history"] or found["enrolled"] or found["joining"] or found["problems"]
    )


def with_live(found: Mapping[str, Any], live: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the files say with what a daemon knows: gates, polls, what it runs really."""
    return _judged({**found, **live})


def _of_files(standing: generations.Standing, now: Moment) -> dict[str, Any]:
    state = standing.state
    active = standing.slots.get(standing.active or "")
    meta = active.meta if active else slots.Meta(etag="", sha256="")
    problems = [*standing.problems, *([active.problem] if active and active.problem else ())]
    trial = None
    if state.trial is not None:
        trial = _plain(state.trial, "since", "earlier", "left_s")
        # Its time begins with its first start.
        trial["remaining_s"] = state.trial.remaining_s(now) if state.trial.boots else state.trial.left_s
    return {
        "active": meta.etag or None,
        "slot": standing.active,
        "source": meta.source or None,
        "revision": meta.revision,
        "fetched_at": clocks.rfc3339(meta.fetched_at) if meta.fetched_at else None,
        "phase": str(state.phase),
        "confirmed": state.ok or None,
        "pinned": state.pinned or None,
        "trial": trial,
        "boots_in_probation": state.trial.boots if state.trial else None,
        "deadline_remaining_s": trial["remaining_s"] if trial else None,
        "rolled_back": _dated(state.rolled_back) if state.rolled_back else None,
        "acknowledged": not state.is_unseen,
        "rollbacks": dict(state.rollbacks),
        "bad": [_plain(each, "since") for each in state.bad],
        "history": [_dated(each) for each in state.history],
        "artifacts": [dict(each) for each in meta.artifacts],
        "signature": {"key_ids": list(meta.key_ids), "verified": bool(meta.key_ids)},
        "gates": _gates(active, state.trial),
        "overrides": [],
        "last_poll": None,
        "next_poll_in_s": None,
        "consecutive_failures": None,
        "clock_skew_s": None,
        "polls": {},
        "telemetry": None,
        "apply_s": _apply_s(state),
        "central": None,
        "problems": problems,
    }


def _apply_s(state: phases.State) -> float | None:
    """Return how long what runs took from its commit to its proof; None before the first proof."""
    began: dict[str, float] = {}
    found = None
    for each in state.history:
        if each.event == "staged":
            began[each.etag] = each.at
        elif each.event == "applied" and each.etag in began:
            found = max(0.0, each.at - began[each.etag])
    return found


def _gates(active: slots.Slot | None, trial: phases.Trial | None) -> list[dict[str, Any]]:
    """Return the gates of a document that nobody looks at now."""
    if active is None or active.problem or not active.document:
        return []
    try:
        declared = gates.declared(document.parse(active.document))
    except document.DocumentError:
        return []
    unseen = gates.Reading(gates.Light.PENDING, "no daemon looks at it")
    return [gates.told(each, unseen, trial.baseline if trial else {}) for each in declared]


def _membership(engine: generations.Generations, problems: list[str]) -> dict[str, Any]:
    enrolled, seed = engine.belonging.enrollment(), engine.belonging.seed()
    for name, found in ((belonging.ENROLLMENT, enrolled), (belonging.SEED, seed)):
        if found is None and (engine.directory / name).exists():
            problems.append(f"{name} is damaged: toft join brings it back")
    node_id = (enrolled or {}).get("node_id")
    known = enrolled or seed or {}
    urls = known.get("control_urls") or known.get("urls")
    url = urls[0] if isinstance(urls, list) and urls and isinstance(urls[0], str) else None
    return {
        "enrolled": enrolled is not None,
        "joining": enrolled is None and seed is not None,
        "node_id": node_id if isinstance(node_id, str) else None,
        "control_url": url,
        "problems": problems,
    }


def _judged(found: dict[str, Any]) -> dict[str, Any]:
    failures = found["consecutive_failures"] or 0
    is_degraded = (
        bool(found["problems"])
        or failures >= MOST_FAILURES
        or found["central"] in _THROWN_OUT
        or any(each["counts"] and each["state"] == gates.Light.RED for each in found["gates"])
    )
    word = Word.HEALTHY
    if found["rolled_back"] and not found["acknowledged"]:
        word = Word.ROLLED_BACK
    elif found["joining"] or found["central"] == _WAITING:
        word = Word.NOT_ENROLLED
    elif is_degraded:
        word = Word.DEGRADED
    code = CODES[word]
    return {**found, "standing": str(word), "exit_code": code, "diagnostics": _diagnostics(found, word)}


def _diagnostics(found: Mapping[str, Any], word: Word) -> list[dict[str, str]]:
    """Return what somebody should look at, each with what to do about it."""
    told = [
        {"code": "config_unreadable", "message": each, "hint": "toft doctor"} for each in found["problems"]
    ]
    if word is Word.ROLLED_BACK:
        back = found["rolled_back"]
        told.append(
            {
                "code": "config_rolled_back",
                "message": f"{back['etag']} went back: {back['reason']}",
                "hint": "toft config history shows why; mend the document, or: toft config ack",
            }
        )
    if found["central"] == _WAITING:
        told.append(
            {
                "code": "config_pending",
                "message": "the central has not let this node in yet",
                "hint": f"there: toft central node approve {found['node_id'] or 'NODE'}",
            }
        )
    if found["central"] in _THROWN_OUT:
        code, message, hint = _THROWN_OUT[found["central"]]
        told.append({"code": code, "message": f"{message}; it runs on with what it has", "hint": hint})
    return told


def _plain(value: Any, *without: str) -> dict[str, Any]:
    return {
        name: str(each) if isinstance(each, enum.Enum) else each
        for name, each in dataclasses.asdict(value).items()
        if name not in without
    }


def _dated(event: phases.Event) -> dict[str, Any]:
    return {**_plain(event), "at": _moment(event.at)}


def _moment(seconds: float) -> str:
    try:
        return clocks.rfc3339(seconds)
    except (ValueError, OverflowError, OSError):
        # Written by a machine whose clock was nowhere.
        return clocks.rfc3339(0.0)
