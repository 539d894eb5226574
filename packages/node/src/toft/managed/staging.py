"""What a document must pass before it is committed, in order, and what becomes of one that does not.

Nothing is written for a document that is what runs or that is held back; one that is wrong is remembered as
such.
"""

from __future__ import annotations

from dataclasses import dataclass

from packaging.version import Version

from toft.kernel import clock as clocks
from toft.kernel import schemas
from toft.kernel.errors import ConflictError, UnavailableError
from toft.kernel.version import VERSION
from toft.managed import document, generations, moments, phases
from toft.managed.document import Document, DocumentError
from toft.managed.phases import Severity


@dataclass(frozen=True)
class Staged:
    """What became of an offer.

    Attributes:
        action: `applied`, `noop_same_etag` or `skipped_bad_etag`.
        etag: Of what was offered.
        slot: Where it lies now; empty when nothing was committed.
        held_back: Why it was skipped.
    """

    action: str
    etag: str
    slot: str = ""
    held_back: phases.Bad | None = None


def check(offered: Document, moment: moments.Moment) -> None:
    """Refuse what this node cannot be, with everything that is wrong.

    Raises:
        DocumentError: It asks for what nobody serves here, for a newer toft, or its time is over.
        UnavailableError: Its time is still to come.
    """
    problems = offered.not_served()
    wanted = offered.value.get("min_agent_version")
    if wanted is not None and not _is_new_enough(wanted):
        problems.append(schemas.Problem(("min_agent_version",), f"is {wanted}, and this is {VERSION}", "age"))
    end = offered.value.get("expires_at")
    if end is not None and moment.wall_s >= clocks.from_rfc3339(end):
        problems.append(schemas.Problem(("expires_at",), f"is {end}, and that is over", "time"))
    settle_s = offered.value.get("health", {}).get("settle_s", 0)
    window_s = phases.window_s(float(offered.poll_interval_s))
    if settle_s >= window_s:
        why = f"is {settle_s}, and a trial ends after {window_s:g} s: three times control.poll_interval_s"
        problems.append(schemas.Problem(("health", "settle_s"), why, "time"))
    document.refuse(problems, "the document")
    start = offered.value.get("not_before")
    if start is not None and moment.wall_s < clocks.from_rfc3339(start):
        raise UnavailableError(
            f"the document is for {start} and later",
            code="document.too_early",
            details={"not_before": start},
            hint="apply it again then",
        )


def stage(
    engine: generations.Generations,
    offered: Document,
    *,
    nonce: str,
    source: str,
    attempt: int = 0,
    is_asked: bool = False,
) -> Staged:
    """Check a document and commit it; blocks for some fsyncs.

    Args:
        engine: Of the node.
        offered: What is to be run.
        nonce: The boot, or the command, that does this; it can never confirm it.
        source: Where the document is from.
        attempt: The sender's count of its own tries.
        is_asked: A person asks for exactly this document now; what is known against it does not count.

    Raises:
        DocumentError: It is not for this node, which is remembered.
        ConflictError: Another one is on trial, or nothing new is taken (`generation.pinned`).
        UnavailableError: The disk did not take it (`generation.apply_io_error`), or it is too early.
    """
    moment = moments.read()
    standing = engine.read()
    active = standing.slots[standing.active].meta.etag if standing.active else ""
    etag = offered.etag
    if etag == active:
        return Staged("noop_same_etag", etag)
    if standing.state.pinned and not is_asked:
        raise ConflictError(
            f"nothing new is taken: {standing.state.pinned}",
            code="generation.pinned",
            details={"reason": standing.state.pinned},
            hint="toft config unpin",
        )
    bad = phases.held_back(standing.state, etag, attempt=attempt, now=moment)
    if bad is not None and not is_asked:
        return Staged("skipped_bad_etag", etag, held_back=bad)
    try:
        check(offered, moment)
    except DocumentError as error:
        if not is_asked:
            _remember(engine, offered, moment, attempt, str(error))
        raise
    made = generations.offer(
        offered.data,
        revision=offered.revision,
        attempt=attempt,
        poll_interval_s=float(offered.poll_interval_s),
        source=source,
        fetched_at=moment.wall_s,
        floor=int(offered.value.get("revision_floor", 0)),
    )
    try:
        slot = engine.commit(made, nonce)
    except OSError as error:
        raise UnavailableError(
            f"the disk did not take the document: {error}",
            code="generation.apply_io_error",
            details={"errno": error.errno},
            hint="toft doctor looks at the disk; the document that runs is untouched",
        ) from error
    return Staged("applied", etag, slot)


def _remember(
    engine: generations.Generations, offered: Document, moment: moments.Moment, attempt: int, why: str
) -> None:
    engine.record(
        lambda state: phases.condemned(
            state,
            offered.etag,
            reason="validation_failed",
            severity=Severity.PERMANENT,
            now=moment,
            attempt=attempt,
            detail=why,
            revision=offered.revision,
        )
    )


def _is_new_enough(wanted: str) -> bool:
    try:
        return Version(VERSION) >= Version(wanted)
    except ValueError:
        return False
