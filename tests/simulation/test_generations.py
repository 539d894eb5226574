"""Every point at which joining, committing, confirming, going back or leaving can be cut off, and what a
boot makes of it.

For each step of each scenario: the process is killed, or the power fails in every way the disk allows; then
the node boots, is cut off again at each step of that, and boots twice more. What must hold is asked after
each boot.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.simulation import file_system
from tests.simulation.file_system import Directory, Disk, Stopped, cuts, killed

from toft.managed import generations, phases
from toft.managed.generations import Boot, Generations
from toft.managed.moments import Moment
from toft.managed.phases import Phase, Severity
from toft.store import durable

HOME = Path("/managed")
TOKEN = "jt_secret-of-the-join"
URL = "https://central.example.org"
SEED = {"control_urls": [URL], "token": TOKEN}


def document(number: int) -> bytes:
    return json.dumps({"schema_version": 1, "revision": number, "control": {"urls": [URL]}}).encode()


def etag(number: int) -> str:
    return f"sha256-{hashlib.sha256(document(number)).hexdigest()}"


def offer(number: int) -> generations.Offer:
    code = ({"name": "ocr", "sha256": etag(number)},)
    return generations.offer(document(number), revision=number, poll_interval_s=40.0, artifacts=code)


@dataclass
class World:
    """One machine: its disk, its clock, and the process that runs."""

    root: Directory = field(default_factory=Directory)
    now: Moment = Moment("first", 1000.0, 1_700_000_000.0)
    boot: Boot | None = None
    count: Iterator[int] = field(default_factory=itertools.count)
    syncs: bool = True
    kind: type[Generations] = Generations

    def engine(self, *, stop_at: int | None = None, fail_at: int | None = None) -> tuple[Generations, Disk]:
        disk = Disk(self.root, stop_at=stop_at, fail_at=fail_at, syncs=self.syncs)
        return self.kind(HOME, lambda: self.now, disk), disk

    def start(self) -> Boot:
        self.boot = self.engine()[0].boot(f"boot-{next(self.count)}")
        return self.boot

    def pass_time(self, seconds: float) -> None:
        self.now = dataclasses.replace(
            self.now, uptime_s=self.now.uptime_s + seconds, wall_s=self.now.wall_s + seconds
        )

    def like(self, root: Directory) -> "World":
        return dataclasses.replace(self, root=root, count=itertools.count(1000))


@dataclass(frozen=True)
class Scenario:
    """One thing that is cut off.

    Attributes:
        before: Makes the node what it is.
        act: What is cut off.
        old: What may run when it did not come through; the etag is empty for a node without a document.
        new: What runs when it did.
        bad: What is condemned when it came through; empty for nothing.
        fresh: What has not proven itself, and may only run on trial.
    """

    before: Callable[[World], None]
    act: Callable[[World, Generations], None]
    old: str
    new: str
    bad: str = ""
    fresh: str = ""


def _prove(world: World, number: int) -> None:
    boot = world.boot or world.start()
    world.engine()[0].commit(offer(number), boot.nonce)
    assert world.engine()[0].confirm(world.start())


def _bare(world: World) -> None:
    world.start()


def _joined(world: World) -> None:
    world.engine()[0].reset(SEED)
    world.start()


def _proven(world: World) -> None:
    _joined(world)
    _prove(world, 1)


def _twice(world: World) -> None:
    _proven(world)
    _prove(world, 2)


def _on_trial(world: World) -> None:
    _proven(world)
    assert world.boot
    world.engine()[0].commit(offer(2), world.boot.nonce)
    world.start()


def _first_on_trial(world: World) -> None:
    _joined(world)
    assert world.boot
    world.engine()[0].commit(offer(1), world.boot.nonce)
    world.start()


def _overdue(world: World) -> None:
    _on_trial(world)
    world.pass_time(121)


def _crashing(world: World) -> None:
    _on_trial(world)
    for _ in range(phases.MOST_BOOTS - 1):
        world.start()


def _commit(number: int) -> Callable[[World, Generations], None]:
    def act(world: World, engine: Generations) -> None:
        assert world.boot
        engine.commit(offer(number), world.boot.nonce)

    return act


def _confirm(world: World, engine: Generations) -> None:
    assert world.boot
    assert engine.confirm(world.boot)


def _revert(world: World, engine: Generations) -> None:
    assert engine.revert("health_failed", Severity.PERMANENT, "the gate of ocr is red")


def _undo(world: World, engine: Generations) -> None:
    assert engine.revert(phases.OPERATOR, Severity.PERMANENT)


def _boot(world: World, engine: Generations) -> None:
    engine.boot("cut-off")


SCENARIOS = {
    "join": Scenario(_bare, lambda world, engine: engine.reset(SEED), "", ""),
    "join elsewhere": Scenario(_twice, lambda world, engine: engine.reset(SEED), etag(2), ""),
    "first commit, by hand": Scenario(_bare, _commit(1), "", etag(1), fresh=etag(1)),
    "first commit": Scenario(_joined, _commit(1), "", etag(1), fresh=etag(1)),
    "second commit": Scenario(_proven, _commit(2), etag(1), etag(2), fresh=etag(2)),
    "third commit": Scenario(_twice, _commit(3), etag(2), etag(3), fresh=etag(3)),
    "first boot": Scenario(lambda world: None, _boot, "", ""),
    "boot on trial": Scenario(_on_trial, _boot, etag(2), etag(2), fresh=etag(2)),
    "boot too late": Scenario(_overdue, _boot, etag(2), etag(1), bad=etag(2), fresh=etag(2)),
    "boot too often": Scenario(_crashing, _boot, etag(2), etag(1), bad=etag(2), fresh=etag(2)),
    "first confirm": Scenario(_first_on_trial, _confirm, etag(1), etag(1)),
    "confirm": Scenario(_on_trial, _confirm, etag(2), etag(2)),
    "first revert": Scenario(_first_on_trial, _revert, etag(1), "", bad=etag(1), fresh=etag(1)),
    "revert": Scenario(_on_trial, _revert, etag(2), etag(1), bad=etag(2), fresh=etag(2)),
    "revert by hand": Scenario(_twice, _undo, etag(2), etag(1), bad=etag(2)),
    "leave": Scenario(_twice, lambda world, engine: engine.reset(None), etag(2), ""),
}


def check(name: str, world: World, *, done: bool, to_the_end: bool = True) -> None:
    """Boot twice and hold everything that must be true against what is there."""
    scenario = SCENARIOS[name]
    boots = [world.start(), world.start()]
    engine = world.engine()[0]
    standing = engine.read()
    active = {each.etag for each in boots}
    assert len(active) == 1, "two boots in a row load one document"
    boot = boots[-1]
    assert boot.etag in {
        scenario.new,
        *(() if done else (scenario.old,)),
        *(("",) if not scenario.old else ()),
    }
    assert not any(each.startswith(".tmp-") for each in Disk(world.root).list(str(HOME))), (
        "nothing is left over"
    )
    _check_loaded(boot, standing)
    _check_condemned(scenario, boot, standing)
    # 18: once something was confirmed, the token is nowhere
    if standing.state.is_proven:
        assert file_system.holds(world.root, TOKEN.encode()) == []
    # 19: whoever could be repaired remotely still can
    said = json.loads(boot.document)
    if name not in ("join", "first boot", "first commit, by hand", "leave"):
        assert said.get("control") == {"urls": [URL]} or boot.mode in ("seed", "enrollment")
    if name == "join" and done:
        assert boot.mode == "seed"
        assert (engine.belonging.seed() or {})["token"] == TOKEN
    _check_confirming(engine, boots, standing)
    if to_the_end:
        _repair(world, boot)


def _check_loaded(boot: Boot, standing: generations.Standing) -> None:
    # 12, 14, 16: what counts on disk is what was loaded, whole, with the code that belongs to it
    if boot.mode == "slot":
        assert standing.active == boot.slot
        slot = standing.slots[boot.slot]
        assert not slot.problem
        assert slot.document == boot.document
        if boot.etag:
            assert boot.etag == f"sha256-{hashlib.sha256(boot.document).hexdigest()}"
            assert boot.meta.artifacts == ({"name": "ocr", "sha256": boot.etag},)


def _check_condemned(scenario: Scenario, boot: Boot, standing: generations.Standing) -> None:
    # 13, 17: nothing that runs is condemned, and nothing is because of a stop
    bad = {each.etag for each in standing.state.bad}
    assert boot.etag not in bad
    assert standing.state.phase in (Phase.IDLE, Phase.STAGED)
    assert bad <= {scenario.bad}
    if scenario.bad:
        assert bool(bad) == (boot.etag == scenario.new), "what was left is condemned, and nothing else is"
    assert not scenario.fresh or (boot.trial is not None) == (boot.etag == scenario.fresh)


def _check_confirming(engine: Generations, boots: list[Boot], standing: generations.Standing) -> None:
    boot = boots[-1]
    # 15: only the process that loaded it may confirm it
    stager = dataclasses.replace(boot, nonce="boot-1")
    on_trial = standing.state.trial
    if on_trial is not None:
        stager = dataclasses.replace(boot, nonce=on_trial.by_nonce)
    assert not engine.confirm(stager)
    assert not engine.confirm(boots[0])
    assert engine.confirm(boot) == (on_trial is not None)
    assert not engine.confirm(boot)


def _repair(world: World, boot: Boot) -> None:
    """From everywhere the next good document can be applied, and then no token is left anywhere."""
    if world.engine()[0].read().state.pinned:
        world.engine()[0].record(lambda state: phases.pinned(state, ""))
    world.engine()[0].commit(offer(9), boot.nonce)
    last = world.start()
    assert last.etag == etag(9)
    assert world.engine()[0].confirm(last)
    assert world.start().trial is None
    assert file_system.holds(world.root, TOKEN.encode()) == []


def stopped_worlds(
    world: World, act: Callable[[World, Generations], None], *, most: int
) -> Iterator[tuple[World, bool]]:
    """Yield what each stop of something leaves: of the process, and of the power in every way."""
    for step in itertools.count():
        trying = world.like(killed(world.root))
        engine = trying.engine(stop_at=step)[0]
        try:
            act(trying, engine)
            done = True
        except Stopped:
            done = False
        yield world.like(killed(trying.root)), done
        for root in cuts(trying.root, most=most):
            yield world.like(root), done
        if done:
            return


def _form(root: Directory) -> str:
    """Write a disk down, so that two which differ in nothing but temporary names are one."""
    return re.sub(r"\.tmp-([a-z.-]+)-\d+-\d+", r".tmp-\1", repr(root))


def explore(name: str, *, most: int, syncs: bool = True, engine: type[Generations] = Generations) -> int:
    """Go through one scenario; return how many disks were booted from."""
    scenario = SCENARIOS[name]
    world = World(syncs=syncs, kind=engine)
    scenario.before(world)
    count = 0
    # A disk that a second stop leaves was looked at, and not yet stopped on: the two are counted apart.
    begun, seen = set(), set()
    for once, done in stopped_worlds(world, scenario.act, most=most):
        form = (_form(once.root), done)
        if form in begun:
            continue
        begun.add(form)
        if form not in seen:
            seen.add(form)
            check(name, once.like(killed(once.root)), done=done)
            count += 1
        for twice, _ in stopped_worlds(once, _boot, most=most):
            form = (_form(twice.root), done)
            if form not in seen:
                seen.add(form)
                check(name, twice, done=done, to_the_end=len(seen) % 4 == 0)
                count += 1
    return count


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_stop_breaks_a_promise(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    count = explore(name, most=4)
    with capsys.disabled():
        sys.stdout.write(f" {name}: booted from {count} disks, no violation;")
    assert count > 3


@pytest.mark.long
def test_no_stop_of_any_kind_breaks_a_promise(capsys: pytest.CaptureFixture[str]) -> None:
    count = sum(explore(name, most=256) for name in SCENARIOS)
    with capsys.disabled():
        sys.stdout.write(f" booted from {count} disks, no violation;")


class _FlipsFirst(Generations):
    """The pointer before the intent: an unproven document runs, and nobody knows that it is on trial."""

    def commit(self, offer: generations.Offer, nonce: str) -> str:
        self._slots.fill("b", offer.document, offer.meta)
        self._slots.point("b")
        return super().commit(offer, nonce)


class _RevertsUnrecorded(Generations):
    """The way back before what it is for: it is forgotten, and the same document comes again."""

    def revert(self, reason: str, severity: Severity, detail: str = "") -> bool:
        trial = self._journal.read().state.trial
        if trial is not None:
            self._slots.point(trial.prev)
        return super().revert(reason, severity, detail)


class _KeepsTheSeed(Generations):
    """The token goes at the confirmation, and only then: a stop in between leaves it for ever."""

    def boot(self, nonce: str) -> Boot:
        seed = self.belonging.seed()
        boot = super().boot(nonce)
        if seed is not None:
            data = json.dumps(seed, sort_keys=True).encode()
            durable.write_file(self.directory / "seed.json", data, operations=self.operations)
        return boot


class _JoinsWithoutIntent(Generations):
    """The seed before anybody knows that the old slots are to go: the new token is shadowed by them."""

    def reset(self, seed: Mapping[str, Any] | None) -> None:
        durable.make_directory(self.directory, operations=self.operations)
        data = json.dumps({"schema": 1, **(seed or {})}, sort_keys=True).encode()
        durable.write_file(self.directory / "seed.json", data, mode=0o600, operations=self.operations)
        self._slots.clear()
        self._journal.write(phases.State())


@pytest.mark.parametrize(
    ("name", "engine", "syncs"),
    [
        ("second commit", Generations, False),
        ("second commit", _FlipsFirst, True),
        ("revert", _RevertsUnrecorded, True),
        ("first confirm", _KeepsTheSeed, True),
        ("join elsewhere", _JoinsWithoutIntent, True),
    ],
)
def test_a_wrong_order_is_seen(name: str, engine: type[Generations], syncs: bool) -> None:
    with pytest.raises(AssertionError):
        explore(name, most=4, syncs=syncs, engine=engine)


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_full_disk_at_any_step_changes_nothing_that_counts(name: str) -> None:
    scenario = SCENARIOS[name]
    world = World()
    scenario.before(world)
    for step in itertools.count(1):
        trying = world.like(killed(world.root))
        engine, disk = trying.engine(fail_at=step)
        with contextlib.suppress(OSError):
            scenario.act(trying, engine)
        if disk.steps < step:
            return
        check(name, trying.like(killed(trying.root)), done=False)
        for root in cuts(trying.root, most=4):
            check(name, trying.like(root), done=False)
