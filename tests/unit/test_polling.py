"""The table of answers, the ladder, and the pauses, in virtual time."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.simulation import virtual_loop

from toft.kernel.errors import ConflictError, NodeError, UnavailableError
from toft.managed import answers, document, install_errors, outcomes, phases, polling, protocol, retrying
from toft.managed.enrolling import NotToldError
from toft.managed.outcomes import State
from toft.managed.staging import Staged
from toft.managed.transport import Answer, AnswerError, UnreachableError

ONE, TWO = "https://one.example.org", "https://two.example.org"
NEW = document.encode({"schema_version": 1, "revision": 2})
ETAG = document.etag_of(NEW)
Reply = Answer | NodeError | Callable[[], Any]


def answer(status: int, body: bytes = b"", latency_s: float = 0.0, **headers: str) -> Answer:
    told = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, headers=told, body=body, latency_s=latency_s)


def problem(status: int, word: str, **headers: str) -> Answer:
    return answer(status, document.encode({"code": word}), **headers)


def offered(body: bytes = NEW, **headers: str) -> Answer:
    return answer(200, body, **{"etag": protocol.quoted(document.etag_of(body)), **headers})


@dataclass
class Asked:
    at: float
    url: str
    path: str
    headers: dict[str, str]
    deadline_s: float


@dataclass
class Scene:
    """A node and a central, each of which does what a test says."""

    clock: virtual_loop.Clock
    replies: Iterator[Reply]
    urls: Sequence[str] = (ONE,)
    interval_s: float = 300.0
    runs: str = "sha256-" + "1" * 64
    draw: float = 0.5
    on_trial: bool = False
    staging: Callable[[bytes], Staged | Awaitable[Staged]] | None = None
    skew_s: float | None = None
    is_enrolled: bool = True
    asked: list[Asked] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bell = asyncio.Event()
        self.polling = polling.Polling(
            self, self, lambda: self.urls, self.interval_s, clock=self.clock, draw=lambda: self.draw
        )

    def running_etag(self) -> str:
        return self.runs

    def running(self) -> tuple[int | None, int]:
        return (1 if self.runs else None), 0

    def is_on_trial(self) -> bool:
        return self.on_trial

    async def confirm_poll(self) -> None:
        self.done.append("confirm")

    async def stage(self, data: bytes, etag: str, **_: Any) -> Staged:
        self.done.append(f"stage {etag[7:11]}")
        made = self.staging(data) if self.staging else Staged("applied", etag)
        return made if isinstance(made, Staged) else await made

    async def ask(
        self,
        method: str,
        url: str,
        path: str,
        *,
        headers: Any = None,
        body: bytes = b"",
        deadline_s: float = 30.0,
    ) -> Answer:
        self.asked.append(Asked(self.clock.monotonic(), url, path, dict(headers), deadline_s))
        self.bell.set()
        reply = next(self.replies)
        if callable(reply):
            reply = await reply()
        if isinstance(reply, NodeError):
            raise reply
        return reply

    async def keep_up(self, url: str) -> None:
        pass


def play(*replies: Reply, polls: int = 0, then: Callable[[Scene], Any] | None = None, **known: Any) -> Scene:
    """Let the loop run until it has polled so often; what comes after the replies given is 304."""
    clock = virtual_loop.Clock()

    def forever() -> Iterator[Reply]:
        yield from replies
        while True:
            yield answer(304)

    async def main() -> Scene:
        scene = Scene(clock, forever(), **known)
        scene.polling.start()
        wanted = polls or len(replies)
        while len(scene.asked) < wanted:
            scene.bell.clear()
            await scene.bell.wait()
        await asyncio.sleep(0.01)
        if then is not None:
            await then(scene)
        await scene.polling.stop()
        return scene

    return virtual_loop.run(main(), clock)


def gaps(scene: Scene) -> list[int]:
    times = [each.at for each in scene.asked]
    return [round(later - earlier) for earlier, later in zip(times, times[1:], strict=False)]


def test_it_asks_at_once_and_then_in_step() -> None:
    scene = play(polls=4)
    assert scene.asked[0].at < 0.1
    assert gaps(scene) == [300, 300, 300]
    assert gaps(play(polls=3, draw=0.0)) == [270, 270]
    assert gaps(play(polls=3, draw=0.999999)) == [330, 330]
    assert gaps(play(answer(304, x_poll_interval="60"), answer(304), polls=3)) == [60, 300]
    for beyond in ("4", "3601", "-5", "7abc", "1e3", ""):
        assert gaps(play(answer(304, x_poll_interval=beyond), polls=2)) == [300]


def test_every_question_names_what_this_process_runs() -> None:
    scene = play(offered(), answer(304), polls=3)
    assert {each.headers["If-None-Match"] for each in scene.asked} == {f'"{scene.runs}"'}
    assert {each.headers["X-Running-Revision"] for each in scene.asked} == {"1"}
    seeded = play(polls=1, runs="")
    assert "If-None-Match" not in seeded.asked[0].headers
    assert "X-Running-Revision" not in seeded.asked[0].headers


def test_a_central_may_keep_a_question_but_for_the_first_and_those_on_trial() -> None:
    async def held() -> Answer:
        await asyncio.sleep(55)
        return answer(304, latency_s=55.0)

    scene = play(answer(304), held, held, polls=4)
    assert ["Prefer" in each.headers for each in scene.asked] == [False, True, True, True]
    assert [each.deadline_s for each in scene.asked] == [30.0, 65.0, 65.0, 65.0]
    assert gaps(scene) == [300, 56, 56], "whoever keeps questions is asked again at once"
    assert gaps(play(polls=3)) == [300, 300], "whoever does not is asked in step"
    trial = play(polls=3, on_trial=True)
    assert not any("Prefer" in each.headers for each in trial.asked)


def test_a_document_is_confirmed_first_then_staged() -> None:
    scene = play(offered(), polls=2)
    assert scene.done == ["confirm", f"stage {ETAG[7:11]}", "confirm"]
    assert gaps(scene) == [300]

    def refuse(data: bytes) -> Staged:
        raise document.DocumentError("no")

    assert gaps(play(offered(), polls=2, staging=refuse)) == [300], "a bad document changes no pace"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer(200, NEW), "config_missing_etag"),
        (answer(200, NEW, etag='"v7"'), "config_missing_etag"),
        (offered(etag=protocol.quoted("sha256-" + "0" * 64)), "config_digest_mismatch"),
        (offered(repr_digest=protocol.digest(b"other")), "config_digest_mismatch"),
        (offered(b"{"), "config_invalid_json"),
        (offered(b"[1]"), "config_invalid_json"),
        (offered(b"\xff\xfe"), "config_invalid_json"),
        (offered(b"[" * 200_000), "config_invalid_json"),
        (offered(b'{"a": NaN}'), "config_invalid_json"),
        (AnswerError("much", code="control.too_large"), "config_document_too_large"),
        (UnreachableError("gone"), "config_poll_error"),
        (UnreachableError("slow", code="control.deadline"), "config_poll_error"),
        (answer(500), "config_poll_http_error"),
        (answer(302, location="https://elsewhere.example.org"), "config_poll_http_error"),
        (answer(204), "config_poll_http_error"),
        (problem(401, protocol.CREDENTIAL_REFUSED), "config_poll_auth_failed"),
        (answer(403), "config_poll_refused"),
        (problem(403, protocol.NODE_REVOKED), "config_poll_revoked"),
        (answer(429), "config_poll_throttled"),
        (answer(503), "config_poll_throttled"),
    ],
)
def test_what_is_wrong_confirms_nothing_and_climbs_the_ladder(reply: Answer, kind: str) -> None:
    scene = play(*[reply] * 6, polls=7, then=lambda scene: asyncio.sleep(0), draw=0.0)
    assert scene.done == ["confirm"], "only the 304 after them does"
    assert gaps(scene) == [30, 60, 120, 300, 300, 300]
    assert scene.polling.standing().failures == 0
    assert scene.polling.standing().counts == {kind: 6, "304": 1}
    again = play(reply, answer(304), reply, polls=4, draw=0.0)
    assert gaps(again) == [30, 270, 30], "a good answer begins it anew"


def test_the_ladder_has_jitter_upward_only() -> None:
    assert gaps(play(answer(500), answer(500), polls=3, draw=0.999)) == [33, 66]


@pytest.mark.parametrize(
    ("text", "gap"),
    [
        ("7", 7),
        ("0", 30),
        ("-1", 30),
        ("7abc", 30),
        ("1.5", 30),
        ("\u0667", 30),
        ("3000000", 3600),
        ("9" * 5000, 30),
        ("Wed, 01 Jan 2020 00:01:30 GMT", 90),
        ("Wednesday, 01-Jan-20 00:01:30 GMT", 90),
        ("Tue, 31 Dec 2019 23:59:59 GMT", 30),
        ("Wed, 99 Jan 2020 00:00:00 GMT", 30),
        ("tomorrow", 30),
        ("", 30),
    ],
)
def test_retry_after_is_believed_within_bounds(text: str, gap: int) -> None:
    now = retrying.http_date("Wed, 01 Jan 2020 00:00:00 GMT")
    assert now is not None
    skew_s = now - virtual_loop.START
    for status in (429, 503):
        scene = play(answer(status, retry_after=text), polls=2, draw=0.0, skew_s=skew_s)
        assert gaps(scene) == [gap], "a date counts by the clock of whoever wrote it"
    assert gaps(play(answer(429, retry_after="100"), polls=2, draw=0.999)) == [110]


def test_without_a_document_it_asks_rarely_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "toft")
    scene = play(*[problem(404, protocol.NO_DOCUMENT)] * 13, polls=14, draw=0.0)
    assert scene.done == ["confirm"]
    assert set(gaps(scene)) == {300}
    assert sum("config_no_document" in each.getMessage() for each in caplog.records) == 1
    slow = play(answer(404), polls=2, interval_s=900.0, draw=0.0)
    assert gaps(slow) == [900]


def test_who_waits_for_approval_is_asked_when_it_says() -> None:
    scene = play(
        problem(403, protocol.PENDING_APPROVAL, retry_after="60"),
        then=lambda scene: _noted(scene, scene.polling.standing().state),
        draw=0.0,
        polls=1,
    )
    assert scene.done == [State.PENDING]
    assert gaps(play(problem(403, protocol.PENDING_APPROVAL, retry_after="60"), polls=2, draw=0.0)) == [60]


async def _noted(scene: Scene, what: str) -> None:
    scene.done.append(what)


def test_the_state_says_what_is_the_matter() -> None:
    def state(reply: Reply, **known: Any) -> str:
        return play(reply, then=lambda scene: _noted(scene, scene.polling.standing().state), **known).done[-1]

    assert state(UnreachableError("gone"), is_enrolled=False) == State.ENROLLING
    refused = answers.refusal(ONE, problem(401, protocol.JOIN_REFUSED), 0.0)
    assert state(refused, is_enrolled=False) == State.ENROLLING
    assert state(UnreachableError("gone")) == State.DEGRADED
    assert state(problem(401, protocol.CREDENTIAL_REFUSED)) == State.REFUSED
    assert state(problem(403, protocol.NODE_REVOKED)) == State.REVOKED
    assert state(answer(404)) == State.NO_DOCUMENT
    assert state(answer(304)) == State.HEALTHY


def test_enrolment_is_tried_again_on_the_ladder() -> None:
    scene = play(*[UnreachableError("down")] * 5, polls=6, is_enrolled=False, draw=0.0)
    assert gaps(scene) == [30, 60, 120, 300, 300]


def test_addresses_are_asked_in_order_and_the_good_one_first() -> None:
    scene = play(UnreachableError("gone"), answer(304), answer(304), polls=3, urls=(ONE, TWO))
    assert [each.url for each in scene.asked] == [ONE, TWO, TWO]
    assert gaps(scene) == [0, 300], "the next address is asked at once"
    both = play(answer(500), answer(429, retry_after="600"), polls=3, urls=(ONE, TWO), draw=0.0)
    assert gaps(both) == [0, 600], "who wants to be left alone longest is"
    assert both.polling.standing().counts["config_poll_throttled"] == 1
    hostile = play(problem(401, "x"), offered(), polls=2, urls=(ONE, TWO))
    assert hostile.done[0] == "confirm", "one that refuses everybody keeps nobody from the other"
    withheld = play(NotToldError("another place"), polls=1, urls=(ONE,)).polling.standing()
    assert withheld.last is not None
    assert (withheld.last.kind, withheld.state) == ("config_poll_not_told", "withheld"), "nobody refused it"
    nowhere = play(polls=0, then=lambda scene: asyncio.sleep(40), urls=())
    assert nowhere.polling.standing().last.kind == "config_no_url"  # type: ignore[union-attr]


def test_what_the_node_could_not_do_is_tried_again_and_what_it_refused_is_not() -> None:
    down = install_errors.InstallError("the registry is down", retry_after_s=1.0)

    def fail(data: bytes) -> Staged:
        raise down

    scene = play(*[offered()] * 8, polls=8, staging=fail, draw=0.0)
    assert gaps(scene)[:6] == [30, 60, 120, 240, 270, 210], "and polled in step meanwhile"
    fast = play(*[offered()] * 21, polls=21, staging=fail, interval_s=5.0)
    staged = [each for each in fast.done if each.startswith("stage")]
    assert len(staged) == 3, "asked every five seconds, tried after 0, 30 and 90"

    def full(data: bytes) -> Staged:
        raise UnavailableError("disk", code="generation.apply_io_error")

    assert gaps(play(offered(), polls=2, staging=full, draw=0.0)) == [30]

    def busy(data: bytes) -> Staged:
        raise ConflictError("on trial", code="generation.probation_active")

    assert gaps(play(offered(), polls=2, staging=busy)) == [300]


def test_what_takes_long_to_stage_keeps_nobody_from_sending_another_document() -> None:
    other = document.encode({"schema_version": 1, "revision": 3})
    broken: list[bytes] = []

    async def slowly(data: bytes) -> Staged:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            broken.append(data)
            raise
        return Staged("applied", "")

    scene = play(*[offered()] * 4, offered(other), polls=6, staging=slowly)
    assert gaps(scene) == [360, 300, 300, 300, 360], "it asks on, in step"
    assert [each for each in scene.done if each != "confirm"] == [
        f"stage {ETAG[7:11]}", f"stage {document.etag_of(other)[7:11]}"
    ]  # fmt: skip
    assert broken == [NEW, other], "what is not wanted any more is broken off, and so is the rest at the end"
    back = play(offered(), answer(304), polls=3, staging=slowly)
    assert broken[2:] == [NEW]
    assert gaps(back) == [360, 300]


def test_what_a_document_waits_for_is_told_beside_the_good_answer() -> None:
    def full(data: bytes) -> Staged:
        raise UnavailableError("the disk is full", hint="free some space")

    async def see(scene: Scene) -> None:
        last = scene.polling.standing().last
        assert last is not None
        scene.done.append(f"{last.is_good} {last.problem}: {last.hint}")

    def said(*replies: Reply) -> str:
        return play(*replies, staging=full, then=see).done[-1]

    assert said(offered()) == "True not applied yet: the disk is full: free some space"
    assert said(offered(), offered(), offered()) == said(offered()), "also while nothing is tried"
    assert said(offered(), answer(304)) == "True : ", "nobody wants it any more"


def test_what_takes_long_is_broken_off_for_what_is_held_back_too() -> None:
    other = document.encode({"schema_version": 1, "revision": 3})
    broken: list[bytes] = []

    async def stage(data: bytes) -> Staged:
        if data == NEW:
            raise UnavailableError("the registry is down")
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            broken.append(data)
            raise
        return Staged("applied", "")

    async def see(scene: Scene) -> None:
        scene.done.append(f"{len(broken)} broken off")

    failed = [offered()] * 12
    scene = play(*failed, offered(other), offered(), polls=14, staging=stage, interval_s=60.0, then=see)
    assert scene.done[-1] == "1 broken off", "the central does not want it any more"


def test_what_took_long_is_taken_note_of_when_it_is_done() -> None:
    async def fails(data: bytes) -> Staged:
        await asyncio.sleep(1000)
        raise UnavailableError("the registry is down")

    scene = play(*[offered()] * 9, polls=6, staging=fails, draw=0.0)
    assert gaps(scene) == [330, 270, 270, 130, 30]
    assert scene.done.count(f"stage {ETAG[7:11]}") == 2


def test_a_probe_takes_nothing_and_gives_the_best_answer() -> None:
    found: list[outcomes.Outcome] = []

    async def knock(scene: Scene) -> None:
        scene.done.clear()
        found.append(await scene.polling.probe([ONE, TWO]))

    def probed(*replies: Reply) -> outcomes.Outcome:
        scene = play(answer(304), *replies, then=knock, polls=1)
        assert scene.done == []
        assert all("Prefer" not in each.headers for each in scene.asked)
        return found[-1]

    assert probed(UnreachableError("gone"), offered()).answer is phases.Answer.GOOD
    assert probed(problem(401, "x"), UnreachableError("gone")).answer is phases.Answer.REFUSED
    busy = probed(problem(403, protocol.NODE_REVOKED), answer(429, retry_after="60"))
    assert (busy.answer, busy.retry_after_s) == (phases.Answer.BUSY, 60.0)
    assert probed(answer(500), answer(200)).answer is phases.Answer.GOOD
    assert probed(answer(404), answer(302)).answer is phases.Answer.SILENT


def test_an_end_gives_a_second_and_no_more() -> None:
    broken: list[str] = []

    async def slow() -> Answer:
        try:
            await asyncio.sleep(0.6)
        except asyncio.CancelledError:
            broken.append("slow")
            raise
        return offered()

    async def endless() -> Answer:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            broken.append("endless")
            raise
        return answer(304)

    scene = play(slow, polls=1)
    assert scene.done == ["confirm", f"stage {ETAG[7:11]}"], "what was under way came to its end"
    scene = play(endless, polls=1)
    assert (scene.done, broken) == ([], ["endless"])
    assert scene.clock.monotonic() < 1.2
    assert scene.polling.standing().failures == 0, "an end is no failure"
    assert play(polls=1).clock.monotonic() < 0.1, "a pause ends at once"


def test_it_polls_when_it_is_woken() -> None:
    async def wake(scene: Scene) -> None:
        scene.polling.wake()
        await asyncio.sleep(1)

    assert gaps(play(polls=1, then=wake)) == [0]


def test_a_failure_that_nobody_thought_of_ends_no_loop(caplog: pytest.LogCaptureFixture) -> None:
    async def strange() -> Answer:
        raise ZeroDivisionError

    scene = play(strange, polls=2)
    assert [round(each) for each in gaps(scene)] in ([30], [31], [32], [60], [63])
    assert any("the loop failed" in each.getMessage() for each in caplog.records)


def test_what_is_known_of_the_polls_is_told() -> None:
    told: list[polling.Standing] = []

    async def look(scene: Scene) -> None:
        await asyncio.sleep(100)
        told.append(scene.polling.standing())

    play(answer(304, latency_s=0.25), then=look, skew_s=-3.0)
    (found,) = told
    assert found.last is not None
    assert (found.last.status, found.last.latency_s, found.url, found.skew_s) == (304, 0.25, ONE, -3.0)
    assert (found.failures, round(found.next_in_s)) == (0, 200)
    assert round(found.at - virtual_loop.START) == 0
