"""Rows of a node come to its central once each, wherever the node or its disk stops, in virtual time."""

import asyncio
import itertools
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.simulation import virtual_loop
from tests.simulation.file_system import Directory, Disk, Stopped, cuts, killed

from toft.kernel.errors import NodeError
from toft.managed import protocol, telemetry
from toft.managed.telemetry import Batch, Mark, Telemetry
from toft.managed.transport import Answer, UnreachableError

HOME = Path("/managed")
TAKEN = Answer(status=202, headers={})
EVERY_S = 60.0


@dataclass
class Numbers:
    """A source that grows by itself: so many rows each second, in chunks of at most five."""

    clock: virtual_loop.Clock
    each_s: float = 0.05
    signal: str = protocol.LOGS
    start: int = 1
    begun: int = 0
    how: str = "plain"

    async def begin(self) -> Mark:
        self.begun += 1
        return Mark(partition="file", at=self.start)

    async def read(self, mark: Mark) -> Batch | None:
        there = self.start + int(self.clock.monotonic() * self.each_s)
        until = mark.until or min(there, mark.at + 5)
        if until <= mark.at:
            return None
        how = mark.how if mark.until else self.how
        rows = [{"row": number, "how": how} for number in range(mark.at, until)]
        return Batch(mark=replace(mark, until=until, how=how), rows=rows, is_last=until == there)


@dataclass
class Central:
    """Takes chunks as a central does: one that it has the name of is not taken twice."""

    names: set[str] = field(default_factory=set)
    rows: list[int] = field(default_factory=list)
    asked: int = 0

    def take(self, name: str, body: bytes) -> Answer:
        self.asked += 1
        if name not in self.names:
            self.names.add(name)
            self.rows += [json.loads(line)["row"] for line in body.splitlines()]
        return TAKEN


@dataclass
class Scene:
    clock: virtual_loop.Clock = field(default_factory=virtual_loop.Clock)
    root: Directory = field(default_factory=Directory)
    central: Central = field(default_factory=Central)
    replies: Iterator[Answer | NodeError | None] = field(default_factory=lambda: itertools.repeat(None))
    at: list[float] = field(default_factory=list)
    is_enrolled: bool = True
    url: str = "https://central.example.org"
    forgets_answers: bool = False

    def __post_init__(self) -> None:
        if "managed" not in self.root.names:
            disk = Disk(self.root)
            disk.make("/managed", 0o700)
            disk.write("/managed/enrollment.json", b'{"node_id": "node_1"}', 0o600)
            disk.sync_directory("/managed")
            disk.sync_directory("/")

    async def ask(self, method: str, url: str, path: str, *, headers: Any, body: bytes) -> Answer:
        assert (method, path) == ("POST", f"{protocol.INGEST}/logs")
        assert headers["Content-Type"] == "application/x-ndjson"
        self.at.append(round(self.clock.monotonic()))
        reply = next(self.replies)
        if isinstance(reply, NodeError):
            raise reply
        if reply is not None:
            return reply
        answer = self.central.take(headers[protocol.CHUNK_KEY], body)
        if self.forgets_answers:
            self.forgets_answers = False
            raise UnreachableError("the answer got lost")
        return answer

    def server_now(self) -> float:
        return self.clock.now()

    def play(self, *sources: Numbers, seconds: float = 0.0, **disk: Any) -> Telemetry:
        async def main() -> None:
            made.start()
            await asyncio.sleep(seconds)
            await made.stop()

        made = Telemetry(
            HOME,
            self,  # type: ignore[arg-type] - as much of it as is asked
            lambda: self.url,
            sources,
            EVERY_S,
            clock=self.clock,
            draw=lambda: 0.5,
            operations=Disk(self.root, **disk),
        )
        virtual_loop.run(main(), self.clock)
        return made


def numbers(scene: Scene, **how: Any) -> Numbers:
    return Numbers(scene.clock, **how)


def ordered(scene: Scene) -> list[int]:
    rows = scene.central.rows
    assert rows == list(range(1, len(rows) + 1)), "each once, in order"
    return rows


def test_rows_go_in_chunks_as_they_come() -> None:
    scene = Scene()
    source = numbers(scene, each_s=0.1)
    told = scene.play(source, seconds=200).standing()
    assert len(ordered(scene)) == 18, "the last turn was at 185 s"
    assert scene.at == [65, 65, 125, 125, 185, 185], "as many chunks as there are, then a pause"
    assert told["problem"] is None
    sent = told["signals"]["logs"]
    assert (sent["sent"], sent["dropped"]) == (18, 0)
    assert sent["last_at"].startswith("2023-11-14T22:16:25")


def test_who_has_nothing_to_send_does_nothing() -> None:
    scene = Scene()
    scene.play(seconds=1000)
    assert scene.at == []
    assert sorted(scene.root.names["managed"].names) == ["enrollment.json"]  # type: ignore[union-attr]


def test_it_waits_for_a_credential_and_for_an_address() -> None:
    for lacks in ({"is_enrolled": False}, {"url": ""}):
        scene = Scene(**lacks)  # type: ignore[arg-type]
        scene.play(numbers(scene), seconds=500)
        assert scene.at == []


def test_a_lost_answer_loses_and_doubles_nothing() -> None:
    scene = Scene(forgets_answers=True)
    scene.play(numbers(scene), seconds=400)
    assert scene.central.asked > len(scene.central.names), "the first chunk was sent twice"
    assert len(ordered(scene)) > 9


def test_another_choice_does_not_change_a_chunk_that_is_under_way() -> None:
    scene = Scene(forgets_answers=True)
    scene.play(numbers(scene), seconds=66)
    first = set(scene.central.names)
    scene.play(numbers(scene, how="other"), seconds=30)
    assert first <= scene.central.names
    ordered(scene)


@pytest.mark.parametrize(
    ("asked", "at"),
    [
        (Answer(status=429, headers={"retry-after": "7"}), [65, 73]),
        (Answer(status=503, headers={}), [65, 66]),
        (Answer(status=503, headers={"retry-after": "900"}), [65, 1010]),
        (Answer(status=500, headers={}), [65, 97]),
        (Answer(status=404, headers={}), [65, 3845]),
        (UnreachableError("down"), [65, 97]),
    ],
)
def test_a_central_that_is_busy_gone_or_older_is_asked_again_when_it_may_be(
    asked: Answer | NodeError, at: list[int]
) -> None:
    scene = Scene(replies=itertools.chain([asked], itertools.repeat(None)))
    scene.play(numbers(scene, each_s=0.03), seconds=at[1] + 1)
    assert scene.at[:2] == at
    assert ordered(scene)


def test_a_busy_central_is_asked_for_five_minutes_and_then_with_the_ladder() -> None:
    scene = Scene(replies=itertools.repeat(Answer(status=503, headers={})))
    told = scene.play(numbers(scene), seconds=500).standing()
    gaps = [b - a for a, b in itertools.pairwise(scene.at)]
    assert gaps[:5] == [1, 2, 6, 10, 32]
    again = gaps.index(1, 1)
    assert 330 <= scene.at[again - 1] <= 65 + telemetry.PATIENCE_S, "no later than that"
    assert gaps[again - 1] in (31, 32), "the first step of the ladder"
    assert "503" in told["problem"]


@pytest.mark.parametrize("status", [400, 413, 422])
def test_what_a_central_never_takes_is_dropped_and_counted(status: int) -> None:
    scene = Scene(replies=itertools.chain([Answer(status=status, headers={})], itertools.repeat(None)))
    told = scene.play(numbers(scene), seconds=200).standing()["signals"]["logs"]
    assert told["dropped"] == 3
    assert scene.central.rows == list(range(4, 4 + told["sent"]))
    assert told["sent"] >= 5


def test_two_signals_are_known_apart_and_one_that_fails_holds_no_document_up() -> None:
    scene = Scene()
    source = numbers(scene)
    scene.play(source, seconds=200)
    kept = json.loads(Disk(scene.root).read("/managed/telemetry.json"))
    assert kept["node_id"] == "node_1"
    assert kept["marks"]["logs"]["partition"] == "file"
    assert kept["marks"]["logs"]["until"] == 0, (
        "what the central has is not looked for again in a file that may be gone"
    )
    assert source.begun == 1
    again = numbers(scene)
    scene.play(again, seconds=100)
    assert again.begun == 0, "it went on where it was"


def test_what_another_membership_has_sent_says_nothing() -> None:
    scene = Scene()
    scene.play(numbers(scene), seconds=200)
    disk = Disk(scene.root)
    disk.remove("/managed/enrollment.json")
    disk.write("/managed/enrollment.json", b'{"node_id": "node_2"}', 0o600)
    again = numbers(scene)
    scene.play(again, seconds=100)
    assert again.begun == 1, "not what was there before this node was this one"


def test_who_is_to_tell_again_after_a_while_leaves_the_time_between_out() -> None:
    scene = Scene()
    scene.play(numbers(scene), seconds=100)
    scene.play(seconds=1)
    assert sorted(scene.root.names["managed"].names) == ["enrollment.json"]  # type: ignore[union-attr]
    again = numbers(scene)
    scene.play(again, seconds=10)
    assert again.begun == 1


@pytest.mark.parametrize(
    "damage",
    [
        *(b"", b"[]", b"{}", b"\xff", b"[" * 100_000),
        b'{"node_id": "node_1", "marks": {"logs": []}}',
        *(
            b'{"node_id": "node_1", "marks": {"logs": {"partition": "f", "at": %b, "until": %b, "how": ""}}}'
            % numbers
            for numbers in ((b"-1", b"0"), (b"5", b"3"), (b"0", b"-1"), (b"1e400", b"0"), (b"9" * 30, b"0"))
        ),
    ],
)
def test_a_damaged_file_stops_nobody(damage: bytes) -> None:
    scene = Scene()
    Disk(scene.root).write("/managed/telemetry.json", damage, 0o600)
    scene.play(numbers(scene), seconds=200)
    assert ordered(scene)


def test_a_full_disk_keeps_nobody_from_sending() -> None:
    for step in range(12):
        scene = Scene()
        scene.play(numbers(scene), seconds=300, fail_at=step)
        assert len(ordered(scene)) >= 12


def test_wherever_it_stops_each_row_comes_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Crash points: every step of the disk, in every place of two runs, and what a power cut leaves of it."""
    disks = 0
    for step in itertools.count():
        scene = Scene()
        try:
            scene.play(numbers(scene), seconds=200, stop_at=step)
        except Stopped:
            pass
        else:
            break
        for root in (killed(scene.root), *cuts(scene.root)):
            disks += 1
            taken = Central(set(scene.central.names), list(scene.central.rows), scene.central.asked)
            # What grows goes on growing while the node is away.
            after = Scene(clock=virtual_loop.Clock(), root=root, central=taken)
            after.clock.wait_until(scene.clock.monotonic() + 10)
            after.play(numbers(after), seconds=200)
            assert len(ordered(after)) >= 9
    with capsys.disabled():
        sys.stdout.write(f" rows: {disks} disks, each row once;")
    assert disks > 100
