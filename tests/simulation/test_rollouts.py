"""A rollout on a real database: killed at every write it goes on, and a bad one reaches two of a hundred."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import fleets
from tests.fleets import Fleet, MortalStore, StoppedError

from toft.central import audit
from toft.central.rollouts import Stage, State
from toft.central.room import TENANT, Central
from toft.kernel.clock import ManualClock
from toft.kernel.errors import ConflictError, NotFoundError
from toft.store import database

WAVES = {"waves": [{"percent": percent, "bake_s": 60} for percent in (20, 100)]}
Fate = Callable[[str, str], str]


def good(id: str, etag: str) -> str:
    return "applied"


async def begun(store: Any, clock: ManualClock, count: int, fate: Fate = good) -> tuple[Central, Fleet]:
    """Open a central with a fleet that runs the first revision."""
    central = await Central(store, [fleets.URL], clock=clock).open()
    fleet = Fleet(central, clock, good)
    await fleets.save(central, 1)
    await central.publish(fleets.document(central), 1, by="ops")
    await fleet.add(count)
    await fleet.turn()
    fleet.fate = fate
    return central, fleet


async def run(central: Central, fleet: Fleet, turns: int, *, seconds: float = 61.0) -> None:
    """Let time pass: nodes ask, and the controller looks."""
    for _ in range(turns):
        await central.controller.step()
        await fleet.turn()
        await central.controller.step()
        fleet.clock.advance(seconds)


async def test_a_good_revision_reaches_everybody_and_is_then_everybodys(tmp_path: Path) -> None:
    async with fleets.opened(tmp_path / "central.db") as store:
        clock = ManualClock()
        central, fleet = await begun(store, clock, 20)
        number = await fleets.save(central, 2)
        rollout = await fleets.roll_out(central, rules=WAVES, message="more lanes")
        await central.controller.step()
        assert len(rollout.reached) == 4
        others = [node for node in central.nodes if node.id not in rollout.reached]
        first = {(await served(central, node.id)) for node in others}
        assert first == {fleet.runs[others[0].id]}, "who is not in a wave has what they had"
        await run(central, fleet, 4)
        assert rollout.state is State.DONE
        assert fleets.document(central).published == number
        assert rollout.counts()["applied"] == 20
        (late,) = await fleets.add_nodes(central, [99])
        assert await served(central, late.id) == fleet.runs[others[0].id]
        with pytest.raises(ConflictError, match="is what nodes get already"):
            await fleets.roll_out(central)
        assert (await audit.verify(store)).broken_at is None
        actions = [each["action"] for each in await audit.entries(store)][::-1]
        did = ["start", "wave", "offer", "wave", "offer", "done"]
        assert actions[-6:] == [f"rollout.{each}" for each in did]


async def served(central: Central, id: str) -> str:
    node = central.nodes.find(id)
    assert node is not None
    offer = await central.offers.offered(node)
    assert offer is not None
    return offer.served.etag


@pytest.mark.parametrize("reason", ["health_failed", "validation_failed", "hangs"])
async def test_a_bad_revision_stops_at_two_of_a_hundred_of_200_nodes(tmp_path: Path, reason: str) -> None:
    async with fleets.opened(tmp_path / "central.db") as store:
        clock = ManualClock()
        central, fleet = await begun(store, clock, 200)
        before = fleet.runs["node_" + "0" * 26]
        await fleets.save(central, 2)
        fleet.fate = lambda id, etag: "applied" if etag == before else reason
        fleet.took.clear()
        rollout = await fleets.roll_out(central)
        await run(central, fleet, 12, seconds=100)
        assert rollout.state is (State.PAUSED if reason == "hangs" else State.ABORTED)
        assert len(fleet.took) == 4
        assert set(fleet.runs.values()) == {before}
        if reason == "hangs":
            await central.launching.ask(TENANT, rollout.id, "abort", by="token:ops", reason="it hangs")
        else:
            assert reason in rollout.reason
            stages = [
                each for each in rollout.places.values() if each.stage in (Stage.FAILED, Stage.ROLLED_BACK)
            ]
            assert {each.reason for each in stages} == {reason}
        assert {await served(central, node.id) for node in central.nodes} == {before}
        assert fleets.document(central).published == 1


async def test_an_abort_gives_those_that_were_moved_what_they_had_without_a_new_revision(
    tmp_path: Path,
) -> None:
    async with fleets.opened(tmp_path / "central.db") as store:
        clock = ManualClock()
        central, fleet = await begun(store, clock, 20)
        before = set(fleet.runs.values())
        await fleets.save(central, 2)
        woken: list[str] = []
        rollout = await fleets.roll_out(central, rules=WAVES)
        await run(central, fleet, 1)
        moved = [id for id, etag in fleet.runs.items() if etag not in before]
        assert sorted(moved) == sorted(rollout.reached)
        central.nodes.changed.append(lambda node: woken.append(node.id))
        await central.launching.ask(TENANT, rollout.id, "abort", by="token:ops", reason="wrong day")
        assert sorted(woken) == sorted(moved)
        await fleet.turn()
        assert set(fleet.runs.values()) == before
        with pytest.raises(ConflictError, match="is aborted"):
            await central.launching.ask(TENANT, rollout.id, "resume", by="token:ops")
        with pytest.raises(NotFoundError, match="no rollout"):
            await central.launching.ask(TENANT, "rollout_none", "abort", by="token:ops")


async def test_rolled_out_again_it_is_another_attempt_and_what_was_said_before_does_not_count(
    tmp_path: Path,
) -> None:
    async with fleets.opened(tmp_path / "central.db") as store:
        clock = ManualClock()
        central, fleet = await begun(store, clock, 20)
        before = set(fleet.runs.values())
        await fleets.save(central, 2)
        fleet.fate = lambda id, etag: "applied" if etag in before else "health_failed"
        first = await fleets.roll_out(central, rules=WAVES)
        await run(central, fleet, 2)
        assert first.state is State.ABORTED
        fleet.fate = good
        again = await fleets.roll_out(central, rules=WAVES)
        assert (again.attempt, again.state) == (2, State.RUNNING)
        await run(central, fleet, 4)
        assert again.state is State.DONE
        assert again.counts()["applied"] == 20


async def test_the_operator_pauses_resumes_promotes_and_skips_waves_in_an_emergency(tmp_path: Path) -> None:
    async with fleets.opened(tmp_path / "central.db") as store:
        clock = ManualClock()
        central, fleet = await begun(store, clock, 20)

        async def ask(verb: str) -> None:
            await central.launching.ask(TENANT, rollout.id, verb, by="token:ops")
            await central.controller.step()

        await fleets.save(central, 2)
        rollout = await fleets.roll_out(central, rules=WAVES, is_draft=True)
        await run(central, fleet, 2)
        assert not rollout.places
        await ask("start")
        assert len(rollout.reached) == 4
        await ask("pause")
        await run(central, fleet, 4)
        assert (rollout.state, len(rollout.reached)) == (State.PAUSED, 4)
        with pytest.raises(ConflictError, match=r"is paused; pause is for one that is running"):
            await ask("pause")
        await ask("resume")
        assert rollout.wave == 0
        await ask("promote")
        assert len(rollout.reached) == 20
        await ask("promote")
        assert rollout.state is State.DONE
        await fleet.turn()
        await fleets.save(central, 3)
        rollout = await fleets.roll_out(central, rules=WAVES)
        with pytest.raises(ConflictError, match="is running with revision 3"):
            await fleets.roll_out(central)
        await central.controller.step()
        await ask("emergency")
        assert (rollout.wave, len(rollout.reached), rollout.is_emergency) == (1, 20, True)


async def test_a_pinned_node_is_left_out_and_one_that_another_layer_moves_is_judged_by_that(
    tmp_path: Path,
) -> None:
    async with fleets.opened(tmp_path / "central.db") as store:
        clock = ManualClock()
        central, fleet = await begun(store, clock, 10)
        nodes = list(central.nodes)
        await central.nodes.pin(nodes[0], fleet.runs[nodes[0].id].removeprefix("sha256-"), by="ops")
        await fleets.save(central, 2)
        rules = {"waves": [{"percent": 100, "bake_s": 60}]}
        rollout = await fleets.roll_out(central, rules=rules)
        await central.controller.step()
        assert rollout.places[nodes[0].id].stage is Stage.SKIPPED
        assert len(rollout.reached) == 9
        # Before anybody asks, another layer changes what one of them is to run.
        await fleets.save(central, 7, scope="node", target=nodes[5].id)
        await central.publish(fleets.document(central, "node", nodes[5].id), 3, by="ops")
        await fleet.turn()
        await central.controller.step()
        assert rollout.counts()["applied"] == 9
        assert rollout.places[nodes[5].id].etag == fleet.runs[nodes[5].id]


@pytest.mark.parametrize("is_bad", [False, True])
@pytest.mark.parametrize("is_written", [False, True])
async def test_killed_at_any_write_it_goes_on_from_the_rows(
    tmp_path: Path, is_bad: bool, is_written: bool
) -> None:
    """Each order is one transaction; the process dies before or after every one of them, and once more."""
    deaths = 0
    async with fleets.opened(tmp_path / "seed.db") as store:
        clock = ManualClock()
        central, fleet = await begun(store, clock, 12)
        await fleets.save(central, 2)
        await fleets.roll_out(central, rules=WAVES)
        before = dict(fleet.runs)
        await central.close()
    for dies_at in range(100):
        path = tmp_path / f"{dies_at}.db"
        database.copy(tmp_path / "seed.db", path)
        ended = await lived(path, dies_at, is_bad, is_written, dict(before))
        path.unlink()
        if not ended:
            break
        deaths += 1
    assert deaths >= (10 if is_bad else 30)


async def lived(path: Path, dies_at: int, is_bad: bool, is_written: bool, runs: dict[str, str]) -> bool:
    """Live until the process is killed and then to the end; False when it was not killed."""
    clock = ManualClock(1_700_000_100.0)
    old = set(runs.values())
    took: dict[str, set[str]] = {}
    refused: dict[str, tuple[str, int]] = {}
    unsent: dict[str, dict[str, Any]] = {}
    has_died = False
    for death in (dies_at, 1, None):
        async with fleets.opened(path) as real:
            store = MortalStore(real)
            central = await Central(store, [fleets.URL], clock=clock).open()
            store.dies_at, store.writes = death, 0
            store.is_written = is_written
            fleet = Fleet(
                central,
                clock,
                lambda id, etag: "health_failed" if is_bad and etag not in old else "applied",
            )
            fleet.runs, fleet.took, fleet.refused, fleet.unsent = runs, took, refused, unsent
            try:
                await run(central, fleet, 5)
            except StoppedError:
                has_died = True
                continue
            rollout = (await central.rollouts.list(TENANT))[0]
            assert rollout.state is (State.ABORTED if is_bad else State.DONE), rollout.reason
            assert (set(runs.values()) == old) is is_bad
            assert len(took) == (2 if is_bad else 12)
            assert fleets.document(central).published == (1 if is_bad else 2)
            whole = await central.rollouts.get(TENANT, rollout.id)
            assert whole.counts()["rolled_back" if is_bad else "applied"] == (2 if is_bad else 12)
            assert (await audit.verify(real)).broken_at is None
            if death == dies_at:
                return False
    assert has_died
    return True
