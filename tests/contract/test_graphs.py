"""Graphs on a real queue: what a step gives reaches the next, and every end is the right one and told."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.waiting import eventually_async

from toft.dispatch.graphs import Graphs
from toft.jobs import queue as queues
from toft.jobs.graphs import GraphError
from toft.jobs.queue import JobQueue
from toft.jobs.records import Claimed, Limits, Outcome, Request, ResultRef, State
from toft.jobs.references import item, step
from toft.jobs.retention import Forget
from toft.jobs.sequences import JobSequence, Reading
from toft.kernel import errors
from toft.plugins import errors as faults
from toft.plugins import values
from toft.plugins.manifests.arguments import Binder
from toft.plugins.packed import Packed
from toft.plugins.plugin_errors import PluginError
from toft.store import blobs, database

TEXT = {"type": "string"}
ANY: dict[str, Any] = {"parameters": {}, "additional": True}


class Plugins:
    """Plugins that are functions, with the signatures that a manifest would record."""

    def __init__(self) -> None:
        self.run: dict[str, Callable[..., Any]] = {"echo": lambda **given: given}
        self.inputs: dict[str, Mapping[str, Any]] = {}
        self.outputs: dict[str, Mapping[str, Any]] = {}
        self.disabled: set[str] = set()

    def add(self, name: str, run: Callable[..., Any], takes: Any = None, gives: Any = None) -> None:
        self.run[name] = run
        self.inputs[name] = takes or ANY
        self.outputs[name] = gives or {}

    async def binder(self, plugin: str, instance: str, action: str | None) -> Binder:
        if plugin not in self.run:
            raise errors.NotFoundError(
                f"no plugin {plugin}", code="plugin.not_found", hint="toft plugin list"
            )
        if plugin in self.disabled:
            raise faults.DisabledError(f"instance {plugin} is disabled", details={"instance": plugin})
        return Binder(self.inputs.get(plugin, ANY))

    async def output(self, plugin: str, instance: str, action: str | None) -> Mapping[str, Any]:
        return self.outputs.get(plugin, {})


class Node:
    """A queue with its graphs, and lanes that run what is ready when they are told to."""

    def __init__(self, home: Path, plugins: Plugins) -> None:
        self.plugins = plugins
        self.store = database.Database(home / "node.db")
        self.blobs = blobs.Blobs(home / "blobs")
        self.queue = JobQueue(self.store, self.blobs, randomness=os.urandom)
        self.reading = Reading(self.store)
        self.ran: list[str] = []
        self.graphs = Graphs(self.queue, self.reading, plugins, open_blob=self.open_blob)

    async def open_blob(self, digest: str) -> Packed:
        return await asyncio.to_thread(Packed.open, self.blobs.path(digest))

    async def claim(self) -> list[Claimed]:
        claimed: list[Claimed] = []
        for instance in list(self.queue.heads()):
            claimed += await self.queue.claim(instance, 100)
        return claimed

    async def execute(self, claimed: Claimed) -> None:
        self.ran.append(claimed.step or "")
        try:
            arguments = {
                name: value.value() if isinstance(value, Packed) else value
                for name, value in (await self.graphs.resolve(claimed)).items()
            }
            result = self.plugins.run[claimed.plugin](**arguments)
        except (errors.NodeError, PluginError) as error:
            outcome = Outcome(state=State.FAILED, error=error.to_dict(), because="raised")
        except ZeroDivisionError as error:
            outcome = Outcome(state=State.FAILED, error={"code": "plugin.exception", "message": str(error)})
        else:
            packed = Packed.of(result)
            if packed.size_bytes > 60_000:
                ref = ResultRef(packed.size_bytes, None, await self.blobs.save(packed.parts()))
                outcome = Outcome(state=State.COMPLETED, result=ref)
            else:
                outcome = Outcome(state=State.COMPLETED, result=packed.to_bytes())
        assert await self.queue.finish(claimed.id, claimed.attempt, outcome)

    async def run(self, sequence: JobSequence, *, most: int = 30_000) -> JobSequence:
        """Run what is ready until the sequence is over, or nothing happens any more."""
        for _ in range(most):
            claimed = await self.claim()
            for each in claimed:
                await self.execute(each)
            found = await self.graphs.get(sequence.id)
            if found.is_finished or found.state is State.INTERRUPTED:
                return found
            if not claimed:
                await asyncio.sleep(0.001)
        raise AssertionError(f"it does not end: {await self.states(sequence)}")

    async def states(self, sequence: JobSequence) -> dict[str, str]:
        return {each["step"]: each["state"] for each in await self.reading.members(sequence.id)}

    async def result(self, sequence: JobSequence, name: str) -> Any:
        given = await self.reading.given(sequence.id, name)
        assert given is not None
        return (
            values.unpack(given.data)
            if given.data is not None
            else (await self.open_blob(str(given.blob))).value()
        )

    async def error(self, sequence: JobSequence, name: str) -> Mapping[str, Any]:
        members = {each["step"]: each for each in await self.reading.members(sequence.id)}
        error = (await self.queue.get(members[name]["id"])).error
        assert error is not None
        return error

    async def told(self, sequence: JobSequence) -> list[str]:
        events = await self.queue.events(sequence=sequence.id)
        return [str(event.data["state"]) for event in events if event.type == "sequence"]


@contextlib.asynccontextmanager
async def running(home: Path, plugins: Plugins) -> AsyncIterator[Node]:
    node = Node(home, plugins)
    await node.store.open({"jobs": "toft.jobs"})
    await node.queue.open()
    await node.graphs.open()
    try:
        yield node
    finally:
        await node.graphs.close()
        await node.queue.close()
        await node.store.close()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    plugins = Plugins()
    plugins.add("fail", lambda **given: 1 // 0)
    plugins.add("join", lambda words, sep=" ": sep.join(words))
    async with running(tmp_path, plugins) as opened:
        yield opened


def one(name: str, plugin: str = "echo", *, after: Any = (), **arguments: Any) -> dict[str, Any]:
    return {"id": name, "plugin": plugin, "after": after, "arguments": arguments}


async def test_what_a_step_gives_reaches_the_next_with_its_types(node: Node) -> None:
    image = np.arange(50_000, dtype="<f4").reshape(100, 500)
    node.plugins.add("scan", lambda: {"image": image, "lines": [("eins", 1), ("zwei", 2)], 5: {b"x"}})
    stored = await node.graphs.submit(
        {
            "name": "papers",
            "steps": [
                one(
                    "show",
                    line=step("scan").output["lines"][-1],
                    all=[step("scan").output],
                    deep=(step("scan").output[5],),
                ),
                one("scan", "scan"),
                one("words", "join", words=[step("scan").output["lines"][0][0], "drei"]),
            ],
        }
    )
    assert stored.state is State.PENDING
    assert (await node.run(stored)).state is State.COMPLETED
    shown = await node.result(stored, "show")
    assert shown["line"] == ("zwei", 2)
    assert shown["deep"] == ({b"x"},)
    assert np.array_equal(shown["all"][0]["image"], image)
    assert await node.result(stored, "words") == "eins drei"
    assert await node.told(stored) == ["pending", "running", "completed"]
    assert [each.name for each in await node.graphs.recent()] == ["papers"]


async def test_a_sequence_stops_at_the_first_failure_and_names_what_it_skipped(node: Node) -> None:
    stored = await node.graphs.submit([one("a"), one("b", "fail"), one("c"), one("d", x=step("a").output)])
    ended = await node.run(stored)
    assert ended.state is State.FAILED
    assert node.ran == ["a", "b"]
    assert await node.states(stored) == {"a": "completed", "b": "failed", "c": "cancelled", "d": "cancelled"}
    for name in ("c", "d"):
        error = await node.error(stored, name)
        assert error["code"] == "job.skipped"
        assert error["details"]["failed_step"] == "b"
    assert ended.counts == {
        **dict.fromkeys(("pending", "running", "cancelled", "interrupted"), 0),
        **{"completed": 1, "failed": 1, "skipped": 2},
    }
    assert ended.error is not None
    assert ended.error["details"]["step"] == "b"
    assert await node.told(stored) == ["pending", "running", "failed"]


async def test_best_effort_goes_on_with_what_still_can_run(node: Node) -> None:
    steps = [one("a", "fail"), one("b"), one("c", x=step("a").output), one("d", x=step("b").output), one("e")]
    stored = await node.graphs.submit(steps, mode="best_effort")
    assert (await node.run(stored)).state is State.COMPLETED
    assert await node.states(stored) == {
        **{"a": "failed", "b": "completed", "c": "cancelled", "d": "completed", "e": "completed"}
    }
    assert (await node.error(stored, "c"))["code"] == "job.skipped"
    assert (await node.graphs.get(stored.id)).counts["skipped"] == 1


async def test_an_empty_sequence_completes_at_once(node: Node) -> None:
    stored = await node.graphs.submit([])
    assert stored.state is State.COMPLETED
    assert (await node.graphs.wait(stored.id, 1)).state is State.COMPLETED


@pytest.mark.parametrize("mode", ["fail_fast", "best_effort"])
async def test_a_fan_out_runs_once_for_each_item(node: Node, mode: str) -> None:
    node.plugins.add(
        "pages", lambda: {"pages": [{"n": number, "image": np.full(20_000, number)} for number in range(5)]}
    )
    node.plugins.add("ocr", lambda page, dpi: [page["n"] * 10, int(page["image"].sum()), dpi])
    steps = [
        one("pages", "pages"),
        one("ocr", "ocr", page=item(), dpi=300) | {"for_each": step("pages").output["pages"]},
        one("numbers", n=item()["n"], all=step("ocr").output) | {"for_each": [{"n": 7}, {"n": (8,)}]},
        one("show", text=step("ocr").output, last=step("numbers").output[-1]),
    ]
    stored = await node.graphs.submit({"steps": steps, "mode": mode})
    assert (await node.run(stored)).state is State.COMPLETED
    shown = await node.result(stored, "show")
    assert shown["text"] == [[n * 10, n * 20_000, 300] for n in range(5)]
    assert shown["last"]["n"] == (8,)
    states = await node.states(stored)
    assert {name: states[name] for name in ("ocr", "ocr[4]", "numbers[1]")} == dict.fromkeys(
        ("ocr", "ocr[4]", "numbers[1]"), "completed"
    )


async def test_a_fan_out_over_nothing_gives_an_empty_list(node: Node) -> None:
    stored = await node.graphs.submit([one("each") | {"for_each": []}, one("show", all=step("each").output)])
    assert (await node.run(stored)).state is State.COMPLETED
    assert await node.result(stored, "show") == {"all": []}


@pytest.mark.parametrize("given", [{"a": 1}, "text", None, {1, 2}])
async def test_a_fan_out_over_no_list_fails_with_what_is_there(node: Node, given: Any) -> None:
    node.plugins.add("give", lambda: {"x": given})
    stored = await node.graphs.submit(
        [one("give", "give"), one("each", n=item()) | {"for_each": step("give").output["x"]}]
    )
    assert (await node.run(stored)).state is State.FAILED
    error = await node.error(stored, "each")
    assert error["code"] == "sequence.reference"
    assert error["details"]["step"] == "give"
    assert error["details"]["asked"] == ["x"]


async def test_a_reference_that_leads_nowhere_fails_that_step_with_the_path(node: Node) -> None:
    node.plugins.add("give", lambda: {"lines": ["a"]})
    stored = await node.graphs.submit(
        [one("give", "give"), one("use", x=step("give").output["lines"][3]["text"]), one("after")]
    )
    assert (await node.run(stored)).state is State.FAILED
    error = await node.error(stored, "use")
    assert error["code"] == "sequence.reference"
    assert error["category"] == "user_input"
    assert error["details"] == {
        "step": "give",
        "asked": ["lines", 3, "text"],
        "path": ["lines", 3],
        "reason": "does not exist: the list has 1",
    }
    assert "step give" in error["message"]


async def test_a_failed_part_fails_its_fan_out(node: Node) -> None:
    node.plugins.add("half", lambda n: 1 // (n % 2))
    steps = [one("half", "half", n=item()) | {"for_each": [1, 2, 3, 4]}, one("show", all=step("half").output)]
    stored = await node.graphs.submit(steps, mode="best_effort")
    assert (await node.run(stored)).state is State.COMPLETED
    error = await node.error(stored, "half")
    assert error["code"] == "sequence.parts"
    assert set(error["details"]["parts"]) == {"half[1]", "half[3]"}
    assert (await node.error(stored, "show"))["code"] == "job.skipped"

    stored = await node.graphs.submit(steps)
    assert (await node.run(stored)).state is State.FAILED
    states = await node.states(stored)
    assert states["half"] == "failed"
    assert states["half[1]"] == "failed"
    assert states["show"] == "cancelled"


@pytest.mark.parametrize(
    ("steps", "code", "step_id", "said"),
    [
        ([one("a"), one("b", "nope")], "plugin.not_found", "b", "no plugin nope"),
        ([one("a"), one("b", "off")], "instance.disabled", "b", "disabled"),
        ([one("b", "typed", text=3)], "call.bad_arguments", "b", "text: expected text"),
        (
            [one("a", "typed", text="x"), one("b", "typed", text=step("a").output["n"])],
            "call.bad_arguments",
            "b",
            "integer",
        ),
        ([one("a", "typed", text="x"), one("b", x=step("a").output["m"])], "graph.reference", "b", "has n"),
        (
            [one("a", "typed", text="x"), one("b", x=step("a").output["n"][0])],
            "graph.reference",
            "b",
            "no parts",
        ),
        (
            [one("a", "typed", text="x"), one("b") | {"for_each": step("a").output["n"]}],
            "graph.reference",
            "b",
            "takes a list",
        ),
        ([one("a", "typed", text="x") | {"retry": {"tries": 3}}], "graph.invalid", "a", "retry"),
    ],
)
async def test_a_step_that_does_not_fit_refuses_all(
    node: Node, steps: Any, code: str, step_id: str, said: str
) -> None:
    node.plugins.add("off", lambda: None)
    node.plugins.disabled.add("off")
    takes = {"parameters": {"text": TEXT}, "required": ["text"]}
    gives = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
    node.plugins.add("typed", lambda text: {"n": 1}, takes, gives)
    with pytest.raises(GraphError) as caught:
        await node.graphs.submit(steps)
    assert caught.value.code == code
    assert caught.value.details["step"] == step_id
    assert said in caught.value.message
    assert caught.value.exit_code == 2
    assert await node.queue.list() == []
    assert await node.graphs.recent() == []


async def test_references_of_known_kinds_are_taken(node: Node) -> None:
    takes = {"parameters": {"text": TEXT, "where": {"x-toft-type": "path"}}, "required": ["text"]}
    gives = {"type": "object", "properties": {"text": TEXT, "all": {"type": "array", "items": TEXT}}}
    node.plugins.add("typed", lambda text, where="": {"text": text, "all": ["x", "y"]}, takes, gives)
    steps = [
        one("a", "typed", text="x"),
        one("b", "typed", text=step("a").output["text"], where=step("a").output["all"][0]),
        one("c", "typed", text=item()) | {"for_each": step("b").output["all"]},
        one("d", "typed", text=step("c").output[1]["text"]),
    ]
    stored = await node.graphs.submit(steps)
    assert (await node.run(stored)).state is State.COMPLETED
    assert (await node.result(stored, "d"))["text"] == "y"


async def test_priority_and_policies_are_those_of_the_graph_where_a_step_says_none(node: Node) -> None:
    steps = [one("a"), one("b") | {"priority": -3, "timeout_s": 2, "retry": 4, "idempotent": True}]
    stored = await node.graphs.submit(steps, priority=7)
    jobs = {job.step: job for job in await node.queue.list(sequence=stored.id)}
    assert (jobs["a"].priority, jobs["b"].priority) == (7, -3)
    assert (jobs["b"].timeout_s, jobs["b"].retry.max_attempts, jobs["b"].idempotent) == (2, 4, True)


async def test_a_cancelled_graph_ends_pending_steps_at_once_and_asks_the_running_one(node: Node) -> None:
    stored = await node.graphs.submit([one("a"), one("b"), one("c") | {"for_each": [1, 2]}])
    asked: list[str] = []
    node.queue.listeners.append(lambda effects: asked.extend(effects.cancels))
    (claimed,) = await node.claim()
    cancelled = await node.graphs.cancel(stored.id)
    assert cancelled.state is State.RUNNING
    assert cancelled.cancel_requested_at is not None
    assert asked == [claimed.id]
    assert await node.states(stored) == {"a": "running", "b": "cancelled", "c": "cancelled"}
    assert await node.queue.finish(claimed.id, claimed.attempt, Outcome(state=State.CANCELLED))
    ended = await node.graphs.wait(stored.id, 60)
    assert ended.state is State.CANCELLED
    assert (await node.graphs.cancel(stored.id)).to_dict() == ended.to_dict()
    assert await node.claim() == []
    assert (await node.told(stored))[-1] == "cancelled"


async def test_a_cancel_between_two_steps_lets_nothing_more_run(node: Node) -> None:
    stored = await node.graphs.submit([one("a"), one("b"), one("c")])
    (claimed,) = await node.claim()
    finishing = node.queue.finish(claimed.id, claimed.attempt, Outcome(state=State.COMPLETED, result=b"1"))
    cancelled, _ = await asyncio.gather(node.graphs.cancel(stored.id), finishing)
    assert await node.claim() == []
    assert cancelled.state is State.CANCELLED
    assert await node.states(stored) == {"a": "completed", "b": "cancelled", "c": "cancelled"}


async def test_a_cancelled_member_ends_its_sequence(node: Node) -> None:
    stored = await node.graphs.submit([one("a"), one("b"), one("c")], mode="best_effort")
    jobs = {job.step: job for job in await node.queue.list(sequence=stored.id)}
    await node.queue.request_cancel(jobs["b"].id)
    assert (await node.run(stored)).state is State.CANCELLED
    assert await node.states(stored) == {"a": "cancelled", "b": "cancelled", "c": "cancelled"}
    assert (await node.error(stored, "c"))["details"]["failed_step"] == "b"


async def test_a_retried_step_resumes_the_graph(node: Node) -> None:
    broken = [True]

    def now_and_then(n: int = 1) -> Any:
        return 1 // 0 if broken[0] and n == 1 else {"n": n}

    node.plugins.add("flaky", now_and_then)
    steps = [
        one("a"),
        one("b", "flaky"),
        one("c", x=step("b").output["n"]),
        one("d", x=item()) | {"for_each": [1, 2]},
        one("e", x=step("d").output, y=step("c").output),
    ]
    stored = await node.graphs.submit(steps)
    assert (await node.run(stored)).state is State.FAILED
    skipped = {job.step: job.id for job in await node.queue.list(sequence=stored.id, state="cancelled")}
    assert set(skipped) == {"c", "d", "e"}
    broken[0] = False
    jobs = {job.step: job for job in await node.queue.list(sequence=stored.id)}
    await node.queue.retry(jobs["b"].id)
    resumed = await node.graphs.get(stored.id)
    assert resumed.state is State.RUNNING
    assert resumed.finished_at is None
    assert (await node.run(stored)).state is State.COMPLETED
    assert node.ran == ["a", "b", "b", "c", "d[0]", "d[1]", "e"]
    assert (await node.result(stored, "e"))["x"] == [{"x": 1}, {"x": 2}]
    for job_id in skipped.values():
        assert (await node.queue.get(job_id)).state is State.CANCELLED
    assert await node.told(stored) == ["pending", "running", "failed", "running", "completed"]


@pytest.mark.parametrize("how", ["part", "fan_out", "sequence"])
@pytest.mark.parametrize("mode", ["fail_fast", "best_effort"])
async def test_a_retried_part_resumes_its_fan_out(node: Node, how: str, mode: str) -> None:
    broken = [True]
    node.plugins.add("flaky", lambda n: 1 // 0 if broken[0] and n == 2 else n)
    steps = [one("each", "flaky", n=item()) | {"for_each": [1, 2, 3]}, one("show", all=step("each").output)]
    stored = await node.graphs.submit(steps, mode=mode)
    await node.run(stored)
    assert (await node.states(stored))["each"] == "failed"
    broken[0] = False
    jobs = {job.step: job for job in reversed(await node.queue.list(sequence=stored.id))}
    if how == "sequence":
        await node.graphs.retry(stored.id)
    else:
        await node.queue.retry(jobs["each[1]" if how == "part" else "each"].id)
    assert (await node.run(stored)).state is State.COMPLETED
    assert await node.result(stored, "show") == {"all": [1, 2, 3]}
    assert node.ran.count("each[0]") == 1
    assert node.ran.count("each[1]") == 2


async def test_a_retried_part_leaves_the_other_parts_as_they_are(node: Node) -> None:
    broken = [True]
    node.plugins.add("flaky", lambda n: 1 // 0 if broken[0] and n > 1 else n)
    stored = await node.graphs.submit(
        [one("each", "flaky", n=item()) | {"for_each": [1, 2, 3]}], mode="best_effort"
    )
    await node.run(stored)
    broken[0] = False
    jobs = {job.step: job for job in reversed(await node.queue.list(sequence=stored.id))}
    # Another job of the same instance: what is counted as ready must be all that is.
    (other,) = await node.queue.submit([Request(plugin="flaky", instance="flaky", arguments=b'{"n": 1}')])
    await node.queue.retry(jobs["each[1]"].id)
    assert node.queue.heads()["flaky"].ready == 2
    await node.run(stored)
    assert node.ran.count("each[1]") == 2
    assert node.ran.count("each[2]") == 1
    assert (await node.states(stored))["each"] == "failed"
    assert (await node.queue.get(other.job_id)).state is State.COMPLETED


async def test_a_restart_in_the_middle_goes_on_with_the_next_step(tmp_path: Path) -> None:
    plugins = Plugins()
    steps = [
        one("a"),
        one("b", x=step("a").output) | {"idempotent": True},
        one("c", n=item()) | {"for_each": [1, 2, 3]},
        one("d", all=step("c").output),
    ]
    ran: list[str] = []
    async with running(tmp_path, plugins) as first:
        stored = await first.graphs.submit(steps)
        (claimed,) = await first.claim()
        await first.execute(claimed)
        await first.claim()  # b runs when the process ends
        ran += first.ran
    async with running(tmp_path, plugins) as second:
        assert (await second.graphs.get(stored.id)).state is State.RUNNING
        (claimed,) = await second.claim()
        assert (claimed.step, claimed.attempt) == ("b", 2)
        second.graphs._is_open = False  # the fan-out is never spread in this process
        await second.execute(claimed)
        ran += second.ran
    async with running(tmp_path, plugins) as third:
        await eventually_async(lambda: bool(third.queue.heads()))
        claimed = (await third.claim())[0]
        await third.execute(claimed)
        ran += third.ran
    async with running(tmp_path, plugins) as fourth:
        interrupted = await fourth.graphs.get(stored.id)
        assert interrupted.counts["interrupted"] == 2
        assert interrupted.state is State.INTERRUPTED
        await fourth.graphs.retry(stored.id)
        assert (await fourth.run(stored)).state is State.COMPLETED
        ran += fourth.ran
        assert await fourth.result(stored, "d") == {"all": [{"n": 1}, {"n": 2}, {"n": 3}]}
    assert sorted(ran) == ["a", "b", "c[0]", "c[1]", "c[2]", "d"]


async def test_waiting_ends_in_time(node: Node) -> None:
    stored = await node.graphs.submit([one("a")])
    with pytest.raises(errors.UnavailableError) as caught:
        await node.graphs.wait(stored.id, 0.01)
    assert caught.value.code == "job.wait_timeout"
    waiting = asyncio.ensure_future(node.graphs.wait(stored.id, 60))
    await node.run(stored)
    assert (await waiting).state is State.COMPLETED
    with pytest.raises(errors.NotFoundError):
        await node.graphs.wait("seq_nothing", 1)


async def test_a_thousand_steps_are_one_transaction(node: Node) -> None:
    steps = [one(f"s{number}", after=[f"s{number - 1}"] if number % 10 else ()) for number in range(1000)]
    stored = await node.graphs.submit({"steps": steps})
    events = await node.queue.events(sequence=stored.id, limit=1000)
    assert len({event.at for event in events}) == 1
    assert (await node.run(stored)).state is State.COMPLETED
    assert len(node.ran) == 1000


async def test_results_stay_as_long_as_a_sequence_may_need_them(node: Node) -> None:
    async def forget() -> None:
        await queues.perform(node.queue, Forget(Limits(keep_count=0, keep_s=0), ended=1000))

    stored = await node.graphs.submit(
        [one("a", x=[1]), one("b", x=step("a").output), one("c", "fail"), one("d")]
    )
    for _ in range(3):
        (claimed,) = await node.claim()
        await node.execute(claimed)
        if claimed.step != "c":
            await forget()
            assert len(await node.reading.members(stored.id)) == 4
    assert (await node.graphs.get(stored.id)).state is State.FAILED
    await forget()
    assert await node.reading.members(stored.id) == []
    with pytest.raises(errors.NotFoundError):
        await node.graphs.get(stored.id)
    assert list(await node.queue.events(sequence=stored.id)) == []

    empty = await node.graphs.submit([])
    other = await node.graphs.submit([one("a")])
    await forget()
    assert [each.id for each in await node.graphs.recent()] == [other.id, empty.id]


async def test_a_retry_does_without_steps_that_were_forgotten(node: Node) -> None:
    stored = await node.graphs.submit([one("a"), one("b", "fail"), one("c", x=step("a").output), one("d")])
    assert (await node.run(stored)).state is State.FAILED
    jobs = {job.step: job for job in await node.queue.list(sequence=stored.id)}
    await queues.perform(node.queue, Forget(Limits(keep_count=3), ended=4))
    assert set(await node.states(stored)) == {"b", "c", "d"}
    await node.queue.retry(jobs["b"].id)
    (claimed,) = await node.claim()
    assert claimed.step == "b"
    assert (await node.states(stored))["c"] == "cancelled"
