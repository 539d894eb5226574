"""What a node tells its central of itself: at its start, at each change, and every quarter of an hour.

A report is made when it is sent, from the journal and from what the process knows; there is no queue of them
beside the journal. What the journal does not keep is in `reports.json`: the number of the last report, which
shows a machine that was set back, and which effective configuration the central has. While the disk takes no
number this process counts on: that its disk is full is what a central has to hear.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from toft.kernel import clock as clocks
from toft.kernel import lasting, log, threads
from toft.kernel.errors import NodeError
from toft.kernel.version import VERSION
from toft.managed import answers, belonging, generations, protocol, retrying, transport
from toft.store import durable

_log = log.get_logger("managed.reports")

EVERY_S = 900.0
GRACE_S = 1.0
_SCHEMA = 1
# Changes come in bursts: a commit and the end of the process, some gates at once.
_GATHER_S = 0.2
_CUT = 200
_MOST_LISTED = 200


@dataclass(frozen=True, kw_only=True)
class Details:
    """What only the running process knows.

    Attributes:
        gates: As they were found the last time somebody looked.
        overrides: What is configured on the node and gives way to the document.
        effective: The configuration that is in force, as `body` without its secrets, and its `sha256`; None
            when nobody knows.
    """

    gates: Sequence[Mapping[str, Any]] = ()
    overrides: Sequence[Mapping[str, Any]] = ()
    effective: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What there is to tell.

    Attributes:
        boot: What this process has loaded.
        standing: What is on disk.
        since: When that was loaded, in seconds since 1970.
        desired: What the central served last; empty before it served anything.
        wall_s: The machine's clock, in seconds since 1970.
        uptime_s: Seconds since the machine started.
        platform: What it is.
        details: What only the process knows.
    """

    boot: generations.Boot
    standing: generations.Standing
    since: float
    desired: str
    wall_s: float
    uptime_s: float
    platform: str
    details: Details


@dataclass(frozen=True)
class Kept:
    """What is remembered across starts.

    Attributes:
        seq: The number of the last report.
        effective_sha256: Of the configuration that the central has.
    """

    seq: int = 0
    effective_sha256: str = ""


class Sends(transport.Speaks, Protocol):
    """Whoever asks a central in the name of this node, and knows how late it is there."""

    def server_now(self) -> float:
        """Return the time of the central."""
        ...


def whole(seen: Seen, kept: Kept) -> dict[str, Any]:
    """Return a report of everything, small enough to be taken; the number is the next one."""
    state, meta = seen.standing.state, seen.boot.meta
    report: dict[str, Any] = {
        **short(seen, kept),
        "running": {
            "etag": meta.etag or None,
            "revision": meta.revision,
            "since": clocks.rfc3339(seen.since),
        },
        "desired": {"etag": seen.desired or None},
        "phase": str(state.phase),
        "trial": None
        if state.trial is None
        else {"etag": state.trial.etag, "boots": state.trial.boots, "attempt": state.trial.attempt},
        "history": [
            {
                "etag": each.etag,
                "revision": each.revision,
                "event": each.event,
                "reason": each.reason,
                "class": each.severity,
                "detail": each.detail,
                "at": _moment(each.at),
            }
            for each in state.history
        ],
        "gates": [_of(each, "name", "state", "since", "message") for each in seen.details.gates],
        "artifacts": [
            {**_of(each, "name", "version", "sha256"), "state": "installed"} for each in meta.artifacts
        ],
        "overrides": list(seen.details.overrides),
        "clock": {"wall": clocks.rfc3339(seen.wall_s), "uptime_s": round(seen.uptime_s, 3)},
        "agent_version": VERSION,
        "platform": seen.platform,
        "pinned": state.pinned or None,
    }
    effective = seen.details.effective
    if effective is not None:
        report["effective"] = {"sha256": effective["sha256"]}
        if effective["sha256"] != kept.effective_sha256:
            report["effective"]["body"] = effective["body"]
    return _fitted(report)


def short(seen: Seen, kept: Kept) -> dict[str, Any]:
    """Return a report that nothing has changed."""
    return {"seq": kept.seq + 1, "boot_nonce": seen.boot.nonce, "etag": seen.boot.meta.etag or None}


class Reports:
    """Sends them.

    Args:
        directory: `managed/` of the home.
        sends: Asks in the name of this node.
        url: Returns the control URL that answers; empty before one did.
        look: Returns what there is to tell.
        clock: For the pauses.
        draw: From 0 up to 1, for jitter.
        operations: The steps of a durable write.
    """

    def __init__(
        self,
        directory: Path,
        sends: Sends,
        url: Callable[[], str],
        look: Callable[[], Awaitable[Seen]],
        *,
        clock: clocks.Clock = clocks.SYSTEM,
        draw: retrying.Draw = random.random,
        operations: durable.Operations = durable.SYSTEM,
    ) -> None:
        self._path = directory / belonging.REPORTS
        self._sends = sends
        self._url = url
        self._look = look
        self._clock = clock
        self._draw = draw
        self._operations = operations
        self._is_changed = True
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._failures = 0
        self._given = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, with a report of everything."""
        # What nobody thought of must not keep a node from ever telling again.
        self._task = asyncio.create_task(lasting.keep_on(self._run, again_s=retrying.LADDER_S[0]))

    def note(self) -> None:
        """Report that something has changed, as soon as it can be; whoever says so waits for nothing."""
        self._is_changed = True
        self._wake.set()

    async def stop(self) -> None:
        """End: what is under way has a second."""
        self._ending.set()
        if self._task is None:
            return
        # What has changed last is sent now or by the next process: the journal has it.
        self._wake.set()
        await asyncio.wait({self._task}, timeout=GRACE_S)
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _run(self) -> None:
        is_told = False
        while True:
            if not self._ending.is_set():
                await asyncio.sleep(_GATHER_S)
            is_told = is_told and not self._is_changed
            if self._ending.is_set() and (is_told or self._failures):
                return
            self._is_changed = False
            self._wake.clear()
            is_sent, pause_s = await self._send(is_whole=not is_told)
            is_told = is_told or is_sent
            # What failed a moment ago is not tried again at once because there is more to tell.
            until = self._ending if self._failures else self._wake
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(retrying.upward(pause_s, self._draw)):
                    await until.wait()

    async def _send(self, *, is_whole: bool) -> tuple[bool, float]:
        """Send a report; return whether it is there, and how long to wait if nothing changes."""
        url = self._url()
        if not url or not self._sends.is_enrolled:
            return False, retrying.LADDER_S[0]
        try:
            kept = await asyncio.to_thread(self._read)
            kept = replace(kept, seq=max(kept.seq, self._given))
            seen = await self._look()
            report = whole(seen, kept) if is_whole else short(seen, kept)
            # The number is on disk before anybody sees it: none is given twice, as long as the disk takes it.
            kept = replace(kept, seq=kept.seq + 1)
            await self._remember(kept)
            body = _encode(report)
            answer = await self._sends.ask(
                "POST", url, protocol.REPORT, headers={"Content-Type": "application/json"}, body=body
            )
        except (NodeError, OSError) as error:
            return False, self._failed(url, str(error))
        if answer.status in (413, 422):
            # The same would be refused again.
            _log.error("report refused", url=url, status=answer.status, word=answers.word(answer))
        elif answer.status != 204:
            after_s = retrying.retry_after_s(answer.headers.get("retry-after"), self._sends.server_now())
            return False, max(after_s or 0.0, self._failed(url, f"{answer.status} {answers.word(answer)}"))
        elif "effective" in report:
            sent = replace(kept, effective_sha256=report["effective"]["sha256"])
            if sent != kept and "body" in report["effective"]:
                await self._remember(sent)  # or it is sent once more
        self._failures = 0
        return True, EVERY_S

    async def _remember(self, kept: Kept) -> None:
        self._given = kept.seq
        try:
            await threads.finished(lambda: self._write(kept))
        except OSError as error:
            _log.warning("not kept", error=str(error))

    def _failed(self, url: str, why: str) -> float:
        self._failures += 1
        _log.info("report not sent", url=url, failures=self._failures, error=why)
        return retrying.ladder_s(self._failures)

    def _read(self) -> Kept:
        try:
            value = json.loads(self._operations.read(str(self._path)))
            if value.get("node_id", "") != belonging.node_id(self._path.parent, self._operations):
                return Kept()  # of a process that was still there when somebody left or joined anew
            return Kept(seq=max(0, int(value["seq"])), effective_sha256=str(value["effective_sha256"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            # Numbers begin anew: the central sees that something was lost here, and that is so.
            return Kept()

    def _write(self, kept: Kept) -> None:
        value = {"schema": _SCHEMA, "seq": kept.seq, "effective_sha256": kept.effective_sha256}
        value["node_id"] = belonging.node_id(self._path.parent, self._operations)
        durable.write_json(self._path, value, mode=0o600, operations=self._operations)


def _fitted(report: dict[str, Any]) -> dict[str, Any]:
    """Return as much of a report as a central takes, the least needed left out first."""
    if _is_fit(report):
        return report
    if "body" in report.get("effective", {}):
        report = {**report, "effective": {"sha256": report["effective"]["sha256"]}}
    for cut in (_shortened, _listed):
        if not _is_fit(report):
            report = cut(report)
    return report


def _is_fit(report: Mapping[str, Any]) -> bool:
    return len(_encode(report)) <= protocol.MAX_REPORT_BYTES


def _shortened(report: dict[str, Any]) -> dict[str, Any]:
    cut = {"detail", "message", "reason"}
    return {
        name: [
            {key: each[:_CUT] if key in cut and isinstance(each, str) else each for key, each in one.items()}
            for one in value
        ]
        if name in ("history", "gates", "overrides")
        else value
        for name, value in report.items()
    }


def _listed(report: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value[:_MOST_LISTED] if isinstance(value, list) else value for name, value in report.items()
    }


def _encode(value: Any) -> bytes:
    # Half of a surrogate pair, which somebody may have written into a document, no central would take.
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def _of(value: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value.get(name) for name in names}


def _moment(seconds: float) -> str:
    try:
        return clocks.rfc3339(seconds)
    except (ValueError, OverflowError, OSError):
        # Written by a machine whose clock was nowhere.
        return clocks.rfc3339(0.0)
