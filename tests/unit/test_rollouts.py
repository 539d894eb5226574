"""What a rollout orders next: proven wave by wave, stopped early, and the same whoever asks and how often."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from toft.central import convergence, rollouts, waves
from toft.central.convergence import Event, Standing
from toft.central.nodes import Node
from toft.central.rollouts import Abort, Finish, Member, Offer, Open, Order, Pause, Place, Skip, Stage, State
from toft.kernel.errors import ConflictError

NOW = 1_800_000_000.0
BUCKETS = [5678, 4719, 9298, 4064]
WAVES = waves.default_waves(poll_interval_s=300, window_s=900, settle_s=30)
RULES = waves.Rules(waves=WAVES)


class World:
    """A fleet and a rollout, as the tables hold them; orders are carried out one by one."""

    def __init__(self, count: int, *, rules: waves.Rules = RULES, salt: str = "salt") -> None:
        self.now = NOW
        self.nodes = {f"node_{number}": Member(id=f"node_{number}", seen_at=NOW) for number in range(count)}
        self.rollout = rollouts.Rollout(id="rollout_1", salt=salt, rules=rules, state=State.RUNNING)
        self.reason = ""

    def plan(self) -> tuple[Order, ...]:
        return rollouts.plan(self.rollout, self.nodes.values(), self.now)

    def run(self, most: int = 50) -> None:
        """Carry out what is ordered until there is nothing but to wait."""
        for _ in range(most):
            orders = self.plan()
            if not orders:
                return
            for each in orders:
                self.carry_out(each)
        raise AssertionError(f"it never rests: {self.plan()}")

    def carry_out(self, order: Order) -> None:
        match order:
            case Open(wave):
                if wave > self.rollout.wave:
                    self.change(wave=wave, opened_at=self.now)
            case Offer(nodes, wave):
                for id in nodes:
                    if not self.nodes[id].is_reached:
                        self.put(id, Stage.OFFERED, wave)
            case Skip(nodes, reason):
                for id in nodes:
                    self.put(id, Stage.SKIPPED, self.rollout.wave, reason)
            case Pause(reason):
                self.change(state=State.PAUSED)
                self.reason = reason
            case Abort(reason):
                self.change(state=State.ABORTED)
                self.reason = reason
            case Finish():
                self.change(state=State.DONE)

    def change(self, **values: object) -> None:
        self.rollout = dataclasses.replace(self.rollout, **values)  # type: ignore[arg-type]

    def put(self, id: str, stage: Stage, wave: int | None = None, reason: str = "") -> None:
        before = self.nodes[id].place
        at = wave if wave is not None else before.wave if before else 0
        self.nodes[id] = dataclasses.replace(self.nodes[id], place=Place(at, stage, reason))

    def reached(self) -> list[str]:
        return [each.id for each in self.nodes.values() if each.is_reached]

    def settle(self, stage: Stage, reason: str = "") -> None:
        """Let every node that is under way come to one end."""
        for id in self.reached():
            place = self.nodes[id].place
            if place is not None and place.stage in rollouts.UNDER_WAY:
                self.put(id, stage, reason=reason)

    def wait(self, seconds: float, *, silent: tuple[str, ...] = ()) -> None:
        self.now += seconds
        for id, each in self.nodes.items():
            if id not in silent:
                self.nodes[id] = dataclasses.replace(each, seen_at=self.now)


def test_a_bucket_is_the_first_eight_bytes_of_a_hash_and_never_changes() -> None:
    assert [rollouts.bucket("salt", f"node_{number}") for number in range(4)] == BUCKETS
    assert rollouts.bucket("other", "node_1") != rollouts.bucket("salt", "node_1")


def test_waves_open_one_after_the_other_each_once_it_is_proven_and_never_before_it_has_baked() -> None:
    world = World(200)
    sizes = []
    for wave in range(4):
        world.run()
        assert world.rollout.wave == wave
        sizes.append(len(world.reached()))
        world.settle(Stage.APPLIED)
        world.wait(WAVES[wave].bake_s - 1)
        assert world.plan() == ()
        world.wait(1)
    assert sizes == [4, 20, 100, 200]
    world.run()
    assert world.rollout.state is State.DONE


def test_who_is_in_a_wave_stays_in_the_next_and_low_buckets_come_first() -> None:
    world = World(200)
    world.run()
    first = set(world.reached())
    order = sorted(world.nodes, key=lambda id: (rollouts.bucket("salt", id), id))
    assert first == set(order[:4])
    world.settle(Stage.APPLIED)
    world.wait(WAVES[0].bake_s)
    world.run()
    assert set(world.reached()) == set(order[:20]) > first


def test_too_few_applied_after_the_bake_pauses_and_says_what_is_missing() -> None:
    world = World(200)
    world.run()
    for id in world.reached()[:3]:
        world.put(id, Stage.APPLIED)
    world.put(
        next(id for id in world.reached() if world.nodes[id].place.stage is Stage.OFFERED), Stage.PROBATION
    )  # type: ignore[union-attr]
    world.wait(WAVES[0].bake_s)
    world.run()
    assert world.rollout.state is State.PAUSED
    assert world.reason == "wave 1 of 4: 3 of 4 nodes applied, 95% are needed; 1 probation"
    world.settle(Stage.APPLIED)
    assert world.plan() == ()
    world.change(state=State.RUNNING, opened_at=world.now)
    world.wait(WAVES[0].bake_s)
    world.run()
    assert (world.rollout.state, world.rollout.wave) == (State.RUNNING, 1)


@pytest.mark.parametrize("state", [State.RUNNING, State.PAUSED])
def test_two_that_go_back_abort_it_whether_it_runs_or_was_paused(state: State) -> None:
    world = World(200)
    world.run()
    world.change(state=state)
    first, second, *_ = world.reached()
    world.put(first, Stage.ROLLED_BACK, reason="health_failed")
    assert world.plan() == ()
    world.put(second, Stage.FAILED, reason="plugin_install_failed")
    world.run()
    assert world.rollout.state is State.ABORTED
    assert world.reason == "2 of 4 nodes went back or failed: health_failed, plugin_install_failed"
    assert world.plan() == ()


def test_of_many_that_were_reached_a_share_must_fail_before_it_aborts() -> None:
    world = World(200)
    world.change(is_emergency=True)
    world.run()
    assert len(world.reached()) == 200
    for number, id in enumerate(world.reached()[:10]):
        assert world.plan() == (), number
        world.put(id, Stage.ROLLED_BACK, reason="crash_loop")
    assert [type(each) for each in world.plan()] == [Abort]


def test_an_offline_node_blocks_nobody_is_offered_nothing_and_gets_the_newest_when_it_is_back() -> None:
    """T83: three rollouts pass while a node is away."""
    away = "node_7"
    world = World(30)
    for number in range(3):
        world.rollout = rollouts.Rollout(
            id=f"rollout_{number}", salt=f"salt{number}", rules=RULES, state=State.RUNNING
        )
        for id, each in world.nodes.items():
            world.nodes[id] = dataclasses.replace(each, place=None)
        world.wait(rollouts.SEEN_S + 1, silent=(away,))
        for wave in WAVES:
            world.run()
            assert away not in world.reached()
            world.settle(Stage.APPLIED)
            world.wait(wave.bake_s, silent=(away,))
        world.run()
        # Done: the document's published revision is the new one, for whoever asks, whenever that is.
        assert world.rollout.state is State.DONE


def test_a_node_that_comes_late_follows_the_waves_that_are_open() -> None:
    world = World(100)
    for wave in WAVES[:3]:
        world.run()
        world.settle(Stage.APPLIED)
        world.wait(wave.bake_s)
    world.run()
    world.nodes["late"] = Member(id="late", seen_at=world.now)
    world.run()
    assert "late" in world.reached()


def test_nodes_that_took_it_and_fell_silent_prove_nothing_and_are_not_replaced() -> None:
    world = World(200)
    world.run()
    silent = tuple(world.reached())
    world.wait(WAVES[0].bake_s, silent=silent)
    world.run()
    assert world.rollout.state is State.PAUSED
    assert "0 of 4 nodes applied" in world.reason
    world.change(state=State.RUNNING)
    world.wait(rollouts.SEEN_S + 1, silent=silent)
    world.run()
    assert world.rollout.state is State.PAUSED
    assert "none of its 4 nodes was heard of" in world.reason
    assert tuple(world.reached()) == silent


def test_a_wave_may_be_about_some_labels() -> None:
    rules = waves.Rules(
        waves=(waves.Wave(100, 60, {"ring": "canary"}), waves.Wave(50, 60), waves.Wave(100, 60))
    )
    world = World(40, rules=rules)
    for number in range(3):
        id = f"node_{number}"
        world.nodes[id] = dataclasses.replace(world.nodes[id], labels={"ring": "canary"})
    world.run()
    assert world.reached() == ["node_0", "node_1", "node_2"]
    world.settle(Stage.APPLIED)
    world.wait(60)
    world.run()
    assert len(world.reached()) == 20


def test_a_pinned_node_is_left_out_and_one_of_them_again_when_it_is_let_go() -> None:
    world = World(1)
    world.nodes["node_0"] = dataclasses.replace(world.nodes["node_0"], kept_out="pinned")
    world.nodes["node_1"] = Member(id="node_1", seen_at=NOW)
    world.run()
    assert world.reached() == ["node_1"]
    assert world.nodes["node_0"].place == Place(0, Stage.SKIPPED, "pinned")
    world.nodes["node_0"] = dataclasses.replace(world.nodes["node_0"], kept_out="")
    world.settle(Stage.APPLIED)
    for wave in WAVES:
        world.wait(wave.bake_s)
        world.run()
        world.settle(Stage.APPLIED)
    assert "node_0" in world.reached()


def test_with_nobody_to_protect_it_is_done_and_with_nobody_there_it_waits() -> None:
    world = World(0)
    assert world.plan() == (Finish(),)
    asleep = World(2)
    for id, each in asleep.nodes.items():
        asleep.nodes[id] = dataclasses.replace(each, seen_at=0)
    asleep.run()
    assert asleep.rollout.state is State.RUNNING
    assert not asleep.reached()
    pinned = World(1)
    pinned.nodes["node_0"] = dataclasses.replace(pinned.nodes["node_0"], kept_out="pinned")
    pinned.run()
    assert pinned.rollout.state is State.DONE


def test_a_small_fleet_has_one_canary_and_waves_without_nodes_of_their_own_are_passed() -> None:
    world = World(5)
    world.run()
    assert len(world.reached()) == 1
    world.settle(Stage.APPLIED)
    world.wait(WAVES[0].bake_s)
    world.run()
    assert (world.rollout.wave, len(world.reached())) == (2, 2)


def test_a_wave_whose_nodes_seem_to_be_away_lasts_its_time_so_that_they_can_come_back() -> None:
    world = World(200)
    world.run()
    there = world.reached()
    world.settle(Stage.APPLIED)
    away = tuple(id for id in world.nodes if id not in there)
    world.wait(rollouts.SEEN_S + 1, silent=away)
    world.run()
    assert (world.rollout.state, world.rollout.wave) == (State.RUNNING, 1)
    world.wait(WAVES[1].bake_s - 1, silent=away)
    world.run()
    assert (world.rollout.wave, world.reached()) == (1, there)
    world.wait(0)
    world.run()
    assert len(world.reached()) == 20


def test_what_cannot_be_asked_of_a_rollout_in_its_state_is_refused_with_the_next_step() -> None:
    done = rollouts.Rollout(id="rollout_9", salt="", rules=RULES, state=State.DONE)
    for verb in rollouts.VERBS:
        with pytest.raises(ConflictError, match="rollout_9 is done") as refused:
            rollouts.check_verb(verb, done)
        assert refused.value.hint == "toft central rollout show rollout_9"
    rollouts.check_verb("abort", dataclasses.replace(done, state=State.PAUSED))


class Ends:
    """What becomes of a node that takes a bad revision: it goes back, fails, hangs, or falls silent."""

    ALL = ("back", "failed", "hangs", "silent")


@settings(max_examples=60, deadline=None)
@given(
    count=some.integers(1, 400),
    ends=some.lists(some.sampled_from(Ends.ALL), min_size=1, max_size=5),
    seed=some.integers(0, 2**32),
)
def test_a_revision_that_is_good_nowhere_reaches_two_of_a_hundred_at_most(
    count: int, ends: list[str], seed: int
) -> None:
    chance = random.Random(seed)
    world = World(count, salt=str(seed))
    silent: tuple[str, ...] = ()
    fate: dict[str, str] = {}
    for _ in range(40):
        orders = world.plan()
        # It may die anywhere between two, and do some of them again.
        for each in orders[: chance.randint(0, len(orders))]:
            world.carry_out(each)
            if chance.random() < 0.2:
                world.carry_out(each)
        for id in world.reached():
            fate.setdefault(id, chance.choice(ends))
            place = world.nodes[id].place
            assert place is not None
            if place.stage not in rollouts.UNDER_WAY or chance.random() < 0.5:
                continue
            match fate[id]:
                case "back":
                    world.put(id, Stage.ROLLED_BACK, reason="health_failed")
                case "failed":
                    world.put(id, Stage.FAILED, reason="validation_failed")
                case "hangs":
                    world.put(id, Stage.PROBATION)
                case _:
                    silent = (*silent, id)
        if chance.random() < 0.1:
            world.nodes[f"late_{len(world.nodes)}"] = Member(id=f"late_{len(world.nodes)}", seen_at=world.now)
        # Somebody keeps letting it go on.
        if world.rollout.state is State.PAUSED and chance.random() < 0.5:
            world.change(state=State.RUNNING, opened_at=world.now)
        world.wait(chance.choice((1, 100, 1000, 50_000)), silent=silent)
    assert len(world.reached()) <= max(1, 0.02 * len(world.nodes))
    assert world.rollout.state is not State.DONE


def test_a_clock_that_jumps_back_hides_no_way_back() -> None:
    node = Node(
        id="node_1", tenant="main", name="n", labels={}, public_key="", state="active",
        join_token="", assigned_group=None, created_at=0.0,
    )  # fmt: skip
    told = [
        Event(etag="e", event="staged", at="2099-01-01T00:00:00.000Z", received_at=10.0),
        Event(etag="e", event="rolled_back", at="2026-01-01T00:00:00.000Z", received_at=20.0, reason="r"),
    ]
    for events in (told, told[::-1]):
        assert convergence.reached(node, "e", 5.0, events) == convergence.Reached(Stage.ROLLED_BACK, "r")
    assert convergence.reached(node, "e", 5.0, told[:1]).stage is Stage.STAGED


_NOW, _PATIENCE, _OLD, _NEW = 1_000_000.0, 100.0, "sha256-old", "sha256-new"


def _bad(etag: str = _NEW, ago_s: float = 60.0, *, is_over: bool = False) -> Event:
    return Event(etag=etag, event="rolled_back", at="", received_at=_NOW - ago_s, reason="r", is_over=is_over)


@pytest.mark.parametrize(
    ("fields", "offered", "bad", "expected"),
    [
        ({}, _OLD, None, Standing.CURRENT),
        ({}, None, None, Standing.CURRENT),
        ({"report": {"phase": "staged"}}, _OLD, None, Standing.TRIAL),
        ({"report": {"phase": "staged"}}, _OLD, _bad(), Standing.TRIAL),
        ({}, _NEW, None, Standing.FOLLOWING),
        ({"offered_etag": _NEW, "offered_at": _NOW - 99}, _NEW, None, Standing.FOLLOWING),
        ({"offered_etag": _OLD, "offered_at": _NOW - 999}, _NEW, None, Standing.FOLLOWING),
        ({"offered_etag": _NEW, "offered_at": _NOW - 101}, _NEW, None, Standing.LAGGING),
        ({"offered_etag": _NEW, "offered_at": _NOW - 101}, _NEW, _bad("sha256-else"), Standing.LAGGING),
        ({"last_seen_at": _NOW - 100}, _OLD, None, Standing.CURRENT),
        ({"last_seen_at": _NOW - 101}, _OLD, None, Standing.SILENT),
        ({"last_seen_at": _NOW - 101}, _NEW, _bad(), Standing.SILENT),
        ({}, _NEW, _bad(), Standing.WENT_BACK),
        ({}, _NEW, _bad(ago_s=99 * 3600, is_over=True), Standing.WENT_BACK),
        # What it refused was taken from it: told for a day, or until a document has proven itself there.
        ({}, _OLD, _bad(), Standing.WENT_BACK),
        ({}, None, _bad(), Standing.WENT_BACK),
        ({}, _OLD, _bad(ago_s=24 * 3600), Standing.WENT_BACK),
        ({}, _OLD, _bad(ago_s=24 * 3600 + 1), Standing.CURRENT),
        ({}, _OLD, _bad(is_over=True), Standing.CURRENT),
        ({}, _OLD, _bad(_OLD), Standing.CURRENT),
        ({"last_seen_at": None}, _NEW, None, Standing.NEW),
        ({"state": "pending"}, _NEW, None, Standing.PENDING),
        ({"state": "revoked"}, _NEW, _bad(), Standing.REVOKED),
    ],
)
def test_how_a_node_stands(
    fields: dict[str, Any], offered: str | None, bad: Event | None, expected: Standing
) -> None:
    node = Node(
        id="node_1", tenant="main", name="n", labels={}, public_key="", state="active",
        join_token="", assigned_group=None, created_at=0.0, last_seen_at=_NOW, asked_etag=_OLD,
    )  # fmt: skip
    node = dataclasses.replace(node, **fields)
    assert convergence.standing(node, offered, _PATIENCE, _NOW, bad) is expected
