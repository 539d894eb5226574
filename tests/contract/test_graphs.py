"""Graphs on a real queue: what a step gives reaches the next, and what cannot fit is refused as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.graph_nodes import Node, one, running, standing

from toft.jobs.graphs import GraphError
from toft.jobs.records import State
from toft.jobs.references import item, step
from toft.jobs.transaction import Effects

TEXT = {"type": "string"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    async with running(tmp_path, standing()) as opened:
        yield opened


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
        ([one("a", "typed", text="x") | {"retry": {"on": 5}}], "graph.invalid", "a", "list of categories"),
        ([one("a", "typed", text="x") | {"retry": "often"}], "graph.invalid", "a", "number of attempts"),
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


async def test_a_thousand_steps_are_one_transaction(node: Node) -> None:
    steps = [one(f"s{number}", after=[f"s{number - 1}"] if number % 10 else ()) for number in range(1000)]
    stored = await node.graphs.submit({"steps": steps})
    events = await node.queue.events(sequence=stored.id, limit=1000)
    assert len({event.at for event in events}) == 1
    assert (await node.run(stored)).state is State.COMPLETED
    assert len(node.ran) == 1000


async def test_a_fan_out_that_cannot_be_spread_says_so_once_the_disk_has_room_again(node: Node) -> None:
    node.plugins.add("give", lambda: "no list")
    stored = await node.graphs.submit([one("give", "give"), one("each") | {"for_each": step("give").output}])

    def fill_up(effects: Effects) -> None:
        node.store.is_full = node.store.is_full or bool(effects.expand)

    node.queue.listeners.append(fill_up)
    (claimed,) = await node.claim()
    await node.execute(claimed)
    await asyncio.sleep(0.1)
    assert (await node.states(stored))["each"] == "pending"
    node.queue.listeners.remove(fill_up)
    node.store.is_full = False
    assert (await node.graphs.wait(stored.id, 10)).state is State.FAILED
