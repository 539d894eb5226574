"""Reads what nodes have sent in rows: the last ones, those before them, and those that come after."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toft.central.nodes import Node
from toft.kernel import clock as clocks
from toft.kernel.errors import UsageError
from toft.managed.protocol import LEVELS
from toft.store import database

MOST = 1000
"""Rows in one answer."""
_MOST_BYTES = 1 << 20
_CHUNKS = 16
_MOST_SERIES = 64
_LARGEST = 1e18
_LAST = 1 << 62
_PLACE = re.compile(r"(\d{1,18})-(\d{1,4})", re.ASCII)
_QUERIES = database.read_queries("toft.central", "ingest.sql")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row.

    Attributes:
        id: Where it is among all of its node and signal; see `before` and `after`.
        received_at: When its chunk came, in seconds since 1970.
        value: What the node said; of any form.
        size_bytes: How long that was.
    """

    id: str
    received_at: float
    value: dict[str, Any]
    size_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as it is answered."""
        return {"id": self.id, "received_at": clocks.rfc3339(self.received_at), "row": self.value}


@dataclass(frozen=True, kw_only=True)
class Question:
    """Which rows are meant.

    Attributes:
        most: How many at most.
        before: Only what came before this row; the last ones when it is empty.
        after: Only what came after this row, the first ones of it first.
        level: Only rows that say they are of this level or above, or say nothing of the kind.
    """

    most: int = 100
    before: str = ""
    after: str = ""
    level: str = ""

    def check(self) -> None:
        """Refuse what means nothing.

        Raises:
            UsageError: It is that.
        """
        if self.before and self.after:
            raise UsageError("either before or after", code="request.fields")
        for each in (self.before, self.after):
            if each and not _PLACE.fullmatch(each):
                raise UsageError(f"{each[:40]!r} is the id of no row", code="request.fields")
        if not 1 <= self.most <= MOST:
            raise UsageError(f"most is between 1 and {MOST}", code="request.fields")
        if self.level and self.level not in LEVELS:
            raise UsageError(f"{self.level[:20]!r} is no level: {', '.join(LEVELS)}", code="request.fields")


class Rows:
    """The rows that were taken.

    Args:
        store: The database.
    """

    def __init__(self, store: database.Store) -> None:
        self._store = store

    async def read(self, node: Node, signal: str, question: Question) -> tuple[list[Row], bool]:
        """Return rows of a node, the oldest first, and whether there are more in that direction.

        Raises:
            UsageError: The question means nothing.
        """
        question.check()
        is_back = not question.after
        at = _place(question.before or question.after) or (_LAST, 0)
        place, size = at[0], 0
        found: list[Row] = []
        while True:
            chunks = await self._chunks(node, signal, place, is_back=is_back)
            # Up to some mebibytes of JSON, which others need not wait for.
            for row in await asyncio.to_thread(_rows, chunks, at, question, is_back=is_back):
                size += row.size_bytes
                if len(found) == question.most or (found and size > _MOST_BYTES):
                    return (found[::-1] if is_back else found), True
                found.append(row)
            if len(chunks) < _CHUNKS:
                return (found[::-1] if is_back else found), False
            place = chunks[-1]["id"] + (-1 if is_back else 1)

    async def _chunks(self, node: Node, signal: str, place: int, *, is_back: bool) -> list[Any]:
        query = _QUERIES["list_back" if is_back else "list_on"]
        values = {"node": node.id, "signal": signal, "place": place, "most": _CHUNKS}
        return await self._store.read(lambda connection: connection.execute(query, values).fetchall())


def columns(rows: Sequence[Row], since: float) -> dict[str, Any]:
    """Return samples of a node as columns for a plot, in the order of their moments; others are left out.

    Args:
        rows: What the node said.
        since: Seconds since 1970; what is older is left out.
    """
    found = [(at, row.value) for row in rows if (at := moment(row.value)) is not None and at >= since]
    found.sort(key=lambda each: each[0])
    names = {name for _, sample in found for name, value in sample.items() if _is_number(value)}
    times = [at for at, _ in found]
    gaps = sorted(after - before for before, after in itertools.pairwise(times))
    return {
        "at": times,
        # By it a plot knows where nothing was measured.
        "step_s": gaps[len(gaps) // 2] if gaps else 0.0,
        "series": {
            name: [sample[name] if _is_number(sample.get(name)) else None for _, sample in found]
            for name in sorted(names)[:_MOST_SERIES]
        },
    }


def moment(value: Mapping[str, Any]) -> float | None:
    """Return when a row says that it is of, in seconds since 1970; None when it does not say so."""
    try:
        return clocks.from_rfc3339(value["at"])
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError):
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _rows(chunks: Sequence[Any], at: tuple[int, int], question: Question, *, is_back: bool) -> list[Row]:
    found = []
    wanted = LEVELS[LEVELS.index(question.level) :] if question.level else LEVELS
    for chunk in chunks:
        lines = list(enumerate(chunk["data"].removesuffix("\n").split("\n")))
        for index, line in reversed(lines) if is_back else lines:
            here = (chunk["id"], index)
            if here >= at if is_back else here <= at:
                continue
            value = json.loads(line)
            level = value.get("level")
            if level in LEVELS and level not in wanted:
                continue
            received_at = chunk["received_at"]
            name = f"{here[0]}-{here[1]}"
            found.append(Row(id=name, received_at=received_at, value=value, size_bytes=len(line)))
    return found


def _place(text: str) -> tuple[int, int] | None:
    found = _PLACE.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None
