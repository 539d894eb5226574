"""What is written down of rollouts, and read back after a restart; the transaction is its caller's."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toft.central import convergence, rollouts, waves
from toft.central.convergence import Event
from toft.central.rollouts import Stage, State
from toft.kernel import clock as clocks
from toft.store import database

_QUERIES = database.read_queries("toft.central", "rollouts.sql")


@dataclass(slots=True, kw_only=True)
class Placed:
    """A node in a rollout.

    Attributes:
        etag: What it was offered; empty where it was left out.
        offered_at: What it said before is about something else.
        seen: What was known of it when it was looked at last; not written down.
    """

    wave: int
    stage: Stage
    reason: str = ""
    detail: str = ""
    etag: str = ""
    offered_at: float = 0.0
    changed_at: float = 0.0
    seen: tuple[Any, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON."""
        fields = {name: getattr(self, name) for name in ("wave", "reason", "detail", "etag")}
        return {**fields, "stage": str(self.stage), "changed_at": clocks.rfc3339(self.changed_at)}


@dataclass(slots=True, kw_only=True)
class Record:
    """A rollout, and what became of each node.

    Attributes:
        document: Whose revision it is, by id.
        number: The revision that it brings.
        previous: The one that nodes have which it has not reached.
        attempt: The how manieth time this revision is rolled out; nodes try again what they refused before.
        reason: Why it stands as it does: what paused or aborted it.
        tallies: How many nodes are how far, where they were not read one by one.
    """

    id: str
    tenant: str
    document: str
    number: int
    previous: int | None
    rules: waves.Rules
    salt: str
    attempt: int
    created_by: str
    created_at: float
    message: str = ""
    state: State = State.DRAFT
    is_emergency: bool = False
    wave: int = -1
    wave_opened_at: float | None = None
    reason: str = ""
    ended_at: float | None = None
    places: dict[str, Placed] = field(default_factory=dict)
    tallies: Mapping[str, int] | None = None

    @property
    def is_serving(self) -> bool:
        """Say whether it decides what some nodes are given."""
        return self.state in (State.RUNNING, State.PAUSED)

    @property
    def reached(self) -> list[str]:
        """Return the nodes that were offered the revision."""
        return [id for id, each in self.places.items() if each.stage is not Stage.SKIPPED]

    def known(self) -> rollouts.Rollout:
        """Return what is decided on."""
        return rollouts.Rollout(
            id=self.id,
            salt=self.salt,
            rules=self.rules,
            state=self.state,
            wave=self.wave,
            opened_at=self.wave_opened_at or 0.0,
            is_emergency=self.is_emergency,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON, without its nodes."""
        plain = (
            "id", "tenant", "document", "number", "previous", "attempt", "is_emergency", "wave",
            "reason", "message", "created_by",
        )  # fmt: skip
        times = ("created_at", "wave_opened_at", "ended_at")
        counts = self.counts()
        return {
            **{name: getattr(self, name) for name in plain},
            "state": str(self.state),
            **{name: None if (at := getattr(self, name)) is None else clocks.rfc3339(at) for name in times},
            "rules": self.rules.to_dict(),
            "counts": {name: count for name, count in counts.items() if count},
        }

    def counts(self) -> dict[str, int]:
        """Return how many nodes are how far."""
        if self.tallies is not None:
            return dict(self.tallies)
        counts = dict.fromkeys(map(str, Stage), 0)
        for each in self.places.values():
            counts[str(each.stage)] += 1
        return counts


def insert(connection: database.Connection, record: Record) -> None:
    """Write down a new one."""
    fields = ("id", "tenant", "document", "number", "previous", "salt", "attempt", "message")
    connection.execute(
        _QUERIES["insert_rollout"],
        {
            **{name: getattr(record, name) for name in fields},
            "state": str(record.state),
            "rules": json.dumps(record.rules.to_dict()),
            "is_emergency": int(record.is_emergency),
            "by": record.created_by,
            "now": record.created_at,
        },
    )


def change(connection: database.Connection, record: Record, values: Mapping[str, Any]) -> bool:
    """Write down how a rollout stands now; False, and nothing is, when it stands otherwise than here."""
    row = {
        "id": record.id,
        "was_state": str(record.state),
        "was_wave": record.wave,
        **{name: values.get(name, getattr(record, name)) for name in _CHANGING},
    }
    row["state"], row["is_emergency"] = str(row["state"]), int(row["is_emergency"])
    return connection.execute(_QUERIES["change_rollout"], row).fetchone() is not None


_CHANGING = ("state", "wave", "wave_opened_at", "reason", "is_emergency", "ended_at")


def put(connection: database.Connection, rollout: str, places: Mapping[str, Placed]) -> None:
    """Write down how some nodes stand."""
    rows = [
        {
            "rollout": rollout,
            "node": node,
            "state": str(each.stage),
            **{name: getattr(each, name) for name in _OF_PLACE},
        }
        for node, each in places.items()
    ]
    connection.executemany(_QUERIES["put_place"], rows).close()


_OF_PLACE = ("wave", "reason", "detail", "etag", "offered_at", "changed_at")


def publish(connection: database.Connection, document: str, number: int) -> None:
    """Write down what everybody gets of a document that no rollout has given another revision."""
    connection.execute(_QUERIES["publish_document"], {"document": document, "number": number})


def read_open(connection: database.Connection) -> list[Record]:
    """Return those that are open, and those that are done and whose last nodes may be on the way yet."""
    return [_whole(connection, row) for row in connection.execute(_QUERIES["list_open_rollouts"]).fetchall()]


def find(connection: database.Connection, tenant: str, id: str) -> Record | None:
    """Return a rollout with its nodes."""
    row = connection.execute(_QUERIES["find_rollout"], {"tenant": tenant, "id": id}).fetchone()
    return None if row is None else _whole(connection, row)


def listed(
    connection: database.Connection, tenant: str, *, document: str = "", before: str = "", most: int = 50
) -> list[Record]:
    """Return the rollouts of a tenant, the newest first; how many nodes are how far, not which."""
    values = {"tenant": tenant, "document": document, "before": before, "most": most}
    found = []
    for row in connection.execute(_QUERIES["list_rollouts"], values).fetchall():
        record = _record(row)
        counted = connection.execute(_QUERIES["count_places"], {"rollout": record.id}).fetchall()
        record.tallies = {each["state"]: each["nodes"] for each in counted}
        found.append(record)
    return found


def of_node(connection: database.Connection, node: str, most: int = 20) -> list[dict[str, Any]]:
    """Return what rollouts did to a node, the newest first."""
    rows = connection.execute(_QUERIES["list_rollouts_of_node"], {"node": node, "most": most}).fetchall()
    return [
        {
            **_record(row).to_dict(),
            "node": {
                "stage": row["stage"],
                "reason": row["stage_reason"],
                "detail": row["stage_detail"],
                "wave": row["stage_wave"],
                "changed_at": clocks.rfc3339(row["stage_at"]),
            },
        }
        for row in rows
    ]


def read_attempts(connection: database.Connection) -> dict[tuple[str, int], int]:
    """Return how often each revision was rolled out."""
    rows = connection.execute(_QUERIES["list_attempts"]).fetchall()
    return {(row["document"], row["number"]): row["attempt"] for row in rows}


def read_history(connection: database.Connection, since: Mapping[str, float]) -> dict[str, list[Event]]:
    """Return what nodes said of themselves, each since a moment of its own."""
    found = {}
    for node, moment in since.items():
        rows = connection.execute(_QUERIES["history_since"], {"node": node, "since": moment}).fetchall()
        found[node] = [_event(row) for row in rows]
    return found


def read_troubles(connection: database.Connection, tenant: str, node: str = "") -> dict[str, Event]:
    """Return the last thing that went wrong on each node of a tenant on which something did, or on one."""
    rows = connection.execute(_QUERIES["last_troubles"], {"tenant": tenant, "node": node}).fetchall()
    return {row["node"]: dataclasses.replace(_event(row), is_over=bool(row["is_over"])) for row in rows}


def _event(row: Mapping[str, Any]) -> Event:
    return convergence.event_of(row, json.loads(row["data"]))


def _whole(connection: database.Connection, row: Mapping[str, Any]) -> Record:
    record = _record(row)
    for each in connection.execute(_QUERIES["list_places"], {"rollout": record.id}).fetchall():
        fields = {name: each[name] for name in _OF_PLACE}
        record.places[each["node"]] = Placed(stage=Stage(each["state"]), **fields)
    return record


def _record(row: Mapping[str, Any]) -> Record:
    names = {each.name for each in dataclasses.fields(Record)} - _MADE
    return Record(
        rules=waves.rules(json.loads(row["rules"]), ()),
        state=State(row["state"]),
        is_emergency=bool(row["is_emergency"]),
        **{name: row[name] for name in names},
    )


_MADE = {"rules", "state", "is_emergency", "places", "tallies"}
