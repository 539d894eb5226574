"""Every point at which a document that pins code can be cut off, from its first byte to its commit and boot.

One thing is cut off, as a node does it: wheels are fetched, an environment is made and tried, the slot is
filled, the intent written, the pointer flipped. For each step the process is killed, or the power fails in
every way the disk allows; then the node boots, is cut off again at each step of that, and boots twice more.
"""

import asyncio
import dataclasses
import itertools
import re
import sys
from collections.abc import Callable, Iterator

import pytest
from tests.simulation import file_system
from tests.simulation.file_system import Directory, Disk, Stopped, cuts, killed
from tests.simulation.test_generations import SEED, TOKEN
from tests.simulation.test_installs import HOME, Rooms, _check_slots, _check_store, _form, document

from toft.managed import generations, slots, staging
from toft.managed.generations import Boot, Generations
from toft.managed.moments import Moment
from toft.managed.phases import Phase
from toft.managed.wheels import Wheels

NOW = Moment("first", 1000.0, 1_700_000_000.0)
OLD, NEW, NEXT = 1, 2, 3
MANAGED = HOME / "managed"


class Node(Rooms):
    """A node whose documents bring their code, on a disk that may stop it."""

    def __init__(self, root: Directory, *, stop_at: int | None = None, kind: type[Generations]) -> None:
        super().__init__(Disk(root, stop_at=stop_at), Wheels)
        self.engine = kind(MANAGED, lambda: NOW, self.disk, code=self.trees)

    def stage(self, number: int, boot: Boot) -> None:
        offered = staging.stage(
            self.engine,
            document(number),
            nonce=boot.nonce,
            source="https://central.example.org",
            installer=self.installing,
        )
        assert asyncio.run(offered).action == "applied"


@dataclasses.dataclass
class World:
    """One machine, and the process that runs on it."""

    root: Directory
    boot: Boot | None = None
    kind: type[Generations] = Generations
    count: Iterator[int] = dataclasses.field(default_factory=itertools.count)

    def node(self, stop_at: int | None = None) -> Node:
        return Node(self.root, stop_at=stop_at, kind=self.kind)

    def start(self) -> Boot:
        self.boot = self.node().engine.boot(f"boot-{next(self.count)}")
        return self.boot

    def prove(self, number: int) -> None:
        self.node().stage(number, self.boot or self.start())
        assert self.node().engine.confirm(self.start())

    def like(self, root: Directory) -> "World":
        return dataclasses.replace(self, root=root, count=itertools.count(1000))


def _proven(kind: type[Generations]) -> World:
    """Return a node that has joined, and runs a document with its code."""
    disk = Disk()
    disk.make(str(HOME), 0o700)
    disk.sync_directory("/")
    world = World(disk.root, kind=kind)
    world.start()
    world.node().engine.reset(SEED)
    world.start()
    world.prove(OLD)
    return world


def _stage(world: World, node: Node) -> None:
    assert world.boot
    node.stage(NEW, world.boot)


def _boot(world: World, node: Node) -> None:
    node.engine.boot("cut-off")


def _stops(world: World, act: Callable[[World, Node], None]) -> Iterator[tuple[World, bool]]:
    """Yield what each stop of something leaves: of the process, and of the power in every way."""
    for step in itertools.count():
        trying = world.like(killed(world.root))
        try:
            act(trying, trying.node(step))
            done = True
        except Stopped:
            done = False
        yield world.like(killed(trying.root)), done
        for root in cuts(trying.root, most=6):
            yield world.like(root), done
        if done:
            return


def _check(world: World, *, done: bool, to_the_end: bool) -> None:
    """Boot twice and hold everything that must be true against what is there."""
    boots = [world.start(), world.start()]
    boot, node = boots[-1], world.node()
    standing = node.engine.read()
    assert boots[0].etag == boot.etag, "two boots in a row load one document"
    assert boot.etag in {document(NEW).etag, *(() if done else (document(OLD).etag,))}
    # 12, 14, 16: what counts on disk is what was loaded, whole, with the code that was tried with it
    slot = standing.slots[boot.slot]
    assert (standing.active, slot.problem, slot.document) == (boot.slot, "", boot.document)
    assert boot.meta.artifacts
    assert (boot.damaged, node.trees.problems(boot.meta.artifacts)) == ((), {})
    assert node.trees.can_be_mended(boot.document)
    _check_store(node)
    # 13, 17: nobody is condemned for a stop, and what is new has yet to prove itself
    assert standing.state.bad == ()
    is_new = boot.etag == document(NEW).etag
    assert (boot.trial is not None, standing.state.phase) == (is_new, Phase.STAGED if is_new else Phase.IDLE)
    # 18
    assert file_system.holds(world.root, TOKEN.encode()) == []
    assert not any(each.startswith(".tmp-") for each in node.disk.list(str(MANAGED)))
    # 15: only the last process that loaded it may confirm it
    for other in (boots[0], dataclasses.replace(boot, nonce="boot-2")):
        assert not node.engine.confirm(other)
    assert node.engine.confirm(boot) == is_new
    if to_the_end:
        _go_on(world)


def _go_on(world: World) -> None:
    """From everywhere the next document is installed and proven, and what is left over is collected."""
    world.prove(NEXT)
    node = world.node()
    node.collect()
    _check_slots(node)
    assert world.start().etag == document(NEXT).etag
    needed = {each["tree"] for slot in node.engine.read().slots.values() for each in slot.meta.artifacts}
    assert needed <= set(node.environments.pinned())


def _generations(root: Directory) -> str:
    """Write down what a boot decides by: all but what is fetched and installed."""
    managed = root.names["home"].names["managed"]  # type: ignore[union-attr]
    return _dated(repr([managed.names.get(name) for name in ("active", "journal.json", "journal.prev")])) + (
        _dated(repr([managed.names.get(f"slot-{name}") for name in slots.NAMES]))
    )


def _dated(form: str) -> str:
    return re.sub(r'"fetched_at": [0-9.e+]+', "", form)


def explore(kind: type[Generations] = Generations) -> int:
    """Go through it; return how many disks were booted from."""
    seen: set[tuple[str, bool]] = set()
    begun: set[tuple[str, bool]] = set()

    def look(stopped: World, done: bool) -> None:
        form = _dated(_form(stopped.root)), done
        if form not in seen:
            seen.add(form)
            _check(stopped, done=done, to_the_end=len(seen) % 8 == 0)

    for once, done in _stops(_proven(kind), _stage):
        kept = once.like(killed(once.root))
        part = _generations(once.root), done
        look(once, done)
        if part not in begun:
            # What was fetched until then changes nothing of what a boot does.
            begun.add(part)
            for twice, _ in _stops(kept, _boot):
                look(twice, done)
    return len(seen)


def test_no_stop_between_the_first_byte_and_the_boot_breaks_a_promise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    count = explore()
    with capsys.disabled():
        sys.stdout.write(f" stage: booted from {count} disks, no violation;")
    assert count > 100


class _CommitsFirst(Generations):
    """The pointer before the intent: what was never tried runs as if it were proven."""

    def _commit(self, offer: generations.Offer, nonce: str, is_live: bool) -> str:
        prev = self._slots.active()
        self._slots.fill(slots.other(prev), offer.document, offer.meta)
        self._slots.point(slots.other(prev))
        self._slots.point(prev or "a")
        return super()._commit(offer, nonce, is_live)


def test_a_wrong_order_is_seen() -> None:
    with pytest.raises(AssertionError):
        explore(_CommitsFirst)
