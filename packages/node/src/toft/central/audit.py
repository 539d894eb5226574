"""What was done, by whom: one line each, in the transaction that did it, chained by hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from toft.kernel import clock as clocks
from toft.kernel import errors, ids
from toft.managed import document
from toft.store import database

_QUERIES = database.read_queries("toft.central")
_FIRST = "0" * 64
_AT_ONCE = 1000
_MOST_WHY = 2000
_SIGNED = ("seq", "happened_at", "tenant", "actor", "action", "subject", "details", "previous")
MOST = 500


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line.

    Attributes:
        tenant: Whose thing it was done to; empty for what belongs to none.
        actor: Who did it, such as `token:ops` or the id of a node.
        action: What was done, such as `node.revoke`.
        subject: To what.
        details: The rest, as JSON.
    """

    tenant: str
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Verified:
    """What a walk through all lines found.

    Attributes:
        lines: How many there are.
        head: The hash of the last one; whoever wrote it down elsewhere sees when lines are cut off the end.
        broken_at: The first line that is not what it was; None when all are.
    """

    lines: int
    head: str
    broken_at: int | None


def check_why(text: str, name: str) -> None:
    """Refuse what is no reason that can be kept: too long, or no text.

    Raises:
        UsageError: It is one of these.
    """
    if len(text) > _MOST_WHY or not ids.is_text(text):
        raise errors.UsageError(f"a {name} has up to {_MOST_WHY} characters", code="central.message")


def add(connection: database.Connection, now: float, entry: Entry) -> None:
    """Write a line, as part of the transaction that does what it tells."""
    last = connection.execute(_QUERIES["last_audited"]).fetchone()
    seq, previous = (last["seq"] + 1, last["sha256"]) if last else (1, _FIRST)
    row = {
        "seq": seq,
        "happened_at": round(now, 3),
        "tenant": entry.tenant,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "details": document.encode(entry.details).decode(),
        "previous": previous,
    }
    connection.execute(_QUERIES["insert_audit"], {**row, "sha256": _digest(row)})


async def entries(
    store: database.Store, *, tenant: str = "*", before: int | None = None, most: int = 100
) -> list[dict[str, Any]]:
    """Return the latest lines, the newest first.

    Args:
        store: The database.
        tenant: Only those of this one; `*` for all.
        before: Only those with a lower number.
        most: At most so many.
    """
    values = {"tenant": tenant, "before": before or 1 << 53, "most": min(max(1, most), MOST)}
    rows = await store.read(
        lambda connection: connection.execute(_QUERIES["list_audit"], values).fetchall(),
    )
    return [
        {
            "seq": row["seq"],
            "at": clocks.rfc3339(row["happened_at"]),
            **{name: row[name] for name in ("tenant", "actor", "action", "subject")},
            "details": json.loads(row["details"]),
            "sha256": row["sha256"],
        }
        for row in rows
    ]


async def verify(store: database.Store) -> Verified:
    """Walk through all lines and look whether each is what it was."""
    count, previous = 0, _FIRST
    while True:
        rows = await _lines_after(store, count)
        for row in rows:
            fields = {name: row[name] for name in _SIGNED}
            is_next = row["seq"] == count + 1 and row["previous"] == previous
            if not is_next or _digest(fields) != row["sha256"]:
                return Verified(count, previous, count + 1)
            count, previous = row["seq"], row["sha256"]
        if len(rows) < _AT_ONCE:
            return Verified(count, previous, None)


async def _lines_after(store: database.Store, seq: int) -> list[Any]:
    values = {"after": seq, "most": _AT_ONCE}
    return await store.read(lambda connection: connection.execute(_QUERIES["walk_audit"], values).fetchall())


def _digest(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(document.encode(dict(row))).hexdigest()
