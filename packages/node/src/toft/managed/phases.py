"""What the journal remembers, and every change of it: which generation is on trial, proven, condemned.

    idle --commit--> staged --confirm--> idle
                     staged --revert---> reverting --> idle, with the document condemned
    idle --reset---> resetting --> idle

Nothing here reads a clock or a file: a moment comes in, a new state goes out.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from toft.managed.moments import Moment

MOST_BOOTS = 5
"""Starts within one trial; one more reverts at once, because something ends the process each time."""
MOST_ORPHANS = 3
MOST_BAD = 16
MOST_HISTORY = 20
MOST_SUSPICIONS = 3
DETAIL_BYTES = 2048
SHORTEST_WINDOW_S = 120.0
OPERATOR = "operator"
"""The reason of a way back that somebody asked for; nothing new is taken until they unpin."""


class Phase(enum.StrEnum):
    """Where a node is between two documents."""

    IDLE = "idle"
    STAGED = "staged"
    REVERTING = "reverting"
    RESETTING = "resetting"


class Severity(enum.StrEnum):
    """Whether a condemned document may be tried again by itself."""

    PERMANENT = "permanent"
    SUSPECT = "suspect"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A generation that has not proven itself.

    Attributes:
        etag: Its document.
        slot: Where it lies.
        prev: The slot to go back to.
        by_nonce: The boot, or command, that staged it, and that may never confirm it.
        boots: Starts so far that no orderly end came before.
        window_s: Seconds it was given.
        left_s: Seconds it had left at `since`.
        extended_s: Seconds it was given more because nobody could be asked.
        attempt: Which attempt of the sender this is.
        earlier: What was known against this document before.
        baseline: What its gates showed before it came, by name.
    """

    etag: str
    slot: str
    prev: str
    by_nonce: str
    window_s: float
    left_s: float
    since: Moment
    revision: int | None = None
    boots: int = 0
    extended_s: float = 0.0
    attempt: int = 0
    earlier: Bad | None = None
    baseline: Mapping[str, str] = field(default_factory=dict)

    def remaining_s(self, now: Moment) -> float:
        """Return the seconds it still has."""
        return self.left_s - now.since(self.since, most=self.left_s)


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A document that is held back.

    Attributes:
        etag: Its name.
        reason: Why, as one word.
        severity: A suspect one is tried again after `wait_s`; a permanent one when the sender counts
            `attempt` up.
        attempts: How often it was condemned.
        attempt: The attempt of the sender that was condemned.
        since: When.
    """

    etag: str
    reason: str
    severity: Severity
    since: Moment
    attempts: int = 1
    attempt: int = 0
    wait_s: float = 0.0
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Undo:
    """The way back, decided and perhaps not yet gone."""

    etag: str
    slot: str
    prev: str
    reason: str
    severity: Severity | None
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Reset:
    """Joining (with the hash of the seed) or leaving (without), decided and perhaps not yet done."""

    seed_sha256: str = ""


@dataclass(frozen=True, kw_only=True)
class Booted:
    """What the process that runs now has loaded.

    Attributes:
        damaged: The plugins of it whose code is not what was installed.
    """

    nonce: str
    slot: str
    etag: str
    damaged: tuple[str, ...] = ()
    events: int = 0
    """How much its start has added to the history."""

    def is_of(self, nonce: str, slot: str, etag: str) -> bool:
        """Say whether this is that boot, whatever was found of its code."""
        return (self.nonce, self.slot, self.etag) == (nonce, slot, etag)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a document."""

    etag: str
    event: str
    at: float
    reason: str = ""
    severity: str = ""
    detail: str = ""
    revision: int | None = None


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything the journal remembers.

    Attributes:
        ok: The document that was confirmed last; empty before the first.
        former: The one that was proven before it; empty for the base.
        bad: Documents that are held back, the latest last.
        rolled_back: The last way back from something that had run.
        orphans: How often a commit of a document was cut off before it counted.
        pinned: Nothing new is taken until somebody unpins; says why.
        floor: The lowest revision that may be applied.
        is_proven: Some document was confirmed since the node joined; the token of the join is not needed.
        stopped: The last process ended in order.
        is_unseen: Nobody has taken note yet of the last way back.
        rollbacks: How often a way was gone back for which reason, since the node joined.
    """

    phase: Phase = Phase.IDLE
    trial: Trial | None = None
    undo: Undo | None = None
    reset: Reset | None = None
    booted: Booted | None = None
    ok: str = ""
    former: str = ""
    bad: tuple[Bad, ...] = ()
    rolled_back: Event | None = None
    history: tuple[Event, ...] = ()
    orphans: Mapping[str, int] = field(default_factory=dict)
    pinned: str = ""
    floor: int = 0
    is_proven: bool = False
    stopped: bool = False
    is_unseen: bool = False
    rollbacks: Mapping[str, int] = field(default_factory=dict)


class Answer(enum.StrEnum):
    """What a control URL said to the credential of this node."""

    GOOD = "good"
    REFUSED = "refused"
    BUSY = "busy"
    SILENT = "silent"


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What is known when a trial has run out of time.

    Attributes:
        new: What the control URL of the document on trial says; None when it has none.
        old: What the one of the generation before says; None when it had none.
        red_gate: A gate that was green before and is not now; empty for none.
        retry_after_s: How long a busy one asked to be left alone.
        offline_grace_s: How long a trial may last while nobody answers.
    """

    new: Answer | None
    old: Answer | None
    red_gate: str = ""
    retry_after_s: float = 0.0
    offline_grace_s: float = 86_400.0


@dataclass(frozen=True)
class Verdict:
    """What becomes of a trial: so many seconds more, or the way back for a reason."""

    hold_s: float = 0.0
    reason: str = ""
    severity: Severity = Severity.PERMANENT


def at_deadline(trial: Trial, found: Findings) -> Verdict:
    """Decide over a trial that has run out of time: is the document at fault, or is it the network?

    Only what answers to the old configuration and not to the new one condemns the new one for good.
    """
    if found.red_gate:
        return Verdict(reason="health_failed")
    if found.new is Answer.REFUSED and found.old is not Answer.REFUSED:
        return Verdict(reason="auth_failed")
    if found.new is Answer.BUSY and trial.extended_s < trial.window_s:
        rest = trial.window_s - trial.extended_s
        return Verdict(hold_s=min(max(found.retry_after_s, 1.0), rest))
    if found.old is Answer.GOOD and found.new is Answer.SILENT:
        return Verdict(reason="probation_expired")
    is_outage = found.new in (Answer.SILENT, Answer.REFUSED) and found.old is not Answer.GOOD
    rest = found.offline_grace_s - trial.extended_s
    if is_outage and rest > 0:
        return Verdict(hold_s=min(trial.window_s, rest))
    return Verdict(reason="probation_expired", severity=Severity.SUSPECT)


def window_s(poll_interval_s: float) -> float:
    """Return how long a generation has to prove itself, from the interval that it sets itself."""
    return max(3.0 * poll_interval_s, SHORTEST_WINDOW_S)


def find_bad(state: State, etag: str) -> Bad | None:
    """Return what is known against a document."""
    return next((each for each in state.bad if each.etag == etag), None)


def held_back(state: State, etag: str, *, attempt: int, now: Moment) -> Bad | None:
    """Return why a document is not tried now; None when it may be."""
    bad = find_bad(state, etag)
    if bad is None or attempt > bad.attempt:
        return None
    if bad.severity is Severity.SUSPECT and now.since(bad.since, most=bad.wait_s) >= bad.wait_s:
        return None
    return bad


def staged(state: State, trial: Trial, now: Moment) -> State:
    """Return the state in which a committed generation waits for its first boot."""
    trial = replace(trial, earlier=find_bad(state, trial.etag))
    return _noted(
        replace(
            state,
            phase=Phase.STAGED,
            trial=trial,
            # What runs is never among what is held back; the trial remembers it.
            bad=forgiven(state, trial.etag).bad,
            stopped=False,
        ),
        Event(etag=trial.etag, event="staged", at=now.wall_s, revision=trial.revision),
    )


def counted(state: State, now: Moment) -> State:
    """Return the state after one more start within the trial; an orderly end before it makes it not count.

    The time of a trial begins with its first start: before that nothing of the document has run.
    """
    if state.trial is None:
        return state
    boots = state.trial.boots + (0 if state.stopped and state.trial.boots else 1)
    left_s = state.trial.remaining_s(now) if state.trial.boots else state.trial.left_s
    return replace(state, trial=replace(state.trial, boots=boots, left_s=left_s, since=now))


def overdue(state: State, now: Moment) -> tuple[str, Severity] | None:
    """Return why the trial is over at a start, before anything of it runs."""
    if state.trial is None:
        return None
    if state.trial.boots > MOST_BOOTS:
        return "crash_loop", Severity.PERMANENT
    if state.trial.remaining_s(now) <= 0:
        return "probation_expired", Severity.SUSPECT
    return None


def extended(state: State, seconds: float, now: Moment) -> State:
    """Return the state in which the trial has more time, because nobody could be asked."""
    if state.trial is None:
        return state
    trial = lengthened(state.trial, seconds, now)
    return _noted(replace(state, trial=trial), _event(trial, "held", now))


def lengthened(trial: Trial, seconds: float, now: Moment) -> Trial:
    """Return a trial with more time."""
    left = trial.remaining_s(now) + seconds
    return replace(trial, left_s=left, since=now, extended_s=trial.extended_s + seconds)


def confirmed(state: State, now: Moment, *, floor: int = 0) -> State:
    """Return the state in which the generation on trial is the one to go back to."""
    trial = state.trial
    if trial is None:
        return state
    orphans = {etag: count for etag, count in state.orphans.items() if etag != trial.etag}
    done = replace(
        state,
        phase=Phase.IDLE,
        trial=None,
        ok=trial.etag,
        former=state.ok,
        is_proven=True,
        # What was proven after it is what somebody has done about it.
        is_unseen=False,
        orphans=orphans,
        floor=max(state.floor, floor),
    )
    return _noted(done, _event(trial, "applied", now))


def orphaned(state: State, now: Moment) -> State:
    """Return the state after a commit that never counted; the third time the document is to blame."""
    trial = state.trial
    if trial is None:
        return state
    count = state.orphans.get(trial.etag, 0) + 1
    orphans = {**state.orphans, trial.etag: count}
    done = replace(state, phase=Phase.IDLE, trial=None, orphans=orphans)
    if trial.earlier is not None:
        done = replace(done, bad=_with(done.bad, trial.earlier))
    done = _noted(done, _event(trial, "orphaned", now))
    if count < MOST_ORPHANS:
        return done
    return condemned(
        done,
        trial.etag,
        reason="apply_io_error",
        severity=Severity.PERMANENT,
        now=now,
        attempt=trial.attempt,
        detail=f"its commit was cut off {count} times",
    )


def condemned(
    state: State,
    etag: str,
    *,
    reason: str,
    severity: Severity,
    now: Moment,
    attempt: int = 0,
    detail: str = "",
    revision: int | None = None,
    window: float = SHORTEST_WINDOW_S,
) -> State:
    """Return the state in which a document that never ran is held back."""
    bad = _judged(find_bad(state, etag), etag, reason, severity, now, attempt, detail, window)
    event = Event(
        etag=etag,
        event="rejected",
        at=now.wall_s,
        reason=reason,
        severity=bad.severity,
        detail=bad.detail,
        revision=revision,
    )
    return _noted(replace(state, bad=_with(state.bad, bad)), event)


def reverting(state: State, undo: Undo) -> State:
    """Return the state in which the way back is decided; from here on every start goes it to its end."""
    return replace(state, phase=Phase.REVERTING, undo=undo)


def reverted(state: State, now: Moment) -> State:
    """Return the state after the way back, with what it was for."""
    undo, trial = state.undo, state.trial
    if undo is None:
        return replace(state, phase=Phase.IDLE)
    event = Event(
        etag=undo.etag,
        event="rolled_back",
        at=now.wall_s,
        reason=undo.reason,
        severity=undo.severity or "",
        detail=cut(undo.detail),
        revision=trial.revision if trial else None,
    )
    done = _gone_back(replace(state, phase=Phase.IDLE, trial=None, undo=None), event)
    if undo.reason == OPERATOR:
        done = replace(done, pinned=undo.detail or OPERATOR, is_unseen=False)
    if undo.severity is not None:
        bad = _judged(
            trial.earlier if trial else None,
            undo.etag,
            undo.reason,
            undo.severity,
            now,
            trial.attempt if trial else 0,
            undo.detail,
            trial.window_s if trial else SHORTEST_WINDOW_S,
        )
        done = replace(done, bad=_with(done.bad, bad))
    return _noted(done, event)


def stranded(state: State, etag: str, reason: str, now: Moment) -> State:
    """Return the state of a failed generation with nothing to go back to: it runs on, visibly."""
    trial = state.trial
    event = Event(
        etag=etag,
        event="stranded",
        at=now.wall_s,
        reason=reason,
        detail="there is no other generation to go back to",
        revision=trial.revision if trial else None,
    )
    return _noted(_gone_back(replace(state, phase=Phase.IDLE, trial=None, undo=None), event), event)


def let_go(state: State, now: Moment) -> State:
    """Return the state in which the disk, not the document, ended a trial: nobody is condemned for that."""
    trial = state.trial
    if trial is None:
        return state
    event = replace(_event(trial, "rolled_back", now), reason="slot_corrupt")
    done = _gone_back(replace(state, phase=Phase.IDLE, trial=None), event)
    if trial.earlier is not None:
        done = replace(done, bad=_with(done.bad, trial.earlier))
    return _noted(done, event)


def corrupted(state: State, revision: int | None, now: Moment, *, ok: str) -> State:
    """Return the state after the way back from what was proven and then damaged; nobody is condemned.

    Args:
        state: The one before.
        revision: Of what was damaged, when that can still be read.
        now: The moment.
        ok: What counts instead.
    """
    if state.ok == ok:
        return state
    event = Event(etag=state.ok, event="rolled_back", at=now.wall_s, reason="slot_corrupt", revision=revision)
    return _noted(replace(state, rolled_back=event, ok=ok), event)


def forgiven(state: State, etag: str) -> State:
    """Return the state in which a document is no longer held back."""
    return replace(state, bad=tuple(each for each in state.bad if each.etag != etag))


def stopped(state: State) -> State:
    """Return the state after an orderly end of the process; its next start is not one after a crash."""
    return replace(state, stopped=True)


def pinned(state: State, why: str) -> State:
    """Return the state in which nothing new is taken; an empty reason lets it in again."""
    return replace(state, pinned=cut(why), is_unseen=state.is_unseen and bool(why))


def acknowledged(state: State) -> State:
    """Return the state in which somebody has taken note of the last way back."""
    return replace(state, is_unseen=False)


def doubted(state: State, now: Moment) -> State:
    """Return what an older state than the last is worth: its trial may have ended well, and begins again."""
    if state.trial is None:
        return state
    fresh = replace(state.trial, boots=0, left_s=state.trial.window_s, since=now, extended_s=0.0)
    return replace(state, trial=fresh, stopped=False)


def cut(text: str) -> str:
    """Return the beginning of a text, short enough to be kept."""
    return text.encode("utf-8", "replace")[:DETAIL_BYTES].decode("utf-8", "ignore")


def _judged(
    earlier: Bad | None,
    etag: str,
    reason: str,
    severity: Severity,
    now: Moment,
    attempt: int,
    detail: str,
    window: float,
) -> Bad:
    """Return the verdict: the third suspicion, after waits of one, two and four windows, is the last."""
    attempts = 1 if earlier is None or attempt > earlier.attempt else earlier.attempts + 1
    if severity is Severity.SUSPECT and attempts > MOST_SUSPICIONS:
        severity = Severity.PERMANENT
    wait_s = window * 2 ** (attempts - 1) if severity is Severity.SUSPECT else 0.0
    return Bad(
        etag=etag,
        reason=reason,
        severity=severity,
        since=now,
        attempts=attempts,
        attempt=attempt,
        wait_s=wait_s,
        detail=cut(detail),
    )


def _with(bad: tuple[Bad, ...], new: Bad) -> tuple[Bad, ...]:
    return (*(each for each in bad if each.etag != new.etag), new)[-MOST_BAD:]


def _event(trial: Trial, event: str, now: Moment) -> Event:
    return Event(etag=trial.etag, event=event, at=now.wall_s, revision=trial.revision)


def _gone_back(state: State, event: Event) -> State:
    count = state.rollbacks.get(event.reason, 0) + 1
    rollbacks = {**state.rollbacks, event.reason: count}
    return replace(state, rolled_back=event, is_unseen=True, rollbacks=rollbacks)


def _noted(state: State, event: Event) -> State:
    return replace(state, history=(*state.history, event)[-MOST_HISTORY:])
