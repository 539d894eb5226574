"""Every point at which fetching, installing and collecting pinned code can be cut off, and what is left then.

For each step: the process is killed, or the power fails in every way the disk allows; then what a document
may rely on is looked at, and whoever tries again is cut off again at each step of that. From there the next
document is installed, and what nobody needs is collected.
"""

import asyncio
import contextlib
import hashlib
import itertools
import json
import re
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.pinned import document_of
from tests.simulation.file_system import Directory, Disk, Stopped, cuts, killed

from toft.managed import collecting, slots, trees
from toft.managed.bundled import Bundled
from toft.managed.collecting import Collected, Keeping
from toft.managed.document import Document
from toft.managed.install_errors import InstallError
from toft.managed.installing import Installing
from toft.managed.pins import Pin
from toft.managed.trees import Trees
from toft.managed.wheels import Places, Wheels
from toft.plugins.environments.provisioning import PinnedWheel
from toft.plugins.manifests import manifest
from toft.store import durable

HOME = Path("/home")
STORE = HOME / "managed" / "store"


def wheel(number: int) -> bytes:
    return f"the wheel number {number}, ".encode() * 20


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


WHEELS = {sha256(wheel(number)): wheel(number) for number in range(10)}


def told(number: int) -> dict[str, Any]:
    data = wheel(number)
    return {
        "version": "1.0",
        "filename": f"wheel{number}-1.0-py3-none-any.whl",
        "sha256": sha256(data),
        "size_bytes": len(data),
    }


def document(number: int) -> Document:
    """Return a document with a wheel of its own, and one that all documents have."""
    return document_of({"echo": {**told(number), "packages": [{"name": "wheel0", **told(0)}]}})


class Served:
    """A central that has every wheel, in small pieces."""

    async def open(self, digest: str) -> AsyncGenerator[bytes]:
        data = WHEELS[digest]
        yield data[:100]
        yield data[100:]


class Environments:
    """Environments as the real ones are made: under their final name, and there once the record is."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    @contextlib.asynccontextmanager
    async def build(
        self, pin: Pin, wheels: Sequence[PinnedWheel]
    ) -> AsyncIterator[tuple[manifest.Manifest, bool]]:
        digest = sha256("".join(sorted(each.sha256 for each in wheels)).encode())[:32]
        path = HOME / "environments" / digest
        is_new = digest not in self.pinned()
        if is_new:
            self._make(path, wheels)
        yield _manifest(digest), is_new

    def _make(self, path: Path, wheels: Sequence[PinnedWheel]) -> None:
        durable.make_directory(path.parent, operations=self._disk)
        durable.discard(path, operations=self._disk)
        self._disk.make(str(path), 0o755)
        for each in wheels:
            data = self._disk.read(str(each.path))
            assert sha256(data) == each.sha256, "as uv looks, too"
            self._disk.write(str(path / each.filename), data, 0o444)
        self._disk.sync_directory(str(path))
        self._disk.sync_directory(str(path.parent))
        record = json.dumps({"packages": len(wheels)}).encode()
        durable.write_file(path / trees.RECORD, record, operations=self._disk)

    async def ask(self, own: Bundled) -> manifest.Manifest:
        raise AssertionError("nothing comes with this toft")

    def discard(self, digest: str) -> bool:
        path = HOME / "environments" / digest
        aside = durable.temporary_name(path)
        try:
            self._disk.rename(str(path), str(aside))
        except FileNotFoundError:
            return False
        self._disk.sync_directory(str(path.parent))
        durable.discard(aside, operations=self._disk)
        return True

    def pinned(self) -> list[str]:
        try:
            names = self._disk.list(str(HOME / "environments"))
        except FileNotFoundError:
            return []
        return [name for name in names if trees.RECORD in self._disk.list(str(HOME / "environments" / name))]


def _manifest(digest: str) -> manifest.Manifest:
    install = manifest.Install(python_path="/python")
    told = {"name": "echo", "version": "1.0", "module": "echo", "class": "Echo"}
    return manifest.from_description(
        told, install, manifest.Runtime(environment=digest, environment_kind="pinned")
    )


@dataclass
class World:
    """One machine's disk, and what works on it."""

    root: Directory

    def at(
        self, *, stop_at: int | None = None, fail_at: int | None = None, kind: type[Wheels] = Wheels
    ) -> "Rooms":
        return Rooms(Disk(self.root, stop_at=stop_at, fail_at=fail_at), kind)


class Rooms:
    """The rooms that install and collect, on a disk that may stop them."""

    def __init__(self, disk: Disk, kind: type[Wheels]) -> None:
        self.disk = disk
        self.environments = Environments(disk)
        self.trees = Trees(HOME, disk, survey=self._survey)
        self.keeping = Keeping(HOME, disk, hold=lambda shared: contextlib.nullcontext())
        self.wheels = kind(HOME, Places(source=Served()), operations=disk)
        self.slots = slots.Slots(HOME / "managed", disk)
        self.installing = Installing(
            self.wheels,
            self.trees,
            self.keeping,
            environments=self.environments,
            knows=lambda name: None,
            came=dict,
        )

    def install(self, number: int) -> tuple[trees.Artifact, ...]:
        return asyncio.run(self.installing.install(document(number)))

    def collect(self) -> Collected:
        return self.keeping.collect(self.environments)

    def fill(self, name: str, number: int) -> None:
        artifacts = tuple(each.to_dict() for each in self.install(number))
        offered = document(number)
        meta = slots.Meta(etag=offered.etag, sha256=sha256(offered.data), artifacts=artifacts)
        durable.make_directory(HOME / "managed", operations=self.disk)
        self.slots.fill(name, offered.data, meta)

    def _survey(self, path: Path) -> list[trees.Entry]:
        return [(name, 0, self.disk.digest(str(path / name))) for name in self.disk.list(str(path))]

    def names(self, below: str) -> list[str]:
        try:
            return self.disk.list(str(STORE / below))
        except FileNotFoundError:
            return []


def _empty() -> World:
    disk = Disk()
    disk.make(str(HOME), 0o700)
    disk.sync_directory("/")
    return World(disk.root)


def _two_slots() -> World:
    """Return a machine with two documents in slots, a third that was installed last, and an old one."""
    world = _empty()
    for name, number in (("a", 4), ("a", 3), ("a", 1), ("b", 2)):
        world.at().fill(name, number)
    return world


def _check_store(rooms: Rooms) -> None:
    """What has a name is what the name says."""
    for name in rooms.names("wheels"):
        if not name.startswith(".tmp-"):
            assert rooms.disk.digest(str(STORE / "wheels" / name)) == name.removesuffix(".whl")
    for name in rooms.names("trees"):
        if not name.startswith(".tmp-"):
            assert rooms.disk.digest(str(STORE / "trees" / name)) == name.split(".")[1]


def _check_slots(rooms: Rooms) -> None:
    """What a document in a slot needs is there and whole."""
    for name in slots.NAMES:
        slot = rooms.slots.look(name)
        assert not slot.problem
        assert rooms.trees.problems(slot.meta.artifacts) == {}
        assert rooms.trees.can_be_mended(slot.document)


def _goes_on(world: World) -> None:
    """From everywhere the next document can be installed, and then only what is needed is left."""
    rooms = world.at()
    artifacts = rooms.install(5)
    assert rooms.trees.problems([each.to_dict() for each in artifacts]) == {}
    rooms.collect()
    needed = {each.tree for each in artifacts}
    for name in slots.NAMES:
        needed |= {each["tree"] for each in rooms.slots.look(name).meta.artifacts}
    assert set(rooms.environments.pinned()) == needed
    assert {name.split(".")[0] for name in rooms.names("trees")} == needed
    assert len(rooms.names("wheels")) == len(needed) + 1
    _check_store(rooms)


Act = Callable[[Rooms], object]


def _stops(world: World, act: Act, kind: type[Wheels]) -> Iterator[World]:
    """Yield what each stop of something leaves: of the process, and of the power in every way."""
    for step in itertools.count():
        trying = World(killed(world.root))
        try:
            act(trying.at(stop_at=step, kind=kind))
            done = True
        except Stopped:
            done = False
        yield World(killed(trying.root))
        for root in cuts(trying.root, most=6):
            yield World(root)
        if done:
            return


SCENARIOS: dict[str, tuple[Callable[[], World], Act]] = {
    "first install": (_empty, lambda rooms: rooms.install(1)),
    "install": (_two_slots, lambda rooms: rooms.install(3)),
    "collect": (_two_slots, lambda rooms: rooms.collect()),
    "install and collect": (_two_slots, lambda rooms: (rooms.install(6), rooms.collect())),
}


EVERY = {"first install": 8, "install": 3, "collect": 6, "install and collect": 24}
"""From every so many disks that one stop leaves, somebody tries again and is cut off again."""


def _form(root: Directory) -> str:
    """Write a disk down, so that two which differ in nothing but temporary names are one."""
    return re.sub(r"(\.tmp-[\w.-]+?)-\d+-\d+'", r"\1'", repr(root))


def explore(name: str, kind: type[Wheels] = Wheels) -> int:
    """Go through one scenario, and cut off whoever tries again; return how many disks were looked at."""
    before, act = SCENARIOS[name]
    seen: set[str] = set()

    def look(stopped: World) -> bool:
        form = _form(stopped.root)
        if form in seen:
            return False
        seen.add(form)
        rooms = stopped.at()
        _check_store(rooms)
        if before is _two_slots:
            _check_slots(rooms)
        if len(seen) % 3 == 0:
            _goes_on(stopped)
        return True

    # By themselves: the first try again, from where nothing was done yet, passes all that one stop leaves.
    begun: set[str] = set()
    for once in _stops(before(), act, kind):
        form = _form(once.root)
        if form in begun:
            continue
        begun.add(form)
        kept = World(killed(once.root))
        look(once)
        if len(begun) % EVERY[name] == 0:
            for twice in _stops(kept, act, kind):
                look(twice)
    return len(seen)


@pytest.mark.parametrize("name", SCENARIOS)
def test_no_stop_leaves_half_of_anything(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    count = explore(name)
    with capsys.disabled():
        sys.stdout.write(f" {name}: {count} disks, no violation;")
    assert count > 20


@pytest.mark.parametrize("name", ["first install", "install"])
def test_a_full_disk_at_any_step_is_told_as_one_and_passes(name: str) -> None:
    before, act = SCENARIOS[name]
    world = before()
    for step in itertools.count(1):
        trying = World(killed(world.root))
        rooms = trying.at(fail_at=step)
        failed = _failed(act, rooms)
        assert failed is None or (failed.kind, failed.is_transient) == ("plugin_install_failed", True)
        if rooms.disk.steps < step:
            return
        _check_store(trying.at())
        _goes_on(trying)


def _failed(act: Act, rooms: Rooms) -> InstallError | None:
    try:
        act(rooms)
    except InstallError as error:
        return error
    return None


class _NamesBeforeItIsWhole(Wheels):
    """The name before the bytes are on disk."""

    def _publish(self, temporary: Path, wheel: Any) -> None:
        self._operations.rename(str(temporary), str(self.path(wheel.sha256)))
        self._operations.sync_directory(str(self.directory))


def test_a_wrong_order_is_seen() -> None:
    with pytest.raises(AssertionError):
        explore("first install", _NamesBeforeItIsWhole)


class _HurriesAfterAStop(_NamesBeforeItIsWhole):
    """The same, and only where an earlier try has brought something."""

    def _publish(self, temporary: Path, wheel: Any) -> None:
        own = self.__dict__.setdefault("own", set())
        here = {name for name in self._operations.list(str(self.directory)) if name.endswith(".whl")}
        own.add(f"{wheel.sha256}.whl")
        kind = _NamesBeforeItIsWhole if here - own else Wheels
        kind._publish(self, temporary, wheel)


def test_what_only_a_second_stop_shows_is_seen() -> None:
    before, act = SCENARIOS["first install"]
    for once in _stops(before(), act, _HurriesAfterAStop):
        _check_store(once.at())
    with pytest.raises(AssertionError):
        explore("first install", _HurriesAfterAStop)


def test_what_two_slots_and_the_document_before_them_need_is_kept() -> None:
    rooms = _two_slots().at()
    kept = {number: {each.tree for each in rooms.install(number)} for number in (3, 2, 1)}
    gone = rooms.collect()
    assert set(rooms.environments.pinned()) == set().union(*kept.values())
    assert len(gone.trees) == 1
    assert rooms.collect() == Collected()


def test_a_slot_that_cannot_be_read_keeps_everything() -> None:
    world = _two_slots()
    rooms = world.at()
    rooms.disk.remove(str(HOME / "managed" / "slot-b" / "document"))
    rooms.disk.write(str(HOME / "managed" / "slot-b" / "document"), b"{", 0o600)
    assert rooms.collect() == Collected()
    assert rooms.keeping.keeps("0" * 32)
    assert collecting.Keeping(HOME, rooms.disk).keeps("0" * 32)


def test_an_environment_that_nobody_recorded_is_made_again() -> None:
    """T21: a kill between the environment and its record."""
    world = _empty()
    (artifact,) = world.at().install(1)
    rooms = world.at()
    path = HOME / "environments" / artifact.tree
    rooms.disk.remove(str(STORE / "trees" / f"{artifact.tree}.{artifact.tree_sha256}.json"))
    rooms.disk.write(str(path / "sitecustomize.py"), b"import evil", 0o444)
    assert rooms.install(1) == (artifact,)
    assert "sitecustomize.py" not in rooms.disk.list(str(path))
