"""What a node sends its central beside reports: rows of its log and of its samples, each of them once.

Rows go in chunks, from where the last one ended that the central has. Where a chunk ends is on disk before it
is sent: after a stop at any step the same bytes go out under the same name, and a central that has that name
keeps them once. Nothing here holds up a document, a poll or a report.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from toft.kernel import clock as clocks
from toft.kernel import lasting, log, threads
from toft.kernel.errors import NodeError
from toft.managed import answers, belonging, protocol, reports, retrying
from toft.store import durable

_log = log.get_logger("managed.telemetry")

PATIENCE_S = 300.0
"""So long a chunk is sent again and again to a central that is busy, before the next turn tries it."""
CHUNK_BYTES = 256 << 10
"""About as much as one chunk has: within the time for one question it comes through a thin line too."""
CHUNK_ROWS = 1000
_BUSY_LADDER_S = (1.0, 2.0, 5.0, 10.0, 30.0)
_NOT_TAKEN_S = 3600.0
_SOON_S = 5.0
_CHUNKS_A_TURN = 20
_POISON = (400, 413, 422)
_SCHEMA = 1
_LAST = 1 << 62


@dataclass(frozen=True, kw_only=True)
class Mark:
    """How far a signal has come.

    Attributes:
        partition: What is read from; empty before anything was.
        at: Up to where the central has it.
        until: Where the chunk that is under way ends; 0 when none is.
        how: By which choice its rows were made.
    """

    partition: str = ""
    at: int = 0
    until: int = 0
    how: str = ""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What a source has.

    Attributes:
        mark: From where to where it goes.
        rows: What is in there for the central; there may be none.
        is_last: Nothing more is there now.
    """

    mark: Mark
    rows: Sequence[Mapping[str, Any]]
    is_last: bool = True


class Source(Protocol):
    """Where the rows of one signal come from."""

    @property
    def signal(self) -> str:
        """Return which one, of `protocol.SIGNALS`."""
        ...

    async def begin(self) -> Mark:
        """Return from where on a central that has nothing yet is told: from the start of this process.

        What was before it may be from a time when this node was another one's.
        """
        ...

    async def read(self, mark: Mark) -> Batch | None:
        """Return what follows on a mark; None when nothing does.

        With `until`, and as long as that is still there, exactly the rows up to it, the same each time.
        The rows make at most about `CHUNK_BYTES` and `CHUNK_ROWS`.

        Raises:
            OSError: It cannot be read now.
            NodeError: The same.
        """
        ...


@dataclass
class Tally:
    """What became of the rows of one signal since this process started.

    Attributes:
        sent: Rows that the central has.
        dropped: Rows that it will never take.
        at: When it took the last ones, in seconds since 1970; 0 before.
    """

    sent: int = 0
    dropped: int = 0
    at: float = 0.0


class Telemetry:
    """Sends the rows of some sources.

    Args:
        directory: `managed/` of the home.
        sends: Asks in the name of this node.
        url: Returns the control URL that answers; empty before one did.
        sources: Where rows come from.
        every_s: Seconds between two looks.
        clock: For the pauses.
        draw: From 0 up to 1, for jitter.
        operations: The steps of a durable write.
    """

    def __init__(
        self,
        directory: Path,
        sends: reports.Sends,
        url: Callable[[], str],
        sources: Sequence[Source],
        every_s: float,
        *,
        clock: clocks.Clock = clocks.SYSTEM,
        draw: retrying.Draw = random.random,
        operations: durable.Operations = durable.SYSTEM,
    ) -> None:
        self._path = directory / belonging.TELEMETRY
        self._sends = sends
        self._url = url
        self._sources = sources
        self._every_s = every_s
        self._clock = clock
        self._draw = draw
        self._operations = operations
        self._marks: dict[str, Mark] = {}
        self._tallies = {each.signal: Tally() for each in sources}
        self._failures = 0
        self._problem = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin; where there is nothing to send, forget up to where it was."""
        self._task = asyncio.create_task(lasting.keep_on(self._run, again_s=retrying.LADDER_S[0]))

    async def stop(self) -> None:
        """End at once: the next process goes on where this one was."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    def standing(self) -> dict[str, Any]:
        """Return what became of the rows of each signal, and what keeps the rest from being sent."""
        return {
            "signals": {
                signal: {
                    "sent": each.sent,
                    "dropped": each.dropped,
                    "last_at": clocks.rfc3339(each.at) if each.at else None,
                }
                for signal, each in self._tallies.items()
            },
            "problem": self._problem or None,
        }

    async def _run(self) -> None:
        if not self._sources:
            # Whoever has it begin again later is not told of the time between.
            await threads.finished(self._forget)
            return
        pause_s = retrying.upward(_SOON_S, self._draw)
        # On disk before the first pause: of a process that never comes to its end the next one tells.
        await self._begin()
        while True:
            await asyncio.sleep(pause_s)
            try:
                await self._turn()
            except (NodeError, OSError) as error:
                pause_s = self._failed(error)
            else:
                self._failures, self._problem = 0, ""
                pause_s = retrying.steady(self._every_s, self._draw)

    def _failed(self, error: NodeError | OSError) -> float:
        """Take note of a turn that failed; return how long to wait."""
        self._failures += 1
        if str(error) != self._problem:
            _log.info("telemetry not sent", error=str(error), failures=self._failures)
        self._problem = str(error)
        is_unknown = isinstance(error, answers.CentralError) and error.status == 404
        asked_s = (isinstance(error, NodeError) and error.retry_after_s) or 0.0
        pause_s = _NOT_TAKEN_S if is_unknown else max(asked_s, retrying.ladder_s(self._failures))
        return retrying.upward(pause_s, self._draw)

    async def _turn(self) -> None:
        if not self._url() or not self._sends.is_enrolled:
            return
        for source in self._sources:
            for _ in range(_CHUNKS_A_TURN):
                if not await self._forward(source):
                    break

    async def _forward(self, source: Source) -> bool:
        """Send the next chunk of a source; return whether there is another one already."""
        signal = source.signal
        mark = self._marks[signal]
        batch = await source.read(mark)
        if batch is None:
            return False
        if batch.rows:
            if batch.mark != mark:
                await self._remember(signal, batch.mark)
            await self._deliver(signal, batch)
        done = Mark(partition=batch.mark.partition, at=batch.mark.until)
        if batch.rows:
            await self._remember(signal, done)
        else:
            self._marks[signal] = done  # what is for nobody may be read again
        return not batch.is_last

    async def _deliver(self, signal: str, batch: Batch) -> None:
        """Send a chunk until the central has it, or says that it never takes it.

        Raises:
            NodeError: Neither, for now.
        """
        body = b"".join(json.dumps(row, separators=(",", ":")).encode() + b"\n" for row in batch.rows)
        key = protocol.chunk_key(signal, batch.mark.partition, batch.mark.at, body)
        headers = {"Content-Type": "application/x-ndjson", protocol.CHUNK_KEY: key}
        until = self._clock.monotonic() + PATIENCE_S
        tries = 0
        while True:
            url = self._url()
            answer = await self._sends.ask(
                "POST", url, f"{protocol.INGEST}/{signal}", headers=headers, body=body
            )
            tally = self._tallies[signal]
            if answer.status == 202:
                tally.sent += len(batch.rows)
                tally.at = self._clock.now()
                return
            if answer.status in _POISON:
                # The same would be refused again, and what comes after it would never be sent.
                tally.dropped += len(batch.rows)
                word = answers.word(answer)
                _log.error(
                    "rows dropped", signal=signal, rows=len(batch.rows), status=answer.status, word=word
                )
                return
            refused = answers.refusal(url, answer, self._sends.server_now())
            tries += 1
            asked_s = refused.retry_after_s or retrying.ladder_s(tries, _BUSY_LADDER_S)
            pause_s = retrying.upward(asked_s, self._draw)
            if answer.status not in (429, 503) or self._clock.monotonic() + pause_s > until:
                raise refused
            await asyncio.sleep(pause_s)

    async def _begin(self) -> None:
        known = await asyncio.to_thread(self._read)
        self._marks = {each.signal: known.get(each.signal) or await each.begin() for each in self._sources}
        if self._marks != known:
            await self._keep()

    def _forget(self) -> None:
        with contextlib.suppress(OSError):
            durable.discard(self._path, operations=self._operations)

    def _read(self) -> dict[str, Mark]:
        try:
            value = json.loads(self._operations.read(str(self._path)))
            if value["node_id"] != belonging.node_id(self._path.parent, self._operations):
                return {}  # another node's, to whom another central listened
            return {str(signal): _mark(each) for signal, each in value["marks"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            # It begins anew: rows may be there twice, and none is missing.
            return {}

    async def _remember(self, signal: str, mark: Mark) -> None:
        self._marks[signal] = mark
        await self._keep()

    async def _keep(self) -> None:
        marks = dict(self._marks)
        with contextlib.suppress(OSError):
            # That its disk is full is what a central has to hear; this process remembers it all the same.
            await threads.finished(lambda: self._write(marks))

    def _write(self, marks: Mapping[str, Mark]) -> None:
        value = {
            "schema": _SCHEMA,
            "node_id": belonging.node_id(self._path.parent, self._operations),
            "marks": {signal: asdict(each) for signal, each in marks.items()},
        }
        durable.write_json(self._path, value, mode=0o600, operations=self._operations)


def _mark(value: Any) -> Mark:
    at, until = int(value["at"]), int(value["until"])
    if not 0 <= at < _LAST or (until and not at < until < _LAST):
        raise ValueError("somebody has edited it")
    return Mark(partition=str(value["partition"]), at=at, until=until, how=str(value["how"]))
