"""What a node reports, when, and that nothing waits for it: in virtual time, on a disk in memory."""

import asyncio
import dataclasses
import errno
import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.simulation import virtual_loop
from tests.simulation.file_system import Directory, Disk, Stopped, cuts, killed

from toft.central import reports as taking
from toft.kernel.errors import NodeError
from toft.managed import generations, phases, protocol, reports, slots
from toft.managed.reports import Details, Kept, Reports, Seen
from toft.managed.transport import Answer, UnreachableError

HOME = Path("/managed")
ETAG = "sha256-" + "a" * 64


def seen(count: int = 1, **details: Any) -> Seen:
    events = tuple(
        phases.Event(
            etag=ETAG,
            event="rolled_back",
            at=1e9 + number,
            reason="health_failed",
            severity="permanent",
            detail="gate\x1b[31m \ud800" + "d" * 2000,
            revision=number,
        )
        for number in range(count)
    )
    meta = slots.Meta(etag=ETAG, sha256="a" * 64, revision=7, artifacts=({"name": "ocr", "version": "1"},))
    return Seen(
        boot=generations.Boot(nonce="f" * 32, mode="slot", slot="a", document=b"{}", meta=meta),
        standing=generations.Standing(phases.State(history=events), "a", {}),
        since=1e9,
        desired="sha256-" + "b" * 64,
        wall_s=1e9,
        uptime_s=12.3456,
        platform="Linux",
        details=Details(**details),
    )


def effective(value: Any) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(json.dumps(value).encode()).hexdigest(), "body": value}


def test_a_report_says_what_runs_what_was_tried_and_why_it_went_back() -> None:
    gate = {"name": "web", "state": "red", "since": None, "message": "no", "kind": "http", "required": True}
    made = reports.whole(
        seen(gates=(gate,), overrides=({"key": "x"},), effective=effective({"a": 1})), Kept(41)
    )
    assert taking.check(json.loads(reports._encode(made)))
    assert (made["seq"], made["boot_nonce"], made["etag"]) == (42, "f" * 32, ETAG)
    assert made["running"] == {"etag": ETAG, "revision": 7, "since": "2001-09-09T01:46:40.000Z"}
    assert made["desired"] == {"etag": "sha256-" + "b" * 64}
    assert made["history"][0]["reason"] == "health_failed"
    assert made["history"][0]["class"] == "permanent"
    assert made["history"][0]["detail"].startswith("gate\x1b[31m"), "exact, whoever shows it makes it safe"
    assert made["gates"] == [{"name": "web", "state": "red", "since": None, "message": "no"}]
    assert made["artifacts"] == [{"name": "ocr", "version": "1", "sha256": None, "state": "installed"}]
    assert made["effective"]["body"] == {"a": 1}
    known = Kept(1, made["effective"]["sha256"])
    assert "body" not in reports.whole(seen(effective=effective({"a": 1})), known)["effective"]
    assert "body" in reports.whole(seen(effective=effective({"a": 2})), known)["effective"]
    assert taking.check(reports.short(seen(), known)) == {"seq": 2, "boot_nonce": "f" * 32, "etag": ETAG}


def test_a_report_is_never_too_large_to_be_taken() -> None:
    many = tuple({"name": f"g{n}", "state": "red", "since": None, "message": "m" * 4000} for n in range(3000))
    for details in (
        {"effective": effective({"x": "y" * 300_000})},
        {"gates": many},
        {"gates": many, "overrides": many, "effective": effective({"x": "\x00" * 100_000})},
    ):
        made = reports.whole(seen(20, **details), Kept())
        assert len(json.dumps(made, separators=(",", ":"))) <= protocol.MAX_REPORT_BYTES
        assert len(made["history"]) == 20


@dataclass
class Scene:
    clock: virtual_loop.Clock
    replies: Iterator[Answer | NodeError]
    root: Directory = field(default_factory=Directory)
    is_enrolled: bool = True
    url: str = "https://central.example.org"
    sent: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    taken: list[dict[str, Any]] = field(default_factory=list)
    now: Seen = field(default_factory=lambda: seen(effective=effective({"a": 1})))
    delay_s: float = 0.0

    async def ask(self, method: str, url: str, path: str, *, headers: Any, body: bytes) -> Answer:
        assert (method, path) == ("POST", protocol.REPORT)
        report = json.loads(body)
        self.sent.append((self.clock.monotonic(), report))
        await asyncio.sleep(self.delay_s)
        reply = next(self.replies)
        if isinstance(reply, NodeError):
            raise reply
        if reply.status == 204:
            self.taken.append(report)
        return reply

    def server_now(self) -> float:
        return self.clock.now()

    async def look(self) -> Seen:
        return self.now

    def reports(self, **disk: Any) -> Reports:
        return Reports(
            HOME,
            self,  # type: ignore[arg-type] - as much of it as is asked
            lambda: self.url,
            self.look,
            clock=self.clock,
            draw=lambda: 0.0,
            operations=Disk(self.root, **disk),
        )


def begin(*replies: Answer | NodeError, **known: Any) -> Scene:
    good = Answer(status=204, headers={})
    scene = Scene(virtual_loop.Clock(), itertools.chain(replies, itertools.repeat(good)), **known)
    Disk(scene.root).make("/managed", 0o700)
    Disk(scene.root).sync_directory("/")
    return scene


def play(scene: Scene, act: Callable[[Reports], Any], **disk: Any) -> Scene:
    async def main() -> None:
        made = scene.reports(**disk)
        made.start()
        await act(made)
        await made.stop()

    virtual_loop.run(main(), scene.clock)
    return scene


def told(scene: Scene) -> list[tuple[int, int, bool]]:
    return [(round(at), report["seq"], "phase" in report) for at, report in scene.sent]


def test_it_reports_at_the_start_at_each_change_and_now_and_then() -> None:
    async def act(made: Reports) -> None:
        await asyncio.sleep(100)
        for _ in range(5):
            made.note()
        await asyncio.sleep(2000)

    scene = play(begin(), act)
    assert told(scene) == [(0, 1, True), (100, 2, True), (1000, 3, False), (1901, 4, False)]
    assert [report.get("effective", {}).get("body") for _, report in scene.sent] == [
        {"a": 1},
        None,
        None,
        None,
    ]


def test_what_could_not_be_sent_is_sent_later_as_it_is_then() -> None:
    async def act(made: Reports) -> None:
        await asyncio.sleep(50)
        scene.now = seen(2, effective=effective({"a": 2}))
        made.note()
        await asyncio.sleep(400)

    down = UnreachableError("down")
    busy = Answer(status=503, headers={"retry-after": "200"})
    scene = begin(down, down, busy)
    play(scene, act)
    assert [at for at, _, _ in told(scene)] == [0, 30, 91, 291], "a change does not hurry what fails"
    assert [seq for _, seq, _ in told(scene)] == [1, 2, 3, 4]
    assert scene.taken[0]["effective"]["body"] == {"a": 2}
    assert len(scene.taken[0]["history"]) == 2


def test_what_is_refused_is_not_sent_again() -> None:
    async def act(made: Reports) -> None:
        await asyncio.sleep(1000)

    for status in (413, 422):
        assert told(play(begin(Answer(status=status, headers={})), act)) == [(0, 1, True), (900, 2, False)]


def test_who_has_no_credential_reports_nothing_until_it_has_one() -> None:
    async def act(made: Reports) -> None:
        await asyncio.sleep(100)
        assert scene.sent == []
        scene.is_enrolled = True
        made.note()
        await asyncio.sleep(1)

    scene = begin(is_enrolled=False)
    play(scene, act)
    assert told(scene) == [(100, 1, True)]


def test_an_end_sends_what_has_changed_and_waits_a_second_for_it() -> None:
    async def change(made: Reports) -> None:
        await asyncio.sleep(10)
        made.note()

    assert told(play(begin(), change)) == [(0, 1, True), (10, 2, True)]

    async def nothing(made: Reports) -> None:
        await asyncio.sleep(10)

    assert told(play(begin(), nothing)) == [(0, 1, True)]
    slow = play(begin(delay_s=50.0), change)
    assert slow.clock.monotonic() < 12
    down = play(begin(UnreachableError("down")), change)
    assert told(down) == [(0, 1, True)]


def test_no_number_is_given_twice_wherever_it_stops() -> None:
    async def act(made: Reports) -> None:
        for _ in range(2):
            await asyncio.sleep(1)
            made.note()
        await asyncio.sleep(1)

    for stop_at in itertools.count():
        scene = begin()
        try:
            play(scene, act, stop_at=stop_at)
            is_through = True
        except Stopped:
            is_through = False
        for root in (killed(scene.root), *cuts(scene.root, most=8)):
            again = dataclasses.replace(scene, root=root, sent=[], taken=[], replies=begin().replies)
            play(again, act)
            used = [report["seq"] for _, report in scene.sent]
            assert min(report["seq"] for _, report in again.sent) > max(used, default=0)
            bodies = [
                report for report in (*scene.taken, *again.taken) if report.get("effective", {}).get("body")
            ]
            assert bodies, "the central gets it at least once"
        if is_through:
            break


def test_a_disk_that_is_full_or_damaged_stops_no_report_for_good() -> None:
    async def act(made: Reports) -> None:
        await asyncio.sleep(100)

    for fail_at in range(1, 12):
        scene = play(begin(), act, fail_at=fail_at)
        assert scene.taken, fail_at
    for damage in (b"", b"{", b"[]", b'{"seq": "x"}', b'{"seq": -5, "effective_sha256": 1}'):
        scene = begin()
        Disk(scene.root).write("/managed/reports.json", damage, 0o600)
        assert told(play(scene, act)) == [(0, 1, True)]


def test_what_nobody_thought_of_ends_no_reports_for_good() -> None:
    async def act(made: Reports) -> None:
        await asyncio.sleep(50)

    scene = begin()
    look, left = scene.look, [1]

    async def fails_once() -> Seen:
        if left:
            raise LookupError(f"nobody thought of {left.pop()}")
        return await look()

    scene.look = fails_once  # type: ignore[method-assign]
    play(scene, act)
    assert [round(at) for at, _, is_whole in told(scene) if is_whole] == [30]


class Full(Disk):
    """A disk that takes nothing any more."""

    def write(self, path: str, data: bytes, mode: int) -> None:
        raise OSError(errno.ENOSPC, "no space", path)


def test_a_node_whose_disk_is_full_can_say_so() -> None:
    async def main() -> None:
        made = Reports(
            HOME,
            scene,  # type: ignore[arg-type] - as much of it as is asked
            lambda: scene.url,
            scene.look,
            clock=scene.clock,
            operations=Full(scene.root),
        )
        made.start()
        await asyncio.sleep(100)
        made.note()
        await asyncio.sleep(1)
        await made.stop()

    scene = begin()
    virtual_loop.run(main(), scene.clock)
    assert told(scene) == [(0, 1, True), (100, 2, True)], "each with a number of its own"


def test_a_moment_that_is_none_is_told_as_none() -> None:
    now = seen()
    event = dataclasses.replace(now.standing.state.history[0], at=1e18)
    state = phases.State(history=(event,))
    made = reports.whole(dataclasses.replace(now, standing=generations.Standing(state, "a", {})), Kept())
    assert made["history"][0]["at"] == "1970-01-01T00:00:00.000Z"


def test_what_another_node_of_this_home_has_told_is_not_taken_as_told() -> None:
    async def act(made: Reports) -> None:
        await asyncio.sleep(1)

    scene = begin()
    disk = Disk(scene.root)
    disk.write("/managed/enrollment.json", b'{"node_id": "node_old"}', 0o600)
    play(scene, act)
    disk.remove("/managed/enrollment.json")
    disk.write("/managed/enrollment.json", b'{"node_id": "node_new"}', 0o600)
    play(scene, act)
    assert [report["effective"].get("body") for _, report in scene.sent] == [{"a": 1}, {"a": 1}]
