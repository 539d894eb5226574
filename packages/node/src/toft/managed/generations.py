"""The engine: at every moment one verified document counts, and what took its place goes back as one.

Each verb is a sequence of durable steps whose order is the whole point; a stop between any two of them is
healed by the next boot. Each verb but `read` holds the lock of the directory while it lasts.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from toft.kernel.errors import ConflictError, UnavailableError
from toft.managed import belonging, journal, moments, phases, seen, slots, trees
from toft.managed.moments import Moment
from toft.managed.phases import Phase, State
from toft.store import durable

_DECIDED = (Phase.REVERTING, Phase.RESETTING)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A checked document, with what belongs to it, to be committed."""

    document: bytes
    meta: slots.Meta
    baseline: Mapping[str, str] = field(default_factory=dict)
    """What its gates show before it is committed."""


@dataclass(frozen=True, kw_only=True)
class Boot:
    """One life of the node's process: what it has loaded; the only thing that can confirm it.

    Attributes:
        nonce: Names this life.
        mode: `slot`; without one that counts `seed`, `enrollment`, or `bare` for a node nobody manages.
        slot: Which slot was loaded; empty in the other modes.
        document: What to load.
        meta: What is known of it.
        trial: It has not proven itself yet.
        damaged: The plugins of it whose code is not what was installed; none of that may run.
        notes: What was done or found at this boot, one sentence each.
        events: What it has added to the history.
    """

    nonce: str
    mode: str
    slot: str
    document: bytes
    meta: slots.Meta
    trial: phases.Trial | None = None
    damaged: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    events: tuple[phases.Event, ...] = ()

    @property
    def etag(self) -> str:
        """Return the name of what was loaded; empty for what nobody served."""
        return self.meta.etag


@dataclass(frozen=True)
class Standing:
    """What is on disk, for whoever only looks."""

    state: State
    active: str | None
    slots: Mapping[str, slots.Slot]
    problems: tuple[str, ...] = ()


class Code(Protocol):
    """Knows what code slots name; see `toft.managed.trees.Trees`."""

    def problems(self, artifacts: Iterable[Mapping[str, Any]]) -> Mapping[str, str]:
        """Return what is wrong with the code of each plugin that is not what was installed."""
        ...

    def can_be_mended(self, document: bytes) -> bool:
        """Say whether all is here that the code of a document is made of."""
        ...


@dataclass
class _Start:
    """What a boot has found so far."""

    state: State
    active: str | None
    notes: list[str] = field(default_factory=list)
    damaged: tuple[str, ...] = ()


class Generations:
    """The documents of one node, on disk.

    Args:
        directory: `managed/` of the home.
        now: Tells the moment; asked once in each verb.
        operations: The steps of a durable write.
        hold: Keeps other processes out for the length of a verb.
        code: Knows whether the code of a slot is what was installed for it.

    Attributes:
        belonging: Where the node belongs; beside the documents.
    """

    def __init__(
        self,
        directory: Path,
        now: Callable[[], Moment],
        operations: durable.Operations = durable.SYSTEM,
        *,
        hold: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext,
        code: Code | None = None,
    ) -> None:
        self.directory = directory
        self.operations = operations
        self._hold = hold
        self._code = code
        self._now = now
        self._unkept: tuple[phases.Booted, phases.Booted | None] | None = None
        """A boot that could not be written down, and the one that stands there."""
        self.belonging = belonging.Belonging(directory, operations)
        self._journal = journal.Journal(directory, operations)
        self._slots = slots.Slots(directory, operations)

    @classmethod
    def at(cls, home: Path) -> Generations:
        """Return those of a home on this machine.

        Raises:
            OSError: Its directory cannot be made.
        """
        directory = home / "managed"
        durable.make_directory(directory, 0o700)
        return cls(
            directory,
            moments.read,
            hold=lambda: belonging.hold(directory),
            code=trees.Trees(home, survey=seen.Remembered(directory / "store" / "seen", moments.read)),
        )

    def read(self) -> Standing:
        """Return what is on disk; without the lock, and without raising for what the files hold."""
        found = self._journal.read()
        looked = {name: self._slots.look(name) for name in slots.NAMES}
        return Standing(found.state, self._slots.active(), looked, found.problems)

    def boot(self, nonce: str) -> Boot:
        """Decide what this process loads, before anything of it runs; finish what a stop cut off.

        A start within a trial is counted before it can fail. Too many of them, or no time left, end the
        trial.

        Args:
            nonce: A new name for this life of the process.
        """
        try:
            with self._hold():
                return self._boot(nonce)
        except (OSError, UnavailableError) as error:
            # Neither a full disk nor a command that stands still with the lock must keep a node from what it
            # has; nothing is counted, and nothing confirmed or committed before it can be written down.
            state, active = self._journal.read().state, self._slots.active()
            looked = [self._slots.look(name) for name in (active, slots.other(active)) if name]
            slot = next((each for each in looked if not each.problem), None) if active else None
            start = _Start(state, active, [f"the journal could not be written: {error}"])
            if slot is not None:
                self._check_code(start, slot)
            name, etag = (slot.name, slot.meta.etag) if slot else ("", "")
            booted = phases.Booted(nonce=nonce, slot=name, etag=etag, damaged=start.damaged)
            self._unkept = booted, state.booted
            return self._loaded(nonce, slot, state, tuple(start.notes), start.damaged)

    def _boot(self, nonce: str) -> Boot:
        now = self._now()
        self._prepare()
        found = self._journal.read()
        start = _Start(found.state, self._slots.active(), list(found.problems))
        if found.is_older:
            start.state = phases.doubted(start.state, now)
            start.notes.append("the last journal was damaged; the one before it counts")
        self._finish(start, now)
        self._try(start, now)
        slot = self._resolve(start, now)
        state = start.state
        if slot is not None and phases.find_bad(state, slot.meta.etag) is not None:
            # Only somebody's hand can bring this about; the running one wins, the next offer may come.
            state = phases.forgiven(state, slot.meta.etag)
            start.notes.append("the active document was condemned; that is forgotten")
        booted = phases.Booted(
            nonce=nonce,
            slot=slot.name if slot else "",
            etag=slot.meta.etag if slot else "",
            damaged=start.damaged,
            events=_added(found.state.history, state.history),
        )
        state = replace(state, booted=booted, stopped=False)
        self._journal.write(state)
        if state.is_proven:
            self.belonging.forget_seed()
        return self._loaded(nonce, slot, state, tuple(start.notes), start.damaged)

    def finish(self) -> bool:
        """Do what was decided before this boot, and what the disk kept the boot from doing.

        Returns:
            Whether there was any such thing: then another process must go on with what counts now.
        """
        if self._journal.read().state.phase not in _DECIDED:
            return False
        with self._hold():
            start = _Start(self._journal.read().state, self._slots.active())
            if start.state.phase not in _DECIDED:
                return False
            self._finish(start, self._now())
            self._journal.write(start.state)
            return True

    def adopt(self, nonce: str) -> Boot | None:
        """Return what the boot of this name decided, for the process behind it; None when it is another.

        Nothing is written: the guard that started this process has counted the start.
        """
        state = self._journal.read().state
        if state.booted is None or state.booted.nonce != nonce:
            return None
        slot = self._slots.look(state.booted.slot) if state.booted.slot else None
        if slot is not None and (slot.problem or slot.meta.etag != state.booted.etag):
            return None
        return self._loaded(nonce, slot, state, (), state.booted.damaged)

    def commit(self, offer: Offer, nonce: str, *, is_live: bool = False) -> str:
        """Put a document in the place of the active one; the next boot loads it, on trial.

        Args:
            offer: The document.
            nonce: Who commits: a boot, or a command.
            is_live: Only the last boot may: what it was served before somebody joined or left is not kept.

        Returns:
            The slot it is in.

        Raises:
            ConflictError: The active one has not proven itself yet; the other slot is what one goes back to.
                Or another boot is the last one, or none since somebody has joined or left.
            OSError: The disk did not take it; the active document is untouched.
        """
        with self._hold():
            return self._commit(offer, nonce, is_live)

    def _commit(self, offer: Offer, nonce: str, is_live: bool) -> str:
        now = self._now()
        state = _late(self._journal.read().state, self._unkept)
        if is_live and (state.booted is None or state.booted.nonce != nonce):
            raise ConflictError(
                "another process is the node by now, or somebody has joined or left",
                code="membership.changed",
                hint="nothing is lost: the daemon starts again with what is there now",
            )
        prev = self._slots.active()
        if _is_cut_off(state, prev):
            state = phases.orphaned(state, now)
        refuse_on_trial(state, prev)
        if prev is None or self._slots.look(prev).problem:
            spare = self._slots.look(slots.other(prev)) if prev else None
            if spare is not None and state.ok and _is_proven(spare, state):
                # What one can go back to is not written over for the sake of what is damaged anyway.
                self._slots.point(spare.name)
                prev = spare.name
            else:
                prev = self._lay_base(prev)
        slot = slots.other(prev)
        self._slots.fill(slot, offer.document, offer.meta)
        window = phases.window_s(offer.meta.poll_interval_s)
        trial = phases.Trial(
            etag=offer.meta.etag,
            slot=slot,
            prev=prev,
            by_nonce=nonce,
            window_s=window,
            left_s=window,
            since=now,
            revision=offer.meta.revision,
            attempt=offer.meta.attempt,
            baseline=offer.baseline,
        )
        self._journal.write(phases.staged(state, trial, now))
        self._slots.point(slot)
        return slot

    def confirm(self, boot: Boot) -> bool:
        """Say that the loaded generation has proven itself; True exactly once for each.

        False for whoever staged it, for a process that loaded another one, and for one that is not the last.
        """
        with self._hold():
            return self._confirm(boot)

    def _confirm(self, boot: Boot) -> bool:
        state = _late(self._journal.read().state, self._unkept)
        trial = state.trial
        if (
            state.phase is not Phase.STAGED
            or trial is None
            or boot.nonce == trial.by_nonce
            or (boot.slot, boot.etag) != (trial.slot, trial.etag)
            or state.booted is None
            or not state.booted.is_of(boot.nonce, boot.slot, boot.etag)
            or self._slots.active() != trial.slot
        ):
            return False
        self._journal.write(phases.confirmed(state, self._now(), floor=boot.meta.floor))
        self.belonging.forget_seed()
        return True

    def revert(self, reason: str, severity: phases.Severity | None, detail: str = "") -> bool:
        """Go back to the generation before; whoever runs the active one then ends itself with status 75.

        Args:
            reason: Why, as one word.
            severity: Whether the document may be tried again by itself; None where it is not to blame.
            detail: What a person may want to know.

        Returns:
            False when there is nothing whole to go back to: then nothing moves. A trial is over all the same.
        """
        with self._hold():
            start = _Start(self._journal.read().state, self._slots.active())
            was_on_trial = start.state.trial is not None
            is_back = self._go_back(start, reason, severity, self._now(), detail)
            if is_back or was_on_trial:
                self._journal.write(start.state)
            return is_back

    def reset(self, seed: Mapping[str, Any] | None, *, only_if: Callable[[], bool] = lambda: True) -> bool:
        """Begin anew: with a seed, to join; without, to leave.

        Args:
            seed: Where to ask (`urls`), and the token for it.
            only_if: Asked under the lock.

        Returns:
            Whether it did.
        """
        with self._hold():
            if not only_if():
                return False
            self._reset(seed)
            return True

    def _reset(self, seed: Mapping[str, Any] | None) -> None:
        self._prepare()
        state = self._journal.read().state
        data = b"" if seed is None else json.dumps({"schema": 1, **seed}, sort_keys=True).encode()
        digest = hashlib.sha256(data).hexdigest() if data else ""
        self._journal.write(replace(state, phase=Phase.RESETTING, reset=phases.Reset(seed_sha256=digest)))
        if data:
            self.belonging.keep_seed(data)
        self._clear(is_joining=bool(data))
        self._journal.write(State())

    def record(self, change: Callable[[State], State]) -> State:
        """Keep a change of the journal that moves nothing else; what changes nothing writes nothing."""
        with self._hold():
            found = self._journal.read()
            state = change(found.state)
            if state != found.state or found.problems:
                self._journal.write(state)
            return state

    def trust(self, root: Mapping[str, Any] | None, *, only_if: Callable[[], None] = lambda: None) -> None:
        """Keep whom a node of nobody trusts to sign its documents; None for whoever is at the machine.

        Args:
            root: The trust root.
            only_if: Called under the lock; raises where this may not be.
        """
        with self._hold():
            only_if()
            self.belonging.keep_trust(root)

    def _prepare(self) -> None:
        """Make what is there durable before anything is decided by it, and sweep what was cut off."""
        durable.make_directory(self.directory, 0o700, operations=self.operations)
        self.operations.sync_directory(str(self.directory.parent))
        self.operations.sync_directory(str(self.directory))
        for name in self.operations.list(str(self.directory)):
            if name.startswith(".tmp-"):
                durable.discard(self.directory / name, operations=self.operations)

    def _finish(self, start: _Start, now: Moment) -> None:
        """Bring to its end what was decided and cut off."""
        state = start.state
        if state.phase is Phase.RESETTING and state.reset is not None:
            expected = state.reset.seed_sha256
            if not expected or self.belonging.seed_digest() == expected:
                self._clear(is_joining=bool(expected))
                start.state, start.active = State(), None
                start.notes.append("finished joining" if expected else "finished leaving")
            else:
                # The seed was never there: nothing has happened yet.
                back = Phase.STAGED if state.trial is not None else Phase.IDLE
                start.state = replace(state, phase=back, reset=None)
        elif state.phase is Phase.REVERTING and state.undo is not None:
            undo = state.undo
            self._go_back(start, undo.reason, undo.severity, now, undo.detail)
            start.notes.append(f"finished going back: {undo.reason}")

    def _try(self, start: _Start, now: Moment) -> None:
        """Count this start of a generation on trial, or end the trial."""
        state = start.state
        if state.phase is not Phase.STAGED or state.trial is None:
            return
        if _is_cut_off(state, start.active):
            start.state = phases.orphaned(state, now)
            start.notes.append("a commit was cut off before it counted; the document may come again")
            return
        start.state = phases.counted(state, now)
        over = phases.overdue(start.state, now)
        if over is None:
            return
        self._go_back(start, *over, now, "")
        start.notes.append(f"the trial was over: {over[0]}")

    def _go_back(
        self,
        start: _Start,
        reason: str,
        severity: phases.Severity | None,
        now: Moment,
        detail: str,
    ) -> bool:
        """Flip to the slot before, with the intent on disk first; the caller writes the last state."""
        state, trial, undo = start.state, start.state.trial, start.state.undo
        if undo is None:
            slot = trial.slot if trial else start.active or ""
            prev = trial.prev if trial else slots.other(slot)
            etag = trial.etag if trial else self._slots.look(slot).meta.etag if slot else ""
            undo = phases.Undo(
                etag=etag, slot=slot, prev=prev, reason=reason, severity=severity, detail=phases.cut(detail)
            )
        target = self._slots.look(undo.prev)
        # What was cut off on its way into a slot, or left, is whole and no place to go back to.
        is_strange = trial is None and state.undo is None and target.meta.etag != state.former
        if target.problem or is_strange or not undo.slot or undo.prev == undo.slot:
            start.state = phases.stranded(replace(state, undo=None), undo.etag, reason, now)
            return False
        if state.undo is None:
            state = phases.reverting(state, undo)
            self._journal.write(state)
        if start.active != undo.prev:
            self._slots.point(undo.prev)
            start.active = undo.prev
        start.state = phases.reverted(state, now)
        if trial is None:
            start.state = replace(start.state, ok=target.meta.etag)
        return True

    def _resolve(self, start: _Start, now: Moment) -> slots.Slot | None:
        """Return the slot that counts: the active one, or the other one when that is damaged."""
        active = self._slots.look(start.active) if start.active else None
        if active is not None and not active.problem and self._check_code(start, active):
            return active
        if active is not None:
            start.notes += [active.problem] if active.problem else []
            spare = self._slots.look(slots.other(active.name))
            is_fit = _is_proven(spare, start.state) and phases.find_bad(start.state, spare.meta.etag) is None
            is_fit = is_fit and not self._problems(spare)
        else:  # before the first document, or somebody took the pointer away
            proven = start.state.ok
            looked = [self._slots.look(name) for name in slots.NAMES]
            fits = [each for each in looked if proven and not each.problem and each.meta.etag == proven]
            spare, is_fit = (fits or looked)[0], bool(fits)
        if not is_fit and active is not None and not active.problem:
            # Without the plugins it pins it still says whom to ask for another one.
            return active
        if is_fit:
            self._slots.point(spare.name)
            start.active, start.damaged = spare.name, ()
            start.notes.append(f"slot {spare.name} counts instead")
        if start.state.trial is not None:
            start.state = phases.let_go(start.state, now)
        elif is_fit and active is not None:
            start.state = phases.corrupted(start.state, active.meta.revision, now, ok=spare.meta.etag)
        return spare if is_fit else None

    def _check_code(self, start: _Start, slot: slots.Slot) -> bool:
        """Compare the code of a slot with what was installed; say whether it can run, perhaps once mended."""
        found = self._problems(slot)
        start.damaged = tuple(sorted(found))
        start.notes += found.values()
        return not found or (self._code is not None and self._code.can_be_mended(slot.document))

    def _problems(self, slot: slots.Slot) -> Mapping[str, str]:
        return self._code.problems(slot.meta.artifacts) if self._code is not None else {}

    def _lay_base(self, damaged: str | None) -> str:
        """Put what a node is without a document into a slot, for the first one to go back to."""
        name = damaged or "a"
        document = self.belonging.base()
        digest = hashlib.sha256(document).hexdigest()
        self._slots.fill(name, document, slots.Meta(etag="", sha256=digest))
        return name

    def _loaded(
        self,
        nonce: str,
        slot: slots.Slot | None,
        state: State,
        notes: tuple[str, ...],
        damaged: tuple[str, ...],
    ) -> Boot:
        booted = state.booted
        is_its = booted is not None and booted.nonce == nonce and booted.events
        events = state.history[-booted.events :] if booted is not None and is_its else ()
        if slot is not None:
            # Another document may have been committed since this process was told what to load.
            is_tried = state.phase is Phase.STAGED and state.trial and state.trial.slot == slot.name
            trial = state.trial if is_tried else None
            return Boot(
                nonce=nonce,
                mode="slot",
                slot=slot.name,
                document=slot.document,
                meta=slot.meta,
                trial=trial,
                damaged=damaged,
                notes=notes,
                events=events,
            )
        mode = self.belonging.mode()
        document = self.belonging.base()
        meta = slots.Meta(etag="", sha256=hashlib.sha256(document).hexdigest())
        return Boot(nonce=nonce, mode=mode, slot="", document=document, meta=meta, notes=notes, events=events)

    def _clear(self, *, is_joining: bool) -> None:
        self.belonging.clear(is_joining=is_joining)
        self._slots.clear()


def refuse_on_trial(state: State, active: str | None) -> None:
    """Refuse to take another document while one has not proven itself.

    Args:
        state: What the journal says.
        active: Which slot counts.

    Raises:
        ConflictError: The other slot is what one goes back to, and would be written over.
    """
    if state.phase is Phase.IDLE or _is_cut_off(state, active):
        return
    raise ConflictError(
        f"the document {state.trial.etag if state.trial else ''} has not proven itself yet",
        code="generation.probation_active",
        details={"phase": state.phase},
        hint="toft config show tells how long it has; then apply again",
    )


def _is_cut_off(state: State, active: str | None) -> bool:
    """Say whether a commit came no further than the journal: the disk was full, or the power went."""
    return state.phase is Phase.STAGED and state.trial is not None and active != state.trial.slot


def _late(state: State, unkept: tuple[phases.Booted, phases.Booted | None] | None) -> State:
    """Let a boot count that could not be written down at its time; unless another one came after it."""
    if unkept is None or unkept[1] is None or state.booted != unkept[1]:
        return state
    return replace(state, booted=unkept[0], stopped=False)


def _added(before: tuple[phases.Event, ...], after: tuple[phases.Event, ...]) -> int:
    """Return how many events of a bounded history are new."""
    for count in range(len(after)):
        kept = len(after) - count
        if kept <= len(before) and before[len(before) - kept :] == after[:kept]:
            return count
    return len(after)


def _is_proven(slot: slots.Slot, state: State) -> bool:
    """Say whether a slot is whole and, as far as anybody remembers, held what was proven."""
    return not slot.problem and (not state.ok or slot.meta.etag in (state.ok, state.former))


def offer(document: bytes, *, baseline: Mapping[str, str] | None = None, **known: Any) -> Offer:
    """Return an offer of some bytes; `known` is what else `slots.Meta` takes."""
    digest = hashlib.sha256(document).hexdigest()
    meta = slots.Meta(etag=f"sha256-{digest}", sha256=digest, **known)
    return Offer(document=document, meta=meta, baseline=baseline or {})
