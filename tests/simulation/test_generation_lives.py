"""Lives of a node as they come: documents, boots, kills, power cuts, clocks that jump, files that rot, in
any order.

`TOFT_SEQUENCES` says how many are tried; `make lives` tries 10,000. A failing one is shown whole and is
replayed first the next time.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from tests.simulation import file_system
from tests.simulation.file_system import Directory, File, Stopped, cuts, killed
from tests.simulation.test_generations import SEED, TOKEN, World, etag, offer

from toft.kernel.errors import ConflictError
from toft.managed import phases
from toft.managed.course import Course, Outcome
from toft.managed.gates import Gate, Light, Reading
from toft.managed.generations import Boot, Generations
from toft.managed.moments import Moment
from toft.managed.phases import Answer, Phase, Severity

NUMBERS = st.integers(1, 5)
STOPS = st.one_of(st.none(), st.none(), st.floats(0, 1, exclude_max=True))
"""After which part of its steps something is cut off."""
CUTS = st.integers(0, 20)
GATE = Gate(name="port", kind="tcp")
ANSWERS = st.sampled_from(list(Answer))
GRACE_S = 400.0
KNOWN = {etag(number): number for number in range(1, 6)}


class Life(RuleBasedStateMachine):
    """One node. What the model knows is only what anybody outside the engine was told."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.is_damaged = False
        self.starts: dict[str, int] = {}
        self.blamed: set[str] = set()
        self.timed_out: set[str] = set()
        self.stops = 0
        self.former: Boot | None = None
        self.course: tuple[str, Course] | None = None
        self.world.start()

    @initialize(number=NUMBERS, before=st.sampled_from(list(Light)))
    def begin(self, number: int, before: Light) -> None:
        """Every life begins with a document on trial: most of what there is to try is tried on one."""
        self.apply(number=number, stop=None, cut=0, again=False, starts=True, before=before)

    @precondition(lambda self: self.world.boot)
    @rule(
        number=NUMBERS,
        stop=STOPS,
        cut=CUTS,
        again=st.booleans(),
        starts=st.booleans(),
        before=st.sampled_from(list(Light)),
    )
    def apply(
        self, number: int, stop: float | None, cut: int, again: bool, starts: bool, before: Light
    ) -> None:
        boot = self.world.boot
        assert boot
        known = self.world.engine()[0].read().state
        attempt = max((each.attempt for each in known.bad), default=0) + again
        if etag(number) == boot.etag or phases.held_back(
            known, etag(number), attempt=attempt, now=self.world.now
        ):
            return
        offered = offer(number)
        offered = replace(
            offered, meta=replace(offered.meta, attempt=attempt), baseline={GATE.name: str(before)}
        )
        try:
            came_through = self._do(lambda engine: engine.commit(offered, boot.nonce), stop, cut)
        except ConflictError:
            assert known.phase is not Phase.IDLE
            return
        if came_through:
            self.starts[etag(number)] = 0
        self.former = boot
        self.world.boot = None
        if starts:
            self.start(None, 0)

    @precondition(lambda self: self.world.boot)
    @rule(stop=STOPS, cut=CUTS)
    def confirm(self, stop: float | None, cut: int) -> None:
        boot = self.world.boot
        assert boot

        def act(engine: Generations) -> None:
            if engine.confirm(boot):
                assert boot.trial
                assert engine.read().state.ok == boot.etag

        self._do(act, stop, cut)

    @precondition(lambda self: self.world.boot and self.world.boot.trial)
    @rule(
        looks=st.lists(st.tuples(st.sampled_from(list(Light)), st.floats(0, 40)), min_size=1, max_size=4),
        stop=STOPS,
        cut=CUTS,
    )
    def look_at_the_gate(self, looks: list[tuple[Light, float]], stop: float | None, cut: int) -> None:
        """The daemon looks, as it does every few seconds; what it finds proves, condemns, or neither."""
        boot = self.world.boot
        assert boot
        assert boot.trial
        if self.course is None or self.course[0] != boot.nonce:
            self.course = boot.nonce, Course((GATE,), boot.trial, 30.0)
        for light, wait_s in looks:
            outcome = self.course[1].learn({GATE.name: Reading(light)}, self.world.now.uptime_s)
            if outcome is not Outcome.WAITING:
                break
            self.world.pass_time(wait_s)
        if outcome is Outcome.PROVEN:
            self._do(lambda engine: engine.confirm(boot), stop, cut)
        elif outcome is Outcome.FAILED and self._is_its_trial(boot):
            assert light is Light.RED
            assert boot.trial.baseline[GATE.name] not in (Light.RED, Light.IDLE)
            self.blamed.add(boot.etag)
            self._do(lambda engine: engine.revert("health_failed", Severity.PERMANENT), stop, cut)
            self.world.boot = None

    @precondition(lambda self: self.world.boot and self.world.boot.trial)
    @rule(new=ANSWERS, old=ANSWERS, red=st.booleans(), after_s=st.floats(0, 4000), stop=STOPS, cut=CUTS)
    def decide_when_time_is_over(
        self, new: Answer, old: Answer, red: bool, after_s: float, stop: float | None, cut: int
    ) -> None:
        """The daemon asks both networks; only what is the document's own fault condemns it for good."""
        boot = self.world.boot
        assert boot
        trial = self.world.engine()[0].read().state.trial
        if trial is None or not self._is_its_trial(boot):
            return
        self.world.pass_time(trial.remaining_s(self.world.now))
        findings = phases.Findings(
            new=new,
            old=old,
            red_gate=GATE.name if red else "",
            retry_after_s=after_s,
            offline_grace_s=GRACE_S,
        )
        verdict = phases.at_deadline(trial, findings)
        if verdict.hold_s:
            assert trial.extended_s + verdict.hold_s <= max(trial.window_s, GRACE_S)
            now = self.world.now
            self._do(
                lambda engine: engine.record(lambda state: phases.extended(state, verdict.hold_s, now)),
                stop,
                cut,
            )
            return
        if verdict.severity is Severity.PERMANENT:
            is_refused = new is Answer.REFUSED and old is not Answer.REFUSED
            assert red or is_refused or (new is Answer.SILENT and old is Answer.GOOD)
        self.blamed.add(boot.etag)
        self.timed_out.add(boot.etag)
        self._do(lambda engine: engine.revert(verdict.reason, verdict.severity), stop, cut)
        self.world.boot = None

    @precondition(lambda self: self.former and self.world.boot)
    @rule()
    def confirm_as_somebody_else(self) -> None:
        """An older process, which also pretends to have loaded what is there, proves nothing."""
        former, boot = self.former, self.world.boot
        assert former
        assert boot
        if boot.nonce != former.nonce:
            assert not self.world.engine()[0].confirm(former)
            assert not self.world.engine()[0].confirm(replace(boot, nonce=former.nonce))

    @precondition(lambda self: self.world.boot and self.world.boot.trial)
    @rule(stop=STOPS, cut=CUTS)
    def fail(self, stop: float | None, cut: int) -> None:
        assert self.world.boot
        self.blamed.add(self.world.boot.etag)
        self._do(lambda engine: engine.revert("health_failed", Severity.PERMANENT), stop, cut)
        self.world.boot = None

    @precondition(lambda self: self.world.boot)
    @rule(stop=STOPS, cut=CUTS)
    def go_back(self, stop: float | None, cut: int) -> None:
        boot = self.world.boot
        assert boot
        self.blamed.add(boot.etag)

        def act(engine: Generations) -> None:
            if not boot.trial and engine.revert(phases.OPERATOR, Severity.PERMANENT):
                engine.record(lambda state: phases.pinned(state, ""))

        self._do(act, stop, cut)
        self.world.boot = None

    @rule(stop=STOPS, cut=CUTS, joins=st.sampled_from([True, True, False]))
    def join_or_leave(self, stop: float | None, cut: int, joins: bool) -> None:
        self._do(lambda engine: engine.reset(SEED if joins else None), stop, cut)
        self.world.boot = None

    @rule(stop=STOPS, cut=CUTS)
    def start(self, stop: float | None, cut: int) -> None:
        for each in KNOWN:
            self.starts[each] = self.starts.get(each, 0) + 1
        if self._is_late():
            self.timed_out |= set(KNOWN)
        self.former = self.world.boot or self.former
        self.world.boot = None
        nonce = f"life-{next(self.world.count)}"

        def act(engine: Generations) -> None:
            boot = engine.boot(nonce)
            self.world.boot = boot if stop is None else None

        self._do(act, stop, cut)

    @precondition(lambda self: self.world.boot)
    @rule()
    def end_in_order(self) -> None:
        self.world.engine()[0].record(phases.stopped)
        self.world.boot = None

    @rule(seconds=st.floats(0, 200))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(wall=st.floats(0, 4e9))
    def set_clock(self, wall: float) -> None:
        self.world.now = replace(self.world.now, wall_s=wall)

    @rule()
    def restart_machine(self) -> None:
        self.world.now = Moment(f"machine-{next(self.world.count)}", 1.0, self.world.now.wall_s)
        self.world.boot = None
        self.lose_power(0)

    @rule(cut=CUTS)
    def lose_power(self, cut: int) -> None:
        left = list(cuts(self.world.root, most=32))
        self.world.root = left[cut % len(left)]
        self.world.boot = None

    @rule(which=st.integers(0, 20), rot=st.sampled_from([b"", b"{}", b"null", b"\x00" * 40, None]))
    def rot(self, which: int, rot: bytes | None) -> None:
        files = list(_files(self.world.root))
        if not files:
            return
        directory, name = files[which % len(files)]
        if rot is None:
            directory.names.pop(name)
            directory.durable.pop(name, None)
        else:
            directory.names[name] = directory.durable[name] = File(rot, rot)
        directory.pending.clear()
        self.is_damaged = True
        self.world.boot = None

    def _do(self, act: Callable[[Generations], Any], stop: float | None, cut: int) -> bool:
        """Do something; or let the process end at a step of it, killed or with the power: then False."""
        step = None
        if stop is not None:
            engine, disk = self.world.like(killed(self.world.root)).engine()
            with contextlib.suppress(ConflictError):
                act(engine)
            step = int(stop * disk.steps)
        try:
            act(self.world.engine(stop_at=step)[0])
        except Stopped:
            self.stops += 1
            self.world.boot = None
            left = [killed(self.world.root), *cuts(self.world.root, most=32)]
            self.world.root = left[cut % len(left)]
            return False
        return True

    def _is_its_trial(self, boot: Boot) -> bool:
        """Say whether what this process has loaded is on trial, as the daemon does before it reverts."""
        trial = self.world.engine()[0].read().state.trial
        return trial is not None and (trial.etag, trial.slot) == (boot.etag, boot.slot)

    def _is_late(self) -> bool:
        trial = self.world.engine()[0].read().state.trial
        return trial is not None and trial.remaining_s(self.world.now) <= 0

    @invariant()
    def what_is_loaded_is_whole_and_not_condemned(self) -> None:
        boot = self.world.boot
        if boot is None:
            return
        standing = self.world.engine()[0].read()
        if boot.etag:
            assert boot.etag == f"sha256-{hashlib.sha256(boot.document).hexdigest()}"
            assert boot.meta.artifacts == ({"name": "ocr", "sha256": boot.etag},)
        else:
            assert "token" not in json.loads(boot.document)
        assert boot.etag not in {each.etag for each in standing.state.bad}
        if boot.mode == "slot":
            assert standing.active == boot.slot
            assert standing.slots[boot.slot].document == boot.document
        if not self.is_damaged and boot.etag and boot.trial is None:
            assert standing.state.is_proven

    @invariant()
    def nobody_is_condemned_for_what_others_did(self) -> None:
        for bad in self.world.engine()[0].read().state.bad:
            if bad.reason == "crash_loop":
                assert self.starts[bad.etag] > phases.MOST_BOOTS
            elif bad.reason == "probation_expired":
                assert bad.etag in self.timed_out
            elif bad.reason == "apply_io_error":
                assert self.stops >= phases.MOST_ORPHANS or self.is_damaged
            else:
                assert bad.etag in self.blamed

    @invariant()
    def the_token_goes_with_the_first_proof(self) -> None:
        boot = self.world.boot
        if boot and not boot.trial and self.world.engine()[0].read().state.is_proven:
            assert file_system.holds(self.world.root, TOKEN.encode()) == []

    def teardown(self) -> None:
        """Whatever happened: the next good document can be applied, and proves itself."""
        boot = self.world.start()
        engine = self.world.engine()[0]
        if boot.trial and not engine.confirm(boot):
            raise AssertionError("a trial that nobody can end")
        engine.record(lambda state: phases.pinned(state, ""))
        engine.commit(offer(9), boot.nonce)
        last = self.world.start()
        assert last.etag == etag(9)
        assert self.world.engine()[0].confirm(last)


def _files(directory: Directory) -> Iterator[tuple[Directory, str]]:
    for name, node in sorted(directory.names.items()):
        if isinstance(node, Directory):
            yield from _files(node)
        else:
            yield directory, name


def test_whatever_happens_to_a_node_it_keeps_its_promises() -> None:
    run_state_machine_as_test(
        Life,
        settings=hypothesis.settings(
            max_examples=int(os.environ.get("TOFT_SEQUENCES", "250")),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(hypothesis.HealthCheck),
        ),
    )
