"""Jobs in memory, with the interface the command line uses, on the node of `cli_node`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tests.unit.cli_node import FakeNode

from toft.kernel.clock import rfc3339
from toft.kernel.errors import NotFoundError

START = 1_700_000_000.0


@dataclasses.dataclass
class Record:
    """A job; `ends` says what waiting for it brings."""

    jobs: FakeJobs
    id: str
    plugin: str = "ocr"
    state: str = "pending"
    known: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "plugin": self.plugin,
            "instance": self.plugin,
            "action": "execute",
            "state": self.state,
            "attempt": 0 if self.state == "pending" else 1,
            "priority": 0,
            "submitted_at": rfc3339(START),
            "started_at": None if self.state == "pending" else rfc3339(START + 1),
            "finished_at": None if self.state in ("pending", "running") else rfc3339(START + 3.5),
            "progress": None,
            "message": None,
            "block_reason": None,
            "result": None,
            "error": None,
            "usage": {},
            "sequence": None,
            "step": None,
            **self.known,
        }

    def wait(self, timeout_s: float | None = None) -> Record:
        return self.jobs.wait(self.id, timeout_s)


@dataclasses.dataclass
class Event:
    """Something that happened to a job."""

    cursor: int
    type: str
    job: str = "job_1"
    data: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        at = rfc3339(START + self.cursor)
        return {
            "cursor": self.cursor,
            "at": at,
            "type": self.type,
            "job": self.job,
            "attempt": 1,
            "sequence": None,
            **self.data,
        }


class Stream:
    """Events that end."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = iter(events)
        self.closed = False

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Event]:
        return self._events

    def close(self) -> None:
        self.closed = True


@dataclasses.dataclass
class FakeJobs:
    """Jobs that remember what they were asked; `ends` gives what a job is when it was waited for."""

    ends: Callable[[Record], Record] = lambda record: record
    value: Any = "text"
    story: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    recorded: list[Event] = dataclasses.field(default_factory=list)
    lines: list[str] = dataclasses.field(default_factory=list)
    asked: list[tuple[Any, ...]] = dataclasses.field(default_factory=list)
    records: dict[str, Record] = dataclasses.field(default_factory=dict)
    now: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)

    def make(self, state: str = "pending", **known: Any) -> Record:
        record = Record(self, f"job_{next(self._numbers)}", state=state, known=known)
        self.records[record.id] = record
        return record

    def submit(self, plugin: str, arguments: Any, **options: Any) -> Record:
        self.asked.append((plugin, arguments, {name: value for name, value in options.items() if value}))
        return self.make()

    def get(self, id: str) -> Record:
        if id not in self.records:
            raise NotFoundError(f"there is no job {id}", code="job.not_found", details={"job": id})
        return self.records[id]

    def list(self, **wanted: Any) -> Sequence[Record]:
        self.asked.append(("list", {name: value for name, value in wanted.items() if value is not None}))
        return list(reversed(self.records.values()))

    def wait(self, id: str, timeout_s: float | None = None) -> Record:
        self.asked.append(("wait", id, timeout_s))
        return self.ends(self.get(id))

    def result(self, id: str) -> Any:
        return self.value

    def cancel(self, id: str, *, grace_s: float | None = None) -> Record:
        self.asked.append(("cancel", id, grace_s))
        record = self.get(id)
        record.state = "cancelled" if record.state == "pending" else record.state
        return record

    def retry(self, id: str) -> Record:
        record = self.get(id)
        record.state = "pending"
        return record

    def reorder(self, id: str, **where: Any) -> Record:
        self.asked.append(("reorder", id, {name: value for name, value in where.items() if value}))
        return self.get(id)

    def watch(self, **wanted: Any) -> Stream:
        after = wanted.get("after") or 0
        return Stream([each for each in self.recorded if each.cursor > after])

    def events(self, *, after: int, limit: int, **wanted: Any) -> Sequence[Event]:
        return [each for each in self.recorded if each.cursor > after][:limit]

    def logs(self, id: str, count: int) -> Sequence[str]:
        return self.lines[-count:]

    def why(self, id: str) -> Sequence[dict[str, Any]]:
        self.get(id)
        return self.story

    def submit_graph(self, document: Any, **options: Any) -> Record:
        self.asked.append((document, {name: value for name, value in options.items() if value is not None}))
        return self.make(name="pages")

    def sequence(self, id: str) -> Record:
        return self.get(id)

    def sequences(self, **wanted: Any) -> Sequence[Record]:
        return list(reversed(self.records.values()))

    def wait_sequence(self, id: str, timeout_s: float | None = None) -> Record:
        return self.wait(id, timeout_s)

    def retry_sequence(self, id: str) -> Record:
        return self.retry(id)

    def cancel_sequence(self, id: str) -> Record:
        return self.cancel(id)

    def status(self) -> dict[str, Any]:
        return self.now


@dataclasses.dataclass
class JobNode(FakeNode):
    """A node with jobs."""

    jobs: FakeJobs = dataclasses.field(default_factory=FakeJobs)
    is_embedded: bool = False
