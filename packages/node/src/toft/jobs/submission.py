"""Putting jobs into the queue: all of one call or none."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from toft.jobs import errors, rows
from toft.jobs.operations import Operation
from toft.jobs.records import ENDED, KINDS, NEEDS, Request, RetryPolicy, State, Submitted
from toft.jobs.transaction import Running, Transaction, skipped
from toft.kernel import ids

MOST_PRIORITY = 1_000_000
MOST_KEY = 256
MOST_ATTEMPTS = 1000
MOST_SECONDS = 1e9
MOST_TIME = 253_402_300_799.0
"""The end of the year 9999: what comes later cannot be written as a date."""
CATEGORIES = frozenset({"user_input", "transient", "resource", "fatal", "cancelled"})
Entry = tuple[Request, str, bytes | None, str | None]
"""A request, its id, its arguments, and the blob that has them when they are large."""


def check(requests: Sequence[Request]) -> None:
    """Refuse what cannot be right whatever the database says."""
    for request in requests:
        for name in ("timeout_s", "deadline_s", "delay_s"):
            value = getattr(request, name)
            if value is not None and not 0 <= value <= MOST_SECONDS:
                shown = repr(value)[:40]
                raise errors.bad_request(name, f"{shown} is not a number of seconds, 0 to {MOST_SECONDS:g}")
        if request.ready_at is not None and not 0 <= request.ready_at <= MOST_TIME:
            raise errors.bad_request("start_at", "is not a time between 1970 and 9999")
        if not -MOST_PRIORITY <= request.priority <= MOST_PRIORITY:
            raise errors.bad_request("priority", f"is not between -{MOST_PRIORITY} and {MOST_PRIORITY}")
        if request.retry is not None:
            _check_policy(request.retry)
        if request.kind not in KINDS:
            raise errors.bad_request("kind", f"is none of {', '.join(KINDS)}")
        if request.needs not in NEEDS:
            raise errors.bad_request("needs", f"is none of {', '.join(NEEDS)}")
        key = request.idempotency_key
        if key is not None and not (0 < len(key) <= MOST_KEY and ids.is_text(key)):
            raise errors.bad_request("idempotency_key", f"is not 1 to {MOST_KEY} characters")


def _check_policy(retry: RetryPolicy) -> None:
    """Refuse a policy that somebody wrote and that would fail an attempt later, when nobody is there."""
    attempts = retry.max_attempts
    if type(attempts) is not int or not 1 <= attempts <= MOST_ATTEMPTS:
        raise errors.bad_request("retry", f"is not 1 to {MOST_ATTEMPTS} attempts")
    for name, most in (
        ("first_s", MOST_SECONDS),
        ("factor", 1000.0),
        ("most_s", MOST_SECONDS),
        ("jitter", 1.0),
    ):
        value = getattr(retry, name)
        if type(value) not in (int, float) or not 0 <= value <= most:
            raise errors.bad_request("retry", f"{name} is not a number, 0 to {most:g}")
    if not all(isinstance(each, str) for each in retry.on) or not CATEGORIES.issuperset(retry.on):
        raise errors.bad_request("retry", f"on is not some of {', '.join(sorted(CATEGORIES))}")


class Submit(Operation):
    """New jobs, all or none."""

    __slots__ = ("entries",)
    order = 0

    def __init__(self, entries: Sequence[Entry], future: asyncio.Future[Any] | None) -> None:
        super().__init__(future)
        self.entries = entries  # request, id, arguments, blob of the arguments

    def apply(self, tx: Transaction) -> None:
        known = self._known_keys(tx)
        parents = self._parents(tx)
        if self.error is not None:
            return
        answers: list[Submitted] = []
        for request, job_id, arguments, blob in self.entries:
            if request.idempotency_key is not None:
                before = known.get(request.idempotency_key)
                if before is not None:
                    answers.append(before)
                    continue
                known[request.idempotency_key] = Submitted(job_id, State.PENDING, is_new=False)
            seq = self._add(tx, request, job_id, arguments, blob, parents)
            answers.append(Submitted(job_id, State.PENDING))
            if request.id is not None:
                parents[job_id] = (seq, State.PENDING)
        self.result = answers

    def _known_keys(self, tx: Transaction) -> dict[str, Submitted]:
        known: dict[str, Submitted] = {}
        prints: dict[str, str] = {}
        for request, job_id, arguments, blob in self.entries:
            key = request.idempotency_key
            if key is not None:
                print_ = fingerprint(request, arguments, blob)
                if prints.setdefault(key, print_) != print_:
                    self.error = errors.other_arguments(key, job_id)
        if not prints:
            return known
        tx.flush()
        for key, job_id, state, print_ in tx.all("find_keys", rows.encode(list(prints))):
            if print_ != prints[key]:
                self.error = errors.other_arguments(key, job_id)
            known[key] = Submitted(job_id, State(state), is_new=False)
        return known

    def _parents(self, tx: Transaction) -> dict[str, tuple[int, State]]:
        wanted = {parent for each in self.entries for parent in (*each[0].after, *each[0].after_ended)}
        if not wanted:
            return {}
        tx.flush()
        found = {
            row[0]: (row[1], State(row[2])) for row in tx.all("find_parents", rows.encode(sorted(wanted)))
        }
        missing = wanted - found.keys() - {each[1] for each in self.entries}
        if missing:
            self.error = errors.not_found(min(missing))
        return found

    def _add(
        self,
        tx: Transaction,
        request: Request,
        job_id: str,
        arguments: bytes | None,
        blob: str | None,
        parents: Mapping[str, tuple[int, State]],
    ) -> int:
        seq = tx.next_seq()
        edges, blocker = _edges(request, parents)
        waiting = len(edges)
        held, due_q, ready_at = _held(tx, request)
        deadline_q = deadline_at = None
        if request.deadline_s is not None:
            deadline_q, deadline_at = tx.q + request.deadline_s, tx.at + request.deadline_s
        if held or deadline_q is not None:
            tx.effects.timers_changed = True
        rank = tx.next_rank(request.priority)
        key = request.idempotency_key
        tx.put(
            "add_job", seq, job_id, request.plugin, request.instance, request.action, request.kind,
            request.priority, rank, waiting, held, tx.q, due_q, deadline_q, tx.at, ready_at, deadline_at,
            request.timeout_s, request.idempotent, key,
            None if key is None else fingerprint(request, arguments, blob),
            rows.stored_policy(request), request.sequence, request.step, blob, arguments,
        )  # fmt: skip
        for parent, needs in edges.items():
            tx.put("add_edge", parent, seq, needs)
        if blob is not None:
            tx.put("add_blob_use", blob, seq)
        tx.event(
            "submitted",
            seq,
            job_id,
            0,
            request.sequence,
            **told(request, rank=rank, waiting=waiting, ready_at=ready_at, deadline_at=deadline_at),
        )
        tx.effects.submitted += 1
        job = Running(seq, job_id, 0, request.instance, request.sequence)
        if blocker is not None:
            tx.flush()
            error = skipped(*blocker)
            tx.end_pending(job, State.CANCELLED, "skipped", is_ready=False, error=error, parent=blocker[0])
        elif not waiting and not held:
            tx.ready(request.instance, 1)
        return seq


def _edges(
    request: Request, parents: Mapping[str, tuple[int, State]]
) -> tuple[dict[int, str], tuple[str, State] | None]:
    """Return who is still waited for and why, and who has ended so that it cannot run any more."""
    edges: dict[int, str] = {}
    blocker = None
    if not request.after and not request.after_ended:
        return edges, blocker
    wanted = {**dict.fromkeys(request.after_ended, "ended"), **dict.fromkeys(request.after, request.needs)}
    for parent, needs in wanted.items():
        seq, state = parents[parent]
        if state not in ENDED or state is State.INTERRUPTED:
            edges[seq] = needs
        elif needs == "completed" and state is not State.COMPLETED:
            blocker = (parent, state)
    return edges, blocker


def _held(tx: Transaction, request: Request) -> tuple[int, float | None, float | None]:
    ready_at, delay_s = request.ready_at, request.delay_s
    if request.kind == "map":
        return 3, None, None
    # A delay is a duration, so it runs on the queue's clock; an appointment is on people's clock.
    if ready_at is not None and ready_at > tx.at:
        return 2, None, ready_at
    if delay_s:
        return 1, tx.q + delay_s, tx.at + delay_s
    return 0, None, None


def told(request: Request, **placed: Any) -> dict[str, Any]:
    """Return what the event says: all of the job that is not as it usually is."""
    told: dict[str, Any] = {"plugin": request.plugin, "instance": request.instance, "rank": placed["rank"]}
    for name, value in (
        ("action", None if request.action == "execute" else request.action),
        ("kind", None if request.kind == "call" else request.kind),
        ("priority", request.priority or None),
        ("waiting", placed["waiting"] or None),
        ("ready_at", placed["ready_at"]),
        ("deadline_at", placed["deadline_at"]),
        ("timeout_s", request.timeout_s),
        ("idempotent", request.idempotent or None),
        ("idempotency_key", request.idempotency_key),
        ("step", request.step),
        ("after", [*request.after, *request.after_ended] or None),
        ("retry", None if request.retry is None else request.retry.to_dict()),
        ("traceparent", request.traceparent),
        ("by", request.by),
        ("due_at", request.due_at),
    ):
        if value is not None:
            told[name] = value
    return told


def fingerprint(request: Request, arguments: bytes | None, blob: str | None) -> str:
    """Return what must be equal in two requests with one idempotency key."""
    names = f"{request.plugin}\0{request.instance}\0{request.action}\0".encode()
    if request.arguments_hash is not None:
        return hashlib.sha256(names + request.arguments_hash.encode()).hexdigest()
    return hashlib.sha256(names + (arguments or b"") + b"\0" + (blob or "").encode()).hexdigest()
