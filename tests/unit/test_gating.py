"""Trials in virtual time: what proves a document, what takes it back, and what is a fault of the network."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.simulation import virtual_loop

from toft.daemon.gating import Gating, Watched
from toft.managed import document, gates, generations, outcomes, phases
from toft.managed.gates import Light, Reading
from toft.managed.moments import Moment
from toft.managed.phases import Answer, Severity

NEW, OLD = "https://new.example", "https://old.example"


class Central:
    """A central that answers as it is told: at which second, to whom, with what."""

    def __init__(self, clock: virtual_loop.Clock, answers: Callable[[str, float], Answer]) -> None:
        self._clock, self._answers = clock, answers
        self.polls_at: float | None = None
        self.retry_after_s = 0.0
        self.asked: list[tuple[str, float]] = []
        self.proofs = 0

    @property
    def has_polled(self) -> bool:
        return self.polls_at is not None and self._clock.monotonic() >= self.polls_at

    async def probe(self, urls: Sequence[str]) -> outcomes.Outcome:
        at = self._clock.monotonic()
        self.asked += [(url, at) for url in urls]
        answer = self._answers(urls[0] if urls else OLD, at)
        return outcomes.Outcome(kind="probe", answer=answer, retry_after_s=self.retry_after_s)

    def standing(self) -> None:
        return None

    def proven(self) -> None:
        self.proofs += 1

    def noted(self) -> None:
        """Nothing is reported here."""


class Subject:
    """What gates look at: instances whose state a test sets."""

    def __init__(self, clock: virtual_loop.Clock) -> None:
        self._clock = clock
        self.central: Central | None = None
        self.state: Callable[[float], Light] = lambda at: Light.GREEN

    def lived_s(self) -> float:
        return self._clock.monotonic()

    def polled(self) -> Reading:
        assert self.central is not None
        return Reading(Light.GREEN if self.central.has_polled else Light.PENDING)

    def instances(self) -> Mapping[str, Reading]:
        return {"ocr": Reading(self.state(self._clock.monotonic()), "is as it is")}

    async def ended(self, instance: str | None, window_s: float) -> tuple[int, int]:
        return 0, 0

    async def health(self, instance: str) -> Reading:
        return Reading(Light.GREEN)


def text(revision: int, url: str, interval_s: int = 40, **health: Any) -> dict[str, Any]:
    control = {"urls": [url], "poll_interval_s": interval_s, "offline_grace_s": 3600}
    return {
        "schema_version": 1,
        "revision": revision,
        "control": control,
        "health": {"settle_s": 10, **health},
    }


class World:
    """One node with a proven document and another one on trial."""

    def __init__(self, directory: Path, answers: Callable[[str, float], Answer]) -> None:
        self.clock = virtual_loop.Clock()
        self.engine = generations.Generations(directory / "managed", self.now)
        self.central = Central(self.clock, answers)
        self.subject = Subject(self.clock)
        self.subject.central = self.central
        self.restarts = 0
        self.good = ""

    def now(self) -> Moment:
        return Moment("machine", self.clock.monotonic(), self.clock.now())

    def offer(self, value: dict[str, Any], **more: Any) -> str:
        data = document.encode(value)
        made = generations.offer(
            data, revision=value["revision"], poll_interval_s=value["control"]["poll_interval_s"], **more
        )
        self.engine.commit(made, "another")
        return made.meta.etag

    def prove(self, value: dict[str, Any]) -> None:
        self.good = self.offer(value)
        assert self.engine.confirm(self.engine.boot("proof"))

    def run(
        self, value: dict[str, Any], *, is_member: bool = True, until_s: float = 20_000.0, **more: Any
    ) -> float:
        """Watch the trial of a document until it is decided; return how long that took."""
        self.offer(value, **more)
        boot = self.engine.boot("trial")
        gating = Gating(
            Watched(
                engine=self.engine,
                boot=boot,
                document=document.parse(boot.document),
                is_readable=True,
                allowed=gates.Allowed(),
                proven=_nothing,
            ),
            self.subject,  # type: ignore[arg-type]
            is_member=is_member,
            clock=self.clock,
            now=self.now,
        )
        gating.central = self.central if is_member else None  # type: ignore[assignment]
        began = self.clock.monotonic()

        def restart() -> None:
            self.restarts += 1

        async def main() -> float:
            watching = asyncio.ensure_future(gating.watch(restart))
            while self.trial is not None and self.clock.monotonic() < began + until_s:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(1.0)
            took = self.clock.monotonic() - began
            await asyncio.sleep(1.0)
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            return took

        return virtual_loop.run(main(), self.clock)

    @property
    def state(self) -> phases.State:
        return self.engine.read().state

    @property
    def trial(self) -> phases.Trial | None:
        return self.state.trial


async def _nothing() -> None:
    pass


def both(answer: Answer) -> Callable[[str, float], Answer]:
    return lambda url, at: answer


def by_url(new: Answer, old: Answer) -> Callable[[str, float], Answer]:
    return lambda url, at: new if url == NEW else old


def world(directory: Path, answers: Callable[[str, float], Answer] | None = None) -> World:
    made = World(directory, answers or both(Answer.GOOD))
    made.engine.boot("first")
    made.prove(text(1, OLD))
    return made


@pytest.mark.parametrize(("interval_s", "window_s"), [(5, 120), (40, 120), (300, 900), (3600, 10_800)])
def test_a_trial_lasts_three_of_its_own_intervals(tmp_path: Path, interval_s: int, window_s: float) -> None:
    node = world(tmp_path, by_url(Answer.SILENT, Answer.GOOD))
    took = node.run(text(2, NEW, interval_s))
    assert window_s <= took < window_s + 6
    assert node.restarts == 1
    assert node.state.rolled_back
    assert node.state.rolled_back.reason == "probation_expired"
    assert node.state.bad[0].severity is Severity.PERMANENT, "what answers the old one and not the new one"


def test_an_answer_and_green_gates_prove_it_once(tmp_path: Path) -> None:
    node = world(tmp_path)
    node.central.polls_at = 20.0
    took = node.run(text(2, NEW, gates={"ocr": {"kind": "instances", "instance": "ocr"}}))
    assert 30 <= took < 35
    assert (node.state.phase, node.restarts, node.central.proofs) == (phases.Phase.IDLE, 0, 1)
    assert [each.event for each in node.state.history[-1:]] == ["applied"]
    assert node.central.asked == [], "nobody is probed while there is time"


def test_without_an_answer_nothing_is_proven_however_green_the_rest_is(tmp_path: Path) -> None:
    node = world(tmp_path, by_url(Answer.REFUSED, Answer.GOOD))
    node.run(text(2, NEW))
    assert node.state.rolled_back
    assert node.state.rolled_back.reason == "auth_failed"


def test_a_gate_that_was_green_and_is_red_takes_it_back_long_before_its_time_is_over(tmp_path: Path) -> None:
    node = world(tmp_path)
    node.central.polls_at = 0.0
    node.subject.state = lambda at: Light.PENDING if at < 5 else Light.RED
    health = {"gates": {"ocr": {"kind": "instances", "instance": "ocr"}}}
    took = node.run(text(2, NEW, **health), baseline={"ocr": "green"})
    assert 15 <= took < 20
    assert node.state.rolled_back
    assert (node.state.rolled_back.reason, node.state.rolled_back.detail) == (
        "health_failed",
        "ocr: ocr is as it is",
    )
    assert node.state.rollbacks == {"health_failed": 1}
    assert node.state.is_unseen
    assert node.engine.read().slots[node.engine.read().active or ""].meta.etag == node.good


def test_the_same_gate_does_not_count_when_it_was_red_before(tmp_path: Path) -> None:
    node = world(tmp_path)
    node.central.polls_at = 0.0
    node.subject.state = lambda at: Light.RED
    health = {"gates": {"ocr": {"kind": "instances", "instance": "ocr"}}}
    node.run(text(2, NEW, **health), baseline={"ocr": "red"})
    assert node.state.ok != node.good
    assert node.restarts == 0


def test_while_nobody_answers_it_is_held_and_comes_through_with_the_first_answer(tmp_path: Path) -> None:
    node = world(tmp_path, both(Answer.SILENT))
    node.central.polls_at = 1000.0
    took = node.run(text(2, NEW))
    assert 1010 <= took < 1020
    assert node.restarts == 0
    assert [each.event for each in node.state.history].count("held") == 8


def test_of_two_documents_with_the_same_addresses_no_lost_answer_makes_one_bad(tmp_path: Path) -> None:
    turns = itertools.cycle((Answer.SILENT, Answer.GOOD))
    node = world(tmp_path, lambda url, at: next(turns))
    node.run(text(2, OLD))
    assert Severity.PERMANENT not in [each.severity for each in node.state.bad]


def test_an_outage_of_more_than_the_grace_makes_a_suspect_and_no_culprit(tmp_path: Path) -> None:
    node = world(tmp_path, both(Answer.SILENT))
    took = node.run(text(2, NEW))
    assert 3720 <= took < 3730, "its window, and an hour of grace"
    assert [(each.reason, each.severity) for each in node.state.bad] == [
        ("probation_expired", Severity.SUSPECT)
    ]


def test_gates_are_looked_at_during_an_outage_too(tmp_path: Path) -> None:
    node = world(tmp_path, both(Answer.SILENT))
    node.subject.state = lambda at: Light.GREEN if at < 500 else Light.RED
    health = {"gates": {"ocr": {"kind": "instances", "instance": "ocr"}}}
    took = node.run(text(2, NEW, **health), baseline={"ocr": "green"})
    assert 510 <= took < 520
    assert node.state.bad[0].reason == "health_failed"


def test_one_that_is_only_busy_gets_one_window_more_and_no_second_one(tmp_path: Path) -> None:
    node = world(tmp_path, both(Answer.BUSY))
    node.central.retry_after_s = 600.0
    took = node.run(text(2, NEW))
    assert 240 <= took < 250
    assert node.state.bad[0].severity is Severity.SUSPECT


def test_a_gate_that_stays_pending_condemns_nobody_for_good(tmp_path: Path) -> None:
    node = world(tmp_path)
    node.central.polls_at = 0.0
    node.subject.state = lambda at: Light.PENDING
    health = {"gates": {"ocr": {"kind": "instances", "instance": "ocr"}}}
    took = node.run(text(2, NEW, **health))
    assert 120 <= took < 126
    assert node.state.bad[0].severity is Severity.SUSPECT


def test_what_settles_when_its_time_is_over_is_let_settle(tmp_path: Path) -> None:
    node = world(tmp_path)
    node.central.polls_at = 115.0
    took = node.run(text(2, NEW))
    assert 125 <= took < 131
    assert node.restarts == 0


def test_a_node_without_a_central_proves_a_document_by_its_gates_alone(tmp_path: Path) -> None:
    node = world(tmp_path, both(Answer.SILENT))
    took = node.run(text(2, NEW), is_member=False)
    assert 10 <= took < 15
    assert node.central.asked == []


def test_with_nothing_to_go_back_to_it_runs_on_and_nobody_is_condemned(tmp_path: Path) -> None:
    node = world(tmp_path)
    node.central.polls_at = 0.0

    def state(at: float) -> Light:
        if node.trial is not None:
            (tmp_path / "managed" / f"slot-{node.trial.prev}" / "document").write_bytes(b"{}")
        return Light.RED

    node.subject.state = state
    health = {"gates": {"ocr": {"kind": "instances", "instance": "ocr"}}}
    node.run(text(2, NEW, **health), baseline={"ocr": "green"})
    found = node.engine.read()
    assert (found.state.phase, found.state.bad, node.restarts) == (phases.Phase.IDLE, (), 0)
    assert found.state.history[-1].event == "stranded", "visibly"
    assert json.loads(found.slots[found.active or ""].document)["revision"] == 2


def test_what_somebody_has_decided_meanwhile_is_not_decided_again(tmp_path: Path) -> None:
    node = world(tmp_path)
    node.central.polls_at = 0.0

    def state(at: float) -> Light:
        if at > 3 and node.trial is not None:
            node.engine.revert(phases.OPERATOR, Severity.PERMANENT, "by hand")
        return Light.RED

    node.subject.state = state
    health = {"gates": {"ocr": {"kind": "instances", "instance": "ocr"}}}
    node.run(text(2, NEW, **health), baseline={"ocr": "green"})
    found = node.engine.read()
    assert found.slots[found.active or ""].meta.etag == node.good
    assert [each.event for each in found.state.history].count("rolled_back") == 1
    assert not found.state.is_unseen, "whoever did it has seen it"


@pytest.mark.parametrize("of_what", ["noted", "proven"])
def test_watching_that_fails_is_told_and_begun_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, of_what: str
) -> None:
    node = world(tmp_path)
    node.central.polls_at = 0.0
    left = [1]

    def fail() -> None:
        if left:
            raise LookupError(f"nobody thought of {left.pop()}")
        node.central.proofs += 1

    setattr(node.central, of_what, fail)
    took = node.run(text(2, NEW))
    assert node.trial is None
    assert 10 <= took < 40
    assert (node.state.phase, node.restarts, node.state.bad) == (phases.Phase.IDLE, 0, ())
    told = [each.message for each in caplog.records if "work_failed" in each.message]
    assert "LookupError('nobody thought of 1')" in told[0], "it is not silent"
    assert len(told) == 1, "what has been decided is not decided again"


def test_a_trial_of_what_cannot_be_looked_at_ends_in_time(tmp_path: Path) -> None:
    node = world(tmp_path)
    node.central.polls_at = 0.0

    def state(at: float) -> Light:
        raise LookupError("nobody thought of this")

    node.subject.state = state
    took = node.run(text(2, NEW, gates={"ocr": {"kind": "instances", "instance": "ocr"}}))
    assert 120 <= took < 126
    assert node.state.bad[0].severity is Severity.SUSPECT, "which condemns nobody for good"


def test_a_clock_that_jumps_neither_ends_a_trial_nor_lengthens_it(tmp_path: Path) -> None:
    node = world(tmp_path, by_url(Answer.SILENT, Answer.GOOD))
    node.clock.set_wall(10 * 365 * 86_400.0)
    took = node.run(text(2, NEW))
    assert 120 <= took < 126
    node.clock.set_wall(-20 * 365 * 86_400.0)
    took = node.run(dict(text(3, NEW)))
    assert 120 <= took < 126


def test_three_alternating_bad_documents_are_each_tried_once(tmp_path: Path) -> None:
    node = world(tmp_path)
    node.central.polls_at = 0.0
    node.subject.state = lambda at: Light.RED
    health = {"gates": {"ocr": {"kind": "instances", "instance": "ocr"}}}
    for revision in (2, 3):
        node.run(text(revision, NEW, **health), baseline={"ocr": "green"})
    for revision in (2, 3):
        etag = document.etag_of(document.encode(text(revision, NEW, **health)))
        assert phases.held_back(node.state, etag, attempt=0, now=node.now())
        assert phases.held_back(node.state, etag, attempt=1, now=node.now()) is None
    assert json.dumps(dict(node.state.rollbacks)) == '{"health_failed": 2}'
    assert dataclasses.asdict(node.state)["phase"] == "idle"
