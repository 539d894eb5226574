"""What can be asked of the queue about whole sequences, each in one transaction."""

from __future__ import annotations

from collections.abc import Sequence

from toft.jobs import rows, sequence_states, sequences
from toft.jobs.graphs import Graph
from toft.jobs.operations import Operation, requeue
from toft.jobs.records import State
from toft.jobs.sequences import QUERIES
from toft.jobs.submission import Entry, Submit
from toft.jobs.transaction import Running, Transaction


class SubmitSequence(Submit):
    """New jobs and the sequence they belong to, all or nothing; answers with the sequence."""

    __slots__ = ("graph", "id")

    def __init__(self, sequence_id: str, graph: Graph, entries: Sequence[Entry]) -> None:
        super().__init__(entries, None)
        self.id = sequence_id
        self.graph = graph

    def apply(self, tx: Transaction) -> None:
        super().apply(tx)
        if self.error is not None:
            return
        tx.flush()
        is_empty = not self.entries
        state = State.COMPLETED if is_empty else State.PENDING
        values = {
            "id": self.id,
            "name": self.graph.name,
            "mode": self.graph.mode,
            "priority": self.graph.priority,
            "state": state,
            "submitted_at": tx.at,
            "finished_at": tx.at if is_empty else None,
            "steps": rows.encode(sequences.described(self.graph)),
            "jobs_pending": len(self.entries),
        }
        tx.connection.execute(QUERIES["add_sequence"], values)
        told = {"state": str(state), "before": None, "name": self.graph.name, "mode": self.graph.mode}
        tx.event("sequence", None, None, 0, self.id, **told, steps=len(self.graph.steps))
        for request, job_id, _, _ in self.entries:
            if request.kind == "map" and not request.after and not request.after_ended:
                tx.effects.expand.append(job_id)
        self.result = _now(tx, self.id)


class Expand(Submit):
    """The parts of a fan-out; answers False when it has them already, or will not run any more."""

    __slots__ = ("job", "sequence", "step")

    def __init__(self, job: str, sequence: str, step: str, entries: Sequence[Entry]) -> None:
        super().__init__(entries, None)
        self.job = job
        self.sequence = sequence
        self.step = step

    def apply(self, tx: Transaction) -> None:
        self.result = False
        tx.flush()
        row = tx.one("find_job", self.job)
        if row is None or row[6] != State.PENDING or row[10]:
            return
        if sequences.ask(tx.connection, "find_member", (self.sequence, f"{self.step}[0]")):
            return
        super().apply(tx)
        tx.flush()
        seq = row[0]
        listed = rows.encode([job_id for _, job_id, _, _ in self.entries])
        for part in tx.all("find_parents", listed):
            tx.put("add_edge", part[1], seq, "ended")
        tx.connection.execute(QUERIES["wait_for_parts"], (len(self.entries), seq))
        sequence = sequences.find(tx.connection, self.sequence)
        assert sequence is not None, "its fan-out is there"
        sequence["jobs_pending"] += len(self.entries)
        tx.connection.execute(QUERIES["put_sequence"], sequence)
        tx.event("expanded", seq, self.job, row[7], self.sequence, parts=len(self.entries))
        self.result = True


class CancelSequence(Operation):
    """End what is pending, ask what runs; the wish is written down first. Answers with the sequence."""

    __slots__ = ("because", "id")
    order = 3

    def __init__(self, sequence_id: str, because: str) -> None:
        super().__init__(None)
        self.id = sequence_id
        self.because = because

    def apply(self, tx: Transaction) -> None:
        tx.flush()
        row = sequences.find(tx.connection, self.id)
        if row is None:
            self.error = sequences.not_found(self.id)
            return
        if row["finished_at"] is None:
            if row["cancel_requested_at"] is None:
                asked = {**row, "cancel_requested_at": tx.at}
                tx.connection.execute(QUERIES["put_sequence"], asked)
                tx.event("sequence", None, None, 0, self.id, state=row["state"], cancel="requested")
            self._cancel_members(tx)
        self.result = _now(tx, self.id)

    def _cancel_members(self, tx: Transaction) -> None:
        pending = sequences.ask(tx.connection, "pending_members", (self.id,))
        for each in pending:
            job = Running(each["seq"], each["id"], each["attempt"], each["instance"], self.id)
            is_ready = not each["waiting"] and not each["held"]
            tx.end_pending(job, State.CANCELLED, self.because, is_ready=is_ready)
        running = sequences.ask(tx.connection, "running_members", (self.id,))
        for each in running:
            tx.effects.cancels.append(each["id"])
            if each["cancel_requested_at"] is None:
                tx.put("request_cancel", tx.at, each["seq"])
                tx.event("cancel", each["seq"], each["id"], each["attempt"], self.id, phase="requested")
        tx.flush()
        if not pending:
            sequence_states.settle(tx, self.id)


class RetrySequence(Operation):
    """Run again what failed or was interrupted, and with it what was skipped. Answers with the sequence."""

    __slots__ = ("id",)
    order = 3

    def __init__(self, sequence_id: str) -> None:
        super().__init__(None)
        self.id = sequence_id

    def apply(self, tx: Transaction) -> None:
        tx.flush()
        if sequences.find(tx.connection, self.id) is None:
            self.error = sequences.not_found(self.id)
            return
        for each in sequences.ask(tx.connection, "newest_members", (self.id,)):
            if each["state"] in ("failed", "interrupted") and each["kind"] == "call":
                job = Running(each["seq"], each["id"], each["attempt"], each["instance"], self.id)
                tx.event("retry", job.seq, job.id, job.attempt, self.id, because="asked")
                requeue(tx, job, State(each["state"]), "asked", None, None, is_asked=True)
        tx.flush()
        self.result = _now(tx, self.id)


def _now(tx: Transaction, sequence_id: str) -> sequences.JobSequence:
    return sequences.from_row(sequences.find(tx.connection, sequence_id))
