"""The engine on a real directory and the decisions that need no disk; every cut is in tests/simulation."""

import dataclasses
import errno
import json
import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from toft.kernel.errors import ConflictError, UnavailableError
from toft.managed import generations, journal, phases, slots
from toft.managed.generations import Generations, Offer
from toft.managed.moments import Moment
from toft.managed.phases import Answer, Findings, Phase, Severity, State, Trial
from toft.store import durable

START = Moment("first", 1000.0, 1_700_000_000.0)


class Node:
    """One node: its directory and a clock."""

    def __init__(self, home: Path) -> None:
        self.path = home / "managed"
        self.now = START
        self.engine = Generations(self.path, lambda: self.now)
        self._count = 0

    def boot(self) -> generations.Boot:
        self._count += 1
        return self.engine.boot(f"boot-{self._count}")

    def pass_time(self, seconds: float) -> None:
        self.now = dataclasses.replace(
            self.now, uptime_s=self.now.uptime_s + seconds, wall_s=self.now.wall_s + seconds
        )

    def prove(self, number: int) -> str:
        offered = offer(number)
        self.engine.commit(offered, self.boot().nonce)
        assert self.engine.confirm(self.boot())
        return offered.meta.etag

    @property
    def state(self) -> State:
        return self.engine.read().state


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def offer(number: int) -> Offer:
    text = json.dumps({"schema_version": 1, "revision": number}).encode()
    return generations.offer(text, revision=number, poll_interval_s=40)


def trial(**given: object) -> Trial:
    values = {
        "etag": "sha256-1",
        "slot": "b",
        "prev": "a",
        "by_nonce": "n",
        "window_s": 120.0,
        "left_s": 120.0,
        "since": START,
        **given,
    }
    return Trial(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("interval", "window"), [(5, 120), (40, 120), (300, 900), (3600, 10800)])
def test_the_window_is_three_intervals_and_never_short(interval: int, window: int) -> None:
    assert phases.window_s(interval) == window


def test_slots_alternate_and_the_way_back_leads_to_the_one_before(node: Node) -> None:
    first, second = node.prove(1), node.prove(2)
    assert node.engine.read().active == "a"
    node.engine.commit(offer(3), node.boot().nonce)
    assert node.boot().etag == offer(3).meta.etag
    assert node.engine.revert("health_failed", Severity.PERMANENT, "why")
    assert node.boot().etag == second
    assert first not in {node.engine.read().slots[name].meta.etag for name in slots.NAMES}
    assert [each.event for each in node.state.history[-2:]] == ["staged", "rolled_back"]
    assert node.state.rolled_back is not None
    assert (node.state.rolled_back.reason, node.state.rolled_back.detail) == ("health_failed", "why")


def test_nothing_is_committed_over_what_one_goes_back_to(node: Node) -> None:
    node.prove(1)
    node.engine.commit(offer(2), "cli")
    before = node.engine.read()
    with pytest.raises(ConflictError) as caught:
        node.engine.commit(offer(3), "cli")
    assert caught.value.code == "generation.probation_active"
    assert node.engine.read() == before


def test_files_are_the_owners_alone(node: Node) -> None:
    old = os.umask(0)
    try:
        node.engine.reset({"control_urls": ["https://c.example.org"], "token": "t"})
        node.prove(1)
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in [node.path, *node.path.rglob("*")]}
    links = [path.name for path in node.path.rglob("*") if path.is_symlink()]
    assert {name: mode for name, mode in modes.items() if mode & 0o077 and name not in links} == {}


def test_a_sixth_start_within_a_trial_ends_it(node: Node) -> None:
    good = node.prove(1)
    node.engine.commit(offer(2), node.boot().nonce)
    assert [node.boot().etag for _ in range(5)] == [offer(2).meta.etag] * 5
    assert node.boot().etag == good
    [bad] = node.state.bad
    assert (bad.reason, bad.severity) == ("crash_loop", Severity.PERMANENT)


def test_orderly_ends_are_no_crashes(node: Node) -> None:
    node.prove(1)
    node.engine.commit(offer(2), node.boot().nonce)
    for _ in range(12):
        assert node.boot().etag == offer(2).meta.etag
        node.engine.record(phases.stopped)
    assert node.state.trial
    assert node.state.trial.boots == 1


def test_time_that_ran_out_while_the_power_was_off_ends_a_trial_at_the_start(node: Node) -> None:
    good = node.prove(1)
    node.engine.commit(offer(2), node.boot().nonce)
    node.now = Moment("second", 5.0, START.wall_s + 9999)
    assert node.boot().etag == offer(2).meta.etag, "its time begins with its first start"
    node.now = Moment("third", 5.0, START.wall_s + 9999 + 121)
    assert node.boot().etag == good
    assert node.state.bad[0].reason == "probation_expired"


@pytest.mark.parametrize("wall", [0.0, START.wall_s - 1e9, START.wall_s + 1e9, -5.0])
def test_a_clock_that_jumps_within_one_start_of_the_machine_decides_nothing(node: Node, wall: float) -> None:
    node.prove(1)
    node.engine.commit(offer(2), node.boot().nonce)
    node.boot()
    node.now = Moment("first", START.uptime_s + 60, wall)
    boot = node.boot()
    assert boot.etag == offer(2).meta.etag
    assert boot.trial
    assert boot.trial.remaining_s(node.now) == 60


def test_a_clock_in_1970_after_a_restart_gives_a_trial_no_more_than_its_window(node: Node) -> None:
    node.prove(1)
    node.engine.commit(offer(2), node.boot().nonce)
    node.boot()
    node.now = Moment("second", 1.0, 0.0)
    boot = node.boot()
    assert boot.trial
    assert boot.trial.remaining_s(node.now) == 120


def test_a_suspect_is_tried_again_after_one_two_and_four_windows_and_then_no_more() -> None:
    state, now = State(), START
    waits = []
    for _ in range(4):
        state = phases.condemned(state, "e", reason="probation_expired", severity=Severity.SUSPECT, now=now)
        bad = phases.held_back(state, "e", attempt=0, now=now)
        assert bad is not None
        waits.append((bad.wait_s, bad.severity))
        now = dataclasses.replace(now, uptime_s=now.uptime_s + bad.wait_s)
        assert (phases.held_back(state, "e", attempt=0, now=now) is None) == (bad.wait_s > 0)
    assert waits == [(120, "suspect"), (240, "suspect"), (480, "suspect"), (0, "permanent")]
    assert phases.held_back(state, "e", attempt=1, now=now) is None


def test_three_bad_documents_are_each_remembered() -> None:
    state = State()
    for name in ("a", "b", "a", "b"):
        if phases.held_back(state, name, attempt=0, now=START) is None:
            state = phases.condemned(
                state, name, reason="validation_failed", severity=Severity.PERMANENT, now=START
            )
    assert [each.event for each in state.history] == ["rejected", "rejected"]
    for number in range(40):
        state = phases.condemned(
            state, f"n{number}", reason="validation_failed", severity=Severity.PERMANENT, now=START
        )
    assert len(state.bad) == 16
    assert len(state.history) == 20


def test_a_commit_that_is_cut_off_three_times_is_not_tried_for_ever() -> None:
    state = State()
    for count in (1, 2, 3):
        state = phases.orphaned(phases.staged(state, trial(), START), START)
        assert bool(state.bad) == (count == 3)
    assert state.bad[0].reason == "apply_io_error"


def test_a_retried_suspect_that_runs_is_not_among_the_bad_and_counts_on() -> None:
    state = phases.condemned(
        State(), "sha256-1", reason="probation_expired", severity=Severity.SUSPECT, now=START
    )
    state = phases.staged(state, trial(), START)
    assert state.bad == ()
    undo = phases.Undo(
        etag="sha256-1", slot="b", prev="a", reason="probation_expired", severity=Severity.SUSPECT
    )
    assert phases.reverted(phases.reverting(state, undo), START).bad[0].attempts == 2


@pytest.mark.parametrize(
    ("new", "old", "more", "reason", "severity"),
    [
        (Answer.SILENT, Answer.GOOD, {}, "probation_expired", Severity.PERMANENT),
        (Answer.SILENT, Answer.SILENT, {}, "", None),
        (Answer.SILENT, None, {}, "", None),
        (Answer.SILENT, Answer.SILENT, {"offline_grace_s": 0.0}, "probation_expired", Severity.SUSPECT),
        (Answer.SILENT, Answer.SILENT, {"red_gate": "ocr"}, "health_failed", Severity.PERMANENT),
        (Answer.REFUSED, Answer.GOOD, {}, "auth_failed", Severity.PERMANENT),
        (Answer.REFUSED, Answer.SILENT, {}, "auth_failed", Severity.PERMANENT),
        (Answer.REFUSED, Answer.REFUSED, {}, "", None),
        (Answer.BUSY, Answer.GOOD, {"retry_after_s": 600.0}, "", None),
        (Answer.GOOD, Answer.GOOD, {"red_gate": "ocr"}, "health_failed", Severity.PERMANENT),
        (None, None, {}, "probation_expired", Severity.SUSPECT),
    ],
)
def test_a_fault_that_is_not_the_documents_does_not_condemn_it(
    new: Answer | None, old: Answer | None, more: dict[str, object], reason: str, severity: Severity | None
) -> None:
    verdict = phases.at_deadline(trial(), Findings(new=new, old=old, **more))  # type: ignore[arg-type]
    assert verdict.reason == reason
    assert verdict.severity is severity if reason else verdict.hold_s > 0


def test_a_busy_central_gives_at_most_one_more_window() -> None:
    found = Findings(new=Answer.BUSY, old=Answer.GOOD, retry_after_s=600.0)
    assert phases.at_deadline(trial(), found).hold_s == 120
    assert phases.at_deadline(trial(extended_s=120.0), found).reason == "probation_expired"


def test_a_held_trial_has_its_time_from_then_on(node: Node) -> None:
    node.prove(1)
    node.engine.commit(offer(2), node.boot().nonce)
    node.boot()
    node.pass_time(130)
    node.engine.record(lambda state: phases.extended(state, 100.0, node.now))
    node.pass_time(50)
    boot = node.boot()
    assert boot.trial
    assert (boot.trial.remaining_s(node.now), boot.trial.extended_s) == (50, 100)


def test_a_way_back_by_hand_pins_until_somebody_unpins(node: Node) -> None:
    node.prove(1)
    node.prove(2)
    assert node.engine.revert(phases.OPERATOR, Severity.PERMANENT, "the new one smells")
    assert node.state.pinned == "the new one smells"
    assert not node.engine.revert(phases.OPERATOR, Severity.PERMANENT), "what was left is condemned"
    assert node.engine.record(lambda state: phases.pinned(state, "")).pinned == ""


def test_by_hand_one_goes_back_to_what_was_proven_and_to_nothing_else(node: Node) -> None:
    good = node.prove(1)
    node.engine._slots.fill("a", offer(2).document, offer(2).meta)  # a commit that was cut off
    assert not node.engine.revert(phases.OPERATOR, Severity.PERMANENT)
    assert node.boot().etag == good
    node.prove(3)
    assert node.engine.revert(phases.OPERATOR, Severity.PERMANENT)
    assert node.boot().etag == good
    assert not node.engine.revert(phases.OPERATOR, Severity.PERMANENT)


def test_the_daemon_behind_a_guard_takes_over_what_was_decided(node: Node) -> None:
    node.prove(1)
    node.engine.commit(offer(2), "cli")
    boot = node.boot()
    before = node.engine.read()
    adopted = node.engine.adopt(boot.nonce)
    assert adopted == dataclasses.replace(boot, notes=())
    assert node.engine.read() == before
    assert node.engine.adopt("another") is None
    assert node.engine.confirm(boot)
    node.engine.commit(offer(3), "cli")
    late = node.engine.adopt(boot.nonce)
    assert late
    assert (late.etag, late.trial) == (boot.etag, None), "what was committed since is another's trial"


def test_a_command_that_stands_still_with_the_lock_keeps_no_node_from_what_it_has(node: Node) -> None:
    good = node.prove(1)
    before = node.engine.read()

    def hold() -> AbstractContextManager[None]:
        raise UnavailableError("somebody holds it", code="store.locked")

    boot = Generations(node.path, lambda: node.now, hold=hold).boot("late")
    assert boot.etag == good
    assert boot.notes
    assert node.engine.read() == before


class Full(durable.SystemOperations):
    """A disk that takes nothing whose path has this in it."""

    named = ""

    def rename(self, source: str, target: str) -> None:
        if self.named and self.named in target:
            raise OSError(errno.ENOSPC, "no space", target)
        super().rename(source, target)


def test_a_start_that_could_not_be_written_down_counts_as_soon_as_it_can(node: Node) -> None:
    node.prove(1)
    node.engine.commit(offer(2), "cli")
    disk = Full()
    engine = Generations(node.path, lambda: node.now, disk)
    disk.named = "journal.json"
    boot = engine.boot("late")
    assert boot.trial
    with pytest.raises(OSError, match="no space"):
        engine.confirm(boot)
    disk.named = ""
    assert engine.confirm(boot), "the disk was full when it started, and is not any more"
    engine.commit(offer(3), boot.nonce, is_live=True)
    assert not engine.confirm(boot), "it staged the next one itself"
    later = node.boot()
    assert not engine.confirm(boot), "another one has started since"
    assert node.engine.confirm(later)


def test_a_change_that_changes_nothing_writes_nothing_unless_something_is_damaged(node: Node) -> None:
    node.prove(1)
    engine = Generations(node.path, lambda: node.now, disk := Full())
    disk.named = "journal"
    engine.record(lambda state: state)
    with pytest.raises(OSError, match="no space"):
        engine.record(phases.stopped)
    (node.path / "journal.json").write_bytes(b"{")
    with pytest.raises(OSError, match="no space"):
        engine.record(lambda state: state)


def test_what_a_full_disk_keeps_a_start_from_finishing_is_finished_later(node: Node) -> None:
    good = node.prove(1)
    node.engine.commit(offer(2), "cli")
    node.boot()
    disk = Full()
    engine = Generations(node.path, lambda: node.now, disk)
    disk.named = "active"
    with pytest.raises(OSError, match="no space"):
        engine.revert("health_failed", Severity.PERMANENT)
    disk.named = "journal.json"
    boot = engine.boot("late")
    assert engine.read().state.phase is Phase.REVERTING
    with pytest.raises(ConflictError):
        engine.commit(offer(3), boot.nonce)
    with pytest.raises(OSError, match="no space"):
        engine.finish()
    disk.named = ""
    assert engine.finish()
    assert not engine.finish(), "once"
    later = node.boot()
    assert (later.etag, later.trial, node.engine.read().state.phase) == (good, None, Phase.IDLE)
    assert [each.reason for each in node.engine.read().state.bad] == ["health_failed"]


def test_a_commit_that_the_disk_cut_off_stands_in_nobodys_way(node: Node) -> None:
    node.prove(1)
    disk = Full()
    engine = Generations(node.path, lambda: node.now, disk)
    boot = engine.boot("live")
    disk.named = "active"
    with pytest.raises(OSError, match="no space"):
        engine.commit(offer(2), boot.nonce, is_live=True)
    disk.named = ""
    standing = engine.read()
    assert (standing.state.phase, standing.active) == (Phase.STAGED, boot.slot)
    generations.refuse_on_trial(standing.state, standing.active)
    assert engine.commit(offer(3), boot.nonce, is_live=True) == engine.read().active
    assert [each.event for each in engine.read().state.history][-3:] == ["staged", "orphaned", "staged"]


def test_what_was_decided_and_is_damaged_since_is_not_adopted(node: Node) -> None:
    node.prove(1)
    node.engine.commit(offer(2), "cli")
    adopted = node.boot()
    (node.path / "slot-a" / "document").write_bytes(b"{}")
    assert node.engine.adopt(adopted.nonce) is None


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"null", b'{"schema": 1}', b'{"schema": 2, "state": {}}', b"\xff" * 90]
)
def test_a_damaged_journal_neither_stops_a_start_nor_condemns(node: Node, damage: bytes) -> None:
    node.prove(1)
    node.engine.commit(offer(2), node.boot().nonce)
    node.boot()
    (node.path / "journal.json").write_bytes(damage)
    boot = node.boot()
    assert boot.etag == offer(2).meta.etag
    assert boot.trial
    assert node.state.bad == ()
    assert any("damaged" in each for each in boot.notes)
    for name in ("journal.json", "journal.prev"):
        (node.path / name).write_bytes(damage)
    assert node.engine.read().problems
    boot = node.boot()
    assert boot.etag == offer(2).meta.etag
    assert boot.trial is None


def test_an_older_journal_does_not_end_a_trial_that_was_confirmed_since(node: Node) -> None:
    node.prove(1)
    second = node.prove(2)
    (node.path / "journal.json").write_bytes(b"rotten")
    node.pass_time(10_000)
    boot = node.boot()
    assert boot.etag == second
    assert boot.trial
    assert node.engine.confirm(boot)
    assert node.state.bad == ()


def test_a_damaged_slot_gives_way_to_the_other_and_two_to_whoever_can_be_asked(node: Node) -> None:
    node.engine.reset({"control_urls": ["https://c.example.org"], "token": "t"})
    good = node.prove(1)
    node.engine.commit(offer(2), node.boot().nonce)
    (node.path / "slot-a" / "document").write_bytes(b"{}")
    boot = node.boot()
    assert boot.etag == good
    assert node.state.bad == ()
    assert node.state.rolled_back
    assert node.state.rolled_back.reason == "slot_corrupt"
    (node.path / "slot-b" / "meta.json").write_bytes(b"{}")
    (node.path / "enrollment.json").write_text('{"control_urls": ["https://c.example.org"]}')
    boot = node.boot()
    assert boot.mode == "enrollment"
    assert json.loads(boot.document)["control"] == {"urls": ["https://c.example.org"]}
    assert node.prove(3) == offer(3).meta.etag


def test_a_damaged_slot_makes_nothing_active_that_never_ran_and_is_no_reason_to_write_over_a_good_one(
    node: Node,
) -> None:
    first, _second = node.prove(1), node.prove(2)
    (node.path / "slot-a" / "document").write_bytes(b"{}")
    node.engine.commit(offer(3), "cli")
    assert {node.engine.read().slots[name].meta.etag for name in slots.NAMES} == {first, offer(3).meta.etag}
    assert node.boot().etag == offer(3).meta.etag
    assert node.engine.revert("health_failed", Severity.PERMANENT)
    assert node.boot().etag == first
    active = node.engine.read().active
    assert active
    slots.Slots(node.path).fill(slots.other(active), offer(4).document, offer(4).meta)
    (node.path / f"slot-{active}" / "document").write_bytes(b"{}")
    assert node.boot().mode == "bare", "a commit that was cut off left it there; it never ran"


def test_a_pointer_that_somebody_took_away_is_put_back_to_what_was_proven(node: Node) -> None:
    good = node.prove(1)
    (node.path / "active").unlink()
    assert node.boot().etag == good
    (node.path / "active").unlink()
    (node.path / "active").symlink_to("/etc")
    assert node.boot().etag == good


def test_what_runs_is_never_condemned_whatever_somebody_wrote(node: Node) -> None:
    good = node.prove(1)
    node.engine.record(
        lambda state: phases.condemned(
            state, good, reason="operator", severity=Severity.PERMANENT, now=node.now
        )
    )
    assert node.boot().etag == good
    assert node.state.bad == ()


def test_with_nothing_whole_to_go_back_to_nothing_moves_and_that_is_told(node: Node) -> None:
    node.prove(1)
    node.engine.commit(offer(2), node.boot().nonce)
    node.boot()
    (node.path / "slot-b" / "document").unlink()
    node.pass_time(200)
    boot = node.boot()
    assert boot.etag == offer(2).meta.etag
    assert node.state.bad == ()
    assert node.state.phase is Phase.IDLE
    assert node.state.rolled_back
    assert node.state.rolled_back.event == "stranded"
    assert node.boot().etag == boot.etag


def test_a_journal_says_again_what_was_written(node: Node) -> None:
    node.prove(1)
    node.engine.commit(offer(2), node.boot().nonce)
    node.boot()
    state = phases.condemned(
        node.state, "e", reason="x", severity=Severity.SUSPECT, now=START, detail="\x1b[31m ä"
    )
    assert journal.decode(journal.encode(state)) == state
