"""Asks a central what this node is to be: at once, then in step, and more and more rarely when it fails.

The loop owns the enrolment too: it asks as a node, and becomes one when it has to. It decides nothing about a
document; it hands over bytes whose hash it has checked.
"""

from __future__ import annotations

import asyncio
import functools
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from toft.kernel import authored, log
from toft.kernel import clock as clocks
from toft.kernel.errors import NodeError, UsageError
from toft.managed import answers, document, handover, outcomes, phases, protocol, retrying, transport
from toft.managed.outcomes import Outcome, State
from toft.managed.staging import Staged

_log = log.get_logger("managed.polling")

WAIT_S = 55
"""How long a central may keep a question before it says that nothing is new."""
LONG_DEADLINE_S = 65.0
GRACE_S = 1.0
_HELD_S = 20.0
# A central that has kept the last question tells of news at once, as long as it is asked.
_AGAIN_S = 1.0
_NOTHING_S = 300.0


class Facade(Protocol):
    """What the loop knows of the node."""

    def running_etag(self) -> str:
        """Return the name of what this process runs; empty before the first document."""
        ...

    def running(self) -> tuple[int | None, int]:
        """Return the revision that runs, and which attempt of the central it was."""
        ...

    def is_on_trial(self) -> bool:
        """Say whether what runs has not proven itself: then every answer must come at once."""
        ...

    async def confirm_poll(self) -> None:
        """Take note that the central has answered this node."""
        ...

    async def stage(
        self,
        data: bytes,
        etag: str,
        *,
        source: str,
        attempt: int,
        revision: int | None,
        signatures: str,
    ) -> Staged:
        """Check a document and commit it.

        Args:
            data: The exact bytes.
            etag: Their name.
            source: Which control URL they are from.
            attempt: The central's count of its own tries.
            revision: What it says their number is.
            signatures: The header that vouches for them, as it came.

        Raises:
            NodeError: They are not applied; an UnavailableError when that is not their fault.
        """
        ...


class Central(transport.Speaks, Protocol):
    """Whoever asks a central in the name of this node, and keeps its credential good."""

    skew_s: float | None

    async def keep_up(self, url: str) -> None:
        """Do what is due about the credential after a question that went well."""
        ...


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known of the polls so far, for whoever asks.

    Attributes:
        last: What came of the last one; None before the first.
        at: When, in seconds since 1970.
        next_in_s: Seconds until the next one; 0 while it is under way.
        failures: How many in a row went wrong.
        url: The control URL that answered well last; empty when none did.
        desired: What the central served last; empty before it served anything.
        counts: How often what came out.
    """

    state: State
    last: Outcome | None
    at: float
    next_in_s: float
    failures: int
    url: str
    desired: str
    skew_s: float | None
    counts: Mapping[str, int]


class Polling:
    """The loop.

    Args:
        facade: The node.
        central: Asks in its name.
        urls: Returns where to ask, the first one first; asked before each poll.
        interval_s: What the document sets itself.
        clock: For latencies and times.
        draw: From 0 up to 1, for jitter.
    """

    def __init__(
        self,
        facade: Facade,
        central: Central,
        urls: Callable[[], Sequence[str]],
        interval_s: float,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
        draw: retrying.Draw = random.random,
    ) -> None:
        self._facade = facade
        self._central = central
        self._urls = urls
        self._interval_s = interval_s
        self._clock = clock
        self._draw = draw
        self._ending = asyncio.Event()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_first = True
        self._failures = 0
        self._good_url = ""
        self._desired = ""
        self._last: Outcome | None = None
        self._at = 0.0
        self._next_at = 0.0
        self._counts: dict[str, int] = {}
        self._told = ""
        self._handover = handover.Handover(self.wake, clock=clock, draw=draw)

    def start(self) -> None:
        """Begin: the first poll is at once."""
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(self._ended)

    def wake(self) -> None:
        """Poll now instead of at the end of the pause."""
        self._wake.set()

    async def stop(self) -> None:
        """End: no new poll, a second for the one under way, then it is broken off."""
        self._ending.set()
        self._wake.set()
        if self._task is not None:
            _, late = await asyncio.wait({self._task, *self._handover.tasks}, timeout=GRACE_S)
            if self._task in late:
                self._task.cancel()
                await asyncio.wait({self._task})
        await self._handover.give_up()

    def standing(self) -> Standing:
        """Return what is known so far."""
        state = self._last.state if self._last else State.ENROLLING
        return Standing(
            state=state,
            last=self._last,
            at=self._at,
            next_in_s=max(0.0, self._next_at - self._clock.monotonic()),
            failures=self._failures,
            url=self._good_url,
            desired=self._desired,
            skew_s=self._central.skew_s,
            counts=dict(self._counts),
        )

    async def poll(self) -> Outcome:
        """Ask the control URLs, the one that answered last first, until one answers as it must."""
        found: list[Outcome] = []
        for url in self._order():
            found.append(await self._ask(url))
            if found[-1].is_good:
                break
        self._is_first = False
        return self._learn(found or [replace(outcomes.nowhere(), gap_s=self._ladder())])

    async def probe(self, urls: Sequence[str]) -> Outcome:
        """Ask some control URLs whether they answer this node, and take nothing from them.

        Returns:
            The best of their answers.
        """
        return outcomes.best([await self._knock(url) for url in urls])

    async def fetch(self) -> bytes:
        """Return what is served now, for whoever wants to look at it; counts as no poll.

        Raises:
            NodeError: No control URL gives one; the error of the last one.
        """
        failed: NodeError = transport.UnreachableError("there is no control URL")
        for url in self._order():
            try:
                headers = {"Accept": "application/json"}
                answer = await self._central.ask(
                    "GET", url, protocol.CONFIG, headers=headers, deadline_s=transport.DEADLINE_S
                )
            except NodeError as error:
                failed = error
                continue
            if answer.status == 200:
                return answer.body
            failed = transport.UnreachableError(
                f"{url} answers {answer.status} when it is asked for a document"
            )
        raise failed

    async def _run(self) -> None:
        while not self._ending.is_set():
            self._wake.clear()
            self._next_at = 0.0
            outcome = await self.poll()
            if self._ending.is_set():
                return
            self._next_at = self._clock.monotonic() + outcome.gap_s
            try:
                async with asyncio.timeout(outcome.gap_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _ended(self, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not self._ending.is_set():
            # Whoever can reach a central can be mended from there, whatever it was that nobody thought of.
            _log.error("the loop failed", error=repr(error))
            self._failures += 1
            asyncio.get_running_loop().call_later(self._ladder(), self._restart)

    def _restart(self) -> None:
        if not self._ending.is_set():
            self.start()

    def _order(self) -> list[str]:
        urls = list(dict.fromkeys(self._urls()))
        return sorted(urls, key=lambda url: url != self._good_url)

    async def _ask(self, url: str) -> Outcome:
        waits = not self._is_first and not self._facade.is_on_trial()
        try:
            answer = await self._question(url, waits=waits)
        except NodeError as error:
            return self._failed(url, error)
        except OSError as error:  # the disk did not take a new credential
            return self._failed(url, transport.UnreachableError(f"nothing can be kept: {error}"))
        if answer.status == 304:
            return await self._unchanged(url, answer, waits)
        if answer.status == 200:
            return await self._document(url, answer)
        return self._refused(url, answer)

    async def _question(self, url: str, *, waits: bool) -> transport.Answer:
        etag, (revision, attempt) = self._facade.running_etag(), self._facade.running()
        headers = {"Accept": "application/json"}
        if etag:
            headers["If-None-Match"] = protocol.quoted(etag)
            headers[protocol.ATTEMPT] = str(attempt)
        if revision is not None:
            headers[protocol.RUNNING_REVISION] = str(revision)
        if waits:
            headers["Prefer"] = f"wait={WAIT_S}"
        deadline_s = LONG_DEADLINE_S if waits else transport.DEADLINE_S
        return await self._central.ask("GET", url, protocol.CONFIG, headers=headers, deadline_s=deadline_s)

    async def _knock(self, url: str) -> Outcome:
        try:
            answer = await self._question(url, waits=False)
        except NodeError as error:
            return self._failed(url, error)
        if answer.status in (200, 304):
            return self._good(url, answer, 0.0)
        return self._refused(url, answer)

    async def _unchanged(self, url: str, answer: transport.Answer, waits: bool) -> Outcome:
        self._desired = self._facade.running_etag()
        await self._handover.give_up()
        await self._facade.confirm_poll()
        await self._central.keep_up(url)
        if waits and answer.latency_s >= _HELD_S:
            return self._good(url, answer, retrying.upward(_AGAIN_S, self._draw))
        return self._good(url, answer, self._steady(answer))

    async def _document(self, url: str, answer: transport.Answer) -> Outcome:
        etag = protocol.read_etag(answer.headers.get("etag"))
        found = document.etag_of(answer.body)
        digest = protocol.read_digest(answer.headers.get("repr-digest"))
        if not etag:
            return self._bad(url, answer, "config_missing_etag", "a document came without its name in ETag")
        if etag != found or (digest and f"sha256-{digest}" != found):
            return self._bad(
                url, answer, "config_digest_mismatch", f"the document said to be {etag} is {found}: damaged"
            )
        if not await asyncio.to_thread(_is_object, answer.body):
            return self._bad(url, answer, "config_invalid_json", "the document is no JSON object")
        self._desired = found
        await self._facade.confirm_poll()
        await self._central.keep_up(url)
        attempt, revision = _count(answer, protocol.ATTEMPT) or 0, _count(answer, protocol.REVISION)
        begin = functools.partial(
            self._facade.stage,
            answer.body,
            found,
            source=url,
            attempt=attempt,
            revision=revision,
            signatures=answer.headers.get(protocol.SIGNATURES.lower(), ""),
        )
        gap_s = await self._handover.offer(begin, etag=found, attempt=attempt, revision=revision)
        good = self._good(url, answer, min(gap_s, self._steady(answer)))
        error = self._handover.holds_back(found)
        # The central did all it had to; whoever looks at the node wants to know what it waits for.
        return good if error is None else replace(good, problem=f"not applied yet: {error}", hint=error.hint)

    def _good(self, url: str, answer: transport.Answer, gap_s: float) -> Outcome:
        return Outcome(
            kind=str(answer.status),
            answer=phases.Answer.GOOD,
            url=url,
            status=answer.status,
            gap_s=gap_s,
            state=State.HEALTHY,
            latency_s=answer.latency_s,
        )

    def _bad(self, url: str, answer: transport.Answer, kind: str, problem: str) -> Outcome:
        return Outcome(
            kind=kind,
            answer=phases.Answer.SILENT,
            url=url,
            status=answer.status,
            gap_s=self._ladder(),
            problem=problem,
            hint="look into the log of the central, or of what stands in front of it",
            latency_s=answer.latency_s,
        )

    def _refused(self, url: str, answer: transport.Answer) -> Outcome:
        now = self._clock.now() + (self._central.skew_s or 0.0)
        return self._failed(url, answers.refusal(url, answer, now), answer.latency_s)

    def _failed(self, url: str, error: NodeError, latency_s: float = 0.0) -> Outcome:
        found = outcomes.failed(url, error, latency_s=latency_s)
        if found.status == 404:
            gap_s = retrying.upward(max(_NOTHING_S, self._interval_s), self._draw)
        elif found.retry_after_s and found.answer is phases.Answer.BUSY:
            gap_s = retrying.upward(found.retry_after_s, self._draw)
        else:
            gap_s = self._ladder()
        is_known = self._central.is_enrolled or found.state is State.PENDING
        return replace(found, gap_s=gap_s, state=found.state if is_known else State.ENROLLING)

    def _learn(self, found: Sequence[Outcome]) -> Outcome:
        """Take note of what came of one poll; return what counts of it."""
        counts = max(found, key=lambda each: (each.is_good, each.status != 0, each.gap_s))
        if counts.is_good:
            self._failures, self._good_url = 0, counts.url
        else:
            # Whoever wants to be left alone longest is.
            counts = replace(counts, gap_s=max(each.gap_s for each in found))
            self._failures += counts.status != 404
        self._last, self._at = counts, self._clock.now()
        self._counts[counts.kind] = self._counts.get(counts.kind, 0) + 1
        self._tell(counts)
        return counts

    def _tell(self, outcome: Outcome) -> None:
        """Log a change, and every failure but one that says what is known and lasts."""
        is_known = outcome.kind == self._told and (outcome.is_good or outcome.status == 404)
        self._told = outcome.kind
        if is_known:
            return
        if outcome.is_good:
            _log.info("polled", url=outcome.url, status=outcome.status)
        else:
            _log.warning(
                outcome.kind,
                url=outcome.url,
                status=outcome.status,
                failures=self._failures,
                again_in_s=round(outcome.gap_s, 1),
                error=outcome.problem,
            )

    def _steady(self, answer: transport.Answer) -> float:
        asked = retrying.interval_s(answer.headers.get(protocol.POLL_INTERVAL.lower()))
        return retrying.steady(asked or self._interval_s, self._draw)

    def _ladder(self) -> float:
        return retrying.upward(retrying.ladder_s(self._failures + 1), self._draw)


def _is_object(data: bytes) -> bool:
    try:
        return isinstance(authored.parse(data, "the document", language="json"), dict)
    except UsageError:
        return False


def _count(answer: transport.Answer, name: str) -> int | None:
    text = answer.headers.get(name.lower(), "").strip()
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 15 else None
