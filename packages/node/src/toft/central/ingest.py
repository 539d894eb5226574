"""What nodes send in rows: their logs and samples, kept as they came, each chunk once, the newest of them.

Nothing in a row is believed or looked into; whoever shows it makes it safe. A chunk and its name are written
in one transaction: what was acknowledged is there, and what comes again is known by its name.
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import math
from collections.abc import Callable
from typing import Any

from toft.central.nodes import Node
from toft.kernel import clock as clocks
from toft.kernel.errors import NotFoundError, RefusedError, UsageError
from toft.managed import protocol
from toft.store import database

KEPT_BYTES = 4 << 20
"""Of each signal of a node."""
NAMES = 1000
"""So many chunks of each signal of a node are known again."""
DEEPEST = 64
"""Levels of a row: an answer holds a hundred, and a row that no answer can hold would hide all beside it."""
_LARGE = 64 << 10


class Ingest:
    """Takes chunks of rows.

    Args:
        store: The database, with the tables of `central`.
        clock: The time.
        kept_bytes: How much of each signal of a node is kept; the newest chunk always is.
    """

    def __init__(
        self, store: database.Store, *, clock: clocks.Clock = clocks.SYSTEM, kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._store = store
        self._clock = clock
        self._kept_bytes = kept_bytes
        # What the table holds, so that it need not be counted each time; touched within transactions only.
        # One that fails leaves an eighth too little or one chunk too much here, until it is counted next.
        self._held: dict[tuple[str, str], int] = {}

    async def take(
        self, node: Node, signal: str, name: str, body: bytes, *, counted: Callable[[], None]
    ) -> bool:
        """Take a chunk; when this returns it is on disk.

        Args:
            node: Who sends it.
            signal: What it is of.
            name: Its name; the same chunk has the same one.
            body: Rows, a JSON object in each line.
            counted: Called for a chunk that is not known yet; it raises when this node sends too much.

        Returns:
            Whether it was new.

        Raises:
            UsageError: It has no good name, is not made of rows, or another chunk had that name.
            RefusedError: It is too large.
            NotFoundError: There is no such signal.
        """
        _check_head(signal, name, body)
        digest = hashlib.sha256(body).hexdigest()
        values: dict[str, Any] = {"node": node.id, "signal": signal, "name": name}
        if await self._is_known(values, digest):
            return False
        counted()
        # A large one takes tens of milliseconds, in which others would wait.
        count = await asyncio.to_thread(check, body) if len(body) > _LARGE else check(body)
        values |= {"sha256": digest, "now": self._clock.now(), "size_bytes": len(body), "row_count": count}
        return await self._store.write(lambda connection: self._write(connection, values, body.decode()))

    async def _is_known(self, values: dict[str, Any], digest: str) -> bool:
        row = await self._store.read(
            lambda connection: connection.execute(_QUERIES["find_name"], values).fetchone()
        )
        return row is not None and _is_same(row["sha256"], digest)

    def _write(self, connection: database.Connection, values: dict[str, Any], data: str) -> bool:
        if connection.execute(_QUERIES["put_name"], values).fetchone() is None:
            row = connection.execute(_QUERIES["find_name"], values).fetchone()
            return not _is_same(row["sha256"], values["sha256"])
        connection.execute(_QUERIES["forget_names"], {**values, "most": NAMES})
        connection.execute(_QUERIES["put_chunk"], {**values, "data": data})
        key = (values["node"], values["signal"])
        before = self._held.get(key)
        held = _count(connection, values) if before is None else before + values["size_bytes"]
        if held > self._kept_bytes:
            # A little more than has to go, so that not each chunk after it pushes another one out.
            connection.execute(_QUERIES["forget_chunks"], {**values, "most": self._kept_bytes * 7 // 8})
            held = _count(connection, values)
        self._held[key] = held
        return True


_QUERIES = database.read_queries("toft.central", "ingest.sql")


def _count(connection: database.Connection, values: dict[str, Any]) -> int:
    return int(connection.execute(_QUERIES["count_bytes"], values).fetchone()["held"])


def _is_same(known: str, digest: str) -> bool:
    """Say that a chunk is the one that had its name before.

    Raises:
        UsageError: It is another one.
    """
    if known != digest:
        raise UsageError(
            "another chunk of this node had that name",
            code="ingest.invalid",
            hint=f"{protocol.CHUNK_KEY} names exactly one chunk: its signal, where it begins, and its bytes",
        )
    return True


def _check_head(signal: str, name: str, body: bytes) -> None:
    check_signal(signal)
    if not protocol.is_chunk_key(name):
        raise UsageError(
            f"{protocol.CHUNK_KEY} is not 32 hexadecimal digits",
            code="ingest.no_key",
            hint="it names the chunk, so that it can be sent again",
        )
    if len(body) > protocol.MAX_CHUNK_BYTES:
        raise too_large(f"{protocol.MAX_CHUNK_BYTES} bytes")


def check_signal(signal: str) -> None:
    """Refuse what is the name of no signal.

    Raises:
        NotFoundError: It is that.
    """
    if signal not in protocol.SIGNALS:
        raise NotFoundError(
            f"{signal[:20]!r} is no signal",
            code="ingest.no_signal",
            hint=f"one of {', '.join(protocol.SIGNALS)}",
        )


def too_large(most: str) -> RefusedError:
    """Return the error for a chunk that is too large."""
    return RefusedError(f"a chunk has up to {most}", code="request.too_large", hint="send it in several")


def check(body: bytes) -> int:
    """Return how many rows a chunk has.

    Raises:
        UsageError: One is no JSON object, or says what JSON cannot; the same will never be taken.
        RefusedError: There are too many.
    """
    lines = body.removesuffix(b"\n").split(b"\n")
    if len(lines) > protocol.MAX_CHUNK_ROWS:
        raise too_large(f"{protocol.MAX_CHUNK_ROWS} rows")
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line.decode(), parse_constant=_no_number, parse_float=_number)
            if b"\\u" in line:
                json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
        except (ValueError, RecursionError) as error:
            raise _poison(
                number, str(error) if isinstance(error, ValueError) else "nested too deep"
            ) from None
        if not isinstance(row, dict):
            raise _poison(number, "it is no object")
        # What has no more brackets than that cannot be deeper, which nearly all rows are told by.
        if line.count(b"[") + line.count(b"{") > DEEPEST and _is_deep(row):
            raise _poison(number, f"nested deeper than {DEEPEST} levels")
    return len(lines)


def _is_deep(row: dict[str, Any]) -> bool:
    level: list[Any] = [row]
    for _ in range(DEEPEST):
        inner = itertools.chain.from_iterable(
            each.values() if isinstance(each, dict) else each for each in level
        )
        level = [each for each in inner if isinstance(each, dict | list)]
        if not level:
            return False
    return True


def _poison(number: int, why: str) -> UsageError:
    return UsageError(
        f"line {number} of the chunk is no row: {why[:200]}",
        code="ingest.invalid",
        details={"line": number},
        hint="a chunk is NDJSON: one JSON object in each line; the same would be refused again",
    )


def _number(text: str) -> float:
    found = float(text)
    if not math.isfinite(found):
        raise ValueError(f"{text[:40]} is no number that JSON can say")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number that JSON can say")
