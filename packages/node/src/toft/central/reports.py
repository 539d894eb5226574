"""What nodes say of themselves: the latest, and everything that happened, each thing once.

A report that comes late, twice or out of order changes nothing that a later one said. One from a new boot
with a number that was there before comes from a machine that was set back to an earlier moment.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from toft.central import audit, literals, writing
from toft.central.nodes import Node, Nodes
from toft.kernel import clock as clocks
from toft.kernel import log, schemas
from toft.kernel.errors import UsageError
from toft.managed import document
from toft.store import database

_QUERIES = database.read_queries("toft.central")
_RESTORED_EACH_S = 3600.0
_log = log.get_logger("central.reports")
_REPORTS, _HISTORY, _EFFECTIVE = 50, 500, 10
Listener = Callable[[Node, Mapping[str, Any]], None]


class Reports:
    """Takes reports and remembers them.

    Args:
        store: The database.
        nodes: Whose they are.
        clock: The time.
    """

    def __init__(self, store: database.Store, nodes: Nodes, *, clock: clocks.Clock = clocks.SYSTEM) -> None:
        self._store = store
        self._nodes = nodes
        self._clock = clock
        self.taken: list[Listener] = []
        """Told of each report that is newer than all before it, once it is on disk."""

    async def take(self, node: Node, value: Any) -> None:
        """Take a report.

        Raises:
            UsageError: It has not the form of one; every problem is named.
        """
        report = check(value)
        effective = report.pop("effective", None)
        history = report.pop("history", [])
        now = self._clock.now()
        known = {
            "agent_version": report.get("agent_version") or node.agent_version,
            "os": report.get("platform") or node.os,
        }

        def write(connection: database.Connection) -> Place:
            place = _place(connection, node.id, report, now)
            _write(connection, node.id, report, history, effective, now)
            if place.is_newer:
                values = {"node": node.id, "restored_at": place.restored_at, **known}
                values |= {"boot_nonce": report["boot_nonce"], "seq": report["seq"]}
                connection.execute(_QUERIES["note_report"], values)
            if place.is_news:
                told = {"seq": report["seq"], "was": place.was, "boot": report["boot_nonce"]}
                entry = audit.Entry(
                    tenant=node.tenant, actor=node.id, action="node.restored", subject=node.id, details=told
                )
                audit.add(connection, now, entry)
            return place

        def written(place: Place) -> None:
            if place.is_news:
                _log.warning("node_restored", node=node.id, seq=report["seq"], was=place.was)
            if not place.is_newer:
                return
            node.report, node.reported_at, node.restored_at = report, now, place.restored_at
            node.boot_nonce, node.seq = report["boot_nonce"], report["seq"]
            node.agent_version, node.os = known["agent_version"], known["os"]
            for each in self.taken:
                each(node, {**report, "history": history})

        await writing.commit(self._store, write, written)

    async def reports(self, node: Node, *, most: int = 20) -> list[dict[str, Any]]:
        """Return the latest reports of a node, the newest first."""
        rows = await self._rows("list_reports", node, min(max(1, most), _REPORTS))
        return [
            {**json.loads(row["data"]), "received_at": clocks.rfc3339(row["received_at"])} for row in rows
        ]

    async def history(self, node: Node, *, most: int = 100) -> list[dict[str, Any]]:
        """Return what happened on a node, the latest first."""
        rows = await self._rows("list_history", node, min(max(1, most), _HISTORY))
        return [
            {**json.loads(row["data"]), "received_at": clocks.rfc3339(row["received_at"])} for row in rows
        ]

    async def effective(self, node: Node) -> dict[str, Any] | None:
        """Return the configuration that a node says it runs, without its secrets; None before it said so."""
        rows = await self._rows("find_effective", node, 1)
        if not rows:
            return None
        row = rows[0]
        body = None if row["data"] is None else json.loads(row["data"])
        return {"sha256": row["sha256"], "body": body, "received_at": clocks.rfc3339(row["received_at"])}

    async def _rows(self, query: str, node: Node, most: int) -> list[Any]:
        values = {"node": node.id, "most": most}
        return await self._store.read(
            lambda connection: connection.execute(_QUERIES[query], values).fetchall()
        )


def check(value: Any) -> dict[str, Any]:
    """Return a report that has the form of one, with nothing in it that looks like a secret.

    Raises:
        UsageError: It has not; every problem is named.
    """
    found = _validator().problems(value)
    if found:
        fields = {schemas.path_text(each.path) or "the report": each.message for each in found[:20]}
        listed = "; ".join(f"{name}: {problem}" for name, problem in fields.items())
        raise UsageError(f"this is no report: {listed}", code="report.invalid", details={"fields": fields})
    report: dict[str, Any] = dict(value)
    if "effective" in report and report["effective"] is not None:
        report["effective"] = literals.redacted(report["effective"])
    return report


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a report stands among those before it.

    Attributes:
        is_newer: Than the latest one.
        was: The number of that one.
        restored_at: When the machine was seen to have been set back.
        is_news: It was just now, and that was not told lately.
    """

    is_newer: bool
    was: int | None = None
    restored_at: float | None = None
    is_news: bool = False


def _place(connection: database.Connection, node: str, report: Mapping[str, Any], now: float) -> Place:
    """Find out where a report stands, as part of the transaction that keeps it."""
    values = {"node": node, "boot_nonce": report["boot_nonce"]}
    last = connection.execute(_QUERIES["find_place"], values).fetchone()
    was, restored_at = last["seq"], last["restored_at"]
    if was is None:
        return Place(is_newer=True)
    is_higher = report["seq"] > was
    if report["boot_nonce"] == last["boot_nonce"]:
        return Place(is_newer=is_higher, was=was, restored_at=restored_at)
    # Numbers go on from boot to boot. A lower one of a boot that was heard of before has been on its way; a
    # higher one of it, or a lower one of a boot that nobody knows, is from an older copy of the machine.
    if bool(last["is_known"]) is not is_higher:
        return Place(is_newer=is_higher, was=was, restored_at=restored_at)
    is_news = restored_at is None or now - restored_at >= _RESTORED_EACH_S
    # What a node says of itself must not fill the log of everybody.
    return Place(is_newer=True, was=was, restored_at=now, is_news=is_news)


def _write(
    connection: database.Connection,
    node: str,
    report: Mapping[str, Any],
    history: list[Mapping[str, Any]],
    effective: Mapping[str, Any] | None,
    now: float,
) -> None:
    connection.execute(
        _QUERIES["insert_report"],
        {
            "node": node,
            "boot_nonce": report["boot_nonce"],
            "seq": report["seq"],
            "data": document.encode(report).decode(),
            "now": now,
        },
    )
    connection.execute(_QUERIES["forget_reports"], {"node": node, "most": _REPORTS})
    for each in history:
        values = {
            "node": node,
            "happened_at": each["at"],
            "etag": each.get("etag") or "",
            "event": each["event"],
            "data": document.encode(each).decode(),
            "now": now,
        }
        connection.execute(_QUERIES["insert_history"], values)
    if history:
        connection.execute(_QUERIES["forget_history"], {"node": node, "most": _HISTORY})
    if effective:
        body = effective.get("body")
        values = {
            "node": node,
            "sha256": effective["sha256"],
            "data": None if body is None else document.encode(body).decode(),
            "now": now,
        }
        connection.execute(_QUERIES["put_effective"], values)
        connection.execute(_QUERIES["forget_effective"], {"node": node, "most": _EFFECTIVE})


def _text(most: int, *, null: bool = True) -> dict[str, Any]:
    return {"type": ["string", "null"] if null else "string", "maxLength": most}


_ETAG = {"type": ["string", "null"], "pattern": "^(sha256-[0-9a-f]{64})?$"}
_COUNT = {"type": ["integer", "null"], "minimum": 0, "maximum": 1 << 53}
_OBJECT = {"type": ["object", "null"]}
# What is a column of its own; not every database has a text with NUL in it.
_NO_NUL = "^[^\\x00]*$"
_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "required": ["seq", "boot_nonce"],
    "properties": {
        "seq": {"type": "integer", "minimum": 0, "maximum": 1 << 53},
        "boot_nonce": {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"},
        "etag": _ETAG,
        "running": {
            "type": ["object", "null"],
            "properties": {"etag": _ETAG, "revision": _COUNT, "since": _text(40)},
        },
        "desired": {"type": ["object", "null"], "properties": {"etag": _ETAG}},
        "phase": _text(64),
        "history": {
            "type": "array",
            "maxItems": 20,
            "items": {
                "type": "object",
                "required": ["event", "at"],
                "properties": {
                    "etag": _ETAG,
                    "revision": _COUNT,
                    "event": {**_text(32, null=False), "pattern": _NO_NUL},
                    "reason": _text(64),
                    "class": _text(32),
                    "detail": _text(4096),
                    "at": {**_text(40, null=False), "pattern": _NO_NUL},
                },
            },
        },
        "gates": {"type": "array", "maxItems": 256, "items": {"type": "object"}},
        "artifacts": {"type": "array", "maxItems": 2000, "items": {"type": "object"}},
        "effective": {
            "type": ["object", "null"],
            "required": ["sha256"],
            "properties": {"sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"}, "body": _OBJECT},
        },
        "overrides": {"type": "array", "maxItems": 2000},
        "clock": _OBJECT,
        "agent_version": {**_text(64), "pattern": _NO_NUL},
        "platform": {**_text(255), "pattern": _NO_NUL},
    },
}
"""What a report must be. What a later node adds is kept: a central that is older refuses no node for it."""


@functools.cache
def _validator() -> schemas.Validator:
    return schemas.Validator(_SCHEMA)
