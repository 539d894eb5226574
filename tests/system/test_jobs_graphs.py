"""Graphs on real workers: large values pass by reference, and a kill in the middle repeats nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.leaks import leaks_checked
from tests.memory import Memory
from tests.nodes import register, running

from toft.jobs.graphs import GraphError
from toft.jobs.records import State
from toft.jobs.references import item, step
from toft.kernel.errors import ConflictError

__all__ = ["leaks_checked"]
pytestmark = pytest.mark.usefixtures("leaks_checked")

MB = 1 << 20
HOST = Path(__file__).with_name("graph_host.py")


def one(name: str, action: str, *, after: Any = (), **arguments: Any) -> dict[str, Any]:
    return {"id": name, "plugin": "misbehaving", "action": action, "after": after, "arguments": arguments}


async def steps_of(node: Any, sequence_id: str) -> dict[str, Any]:
    """Return the newest job of each step."""
    return {job.step: job for job in reversed(await node.jobs.list(sequence=sequence_id, limit=1000))}


async def test_what_a_step_gives_reaches_the_next_on_real_workers(toft_home: Path) -> None:
    register(toft_home)
    async with running(toft_home) as node:
        stored = await node.jobs.submit_graph(
            {
                "name": "letters",
                "steps": [
                    one("pages", "echo", value=[{"n": 1}, {"n": (2, b"x")}]),
                    one("each", "echo", value=item()["n"]) | {"for_each": step("pages").output},
                    one("all", "echo", value=step("each").output),
                ],
            }
        )
        ended = await node.jobs.wait_sequence(stored.id, 30)
        assert ended.state is State.COMPLETED
        jobs = await steps_of(node, stored.id)
        assert await node.jobs.result(jobs["all"].id) == [1, (2, b"x")]
        assert jobs["each[1]"].attempt == 1
        with pytest.raises(GraphError) as caught:
            await node.jobs.submit_sequence([one("a", "echo"), one("b", "echo", valu=1)])
        assert caught.value.code == "call.bad_arguments"
        assert caught.value.details["step"] == "b"
        assert "did you mean value" in caught.value.message


async def test_a_graph_is_refused_from_the_moment_an_instance_is_switched_off(toft_home: Path) -> None:
    register(toft_home)
    async with running(toft_home) as node:
        await node.jobs.submit_sequence([one("before", "echo")])
        await node.set_enabled("misbehaving", False)
        with pytest.raises(GraphError) as caught:
            await node.jobs.submit_sequence([one("after", "echo")])
        assert caught.value.code == "instance.disabled"


async def test_a_large_value_passes_through_two_steps_without_entering_the_host(toft_home: Path) -> None:
    register(toft_home)
    async with running(toft_home) as node:
        warm = await node.jobs.submit_sequence([one("warm", "huge", size_bytes=MB), one("more", "echo")])
        await node.jobs.wait_sequence(warm.id, 30)
        with await asyncio.to_thread(Memory().__enter__) as memory:
            stored = await node.jobs.submit_graph(
                [
                    one("make", "huge", size_bytes=300 * MB),
                    one("pass", "echo", value={"in": step("make").output}),
                    one("again", "echo", value=[step("pass").output["in"]]),
                ]
            )
            ended = await node.jobs.wait_sequence(stored.id, 60)
        assert ended.state is State.COMPLETED, ended.to_dict()
        assert memory.most < 60 * MB, f"{memory.most >> 20} MB"
        jobs = await steps_of(node, stored.id)
        shown = jobs["again"].to_dict()["result"]
        assert shown["size_bytes"] >= 300 * MB
        made = await node.jobs.result(jobs["make"].id)
        (passed,) = await node.jobs.result(jobs["again"].id)
        assert type(passed) is bytes
        assert hashlib.sha256(passed).digest() == hashlib.sha256(made).digest()


async def test_a_failure_skips_what_follows_and_a_retry_goes_on(toft_home: Path) -> None:
    register(toft_home)
    async with running(toft_home) as node:
        stored = await node.jobs.submit_sequence(
            [one("a", "echo"), one("b", "raise_error", kind="FatalError"), one("c", "echo", value=3)]
        )
        assert (await node.jobs.wait_sequence(stored.id, 30)).state is State.FAILED
        jobs = await steps_of(node, stored.id)
        assert jobs["c"].error["code"] == "job.skipped"
        assert jobs["c"].error["details"]["failed"] == jobs["b"].id
        await node.jobs.retry(jobs["b"].id)
        assert (await node.jobs.wait_sequence(stored.id, 30)).state is State.FAILED
        again = await steps_of(node, stored.id)
        assert again["b"].attempt == 2
        assert again["a"].attempt == 1
        assert again["c"].id != jobs["c"].id


async def test_a_step_whose_worker_dies_stops_the_graph_and_says_so(toft_home: Path) -> None:
    register(toft_home)
    async with running(toft_home) as node:
        stored = await node.jobs.submit_sequence([one("dies", "kill_self"), one("next", "echo", value=1)])
        ended = await node.jobs.wait_sequence(stored.id, 30)
        assert ended.state is State.FAILED
        jobs = await steps_of(node, stored.id)
        assert jobs["dies"].error["code"].startswith("worker.")
        assert jobs["next"].error["details"]["failed_step"] == "dies"
        story = " ".join(entry["what"] for entry in await node.jobs.why(stored.id))
        assert "next" in story


async def test_a_cancelled_graph_ends_its_running_step(toft_home: Path) -> None:
    register(toft_home)
    async with running(toft_home) as node:
        stored = await node.jobs.submit_sequence([one("long", "work", seconds=60), one("next", "echo")])
        async for event in node.jobs.watch(sequence=stored.id, after=0):
            if event.type == "state" and event.data["to"] == "running":
                break
        await node.jobs.cancel_sequence(stored.id)
        ended = await node.jobs.wait_sequence(stored.id, 30)
        assert ended.state is State.CANCELLED
        jobs = await steps_of(node, stored.id)
        assert [str(jobs[name].state) for name in ("long", "next")] == ["cancelled", "cancelled"]


@pytest.mark.parametrize("idempotent", [True, False])
async def test_a_kill_in_the_middle_goes_on_without_repeating_a_step(
    toft_home: Path, idempotent: bool
) -> None:
    register(toft_home)
    graph = {
        "steps": [
            one("first", "echo", value=["a", "b", "c"]),
            one("slow", "work", after="first", seconds=3 if idempotent else 60) | {"idempotent": idempotent},
            one("parts", "echo", after="slow", value=item()) | {"for_each": step("first").output.to_json()},
            one("last", "echo", value=step("parts").output.to_json()),
        ]
    }
    graph["steps"][2]["arguments"] = {"value": {"$item": []}}
    host = await asyncio.create_subprocess_exec(
        *(sys.executable, str(HOST), str(toft_home), json.dumps(graph)), stdout=subprocess.PIPE
    )
    assert host.stdout is not None
    try:
        sequence_id = (await asyncio.wait_for(host.stdout.readline(), 30)).decode().strip()
        while (await asyncio.wait_for(host.stdout.readline(), 30)).decode().strip() != "slow running":
            pass
    finally:
        host.kill()
        await host.wait()
    async with running(toft_home) as node:
        if not idempotent:
            before = await node.jobs.wait_sequence(sequence_id, 30)
            assert before.state is State.INTERRUPTED
            assert before.counts["pending"] == 2
            jobs = await steps_of(node, sequence_id)
            await node.jobs.cancel_sequence(sequence_id)
            assert (await node.jobs.wait_sequence(sequence_id, 30)).state is State.CANCELLED
            assert jobs["slow"].state is State.INTERRUPTED
            return
        ended = await node.jobs.wait_sequence(sequence_id, 60)
        assert ended.state is State.COMPLETED, ended.to_dict()
        jobs = await steps_of(node, sequence_id)
        assert await node.jobs.result(jobs["last"].id) == ["a", "b", "c"]
        assert {name: job.attempt for name, job in jobs.items() if job.kind == "call"} == {
            **{"first": 1, "slow": 2, "last": 1},
            **{f"parts[{number}]": 1 for number in range(3)},
        }


async def test_one_key_and_the_same_arguments_in_another_order_are_one_job(toft_home: Path) -> None:
    register(toft_home)
    async with running(toft_home) as node:

        async def submit(value: Any) -> str:
            job = await node.jobs.submit(
                "misbehaving", {"value": value}, action="echo", idempotency_key="today"
            )
            return str(job.id)

        first = await submit({"a": 1, "b": {2: b"x", 3: {4, 5}}})
        assert await submit({"b": {3: {5, 4}, 2: b"x"}, "a": 1}) == first
        with pytest.raises(ConflictError) as caught:
            await submit({"a": 1, "b": {2: b"y", 3: {4, 5}}})
        assert caught.value.code == "job.idempotency"
