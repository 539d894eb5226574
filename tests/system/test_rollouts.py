"""Rollouts over HTTP, with a real central that is killed in between, and nodes that only talk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import centrals
from tests.centrals import Agent, Central
from tests.waiting import eventually

from toft.kernel.clock import SYSTEM, rfc3339

WAVES = {"waves": [{"percent": 25, "bake_s": 60}, {"percent": 100, "bake_s": 6}]}


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Central]:
    with centrals.running(tmp_path_factory.mktemp("rollouts")) as running:
        running.save({})
        yield running


@pytest.fixture(scope="module")
def agents(central: Central) -> dict[str, Agent]:
    return fleet(central, 4)


def fleet(central: Central, count: int) -> dict[str, Agent]:
    agents = [Agent(central, f"host-{number}").join() for number in range(count)]
    for each in agents:
        each.poll()
        tell(each, "applied")
    return {each.node_id: each for each in agents}


def tell(agent: Agent, event: str, etag: str = "", **more: Any) -> None:
    seq = agent.__dict__["seq"] = agent.__dict__.get("seq", 0) + 1
    said = {"etag": etag or agent.etag, "event": event, "at": rfc3339(SYSTEM.now()), **more}
    assert agent.report(seq, running={"etag": agent.etag}, phase="idle", history=[said]).status == 204


def document(central: Central) -> str:
    return str(central.admin("GET", "documents")[0]["id"])


def shown(central: Central, id: str) -> dict[str, Any]:
    return dict(central.admin("GET", f"rollouts/{id}"))


def test_a_good_and_a_bad_revision_though_central_is_killed_in_between(tmp_path: Path) -> None:
    with centrals.running(tmp_path) as central:
        central.save({})
        agents = fleet(central, 8)
        good_reaches_everybody(central, agents)
        bad_ends_by_itself(central, agents)
        assert central.admin("GET", "audit/verify")["is_whole"]


def good_reaches_everybody(central: Central, agents: dict[str, Agent]) -> None:
    saved = central.save({"x-note": "good"}, publish=False)
    body = {"document": document(central), "rules": WAVES, "message": "the good one"}
    rollout = central.admin("POST", "rollouts", body)
    assert (rollout["state"], rollout["number"]) == ("running", saved["number"])
    first = eventually(lambda: shown(central, rollout["id"])["nodes"])
    assert len(first) == 2
    for each in agents.values():
        is_moved = each.node_id in {one["node"] for one in first}
        assert each.poll(takes=False).status == (200 if is_moved else 304)
    central.kill()
    central.start()
    for each in first:
        agents[each["node"]].poll()
        tell(agents[each["node"]], "applied")
    eventually(lambda: shown(central, rollout["id"])["counts"] == {"applied": 2})
    central.admin("POST", f"rollouts/{rollout['id']}/promote", {})
    eventually(lambda: len(shown(central, rollout["id"])["nodes"]) == 8)
    for each in agents.values():
        if each.poll().status == 200:
            tell(each, "applied")
    eventually(lambda: shown(central, rollout["id"])["state"] == "done", 15)
    assert shown(central, rollout["id"])["counts"] == {"applied": 8}
    assert central.admin("GET", "fleet") == {"nodes": 8, "counts": {"current": 8}, "listed": []}


def bad_ends_by_itself(central: Central, agents: dict[str, Agent]) -> None:
    central.save({"x-note": "bad"}, publish=False)
    body = {"document": document(central), "rules": WAVES, "message": "the bad one"}
    bad = central.admin("POST", "rollouts", body)
    refused = central.try_admin("POST", "rollouts", body)
    assert (refused.status, refused.code) == (409, "rollout.busy")
    publishing = central.try_admin(
        "POST", f"documents/{document(central)}/publish", {"number": bad["number"]}
    )
    assert (publishing.status, publishing.code) == (409, "rollout.busy")
    moved = [agents[each["node"]] for each in eventually(lambda: shown(central, bad["id"])["nodes"])]
    before = moved[0].etag
    central.kill()
    central.start()
    for each in moved:
        offered = each.poll(takes=False).headers["ETag"].strip('"')
        tell(each, "rolled_back", offered, reason="health_failed", detail="the gate web is red")
    told = eventually(lambda: (now := shown(central, bad["id"]))["state"] == "aborted" and now)
    assert told["reason"] == "2 of 2 nodes went back or failed: health_failed"
    assert {each["reason"] for each in told["nodes"]} == {"health_failed"}
    assert {each.poll().status for each in agents.values()} == {304}
    assert {each.etag for each in agents.values()} == {before}
    # The rollout is over and all have what they are to have: who went back, and why, is told all the same.
    told_now = central.admin("GET", "fleet")
    assert told_now["counts"] == {"current": 6, "went_back": 2}
    assert {each["node"] for each in told_now["listed"]} == {each.node_id for each in moved}
    whys = {(each["trouble"]["reason"], each["trouble"]["detail"]) for each in told_now["listed"]}
    assert whys == {("health_failed", "the gate web is red")}
    central.kill()
    central.start()
    assert {each.poll().status for each in agents.values()} == {304}
    again = central.admin("GET", "fleet")
    assert [each["trouble"] for each in again["listed"]] == [each["trouble"] for each in told_now["listed"]]
    assert again["counts"] == told_now["counts"]
    tell(moved[0], "applied")
    assert central.admin("GET", "fleet")["counts"] == {"current": 7, "went_back": 1}
    audited = [each["action"] for each in central.admin("GET", "audit")]
    assert audited[0] == "rollout.abort"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "document"),
        ({"document": "doc_none"}, "there is no document"),
        ({"document": "*", "number": 9999}, "there is no revision 9999"),
        ({"document": "*", "rules": {"waves": []}}, "waves is a list of 1 to 32"),
        (
            {"document": "*", "rules": {"waves": [{"percent": 50, "bake_s": 1}]}},
            "the last wave must be 100 %",
        ),
        ({"document": "*", "rules": {"waves": [{"percent": 0, "bake_s": 1}]}}, "percent of wave 1"),
        ({"document": "*", "rules": {"waves": [{"percent": 100, "bake_s": -1}]}}, "bake_s of wave 1"),
        ({"document": "*", "rules": {"waves": [{"percent": 100, "bake": 1}]}}, "wave 1 is not an object of"),
        ({"document": "*", "rules": {"min_success": 2}}, "min_success is a number"),
        ({"document": "*", "rules": {"abort_count": 0}}, "abort_count is a number"),
        ({"document": "*", "rules": {"abort": 0}}, "there is no rule 'abort'"),
        (
            {
                "document": "*",
                "rules": {"waves": [{"percent": p, "bake_s": 1} for p in (50, 10, 100)]},
            },
            "wave 2 is smaller",
        ),
        ({"document": "*", "message": "x" * 3000}, "a message has up to"),
    ],
)
def test_a_rollout_that_makes_no_sense_is_refused_and_nothing_begins(
    central: Central, body: dict[str, Any], said: str
) -> None:
    central.save({"x-note": said}, publish=False)
    before = central.admin("GET", "rollouts")
    if body.get("document") == "*":
        body = {**body, "document": document(central)}
    answer = central.try_admin("POST", "rollouts", body)
    assert answer.status in (400, 404), answer.body
    assert said in answer.value["detail"]
    assert central.admin("GET", "rollouts") == before


def test_who_may_only_cancel_can_abort_and_not_begin(central: Central, agents: dict[str, Agent]) -> None:
    central.save({"x-note": "scopes"}, publish=False)
    token = central.token_file.read_text().strip()
    made = central.ask("POST", "/v1/tokens", {"name": "night", "scopes": ["rollout:cancel"]}, token=token)
    night = made.value["token"]
    body = {"document": document(central), "rules": WAVES}
    assert central.ask("POST", "/v1/admin/rollouts", body, token=night).status == 403
    rollout = central.admin("POST", "rollouts", body)["id"]
    assert central.ask("POST", f"/v1/admin/rollouts/{rollout}/promote", {}, token=night).status == 403
    assert central.ask("POST", f"/v1/admin/rollouts/{rollout}/emergency", {}, token=night).status == 403
    ended = central.ask("POST", f"/v1/admin/rollouts/{rollout}/abort", {"reason": "at 3"}, token=night)
    assert (ended.status, ended.value["state"], ended.value["reason"]) == (200, "aborted", "at 3")
    again = central.ask("POST", f"/v1/admin/rollouts/{rollout}/abort", {}, token=night)
    assert (again.status, again.code) == (409, "rollout.state")
    assert central.ask("POST", "/v1/admin/rollouts/rollout_none/abort", {}, token=night).status == 404
    assert {each.poll().status for each in agents.values()} == {304}
