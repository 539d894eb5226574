"""Queues and dispatchers that break one promise each: the oracle must see every one of them."""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from tests.simulation import sim_backend, simulate
from tests.simulation.world import Plan

from toft.dispatch import dispatcher
from toft.jobs import controls, operations, queue, records, recovery, retries, transaction

SEEDS = range(1, 80)
STEPS = 2500
Sabotage = Callable[[pytest.MonkeyPatch], dict[str, Any]]


def no_fence(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    honest = operations.Finish.apply

    def apply(self: operations.Finish, tx: transaction.Transaction) -> None:
        self.attempt = self.job.attempt
        honest(self, tx)

    patch.setattr(operations.Finish, "apply", apply)
    return {}


def retries_what_may_have_run(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    honest = retries.again
    patch.setattr(retries, "again", lambda *given, **named: honest(*given, **{**named, "idempotent": True}))
    return {}


def boot_runs_everything_again(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    honest = recovery.recover

    async def recover(running: Sequence[Any], *given: Any) -> records.Recovered:
        lying = [
            (dataclasses.replace(job, idempotent=True, retry=records.THRICE), *rest) for job, *rest in running
        ]
        return await honest(lying, *given)

    patch.setattr(recovery, "recover", recover)
    return {}


def leaves_out_an_event(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    honest = transaction.Transaction.write_event
    seen: list[int] = []

    def event(self: transaction.Transaction, kind: str, *given: Any) -> None:
        seen.append(1)
        if kind != "state" or len(seen) % 50:
            honest(self, kind, *given)

    patch.setattr(transaction.Transaction, "write_event", event)
    return {}


def leaves_out_a_row(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    patch.setitem(
        transaction.QUERIES, "move_job", "UPDATE jobs SET priority = ?, rank = rank + 0 * ? WHERE seq = ?"
    )
    return {}


def claims_the_youngest(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    honest = transaction.QUERIES["claim_candidates"]
    patch.setitem(
        transaction.QUERIES,
        "claim_candidates",
        honest.replace("ORDER BY rank, seq", "ORDER BY rank DESC, seq"),
    )
    return {}


def acknowledges_too_early(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    class Hasty(queue.JobQueue):
        def submit(self, requests: Sequence[records.Request]) -> asyncio.Future[list[records.Submitted]]:
            if any(each.idempotency_key or each.after for each in requests):
                return super().submit(requests)
            named = [dataclasses.replace(each, id=self.new_id()) for each in requests]
            super().submit(named).add_done_callback(lambda each: each.cancelled() or each.exception())
            early: asyncio.Future[list[records.Submitted]] = asyncio.get_running_loop().create_future()
            early.set_result([records.Submitted(str(each.id), records.State.PENDING) for each in named])
            return early

    return {"make_queue": Hasty}


def one_lane_too_many(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    def make(*given: Any, options: dispatcher.Options, **named: Any) -> dispatcher.Dispatcher:
        return dispatcher.Dispatcher(
            *given, options=dataclasses.replace(options, lanes=options.lanes + 1), **named
        )

    return {"make_dispatcher": make}


def ignores_caps(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    honest = sim_backend.SimBackend.profile

    async def profile(self: sim_backend.SimBackend, plugin: str, instance: str) -> Any:
        return dataclasses.replace(await honest(self, plugin, instance), cap=None)

    patch.setattr(sim_backend.SimBackend, "profile", profile)
    return {}


def measures_beside_others(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    def make(*given: Any, options: dispatcher.Options, **named: Any) -> dispatcher.Dispatcher:
        rules = dataclasses.replace(options.rules, alone_s=0.0)
        return dispatcher.Dispatcher(*given, options=dataclasses.replace(options, rules=rules), **named)

    return {"make_dispatcher": make}


def waits_silently(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    honest = queue.JobQueue.note

    def note(self: queue.JobQueue, job_id: str, attempt: int, kind: str, data: Mapping[str, Any]) -> None:
        if kind != "blocked":
            honest(self, job_id, attempt, kind, data)

    patch.setattr(queue.JobQueue, "note", note)
    return {}


def forgets_an_instance(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    honest = queue.JobQueue.heads

    def heads(self: queue.JobQueue) -> Mapping[str, records.Head]:
        return {name: head for name, head in honest(self).items() if name != "instance1"}

    patch.setattr(queue.JobQueue, "heads", heads)
    return {}


def forgets_keys(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    honest = transaction.QUERIES["find_keys"]
    patch.setitem(transaction.QUERIES, "find_keys", honest + " AND 0")
    return {}


def runs_what_was_cancelled(patch: pytest.MonkeyPatch) -> dict[str, Any]:
    honest = controls.Cancel.change

    def change(self: controls.Cancel, tx: transaction.Transaction, row: Sequence[Any], job: Any) -> None:
        if row[6] == records.State.PENDING:
            tx.event("cancel", job.seq, job.id, job.attempt, job.sequence, phase="requested")
        else:
            honest(self, tx, row, job)

    patch.setattr(controls.Cancel, "change", change)
    return {}


MUTANTS: list[tuple[Sabotage, tuple[str, ...]]] = [
    (no_fence, ("fencing", "epochs", "replay")),
    (retries_what_may_have_run, ("never twice", "retries")),
    (boot_runs_everything_again, ("never twice",)),
    (leaves_out_an_event, ("replay", "epochs", "order", "starvation", "lanes", "caps")),
    (leaves_out_a_row, ("replay", "order")),
    (claims_the_youngest, ("order",)),
    (acknowledges_too_early, ("acknowledged",)),
    (one_lane_too_many, ("lanes",)),
    (ignores_caps, ("caps",)),
    (measures_beside_others, ("measuring",)),
    (waits_silently, ("reasons",)),
    (forgets_an_instance, ("reasons", "starvation")),
    (forgets_keys, ("keys", "refusals")),
    (runs_what_was_cancelled, ("cancel",)),
]


@pytest.mark.parametrize(("sabotage", "words"), MUTANTS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_broken_promise_is_seen(
    sabotage: Sabotage, words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = sabotage(monkeypatch)
    for seed in SEEDS:
        seen = broken_promise(Plan(seed, STEPS, **given))
        if seen is not None:
            assert seen.startswith(words)
            return
    pytest.fail(f"{sabotage.__name__} was not seen in {len(SEEDS)} seeds")


def broken_promise(plan: Plan) -> str | None:
    try:
        simulate.run(plan)
    except AssertionError as error:
        return str(error)
    return None
