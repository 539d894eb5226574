"""Every point at which enrolling, renewing a credential or changing a key can be cut off.

On the disk, or on the way to the central and back: the node stays one node, and the next question goes well.
"""

import asyncio
import contextlib
import dataclasses
import email.utils
import itertools
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.simulation import virtual_loop
from tests.simulation.file_system import Directory, Disk, Stopped, cuts, killed

from toft.kernel import ids
from toft.kernel.errors import ConflictError, NodeError, RefusedError
from toft.managed import (
    answers,
    belonging,
    document,
    enrolling,
    identity,
    messages,
    protocol,
    signatures,
    vouching,
)
from toft.managed.enrolling import Credentials
from toft.managed.identity import Files
from toft.managed.transport import Answer, UnreachableError
from toft.store import durable

HOME = Path("/managed")
URL, OTHER = "https://central.example.org", "https://other.example.org"
TOKEN = "jt_abcdefgh_" + "x" * 43
SEED = {"urls": [URL], "token": TOKEN, "pin_sha256": "a" * 64}
SIGNERS = [signatures.PrivateKey(bytes([number]) * 32) for number in range(6)]
FIRST, SECOND = (signatures.Root.of(number, 1, [SIGNERS[number].public]) for number in (1, 2))


def signed_root(root: signatures.Root, *keys: int) -> signatures.SignedRoot:
    by = [signatures.sign(signatures.ROOT_TYPE, root.data, SIGNERS[number]) for number in keys]
    return signatures.SignedRoot(root.data, tuple(by))


@dataclass
class Server:
    """A central of the size of this test; single-use tokens, as it must have them."""

    clock: virtual_loop.Clock
    tokens: dict[str, signatures.PublicKey | None] = field(default_factory=lambda: {TOKEN: None})
    rows: dict[str, signatures.PublicKey] = field(default_factory=dict)
    good: dict[str, tuple[str, float]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    life_s: float = 86_400.0
    ahead_s: float = 0.0
    root: signatures.Root | None = None
    roots: list[signatures.SignedRoot] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def now(self) -> float:
        return virtual_loop.START + self.clock.monotonic() + self.ahead_s

    def answer(self, path: str, token: str, body: bytes) -> tuple[int, bytes]:
        self.asked.append(path)
        if path == protocol.ENROLL:
            request = messages.read_enroll(answers.value(Answer(status=0, headers={}, body=body)))
            if self.tokens.get(request.token, request.key) != request.key and self.tokens[request.token]:
                return self.no(protocol.JOIN_REFUSED)
            if request.token not in self.tokens:
                return self.no(protocol.JOIN_REFUSED)
            self.tokens[request.token] = request.key
            known = [name for name, key in self.rows.items() if key == request.key]
            name = known[0] if known else f"node_{ids.ulid(self.clock)}"
            self.rows[name] = request.key
            return self.give(name)
        if path == protocol.REFRESH:
            asked = messages.read_refresh(answers.value(Answer(status=0, headers={}, body=body)))
            key = self.rows.get(asked.node_id)
            if key is None or abs(asked.at - self.now()) > protocol.SKEW_S or not self.is_by(asked, key):
                return self.no(protocol.CREDENTIAL_REFUSED)
            return self.give(asked.node_id)
        name, until = self.good.get(token, ("", 0.0))
        if not name or until < self.now() or name not in self.rows:
            return self.no(protocol.CREDENTIAL_REFUSED)
        if path == protocol.ROTATE_KEY:
            change = messages.read_rotate_key(answers.value(Answer(status=0, headers={}, body=body)))
            if change.new_key != self.rows[name]:
                if not self.is_by(change, self.rows[name]):
                    return self.no(protocol.CREDENTIAL_REFUSED)
                self.rows[name] = change.new_key
            return 204, b""
        if path == protocol.ROOTS:
            return 200, document.encode(messages.roots_value(self.roots))
        return 304, b""

    def is_by(self, asked: messages.Refresh | messages.RotateKey, key: signatures.PublicKey) -> bool:
        try:
            asked.check(key)
        except signatures.SignatureError:
            return False
        return True

    def give(self, name: str) -> tuple[int, bytes]:
        for token, (owner, until) in self.good.items():
            if owner == name:
                self.good[token] = name, min(until, self.now() + protocol.OVERLAP_S)
        token = f"nt_{next(self.numbers):043d}"
        self.good[token] = name, self.now() + self.life_s
        given = messages.Enrolled(name, token, self.now() + self.life_s, self.root, (URL,))
        return 200, document.encode(given.to_value())

    def no(self, word: str) -> tuple[int, bytes]:
        return 401, document.encode({"code": word})


@dataclass
class Wire:
    """The way to it, on which what is sent or what comes back may get lost."""

    server: Server
    lost: int | None = None
    is_answer_lost: bool = True
    count: int = 0

    async def ask(
        self, method: str, url: str, *, headers: Any, body: bytes = b"", deadline_s: float = 30.0
    ) -> Answer:
        assert url.startswith(URL), "nothing is said to strangers"
        await asyncio.sleep(0.01)
        number, self.count = self.count, self.count + 1
        if number == self.lost and not self.is_answer_lost:
            raise UnreachableError("lost on the way")
        path = url.removeprefix(URL).partition("?")[0]
        status, content = self.server.answer(path, headers.get("Authorization", "")[7:], body)
        if number == self.lost:
            raise UnreachableError("the answer got lost")
        told = {"date": email.utils.formatdate(self.server.now(), usegmt=True)}
        return Answer(status=status, headers=told, body=content)


@dataclass
class World:
    clock: virtual_loop.Clock = field(default_factory=virtual_loop.Clock)
    root: Directory = field(default_factory=Directory)

    def __post_init__(self) -> None:
        self.server = Server(self.clock)

    def files(self, **disk: Any) -> Files:
        self._disk = Disk(self.root, **disk)
        return Files(HOME, self._disk)

    def steps(self) -> int:
        """How many steps the disk has been asked for that was opened last."""
        return self._disk.steps

    def credentials(self, wire: Wire | None = None, **disk: Any) -> Credentials:
        files = self.files(**disk)
        return Credentials(
            wire or Wire(self.server), files, files.read(), facts=messages.Facts(), clock=self.clock
        )

    def seeded(self, **more: Any) -> "World":
        disk = Disk(self.root)
        disk.make("/managed", 0o700)
        disk.sync_directory("/")
        durable.write_json(HOME / belonging.SEED, {**SEED, **more}, operations=disk)
        return self


def run(world: World, main: Awaitable[Any]) -> Any:
    return virtual_loop.run(main, world.clock)  # type: ignore[arg-type]


async def asks(credentials: Credentials) -> int:
    answer = await credentials.ask("GET", URL, protocol.CONFIG)
    return answer.status


Act = Callable[[World, Credentials], Awaitable[Any]]


async def enrols(world: World, credentials: Credentials) -> None:
    await asks(credentials)


async def renews(world: World, credentials: Credentials) -> None:
    world.clock.wait_until(world.clock.monotonic() + 20 * 3600)
    await asks(credentials)


async def renews_late(world: World, credentials: Credentials) -> None:
    world.clock.wait_until(world.clock.monotonic() + 20 * 86_400)
    await asks(credentials)


async def rotates(world: World, credentials: Credentials) -> None:
    await credentials.rotate_key(URL)


async def follows(world: World, credentials: Credentials) -> None:
    trusted = vouching.trusted(credentials)
    assert trusted is not None
    assert await vouching.find_root(credentials, URL, trusted) == SECOND


SCENES: dict[str, tuple[bool, Act]] = {
    "enrols": (False, enrols),
    "renews": (True, renews),
    "renews a credential that is over": (True, renews_late),
    "changes its key": (True, rotates),
    "is told of other signers": (True, follows),
}


def begin(is_enrolled: bool) -> World:
    world = World().seeded()
    world.server.root, world.server.roots = FIRST, [signed_root(SECOND, 1, 2)]
    if is_enrolled:
        run(world, asks(world.credentials()))
        Disk(world.root).remove("/managed/seed.json")
        Disk(world.root).sync_directory("/managed")
    return world


def goes_on(world: World, root: Directory, server: Server, wait_s: float) -> None:
    """Boot twice from what is left, ask, and learn who signs by now."""
    left = dataclasses.replace(world, root=root)
    left.server = dataclasses.replace(server, clock=left.clock)
    for _ in range(2):
        left.clock.wait_until(left.clock.monotonic() + wait_s)
        credentials = left.credentials()
        assert run(left, asks(credentials)) == 304
        run(left, credentials.keep_up(URL))
        assert run(left, asks(credentials)) == 304
    (name, key) = next(iter(left.server.rows.items()))
    assert len(left.server.rows) == 1, "one node is one row"
    kept = left.files().read()
    assert kept.identity is not None
    assert kept.enrollment is not None
    assert kept.enrollment.node_id == kept.identity.node_id == name
    assert kept.enrollment.trust.pin_sha256 == "a" * 64, "whom to trust outlives the seed"
    assert signatures.PrivateKey.of_text(kept.identity.private_key).public == key
    assert not kept.identity.next_private_key
    assert kept.enrollment.root in (FIRST.to_value(), SECOND.to_value()), "somebody is trusted at any time"
    run(left, follows(left, left.credentials()))
    assert left.files().read().enrollment == dataclasses.replace(kept.enrollment, root=SECOND.to_value())


def copied(server: Server) -> Server:
    return dataclasses.replace(
        server, tokens=dict(server.tokens), rows=dict(server.rows), good=dict(server.good), asked=[]
    )


@pytest.mark.parametrize("name", SCENES)
def test_a_stop_at_any_step_of_the_disk_leaves_one_node(name: str) -> None:
    is_enrolled, act = SCENES[name]
    points = 0
    for stop_at in itertools.count():
        world = begin(is_enrolled)
        try:
            run(world, act(world, world.credentials(stop_at=stop_at)))
            is_through = True
        except Stopped:
            is_through = False
        server = world.server
        for left in (killed(world.root), *cuts(world.root, most=8)):
            for wait_s in (1.0, 3 * 86_400.0):
                goes_on(world, killed(left), copied(server), wait_s)
                points += 1
        if is_through:
            break
    assert points > 20


@pytest.mark.parametrize("is_answer_lost", [True, False])
@pytest.mark.parametrize("name", SCENES)
def test_whatever_gets_lost_on_the_way_is_asked_again(name: str, is_answer_lost: bool) -> None:
    is_enrolled, act = SCENES[name]
    for lost in range(3):
        for wait_s in (1.0, 3 * 86_400.0):
            world = begin(is_enrolled)
            wire = Wire(world.server, lost=lost, is_answer_lost=is_answer_lost)
            try:
                run(world, act(world, world.credentials(wire)))
            except NodeError as error:
                assert isinstance(error, UnreachableError)  # noqa: PT017 - most of them are heard by nobody
            goes_on(world, killed(world.root), copied(world.server), wait_s)


@pytest.mark.parametrize("name", SCENES)
def test_a_full_disk_loses_nothing(name: str) -> None:
    is_enrolled, act = SCENES[name]
    most = 0
    for fail_at in range(1, 30):
        world = begin(is_enrolled)
        with contextlib.suppress(NodeError, OSError):
            run(world, act(world, world.credentials(fail_at=fail_at)))
        most = max(most, world.steps())
        goes_on(world, killed(world.root), copied(world.server), 1.0)
    assert 1 < most < 30, "each of its steps has failed once"


def test_a_renewed_credential_that_the_disk_does_not_take_is_good_all_the_same() -> None:
    for wait_s in (20 * 3600.0, 20 * 86_400.0):
        world = begin(is_enrolled=True)
        credentials = world.credentials(fail_at=1)
        world.clock.wait_until(world.clock.monotonic() + wait_s)
        assert run(world, asks(credentials)) == 304
        assert world.server.asked[-2:] == [protocol.REFRESH, protocol.CONFIG]
        world.clock.wait_until(world.clock.monotonic() + 3600)
        assert run(world, asks(credentials)) == 304
        assert world.server.asked[-2:] == [protocol.CONFIG, protocol.CONFIG], "it is renewed once"
        goes_on(world, killed(world.root), copied(world.server), 3600.0)


def test_clocks_behind_one_address_that_never_agree_end_a_question() -> None:
    world = begin(is_enrolled=True)
    world.server.rows.clear()

    @dataclass
    class Two(Wire):
        async def ask(self, *given: Any, **more: Any) -> Answer:
            self.server.ahead_s = 0.0 if self.server.ahead_s else 500.0
            return await super().ask(*given, **more)

    with pytest.raises(answers.CentralError):
        run(world, asks(world.credentials(Two(world.server))))
    assert world.server.asked.count(protocol.REFRESH) <= 4


def test_twenty_that_need_a_new_credential_share_one_request() -> None:
    world = begin(is_enrolled=True)
    world.server.asked.clear()
    credentials = world.credentials()

    async def twenty() -> list[int]:
        world.clock.wait_until(world.clock.monotonic() + 17 * 3600)
        first = asyncio.create_task(asks(credentials))
        others = [asyncio.create_task(asks(credentials)) for _ in range(19)]
        await asyncio.sleep(0.001)
        first.cancel()
        return await asyncio.gather(*others)

    assert set(run(world, twenty())) == {304}
    assert world.server.asked.count(protocol.REFRESH) == 1, "who gives up takes it from nobody"
    assert run(world, asks(credentials)) == 304
    assert world.server.asked.count(protocol.REFRESH) == 1


def test_a_credential_is_renewed_in_the_last_third_of_its_life() -> None:
    for hours, renewals in ((15.9, 0), (16.1, 1), (23.9, 1), (24.1, 1)):
        world = begin(is_enrolled=True)
        credentials = world.credentials()
        run(world, asks(credentials))
        world.clock.wait_until(world.clock.monotonic() + hours * 3600)
        world.server.asked.clear()
        assert run(world, asks(credentials)) == 304
        assert world.server.asked.count(protocol.REFRESH) == renewals, hours


def test_a_renewal_that_fails_is_no_reason_not_to_ask() -> None:
    world = begin(is_enrolled=True)
    wire = Wire(world.server)
    credentials = world.credentials(wire)
    world.clock.wait_until(world.clock.monotonic() + 20 * 3600)
    wire.lost = 0
    assert run(world, asks(credentials)) == 304, "the old one is still good"
    assert world.server.asked.count(protocol.REFRESH) == 1


@pytest.mark.parametrize("ahead_s", [-1.7e9, -86_400.0, 86_400.0 * 400])
def test_a_clock_that_is_off_is_found_out(ahead_s: float) -> None:
    world = World().seeded()
    world.clock.set_wall(-ahead_s)
    credentials = world.credentials()
    assert run(world, asks(credentials)) == 304
    assert credentials.skew_s == pytest.approx(ahead_s, abs=2)
    again = world.credentials()
    world.clock.wait_until(world.clock.monotonic() + 30 * 3600)
    assert run(world, asks(again)) == 304, "signed anew with the time of the central"
    assert len(world.server.rows) == 1


def test_a_node_that_is_refused_enrols_again_while_its_token_is_there() -> None:
    world = World().seeded()
    credentials = world.credentials()
    run(world, asks(credentials))
    world.server.good.clear()
    world.server.asked.clear()
    assert run(world, asks(credentials)) == 304
    assert world.server.asked == [protocol.CONFIG, protocol.REFRESH, protocol.CONFIG]
    world.server.rows.clear()
    with pytest.raises(answers.CentralError) as refused:
        run(world, asks(begin(is_enrolled=True).credentials(Wire(world.server))))
    assert refused.value.code == "control.credential_refused"


def test_a_token_that_is_refused_says_so_and_gives_the_key_to_nobody_else() -> None:
    world = World().seeded(token="jt_abcdefgh_" + "y" * 43)
    credentials = world.credentials()
    for _ in range(5):
        with pytest.raises(answers.CentralError) as refused:
            run(world, asks(credentials))
        assert (refused.value.code, refused.value.status) == ("control.join_refused", 401)
    kept = world.files().read().identity
    assert kept is not None
    assert (kept.node_id, kept.token_fp) == ("", protocol.fingerprint("jt_abcdefgh_" + "y" * 43))
    assert world.files().read().enrollment is None
    first = kept.private_key
    world.server.tokens["jt_abcdefgh_" + "y" * 43] = None
    assert run(world, asks(world.credentials())) == 304
    assert world.files().read().identity.private_key == first  # type: ignore[union-attr]


def test_a_credential_is_not_shown_where_nobody_said_it_may_be() -> None:
    world = begin(is_enrolled=True)
    enrolled = Disk(world.root)
    value = world.files().read().enrollment.to_enrollment()  # type: ignore[union-attr]
    durable.write_json(HOME / belonging.ENROLLMENT, {**value, "control_urls": [OTHER]}, operations=enrolled)
    credentials = world.credentials()
    assert credentials.membership.urls == (OTHER,)
    with pytest.raises(enrolling.NotToldError, match="is another place") as refused:
        run(world, credentials.ask("GET", OTHER, protocol.CONFIG))
    assert f"toft join {OTHER} TOKEN" in refused.value.hint
    credentials.vouch([OTHER + "/below"])
    assert credentials.may_be_told(OTHER)
    assert not credentials.may_be_told("http://other.example.org")
    assert not credentials.may_be_told("https://other.example.org:444")


def test_another_token_or_another_address_is_another_membership() -> None:
    world = World().seeded()
    run(world, asks(world.credentials()))
    first = world.files().read().identity
    second_token = "jt_zzzzzzzz_" + "z" * 43
    durable.write_json(HOME / belonging.SEED, {**SEED, "token": second_token}, operations=Disk(world.root))
    world.server.tokens[second_token] = None
    assert run(world, asks(world.credentials())) == 304
    second = world.files().read().identity
    assert first is not None
    assert second is not None
    assert first.private_key != second.private_key, "another tenant would refuse the key of the first"
    assert first.node_id != second.node_id


def test_a_seed_for_another_place_is_asked_there() -> None:
    world = begin(is_enrolled=True)
    durable.write_json(HOME / belonging.SEED, {**SEED, "urls": [OTHER]}, operations=Disk(world.root))
    credentials = world.credentials()
    assert not credentials.is_enrolled
    assert credentials.membership.urls == (OTHER,)
    assert not credentials.may_be_told(URL), "the new token is not for the old place"
    durable.write_json(HOME / belonging.SEED, {"urls": [OTHER]}, operations=Disk(world.root))
    assert world.credentials().membership.urls == (URL,), "without a token nobody can join there"


def test_who_joins_or_leaves_meanwhile_wins() -> None:
    def leave(disk: Disk) -> None:
        for name in (belonging.SEED, belonging.IDENTITY, belonging.ENROLLMENT):
            durable.discard(HOME / name, operations=disk)

    def join(disk: Disk) -> None:
        leave(disk)
        durable.write_json(HOME / belonging.SEED, {**SEED, "urls": [OTHER]}, operations=disk)

    for is_enrolled, act in SCENES.values():
        for change in (leave, join):
            world = begin(is_enrolled)
            credentials = world.credentials()
            before = credentials.found
            change(Disk(world.root))
            there = repr(world.root)
            assert not before.is_still(world.files().read())
            with pytest.raises(ConflictError) as refused:
                run(world, act(world, credentials))
            assert refused.value.code == "membership.changed"
            assert repr(world.root) == there, "what was on its way is not kept"
    world = begin(is_enrolled=False)
    credentials = world.credentials()
    run(world, asks(credentials))
    durable.discard(HOME / belonging.SEED, operations=Disk(world.root))
    assert credentials.found.is_still(world.files().read()), "the node's own confirmation is no other join"


def test_files_that_somebody_has_edited_stop_nobody() -> None:
    world = begin(is_enrolled=True)
    for damage in (
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"control_urls": 5}',
        b'{"control_urls": ["https://x.example.org"], "root": 1}',
    ):
        disk = Disk(world.root)
        durable.write_file(HOME / belonging.ENROLLMENT, damage, operations=disk)
        found = world.files().read()
        assert found.is_mended
        assert found.enrollment is not None
        assert found.enrollment.urls == (URL,), "the identity knows where it is from"
        assert found.enrollment.trust.pin_sha256 == "a" * 64
        world.files().mend()
        assert not world.files().read().is_mended
    for damage in (b"{", b"[]", b"{}", b'{"private_key": 1}'):
        durable.write_file(HOME / belonging.IDENTITY, damage, operations=Disk(world.root))
        found = world.files().read()
        assert (found.identity, bool(found.problems)) == (None, True)
        with pytest.raises(RefusedError) as refused:
            run(world, asks(world.credentials()))
        assert refused.value.code == "control.no_token"
    for damage in (
        b"{",
        b"[]",
        b'{"urls": ["ftp://x.example.org"]}',
        b'{"urls": ["https://x.example.org"], "root": "none"}',
    ):
        durable.write_file(HOME / belonging.SEED, damage, operations=Disk(world.root))
        assert world.files().read().seed is None


def test_a_root_that_is_pinned_stays_and_the_first_one_that_is_offered_counts_otherwise() -> None:
    pinned = signatures.Root.pinned(signatures.PrivateKey(b"1" * 32).public)
    theirs = signatures.Root.of(1, 1, [signatures.PrivateKey(b"2" * 32).public])
    for seeded, offered, kept in ((None, theirs, theirs), (pinned, theirs, pinned), (None, None, None)):
        world = World().seeded(root=None if seeded is None else seeded.to_value())
        world.server.root = offered
        run(world, asks(world.credentials()))
        found = world.files().read().enrollment
        assert found is not None
        assert found.root == (None if kept is None else kept.to_value())


def test_a_key_is_changed_once_a_month() -> None:
    world = begin(is_enrolled=True)
    credentials = world.credentials()
    first = world.files().read().identity
    assert first is not None
    run(world, asks(credentials))
    run(world, credentials.keep_up(URL))
    assert protocol.ROTATE_KEY not in world.server.asked
    world.clock.wait_until(world.clock.monotonic() + enrolling.KEY_LIFE_S + 60)
    run(world, asks(credentials))
    for _ in range(3):
        run(world, credentials.keep_up(URL))
    assert world.server.asked.count(protocol.ROTATE_KEY) == 1
    second = world.files().read().identity
    assert second is not None
    assert second.private_key != first.private_key


def test_what_is_kept_is_for_the_owner_alone(tmp_path: Path) -> None:
    files = Files(tmp_path)
    durable.write_json(tmp_path / belonging.SEED, SEED)
    files.keep_key(identity.Identity(private_key="k"), before=files.read())
    assert (tmp_path / belonging.IDENTITY).stat().st_mode & 0o777 == 0o600
