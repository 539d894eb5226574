"""What gates decide, without looking at anything: which count, what proves, what condemns."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.simulation import virtual_loop

from toft.dispatch.tally import Ends
from toft.jobs.records import State
from toft.kernel.errors import UsageError
from toft.managed import document, gates, looks, phases
from toft.managed.course import LEAST_RED_S, Course, Outcome
from toft.managed.gates import Gate, Light, Reading
from toft.managed.looks import Absent
from toft.managed.moments import Moment

NOW = Moment("machine", 1000.0, 1_700_000_000.0)


def document_with(**declared: Mapping[str, object]) -> document.Document:
    return document.parse(json.dumps({"schema_version": 1, "health": {"gates": declared}}).encode())


def course(settle_s: float = 30.0, baseline: Mapping[str, str] | None = None, **kinds: str) -> Course:
    trial = phases.Trial(
        etag="e",
        slot="b",
        prev="a",
        by_nonce="other",
        window_s=120.0,
        left_s=120.0,
        since=NOW,
        baseline=baseline or {},
    )
    return Course([Gate(name=name, kind=kind) for name, kind in kinds.items()], trial, settle_s)


def lights(**found: Light) -> dict[str, Reading]:
    return {name: Reading(light) for name, light in found.items()}


def test_only_what_was_green_all_the_time_for_settle_s_proves_a_document() -> None:
    watched = course(disk="exec", poll="poll")
    assert watched.learn(lights(disk=Light.GREEN, poll=Light.GREEN), 0.0) is Outcome.WAITING
    assert watched.learn(lights(disk=Light.GREEN, poll=Light.PENDING), 20.0) is Outcome.WAITING
    assert watched.learn(lights(disk=Light.GREEN, poll=Light.GREEN), 25.0) is Outcome.WAITING
    assert watched.learn(lights(disk=Light.GREEN, poll=Light.GREEN), 54.9) is Outcome.WAITING
    assert watched.is_settling
    assert watched.learn(lights(disk=Light.GREEN, poll=Light.GREEN), 55.0) is Outcome.PROVEN


def test_a_gate_that_stays_red_condemns_and_one_that_flickers_does_not() -> None:
    watched = course(disk="exec")
    assert watched.learn(lights(disk=Light.RED), 0.0) is Outcome.WAITING
    assert watched.learn(lights(disk=Light.RED), 29.0) is Outcome.WAITING
    assert watched.learn(lights(disk=Light.GREEN), 29.5) is Outcome.WAITING
    assert watched.learn(lights(disk=Light.RED), 40.0) is Outcome.WAITING
    assert watched.learn(lights(disk=Light.RED), 70.0) is Outcome.FAILED
    assert watched.red_gate == "disk"


def test_a_gate_that_has_just_turned_red_condemns_nobody_at_the_deadline() -> None:
    watched = course(disk="exec")
    watched.learn(lights(disk=Light.RED), 10.0)
    assert watched.red_gate == "disk"
    assert watched.lasting_red(10.0 + LEAST_RED_S - 0.1) == ""
    assert watched.lasting_red(10.0 + LEAST_RED_S) == "disk"
    watched.learn(lights(disk=Light.GREEN), 20.0)
    assert watched.lasting_red(99.0) == ""


def test_what_settles_at_once_is_not_condemned_at_once() -> None:
    watched = course(settle_s=0.0, disk="exec")
    assert watched.learn(lights(disk=Light.RED), 0.0) is Outcome.WAITING
    assert watched.learn(lights(disk=Light.RED), LEAST_RED_S) is Outcome.FAILED
    assert course(settle_s=0.0, disk="exec").learn(lights(disk=Light.GREEN), 0.0) is Outcome.PROVEN


@pytest.mark.parametrize("before", [Light.RED, Light.IDLE])
def test_a_gate_that_was_not_green_before_does_not_count(before: Light) -> None:
    watched = course(settle_s=10.0, baseline={"collector": before}, collector="instances")
    assert watched.learn(lights(collector=Light.RED), 0.0) is Outcome.WAITING
    assert watched.learn(lights(collector=Light.RED), 10.0) is Outcome.PROVEN


@pytest.mark.parametrize("before", [Light.GREEN, Light.PENDING, None])
def test_a_gate_that_was_green_or_not_there_counts(before: Light | None) -> None:
    watched = course(settle_s=10.0, baseline={"ocr": before} if before else {}, ocr="instances")
    watched.learn(lights(ocr=Light.RED), 0.0)
    assert watched.learn(lights(ocr=Light.RED), 10.0) is Outcome.FAILED


def test_whether_somebody_answers_this_process_counts_whatever_was_before() -> None:
    watched = course(settle_s=0.0, baseline={"poll": Light.IDLE}, poll="poll")
    assert watched.learn(lights(poll=Light.PENDING), 100.0) is Outcome.WAITING
    assert watched.learn(lights(poll=Light.GREEN), 101.0) is Outcome.PROVEN


def test_without_gates_a_document_proves_itself_by_living() -> None:
    watched = course(settle_s=10.0)
    assert watched.learn({}, 0.0) is Outcome.WAITING
    assert watched.learn({}, 10.0) is Outcome.PROVEN


def test_a_node_that_is_enrolled_always_has_a_gate_for_the_poll() -> None:
    plain = document_with(disk={"kind": "exec", "command": "disk"})
    assert [each.kind for each in gates.declared(plain, is_enrolled=True)] == ["poll", "exec"]
    assert [each.kind for each in gates.declared(plain)] == ["exec"]
    own = document_with(asked={"kind": "poll"})
    assert [each.name for each in gates.declared(own, is_enrolled=True)] == ["asked"]
    weak = document_with(poll={"kind": "poll", "required": False})
    found = gates.declared(weak, is_enrolled=True)
    assert [each.is_required for each in found] == [True, False], "a document cannot switch it off"
    assert len({each.name for each in found}) == 2


@pytest.mark.parametrize(
    ("gate", "lacks"),
    [({"kind": "http"}, "url"), ({"kind": "tcp"}, "address"), ({"kind": "exec"}, "command")],
)
def test_a_gate_that_lacks_what_its_kind_needs_is_refused(gate: Mapping[str, object], lacks: str) -> None:
    with pytest.raises(document.DocumentError) as caught:
        document_with(own=gate)
    assert lacks in caught.value.details["problems"][0]["message"]


def test_what_the_settings_do_not_allow_is_refused_by_name() -> None:
    offered = document_with(
        web={"kind": "http", "url": "http://127.0.0.1:8080/health"},
        other={"kind": "http", "url": "https://intranet.example/"},
        port={"kind": "tcp", "address": "[::1]:5432"},
        disk={"kind": "exec", "command": "disk"},
    )
    allowed = gates.Allowed.of((), (), Path("/"))
    assert {each.path[-1] for each in allowed.problems(offered)} == {"web", "other", "port", "disk"}
    allowed = gates.Allowed.of(("127.0.0.1:8080", "::1"), ("disk=/bin/df -h /",), Path("/"))
    (problem,) = allowed.problems(offered)
    assert problem.path[-1] == "other"
    assert "intranet.example:443" in problem.message
    assert "gate_hosts" in problem.message


@pytest.mark.parametrize("line", ["disk", "disk=", "=/bin/df", "disk=df -h", "disk=/bin/df 'x"])
def test_a_line_that_names_no_program_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="gate_commands"):
        gates.Allowed.of((), (line,), Path("/"))


def test_jobs_are_counted_by_how_they_ended_and_when() -> None:
    ends = Ends()
    for at, state in ((0.0, State.FAILED), (100.0, State.COMPLETED), (101.0, State.CANCELLED)):
        ends.add("ocr", state, at)
    ends.add("tts", State.FAILED, 102.0)
    assert ends.within("ocr", 60.0, 110.0) == (1, 0)
    assert ends.within("ocr", 600.0, 110.0) == (1, 1)
    assert ends.within(None, 60.0, 110.0) == (1, 1)
    assert ends.within("other", 60.0, 110.0) == (0, 0)


def test_who_is_asked_about_is_counted_however_many_others_there_are() -> None:
    ends = Ends()
    for number in range(300):
        ends.add(f"one-{number}", State.COMPLETED, 1.0)
    assert ends.within(None, 60.0, 2.0) == (300, 0), "the others are told as one"
    assert ends.within("ocr", 60.0, 2.0) == (0, 0)
    ends.add("ocr", State.COMPLETED, 3.0)
    ends.add("ocr", State.FAILED, 3.0)
    ends.add("tts", State.FAILED, 3.0)
    assert ends.within("ocr", 60.0, 4.0) == (1, 1)
    assert ends.within(None, 60.0, 4.0) == (301, 2)


def test_a_day_of_ends_is_told_whole_and_no_more_than_two_are_kept() -> None:
    ends, day, at = Ends(), 86_400, 0.0
    for number in range(day):
        at = 5.0 * number
        ends.add("ocr", State.COMPLETED if number % 4 else State.FAILED, at)
        if number == day // 5:
            assert ends.within("ocr", day, at) == (12_960, 4321)
    assert ends.within(None, day, at) == (12_962, 4320)
    assert sum(ends.within("ocr", 10 * day, at)) <= 2 * 17_282


class Alive(Absent):
    """A process of this moment, whose jobs end as a test says."""

    def __init__(self, clock: virtual_loop.Clock) -> None:
        self._clock, self._began = clock, clock.monotonic()
        self._ends = Ends()

    def lived_s(self) -> float:
        return self._clock.monotonic() - self._began

    def end(self, instance: str, well: int, badly: int) -> None:
        for state, count in ((State.COMPLETED, well), (State.FAILED, badly)):
            for _ in range(count):
                self._ends.add(instance, state, self._clock.monotonic())

    async def ended(self, instance: str | None, window_s: float) -> tuple[int, int]:
        return self._ends.within(instance, window_s, self._clock.monotonic())


async def seen(subject: looks.Subject, **declared: Mapping[str, object]) -> tuple[Light, str]:
    """Look at the one gate of a document."""
    offered = document_with(**declared)
    (found,) = (await looks.look(gates.declared(offered), offered, subject, gates.Allowed())).values()
    return found.light, found.message


def test_a_process_must_have_lived_for_a_minute() -> None:
    clock = virtual_loop.Clock()
    subject = Alive(clock)

    async def main() -> None:
        for pause_s, light in ((59.9, Light.PENDING), (0.2, Light.PENDING), (3600.0, Light.GREEN)):
            found, message = await seen(subject, own={"kind": "process"})
            assert (found, message) == (light, f"has lived for {subject.lived_s():.0f} s")
            await asyncio.sleep(pause_s)
        clock.set_wall(-7200.0)
        assert (await seen(subject, own={"kind": "process"}))[0] is Light.GREEN, "whatever the wall says"

    virtual_loop.run(main(), clock)


def test_jobs_are_judged_by_their_share_over_the_window_and_none_by_nothing() -> None:
    clock = virtual_loop.Clock()
    subject = Alive(clock)

    async def look(**spec: object) -> tuple[Light, str]:
        return await seen(subject, own={"kind": "jobs", **spec})

    async def main() -> None:
        assert await look() == (Light.IDLE, "no job has ended in the last 300 s of this process")
        subject.end("ocr", 8, 2)
        assert await look() == (Light.RED, "8 of 10 jobs ended well, and 90% must")
        assert (await look(success=0.8))[0] is Light.GREEN, "exactly the share is enough"
        subject.end("tts", 10, 0)
        assert (await look())[0] is Light.GREEN, "18 of 20, of all instances"
        assert (await look(instance="ocr"))[0] is Light.RED
        assert (await look(instance="none"))[0] is Light.IDLE
        await asyncio.sleep(200.0)
        subject.end("ocr", 0, 1)
        assert await look(window_s=100, success=0.1) == (Light.RED, "0 of 1 jobs ended well, and 10% must")
        assert (await look(instance="ocr"))[1].startswith("8 of 11 ")
        await asyncio.sleep(110.0)
        assert (await look())[1].startswith("0 of 1 "), "what is older than the window is forgotten"
        await asyncio.sleep(200.0)
        assert (await look())[0] is Light.IDLE

    virtual_loop.run(main(), clock)
