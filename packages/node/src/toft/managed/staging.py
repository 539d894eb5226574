"""What a document must pass before it is committed, in order, and what becomes of one that does not.

Nothing is written for a document that is what runs or that is held back; one that is wrong is remembered as
such. What cannot be had only now (a server that is down, a full disk) is held against nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from toft.kernel import log, schemas, threads
from toft.kernel.errors import ConflictError, UnavailableError
from toft.managed import admission, document, gates, generations, moments, phases
from toft.managed.admission import AdmissionError
from toft.managed.document import Document, DocumentError
from toft.managed.install_errors import InstallError
from toft.managed.phases import Severity
from toft.managed.trees import Artifact

_log = log.get_logger("managed.staging")


class Installer(Protocol):
    """Gets what a document pins, and knows what a node with it could be."""

    def installed(self, offered: Document) -> AbstractAsyncContextManager[Sequence[Artifact]]:
        """Fetch, verify and try what a document pins; keep it from being collected until the block ends.

        Yields:
            The code of each plugin that it enables, after everything else in it was checked against that.

        Raises:
            InstallError: It cannot be had, for now or for good; nothing that runs was touched.
            DocumentError: With this code the document is no configuration of this node.
        """
        ...


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


def check(offered: Document, allowed: gates.Allowed | None = None) -> None:
    """Refuse what this node cannot be, with everything that is wrong.

    Args:
        offered: What is to be run.
        allowed: What it may have looked at outside of this node; nothing, when left out.

    Raises:
        DocumentError: It asks for what nobody serves here, or could not prove itself in its time.
    """
    problems = [*offered.not_served(), *(allowed or gates.Allowed()).problems(offered)]
    window_s = phases.window_s(float(offered.poll_interval_s))
    if offered.settle_s >= window_s:
        trial = f"a trial ends after {window_s:g} s: three times control.poll_interval_s"
        why = f"is {offered.settle_s:g}, and {trial}"
        problems.append(schemas.Problem(("health", "settle_s"), why, "time"))
    document.refuse(problems, "the document", "does not fit this node")


def needs_installer(offered: Document) -> bool:
    """Say whether a document speaks of plugins: then nobody can stage it without an installer."""
    pins = offered.section("plugins").values()
    speaks = any(offered.section(name) for name in ("instances", "schedules"))
    return speaks or any(each.get("enabled", True) for each in pins)


async def stage(
    engine: generations.Generations,
    offered: Document,
    *,
    nonce: str,
    source: str,
    attempt: int = 0,
    key_ids: Sequence[str] = (),
    now_s: float = 0.0,
    is_asked: bool = False,
    installer: Installer | None = None,
    gated: gates.Gated | None = None,
) -> Staged:
    """Check a document, get what it pins, and commit it.

    Args:
        engine: Of the node.
        offered: What is to be run.
        nonce: The boot, or the command, that does this; it can never confirm it.
        source: Where the document is from.
        attempt: The sender's count of its own tries.
        key_ids: Whose signatures on its bytes `admission.vouch` has found good; where the node has a trust
            root, too few of them are refused here whoever asks.
        now_s: The time as whoever sent it believes; the later one of that and the machine's own counts.
        is_asked: A person asks for exactly this document now; what is known against it does not count.
        installer: Gets the plugins; for documents that speak of none it may be missing.
        gated: Looks at its gates before it is committed, and knows what they may look at; nothing outside of
            this node, when left out.

    Raises:
        AdmissionError: Nobody vouches for it, or it is not for this node, or not now; remembered.
        DocumentError: It is no configuration of this node, which is remembered.
        InstallError: What it pins cannot be had; remembered unless that may change by itself.
        ConflictError: Another one is on trial, or nothing new is taken (`generation.pinned`).
        UnavailableError: The disk did not take it (`generation.apply_io_error`), it is too early, or nobody
            can install yet (`generation.apply_engine_not_ready`).

    Cancellation: Safe; either nothing is committed or all of it.
    """
    moment = await asyncio.to_thread(moments.read)
    held_back = await asyncio.to_thread(_held_back, engine, offered, moment, attempt, is_asked)
    if held_back is not None:
        return held_back
    try:
        await asyncio.to_thread(_admit, engine, offered, key_ids, now_s, is_asked)
        check(offered, gated.allowed if gated else None)
        # The commit looks again; before, nothing large is fetched for what cannot be committed.
        standing = await asyncio.to_thread(engine.read)
        generations.refuse_on_trial(standing.state, standing.active)
        floor = await asyncio.to_thread(_floor, engine, offered, key_ids)
        async with _installed(offered, installer) as artifacts:
            made = generations.offer(
                offered.data,
                # As late as can be: what was green before is what it is measured by.
                baseline=await gated.baseline(offered) if gated else None,
                revision=offered.revision,
                attempt=attempt,
                poll_interval_s=float(offered.poll_interval_s),
                source=source,
                fetched_at=moment.wall_s,
                artifacts=tuple(each.to_dict() for each in artifacts),
                key_ids=tuple(key_ids),
                floor=floor,
            )
            slot = await threads.finished(lambda: _commit(engine, made, nonce, is_live=not is_asked))
    except (AdmissionError, DocumentError, InstallError) as error:
        if not is_asked:
            await _hold_against(engine, offered, attempt, error)
        raise
    told = {"etag": offered.etag, "revision": offered.revision, "source": source}
    _log.info("config.staged", **told)
    return Staged("applied", offered.etag, slot)


def _held_back(
    engine: generations.Generations,
    offered: Document,
    moment: moments.Moment,
    attempt: int,
    is_asked: bool,
) -> Staged | None:
    """Return why there is nothing to do, before anything is fetched for it."""
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
    return None


def _admit(
    engine: generations.Generations,
    offered: Document,
    key_ids: Sequence[str],
    now_s: float,
    is_asked: bool,
) -> None:
    node = admission.Node.of_membership(engine.belonging.membership(), floor=engine.read().state.floor)
    latest_s = max(now_s, moments.read().wall_s)
    admission.fit(offered, key_ids, node=node, now_s=latest_s, sent_s=now_s or None, is_asked=is_asked)


def _floor(engine: generations.Generations, offered: Document, key_ids: Sequence[str]) -> int:
    standing = engine.read()
    active = standing.slots[standing.active].meta.revision if standing.active else None
    return admission.floor(offered, revision=active, is_signed=bool(key_ids))


@contextlib.asynccontextmanager
async def _installed(offered: Document, installer: Installer | None) -> AsyncGenerator[Sequence[Artifact]]:
    if not needs_installer(offered):
        yield ()
    elif installer is None:
        raise UnavailableError(
            "the node is not far enough yet to install what the document pins",
            code="generation.apply_engine_not_ready",
            hint="apply it again in a moment",
        )
    else:
        async with installer.installed(offered) as artifacts:
            yield artifacts


def _commit(engine: generations.Generations, made: generations.Offer, nonce: str, *, is_live: bool) -> str:
    try:
        return engine.commit(made, nonce, is_live=is_live)
    except OSError as error:
        raise UnavailableError(
            f"the disk did not take the document: {error}",
            code="generation.apply_io_error",
            details={"errno": error.errno},
            hint="toft doctor looks at the disk; the document that runs is untouched",
        ) from error


async def _hold_against(
    engine: generations.Generations,
    offered: Document,
    attempt: int,
    error: AdmissionError | DocumentError | InstallError,
) -> None:
    """Remember why a document was refused, unless that may change by itself."""
    reason, severity = "validation_failed", Severity.PERMANENT
    if isinstance(error, AdmissionError):
        reason, severity = error.reason, error.severity
    elif isinstance(error, InstallError):
        if error.is_transient:
            return
        reason = error.kind
    await remember(
        engine,
        offered.etag,
        reason,
        str(error),
        attempt=attempt,
        revision=offered.revision,
        severity=severity,
    )


async def remember(
    engine: generations.Generations,
    etag: str,
    reason: str,
    why: str,
    *,
    attempt: int = 0,
    revision: int | None = None,
    severity: Severity = Severity.PERMANENT,
) -> None:
    """Hold a document back that is refused; once for each attempt of the sender.

    Args:
        engine: Of the node.
        etag: Its name.
        reason: Why, as one word.
        why: The same for a person.
        attempt: The sender's count of its own tries.
        revision: What the sender says its number is.
        severity: Whether it may be tried again by itself.
    """
    moment = await asyncio.to_thread(moments.read)

    def change(state: phases.State) -> phases.State:
        if phases.held_back(state, etag, attempt=attempt, now=moment) is not None:
            return state
        _log.warning("config.refused", etag=etag, revision=revision, reason=reason, why=why)
        return phases.condemned(
            state,
            etag,
            reason=reason,
            severity=severity,
            now=moment,
            attempt=attempt,
            detail=why,
            revision=revision,
        )

    await threads.finished(lambda: engine.record(change))
