"""Which generation counts, seen from the process that has loaded one: what happens at its start is seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from toft.daemon import __main__ as program
from toft.daemon.managing import Managing
from toft.managed import generations, phases
from toft.managed.generations import Generations


@pytest.fixture
def engine(tmp_path: Path) -> Generations:
    return Generations.at(tmp_path)


def document(lanes: int) -> generations.Offer:
    return generations.offer(json.dumps({"schema_version": 1, "settings": {"lanes": lanes}}).encode())


async def restarts(managed: Managing) -> bool:
    asked: list[bool] = []
    await managed.look(lambda: asked.append(True))
    return bool(asked)


async def test_what_was_committed_between_the_boot_and_the_first_look_is_seen(engine: Generations) -> None:
    managed = Managing(engine, engine.boot("first"), environ={})
    assert not await restarts(managed)
    engine.commit(document(1), "somebody")
    assert await restarts(managed), "nobody could tell it: it had no record yet"
    adopted = engine.adopt("first")
    assert adopted is None or adopted.trial is None, "the trial is another document's"


async def test_another_document_in_the_slot_of_this_one_is_another_generation(engine: Generations) -> None:
    engine.commit(document(1), "cli")
    boot = engine.boot("second")
    managed = Managing(engine, boot, environ={})
    assert not await restarts(managed)
    engine.revert("operator", phases.Severity.PERMANENT)
    engine.commit(document(2), "cli")
    assert engine.read().active == boot.slot
    assert await restarts(managed)


async def test_what_went_back_does_not_say_how_long_its_way_back_takes(engine: Generations) -> None:
    engine.commit(document(1), "cli")
    managed = Managing(engine, engine.boot("first"), environ={})
    assert await managed.drain_s(86_400.0) == 86_400.0, "it ends for somebody, not for another document"
    managed.wants_restart = True
    assert await managed.drain_s(86_400.0) == 86_400.0
    engine.revert("health_failed", phases.Severity.PERMANENT)
    assert await managed.drain_s(86_400.0) == 60.0
    assert await managed.drain_s(5.0) == 5.0


async def test_what_is_damaged_does_not_say_how_long_its_way_back_takes(engine: Generations) -> None:
    engine.commit(document(1), "cli")
    boot = engine.boot("first")
    managed = Managing(engine, boot, environ={})
    managed.wants_restart = True
    engine.revert("slot_corrupt", None)
    assert await managed.drain_s(86_400.0) == 60.0
    assert engine.read().state.bad == (), "though nobody is to blame"


async def test_what_was_decided_before_the_start_is_done_and_another_process_goes_on(
    engine: Generations,
) -> None:
    engine.commit(document(1), "cli")
    managed = Managing(engine, engine.boot("first"), environ={})
    wanted: list[str] = []
    await managed.work(lambda: wanted.append("restart"))
    assert wanted == []
    undo = phases.Undo(
        etag=managed.boot.etag,
        slot=managed.boot.slot,
        prev="a",
        reason="health_failed",
        severity=phases.Severity.PERMANENT,
    )
    engine.record(lambda state: phases.reverting(state, undo))
    await managed.work(lambda: wanted.append("restart"))
    assert wanted == ["restart"]
    assert engine.read().active == "a"


@pytest.mark.parametrize(("blame", "counts"), [("the address is taken", False), ("", True)])
def test_a_start_that_fails_for_what_lies_outside_is_no_crash_of_the_document(
    engine: Generations, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, blame: str, counts: bool
) -> None:
    engine.commit(document(1), "cli")
    boots = []
    for count in range(4):
        engine.boot(f"life-{count}")
        if blame:
            monkeypatch.chdir(tmp_path)
            assert program.main(["--home", str(tmp_path), "--listen", "no address"]) != 0
        trial = engine.read().state.trial
        assert trial is not None
        boots.append(trial.boots)
    assert (boots[-1] > 1) is counts
