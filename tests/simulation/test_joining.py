"""Every point at which a join, an enrolment or a leave can be cut off, and what a boot makes of it.

As in `test_generations`: for each step the process is killed, or the power fails in each way the disk allows;
then the node boots twice, and what was asked for is asked for again.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from tests.simulation import file_system
from tests.simulation.file_system import Disk, killed
from tests.simulation.test_generations import World, _form, offer, stopped_worlds

from toft.kernel.errors import NodeError
from toft.managed import generations, identity, joining, protocol
from toft.managed.generations import Generations
from toft.managed.identity import Identity

HOME = Path("/managed")
URL, OTHER = "https://central.example", "https://other.example"
TOKENS = {each: f"jt_{each * 8}_{each * 43}" for each in "ab"}
SEEDS = {each: joining.Seed(url=URL, token=TOKENS[each]) for each in TOKENS}
CREDENTIAL = "nt_" + "C" * 43
KEY = "K" * 43 + "="
NODE = "node_01ARZ3NDEKTSV4RRFFQ69G5FAV"
SECRETS = (*(each.encode() for each in TOKENS.values()), CREDENTIAL.encode(), KEY.encode())


def _files(engine: Generations) -> identity.Files:
    return identity.Files(engine.directory, engine.operations)


def join(name: str) -> Callable[[World, Generations], None]:
    def act(_: World, engine: Generations) -> None:
        joining.join(engine, SEEDS[name])

    return act


def enrol(_: World, engine: Generations) -> None:
    """Write what a daemon writes: its key before it is shown, then what the central has answered."""
    files = _files(engine)
    found = files.read()
    assert found.seed is not None
    mine = Identity(private_key=KEY, url=URL, token_fp=protocol.fingerprint(found.seed.token))
    if found.identity is None:
        files.keep_key(mine, before=found)
        found = files.read()
    member = replace(found.seed, token="", node_id=NODE)
    files.keep_enrolled(member, replace(mine, node_id=NODE, access_token=CREDENTIAL), before=found)


def leave(_: World, engine: Generations) -> None:
    joining.leave(engine)


def _bare(world: World) -> None:
    world.start()


def _joined(world: World) -> None:
    join("a")(world, world.engine()[0])
    world.start()


def _enrolled(world: World) -> None:
    _joined(world)
    enrol(world, world.engine()[0])


def _proven(world: World) -> None:
    _enrolled(world)
    assert world.boot
    world.engine()[0].commit(offer(1), world.boot.nonce)
    assert world.engine()[0].confirm(world.start())


@dataclass(frozen=True)
class Scenario:
    before: Callable[[World], None]
    act: Callable[[World, Generations], None]
    old: str
    new: str


SCENARIOS = {
    "join": Scenario(_bare, join("a"), "bare", "seed a"),
    "join with another token": Scenario(_joined, join("b"), "seed a", "seed b"),
    "join anew": Scenario(_proven, join("b"), "member", "seed b"),
    "enrol": Scenario(_joined, enrol, "seed a", "seed a, member"),
    "leave before enrolling": Scenario(_joined, leave, "seed a", "bare"),
    "leave before the first document": Scenario(_enrolled, leave, "seed a, member", "bare"),
    "leave": Scenario(_proven, leave, "member", "bare"),
}


def form(world: World) -> str:
    """Say where the node belongs by what lies on its disk; every file that is there is whole."""
    found = _files(world.engine()[0]).read()
    assert found.problems == ()
    parts = [f"seed {name}" for name, token in TOKENS.items() if found.seed and found.seed.token == token]
    assert bool(parts) == (found.seed is not None)
    if found.enrollment is not None and found.identity is not None and found.identity.access_token:
        assert found.enrollment.node_id == found.identity.node_id == NODE
        parts.append("member")
    return ", ".join(parts) or "bare"


def check(name: str, world: World, *, done: bool) -> None:
    scenario = SCENARIOS[name]
    boots = [world.start(), world.start()]
    now = form(world)
    assert now in {scenario.new, *(() if done else (scenario.old,))}, "the one or the other, whole"
    if now == scenario.new != scenario.old:
        _check_new(name, world, boots[-1])
    # Whatever it was cut off at: said again, it comes to its end.
    if name != "enrol" or now == scenario.old:
        scenario.act(world, world.engine()[0])
    last = world.start()
    assert form(world) == scenario.new
    _check_new(name, world, last)
    if "seed" in scenario.new:
        _finish(world)


def _check_new(name: str, world: World, boot: generations.Boot) -> None:
    files = Disk(world.root).list(str(HOME))
    assert not any(each.startswith(".tmp-") for each in files)
    standing = world.engine()[0].read()
    assert standing.state.phase == "idle"
    if name != "enrol":
        # 14: nothing of what was before shadows what was asked for
        assert (boot.etag, standing.active) == ("", None)
        assert [each for each in files if each.startswith("slot-")] == []
    if SCENARIOS[name].new == "bare":
        assert boot.mode == "bare"
        assert [each for each in files if not each.startswith("journal")] == []
        assert all(file_system.holds(world.root, each) == [] for each in SECRETS)
    if name in ("join anew", "join with another token"):
        # The token of before is nowhere, and neither is who the node was.
        assert file_system.holds(world.root, TOKENS["a"].encode()) == []
        assert file_system.holds(world.root, KEY.encode()) == []


def _finish(world: World) -> None:
    """From here the node enrols, proves its first document, and then has no token left."""
    enrol(world, world.engine()[0])
    boot = world.start()
    world.engine()[0].commit(offer(9), boot.nonce, is_live=True)
    assert world.engine()[0].confirm(world.start())
    assert world.start().mode == "slot"
    for token in TOKENS.values():
        assert file_system.holds(world.root, token.encode()) == []
    assert form(world) == "member"


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_stop_breaks_a_membership(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    scenario = SCENARIOS[name]
    world = World()
    scenario.before(world)
    count, seen = 0, set()
    for once, done in stopped_worlds(world, scenario.act, most=16):
        shape = (_form(once.root), done)
        if shape in seen:
            continue
        seen.add(shape)
        check(name, once.like(killed(once.root)), done=done)
        count += 1
        for twice, _ in stopped_worlds(once, lambda _, engine: engine.boot("cut-off") and None, most=4):
            shape = (_form(twice.root), done)
            if shape not in seen:
                seen.add(shape)
                check(name, twice, done=done)
                count += 1
    with capsys.disabled():
        sys.stdout.write(f" {name}: booted from {count} disks, no violation;")
    assert count > 3


def test_what_a_daemon_had_on_its_way_is_not_kept_after_a_leave() -> None:
    world = World()
    _enrolled(world)
    assert world.boot
    boot, before = world.boot, _files(world.engine()[0]).read()
    joining.leave(world.engine()[0])
    engine = world.engine()[0]
    with pytest.raises(NodeError, match="joined or left"):
        engine.commit(offer(1), boot.nonce, is_live=True)
    assert before.enrollment
    assert before.identity
    with pytest.raises(NodeError, match="joined or left"):
        _files(engine).keep_enrolled(before.enrollment, before.identity, before=before)
    assert form(world) == "bare"
    assert json.loads(world.start().document) == {"schema_version": 1}
