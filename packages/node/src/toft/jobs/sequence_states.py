"""What a change of one job means for the sequence it belongs to, in the transaction of that change.

A failure skips what can or may not run any more; a wish for another run brings it back; the state of
the sequence is what its jobs say.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from toft.jobs import rows, sequences, submission
from toft.jobs.operations import requeue
from toft.jobs.records import FINISHED, Request, State
from toft.jobs.sequences import COUNTS, QUERIES, SKIPPED
from toft.jobs.transaction import Change, Running, Transaction

_MEETS = {
    "completed": frozenset({"completed", "pending", "running", "interrupted"}),
    "ended": frozenset({"completed", "pending", "running", "interrupted", "failed", "cancelled"}),
}


class Following:
    """Follows the changes of jobs.

    Args:
        new_id: Gives identifiers to jobs that take the place of skipped ones.
    """

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id

    def __call__(self, tx: Transaction, changes: Sequence[Change]) -> None:
        """Take changes of one transaction."""
        by_sequence: dict[str, list[Change]] = {}
        for change in changes:
            if change.sequence is not None:
                by_sequence.setdefault(change.sequence, []).append(change)
        for name, theirs in by_sequence.items():
            row = sequences.find(tx.connection, name)
            if row is not None:
                _Members(tx, row, self._new_id).take(theirs)


def settle(tx: Transaction, sequence_id: str) -> None:
    """Say what state a sequence is in, after something that is no change of a job."""
    row = sequences.find(tx.connection, sequence_id)
    if row is not None:
        _Members(tx, row, lambda: "").settle()


class _Members:
    """The jobs of one sequence, in one transaction."""

    def __init__(self, tx: Transaction, row: dict[str, Any], new_id: Callable[[], str]) -> None:
        self._tx = tx
        self._row = row
        self._id: str = row["id"]
        self._new_id = new_id
        self._is_stopped = False

    def take(self, changes: Sequence[Change]) -> None:
        """Take changes of its jobs."""
        listed = rows.encode([change.seq for change in changes])
        members = {member["seq"]: member for member in self._all("changed_members", listed)}
        for change in changes:
            member = members[change.seq]
            self._count(change, member)
            if change.before is State.FAILED and change.after is State.PENDING:
                if change.seq not in self._tx.reopened:
                    self._resume(change, member)
            elif change.after is State.FAILED or self._is_cancelled(change, member):
                self._stop(change, member)
        self.settle()

    def _is_cancelled(self, change: Change, member: Any) -> bool:
        return change.after is State.CANCELLED and member["code"] != SKIPPED

    def _count(self, change: Change, member: Any) -> None:
        was_skipped = change.after is State.CANCELLED and member["code"] == SKIPPED
        self._add(str(change.before), -1)
        self._add("skipped" if was_skipped else str(change.after), 1)

    def _add(self, name: str, by: int) -> None:
        self._row[f"jobs_{name}"] = max(0, self._row[f"jobs_{name}"] + by)

    def _all(self, query: str, *values: Any) -> list[Any]:
        self._tx.flush()
        return sequences.ask(self._tx.connection, query, values)

    # -- a step did not complete -----------------------------------------------------------------------------

    def _stop(self, change: Change, member: Any) -> None:
        step = member["step"]
        verb = "failed" if change.after is State.FAILED else "was cancelled"
        if self._row["error"] is None:
            told = {"step": step, "job": change.id, "state": str(change.after)}
            message = f"step {step} ({change.id}) {verb}"
            self._row["error"] = rows.encode({"code": "sequence.step", "message": message, "details": told})
        stops_all = self._row["mode"] == "fail_fast" or change.after is State.CANCELLED
        fan_out = step.partition("[")[0] if step.endswith("]") else None
        stopped = None if stops_all else self._behind(step)
        if stopped == set() or self._is_stopped:
            return
        # A cancel of thousands must not look for what is left thousands of times.
        self._is_stopped = stops_all
        for each in self._all("pending_members", self._id):
            if stopped is not None and each["step"] not in stopped:
                continue
            if each["step"] == fan_out and each["kind"] == "map" and change.after is State.FAILED:
                self._end(each, State.FAILED, parts_failed(each["step"], {step: change.id}), "failed")
            else:
                self._end(each, State.CANCELLED, _skipped(each["step"], step, change, verb), "skipped")

    def _behind(self, step: str) -> set[str]:
        """Return the steps that need a step to have completed, and those that need these."""
        found = {step}
        for each in json.loads(self._row["steps"]):  # in an order in which they can run
            if any(need == "completed" and other in found for other, need in each["needs"].items()):
                found.add(each["id"])
        return found - {step}

    def _end(self, member: Any, state: State, error: Mapping[str, Any], because: str) -> None:
        job = self._running(member)
        is_ready = not member["waiting"] and not member["held"]
        self._tx.end_pending(job, state, because, is_ready=is_ready, error=error)

    def _running(self, member: Any) -> Running:
        return Running(member["seq"], member["id"], member["attempt"], member["instance"], self._id)

    # -- and is to be run again ------------------------------------------------------------------------------

    def _resume(self, change: Change, member: Any) -> None:
        self._row["error"] = None
        self._is_stopped = False
        newest = {each["step"]: each for each in self._all("newest_members", self._id)}
        states = {
            step: "skipped" if each["code"] == SKIPPED else each["state"] for step, each in newest.items()
        }
        seqs = {step: each["seq"] for step, each in newest.items()}
        if member["kind"] == "map":
            self._retry_parts(newest[member["step"]], newest, states)
        fan_outs: dict[str, int] = {}
        for step in json.loads(self._row["steps"]):
            name = step["id"]
            if name not in newest:
                continue  # forgotten since: nothing that needs it can run any more
            parts = _parts(name, newest) if step["for_each"] else []
            for part in parts:
                if states[part] == "skipped":
                    seqs[part] = self._copy(newest[part], {})
                    states[part] = "pending"
            if parts and states[name] in ("failed", "skipped", "pending") and _is_open(parts, states):
                fan_outs[name] = self._reopen(
                    newest[name],
                    states[name],
                    [seqs[part] for part in parts if states[part] in ("pending", "running", "interrupted")],
                )
                seqs[name], states[name] = fan_outs[name], "pending"
            elif states[name] == "skipped" and _may_run(step["needs"], states):
                waits = {
                    seqs[other]: need
                    for other, need in step["needs"].items()
                    if states[other] in ("pending", "running", "interrupted")
                }
                seqs[name] = self._copy(newest[name], waits)
                states[name] = "pending"

    def _retry_parts(self, fan_out: Any, newest: Mapping[str, Any], states: dict[str, str]) -> None:
        """Somebody wants a fan-out to run again: that means those of its parts that failed."""
        tx = self._tx
        tx.connection.execute(QUERIES["wait_for_parts"], (0, fan_out["seq"]))
        for part in _parts(fan_out["step"], newest):
            if states[part] in ("failed", "interrupted"):
                before = State(states[part])
                requeue(tx, self._running(newest[part]), before, "asked", None, None, is_asked=True)
                states[part] = "pending"
        states[fan_out["step"]] = "pending"
        if not _is_open(_parts(fan_out["step"], newest), states):
            tx.effects.expand.append(fan_out["id"])

    def _copy(self, member: Any, waits: Mapping[int, str]) -> int:
        """Put a new job in the place of a skipped one: that one stays cancelled for ever."""
        tx = self._tx
        seq, job_id = tx.next_seq(), self._new_id()
        values = {"seq": seq, "id": job_id, "rank": tx.next_rank(member["priority"]), "waiting": len(waits)}
        tx.flush()
        tx.connection.execute(QUERIES["copy_job"], {**values, "q": tx.q, "at": tx.at, "old": member["seq"]})
        tx.connection.execute(QUERIES["copy_blob_uses"], {"seq": seq, "old": member["seq"]})
        for parent, need in waits.items():
            tx.put("add_edge", parent, seq, need)
        job = Running(seq, job_id, 0, member["instance"], self._id)
        placed = {"rank": values["rank"], "waiting": len(waits), "ready_at": None, "deadline_at": None}
        told = submission.told(self._request(member["seq"]), **placed)
        tx.event("submitted", seq, job_id, 0, self._id, **told, instead_of=member["id"])
        tx.effects.submitted += 1
        self._add("skipped", -1)
        self._add("pending", 1)
        if not waits and member["kind"] == "map":
            tx.effects.expand.append(job_id)
        elif not waits:
            tx.ready(job.instance, 1)
        return seq

    def _request(self, seq: int) -> Request:
        """Return what a job was asked, without what is over by now."""
        row = self._tx.one("find_job_by_seq", seq)
        assert row is not None
        job = rows.job(row)
        return Request(
            plugin=job.plugin,
            instance=job.instance,
            action=job.action,
            priority=job.priority,
            timeout_s=job.timeout_s,
            idempotent=job.idempotent,
            retry=None if row[19] is None else job.retry,
            step=job.step,
            kind=job.kind,
        )

    def _reopen(self, fan_out: Any, state: str, open_parts: Sequence[int]) -> int:
        """Let a fan-out wait for its parts again."""
        tx = self._tx
        tx.flush()
        seq: int = fan_out["seq"]
        if state == "failed":
            tx.reopened.add(seq)
            tx.connection.execute(QUERIES["reopen_fan_out"], {"waiting": len(open_parts), "seq": seq})
            row = tx.one("find_job_by_seq", seq)
            assert row is not None
            told = {"rank": row[9], "waiting": len(open_parts), "deadline_at": row[16]}
            tx.moved(self._running(fan_out), fan_out["attempt"], State.FAILED, State.PENDING, "parts", **told)
        elif state == "skipped":
            seq = self._copy(fan_out, dict.fromkeys(open_parts, "ended"))
            return seq
        else:
            tx.connection.execute(QUERIES["wait_for_parts"], (len(open_parts), seq))
            told = {"parts": len(open_parts)}
            tx.event("expanded", seq, fan_out["id"], fan_out["attempt"], self._id, **told)
        for part in open_parts:
            tx.put("add_edge", part, seq, "ended")
        return seq

    # -- what it all amounts to ------------------------------------------------------------------------------

    def settle(self) -> None:
        """Write the counts and the state, with an event when that is another one."""
        row, tx = self._row, self._tx
        before, row["state"] = row["state"], self._state()
        if row["started_at"] is None and row["state"] != "pending":
            row["started_at"] = tx.at
        is_finished = State(row["state"]) in FINISHED
        row["finished_at"] = (row["finished_at"] or tx.at) if is_finished else None
        tx.flush()
        tx.connection.execute(QUERIES["put_sequence"], row)
        if row["state"] != before:
            error = json.loads(row["error"]) if row["error"] else None
            counts = {name: row[f"jobs_{name}"] for name in COUNTS if row[f"jobs_{name}"]}
            told = {"state": row["state"], "before": before, "counts": counts}
            tx.event("sequence", None, None, 0, self._id, **told, **({"error": error} if error else {}))

    def _state(self) -> str:
        count = {name: self._row[f"jobs_{name}"] for name in COUNTS}
        if count["pending"] or count["running"]:
            if count["interrupted"] and not count["running"] and not self._is_moving():
                return "interrupted"
            begun = count["running"] or any(count[name] for name in ("completed", "failed", "interrupted"))
            return "running" if begun else "pending"
        if count["cancelled"] or (count["interrupted"] and self._row["cancel_requested_at"] is not None):
            return "cancelled"
        if count["interrupted"]:
            return "interrupted"
        if count["failed"] and self._row["mode"] == "fail_fast":
            return "failed"
        return "completed" if count["completed"] or count["failed"] or not count["skipped"] else "cancelled"

    def _is_moving(self) -> bool:
        return bool(self._all("count_moving", self._id)[0]["moving"])


def _parts(fan_out: str, newest: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    while (name := f"{fan_out}[{len(found)}]") in newest:
        found.append(name)
    return found


def _is_open(parts: Sequence[str], states: Mapping[str, str]) -> bool:
    return any(states[part] in ("pending", "running", "interrupted") for part in parts)


def _may_run(needs: Mapping[str, str], states: Mapping[str, str]) -> bool:
    return all(states.get(other) in _MEETS[need] for other, need in needs.items())


def parts_failed(step: str, parts: Mapping[str, str]) -> dict[str, Any]:
    """Return the error of a fan-out of which parts did not complete."""
    listed = list(parts)
    more = f" and {len(listed) - 3} more" if len(listed) > 3 else ""
    return _error(
        "sequence.parts",
        f"{len(listed)} of the parts of step {step} did not complete: {', '.join(listed[:3])}{more}",
        {"step": step, "parts": dict(list(parts.items())[:100])},
        f"toft why {parts[listed[0]]}",
    )


def _skipped(step: str, failed: str, change: Change, verb: str) -> dict[str, Any]:
    return _error(
        SKIPPED,
        f"step {step} was not run, because step {failed} ({change.id}) {verb}",
        {"step": step, "failed_step": failed, "failed": change.id, "state": str(change.after)},
        f"toft why {change.id}",
    )


def _error(code: str, message: str, details: Mapping[str, Any], hint: str) -> dict[str, Any]:
    return {
        "code": code,
        "blame": "caller",
        "category": "user_input",
        "retry": "never",
        "retry_after_s": None,
        "message": message,
        "details": dict(details),
        "hint": hint,
    }
