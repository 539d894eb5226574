"""Rollouts, the fleet and signatures of a real central, all by commands, with nodes that only talk."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests import centrals
from tests.centrals import Agent, Central
from tests.command_line import CommandLine, keep_token
from tests.waiting import eventually

from toft.cli import app as command_line
from toft.cli.session import Session
from toft.cli.terminal import Terminal
from toft.kernel.clock import SYSTEM, rfc3339


class Ran(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        assert self.status == 0, self
        return json.loads(self.out)


def toft(*words: str) -> Ran:
    out, err = io.StringIO(), io.StringIO()
    status = command_line.run(list(words), Session(Terminal(out, err), environ={}))
    return Ran(status, out.getvalue(), err.getvalue())


class Commands:
    """`toft central …` against one central, and the nodes that it has."""

    def __init__(self, central: Central) -> None:
        self.central = central
        self.agents: dict[str, Agent] = {}
        self._seq = 0

    def __call__(self, *words: str) -> Ran:
        return self.at_large("central", *words)

    def at_large(self, *words: str) -> Ran:
        """Run a command that is about whatever --url names."""
        return toft("--url", self.central.url, "--token-file", str(self.central.token_file), *words)

    def text(self, *words: str) -> str:
        """Run one that goes well, and return what it says to a person."""
        ran = self(*words)
        assert ran.status == 0, ran
        return ran.out + ran.err

    def rollout(self, verb: str, *words: str) -> Any:
        return self("rollout", verb, *words, "--json").value

    def revision(self, note: str, tenant: str = "main") -> tuple[str, int]:
        """Save another revision that nobody has yet."""
        saved = self.central.save({"x-note": note}, publish=False, tenant=tenant)
        return saved["document"]["id"], saved["number"]

    def tell(self, agent: Agent, etag: str, event: str, **more: Any) -> None:
        self._seq += 1
        said = {"etag": etag, "event": event, "at": rfc3339(SYSTEM.now()), **more}
        sent = agent.report(self._seq, running={"etag": agent.etag}, phase="idle", history=[said])
        assert sent.status == 204

    def follow(self) -> None:
        """Let every node take what it is offered."""
        for each in self.agents.values():
            if each.poll().status == 200:
                self.tell(each, each.etag, "applied")

    def refuse(self) -> None:
        """Let every node try what it is offered, and go back."""
        for each in self.agents.values():
            answer = each.poll(takes=False)
            if answer.status == 200:
                etag = answer.headers["ETag"].strip('"')
                self.tell(each, etag, "rolled_back", reason="health_failed", detail="the gate \x1b[31mweb")


@pytest.fixture(scope="module")
def central(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    with centrals.running(tmp_path_factory.mktemp("commands")) as running:
        running.save({})
        commands = Commands(running)
        agents = [Agent(running, f"host-{number}").join() for number in range(3)]
        commands.agents = {each.node_id: each for each in agents}
        commands.follow()
        yield commands


def test_a_good_revision_is_begun_held_hurried_and_watched(central: Commands) -> None:
    document, number = central.revision("good")
    waves = ("--wave", "34:60s", "--wave", "100:1s")
    made = central.rollout("create", document, "--draft", *waves, "-m", "by hand")
    id = made["id"]
    assert (made["state"], made["number"], made["message"]) == ("draft", number, "by hand")
    assert [(each["percent"], each["bake_s"]) for each in made["rules"]["waves"]] == [(34, 60), (100, 1)]
    assert "is running" in central.text("rollout", "start", id)
    eventually(lambda: len(central.rollout("show", id)["nodes"]) == 1)
    told = central.text("rollout", "show", id)
    assert f"{id}  running  revision {number}, attempt 1" in told
    assert "  wave     1 of 2\n" in told
    assert "34 % for 60.0 s, then 100 % for 1.0 s" in told
    assert "by hand" in told
    assert "is paused" in central.text("rollout", "pause", id, "-m", "lunch")
    held = central("rollout", "show", id, "--watch")
    assert (held.status, "paused: lunch" in held.out) == (1, True), held
    assert f"toft central rollout show {id}" in held.err
    assert central.rollout("resume", id)["state"] == "running"
    assert central.rollout("promote", id, "--reason", "it is fine")["state"] == "running"
    eventually(lambda: len(central.rollout("show", id)["nodes"]) == 3)
    central.follow()
    watched = central("rollout", "show", id, "--watch", "--json")
    assert watched.status == 0, watched
    last = json.loads(watched.out.splitlines()[-1])
    assert (last["state"], last["counts"]) == ("done", {"applied": 3})
    listed = central.text("rollout", "list")
    assert id in listed
    assert "3 applied" in listed
    assert central.rollout("list", "--document", "doc_none") == []
    assert central.text("fleet").splitlines() == ["3 nodes: 3 current"]


def test_who_went_back_from_a_bad_one_is_told_and_why(central: Commands, tmp_path: Path) -> None:
    document, _ = central.revision("bad")
    rules = tmp_path / "rules.toml"
    rules.write_text("abort_count = 3\n[[waves]]\npercent = 100\nbake_s = 60\n")
    created = central("rollout", "create", document, "--rules", str(rules), "--emergency")
    assert created.status == 0, created
    id = created.out.strip()
    assert f"next: toft central rollout show {id} --watch" in created.err
    eventually(lambda: len(central.rollout("show", id)["nodes"]) == 3)
    central.refuse()
    watched = central("rollout", "show", id, "--watch")
    assert watched.status == 1, watched
    assert "aborted: 3 of 3 nodes went back or failed: health_failed" in watched.out
    told = central.text("rollout", "show", id, "--stage", "rolled_back")
    assert told.count("health_failed the gate") == 3
    assert "\x1b" not in told
    assert central.rollout("show", id, "--stage", "applied")["nodes"] == []
    fleet = central.text("fleet")
    assert fleet.startswith("3 nodes: 3 went back\n")
    assert fleet.count("health_failed the gate") == 3
    assert "\x1b" not in fleet
    found = central("fleet", "--standing", "went_back", "--json").value
    assert {each["node"] for each in found["listed"]} == set(central.agents)
    assert {each["trouble"]["reason"] for each in found["listed"]} == {"health_failed"}
    assert central("fleet", "--standing", "current", "--json").value["listed"] == []
    refusing = next(iter(central.agents.values()))
    reason = "a wheel of another machine: " + "x" * 100 + " the end of it"
    central.tell(refusing, "sha256-" + "9" * 64, "rejected", reason="install_failed", detail=reason)
    assert f"refused it: install_failed {reason}" in " ".join(central.text("fleet").split())


def test_all_waves_are_opened_and_it_is_taken_back(central: Commands) -> None:
    document, _ = central.revision("hurry")
    before = {id: each.etag for id, each in central.agents.items()}
    id = central.rollout("create", document, "--draft", "--wave", "1:60s", "--wave", "100:60s")["id"]
    assert central.rollout("emergency", id, "-m", "now")["is_emergency"] is True
    eventually(lambda: len(central.rollout("show", id)["nodes"]) == 3)
    assert {each.poll(takes=False).status for each in central.agents.values()} == {200}
    assert "is aborted" in central.text("rollout", "abort", id, "--reason", "not this one")
    central.follow()
    assert {id: each.etag for id, each in central.agents.items()} == before
    assert central.rollout("show", id)["reason"] == "not this one"
    for verb in ("abort", "resume", "promote", "start", "pause", "emergency"):
        refused = central("rollout", verb, id, "--json")
        assert (refused.status != 0, "rollout.state" in refused.err) == (True, True), refused


def test_nobody_to_reach_is_done_at_once(central: Commands) -> None:
    central.text("tenant", "create", "empty")
    document, number = central.revision("alone", "empty")
    watched = central("rollout", "create", document, "--wave", "100", "--watch", "--tenant", "empty")
    assert (watched.status, watched.out.splitlines()[-1].split()[0]) == (0, "done"), watched
    again = central("rollout", "create", document, "--number", str(number), "--tenant", "empty", "--json")
    assert "rollout.nothing" in again.err


def test_one_that_has_to_be_let_in_is_and_what_it_lacks_is_told(central: Commands) -> None:
    agent = Agent(central.central, "asks")
    assert agent.enroll(central.central.join_token(needs_approval=True)).status == 201
    assert "nothing of this central yet" in central.text("node", "show", agent.node_id)
    assert agent.node_id in central.text("node", "list", "--state", "pending")
    assert central.text("node", "approve", agent.node_id) == "asks is in\n"
    assert central("node", "approve", agent.node_id, "--json").value["state"] == "active"
    agent.poll()
    central.central.save({"x-note": "what it lacks"})
    told = central.text("node", "diff", agent.node_id)
    assert '+  "x-note": "what it lacks"' in told.splitlines()
    assert central("node", "diff", agent.node_id, "--json").value["diff"] == told.rstrip("\n")
    agent.poll()
    assert agent.poll().status == 304
    assert central.text("node", "diff", agent.node_id) == "it runs what it is offered\n"
    central.text("node", "revoke", agent.node_id)


def test_a_line_of_the_audit_log_that_was_changed_is_found(central: Commands) -> None:
    whole = central.text("audit", "--verify")
    assert "each as it was written" in whole
    with contextlib.closing(sqlite3.connect(central.central.data / "central.db", timeout=30)) as file:
        for actor, status in (("nobody", 1), ("token:admin", 0)):
            file.execute("UPDATE audit SET actor = ? WHERE seq = 2", (actor,))
            file.commit()
            found = central("audit", "--verify")
            assert found.status == status, found
            assert ("line 2 is not what was written" in found.out) is (status == 1)
            assert central("audit", "--verify", "--json").status == status


def test_a_watch_is_left_by_ctrl_c_and_the_rollout_goes_on(central: Commands, tmp_path: Path) -> None:
    document, _ = central.revision("watched")
    id = central.rollout("create", document, "--wave", "1:60s", "--wave", "100:60s")["id"]
    asked = ("--url", central.central.url, "--token-file", central.central.token_file, "central")
    command = CommandLine(tmp_path / "unused", tmp_path, {"TOFT_HOME": ""})
    for more in ((), ("--json",)):
        watching = command.start(*asked, "rollout", "show", id, "--watch", *more)
        assert watching.stdout is not None
        assert "running" in watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        _, said = watching.communicate(timeout=60)
        assert watching.returncode == 130, said
        assert "Traceback" not in said
        if more:
            assert json.loads(said)["error"]["code"] == "call.cancelled"
    assert central.rollout("abort", id)["state"] == "aborted"


def test_a_watch_that_is_not_left_hears_of_the_end_over_a_restart_of_the_central(tmp_path: Path) -> None:
    with centrals.running(tmp_path) as running:
        central = Commands(running)
        running.save({})
        Agent(running).join().poll()
        document, _ = central.revision("watched")
        id = central.rollout("create", document, "--wave", "100:60s")["id"]
        asked = ("--url", running.url, "--token-file", running.token_file, "central", "rollout", "show", id)
        watching = CommandLine(tmp_path / "unused", tmp_path, {"TOFT_HOME": ""}).start(*asked, "--watch")
        assert watching.stdout is not None
        assert "running" in watching.stdout.readline()
        running.kill()
        running.start()
        assert central.rollout("abort", id)["state"] == "aborted"
        out, said = watching.communicate(timeout=60)
        assert (watching.returncode, out.splitlines()[-1].split()[0]) == (1, "aborted"), (out, said)


@pytest.mark.parametrize(
    ("place", "code", "hint"),
    [
        (("--url", "http://127.0.0.1:1"), "remote.no_answer", "toft central serve"),
        (("--url", "http://central.example"), "remote.plain", "toft central serve"),
        (("--url", "central.example"), "remote.url", "https://central.example"),
        (("--token-file", "nothing"), "remote.token_file", "toft central admin create"),
        (("--token-file", "/dev/null"), "remote.token", "toft central admin create"),
        (("--token-file", "wrong"), "access.unauthenticated", "toft central admin create"),
        (("--token-file", "reader"), "access.refused", "toft central admin create"),
        (("--token-file", "ended"), "access.unauthenticated", "toft central admin create"),
    ],
)
def test_where_no_central_answers_or_it_lets_nobody_in_a_central_is_spoken_of(
    central: Commands, tmp_path: Path, place: tuple[str, str], code: str, hint: str
) -> None:
    keep_token(tmp_path / "wrong", f"toft_{'A' * 43}")
    for name in ("reader", "ended"):
        made = central("admin", "create", name, "--scope", "fleet:read", "--json").value
        keep_token(tmp_path / name, made["token"])
    central.text("admin", "revoke", "ended")
    given = {"--url": central.central.url, "--token-file": str(central.central.token_file), **dict([place])}
    if place[0] == "--token-file" and not place[1].startswith("/"):
        given["--token-file"] = str(tmp_path / place[1])
    ran = toft(*(each for pair in given.items() for each in pair), "central", "group", "put", "x", "--json")
    central.text("admin", "revoke", "reader")
    assert (ran.status != 0, ran.out) == (True, ""), ran
    error = json.loads(ran.err)["error"]
    assert (error["code"], hint in error["hint"]) == (code, True), error


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (
            ("document", "save", "layer.toml", "--group", "a", "--node", "b"),
            "toft central document save --help",
        ),
        (("document", "save", "date.toml"), "request.not_json"),
        (("document", "save", "endless.yaml"), "request.not_json"),
        (("rollout", "create", "doc_none", "--wave", "nan:1m"), "rollout.rules"),
        (("admin", "create", "x", "--scope", "fleet:read", "--expires", "9" * 5000 + "d"), "access.expiry"),
        (("admin", "revoke", "nobody"), "toft central admin list"),
        (("admin", "revoke", "../x"), "name.invalid"),
        (("node", "show", ""), "name.invalid"),
        (("document", "show", "a/b"), "name.invalid"),
        (("artifact", "add", "nothing.whl"), "Look at the name"),
    ],
)
def test_words_that_no_central_is_asked_with_are_told(
    central: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "layer.toml").write_text("x-note = 1\n")
    (tmp_path / "date.toml").write_text("x-note = 2020-01-01\n")
    (tmp_path / "endless.yaml").write_text("x-note: .inf\n")
    ran = central(*words, "--json")
    assert (ran.status != 0, ran.out) == (True, ""), ran
    assert code in ran.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("create", "doc_none"), "there is no document"),
        (("create", "doc_none", "--wave", "much"), "rollout.rules"),
        (("create", "doc_none", "--wave", "100:soon"), "access.expiry"),
        (("create", "doc_none", "--wave", "100:1s", "--rules", "r.json"), "request.command_line"),
        (("show", "rollout_none"), "rollout.not_found"),
        (("abort", "rollout_none", "--tenant", "nobody"), "nobody"),
    ],
)
def test_what_makes_no_sense_says_why(central: Commands, words: tuple[str, ...], code: str) -> None:
    ran = central("rollout", *words, "--json")
    assert (ran.status != 0, ran.out) == (True, ""), ran
    assert code in ran.err


def test_what_nodes_get_is_signed_elsewhere_and_brought(central: Commands, tmp_path: Path) -> None:
    central.text("tenant", "create", "vouched")
    of = ("--tenant", "vouched")
    document, number = central.revision("first", "vouched")
    key, root, into = (str(tmp_path / name) for name in ("a.pem", "root.json", "payloads"))
    public = toft("key", "new", key, "--json").value
    assert toft("key", "root", "new", root, "--key", key).status == 0
    unsigned = central("root", "add", root, *of, "--json")
    assert (unsigned.status != 0, "signature" in unsigned.err) == (True, True), unsigned
    assert toft("key", "root", "sign", root, "--key", key).status == 0
    assert "trust root 1: 1 of 1 keys must sign" in central.text("root", "add", root, *of)
    assert "central.root_order" in central("root", "add", root, *of, "--json").err
    assert public["key_id"] in central.text("root", "list", *of)
    refused = central("rollout", "create", document, *of, "--json")
    problem = json.loads(refused.err)
    assert problem["error"]["code"] == "central.unsigned"
    # What it says to do next is done, word by word.
    hinted = problem["error"]["hint"].replace("DIR writes what to sign", into).split()
    assert hinted[:2] == ["toft", "central"]
    assert "not signed" in central.text(*hinted[2:], *of)
    assert len(list(Path(into).iterdir())) == 1
    [payload] = central("document", "payloads", document, str(number), "--into", into, *of, "--json").value
    file = f"{into}/{payload['sha256']}.json"
    assert toft("key", "sign", file, "--key", key).status == 0
    stranger = central("document", "sign", "0" * 64, f"{file}.sigs", *of)
    assert stranger.status != 0
    signed = central.text("document", "sign", payload["sha256"], f"{file}.sigs", *of)
    assert f"signed by {public['key_id']}: enough" in signed
    assert "not signed" not in central.text("document", "payloads", document, str(number), *of)
    ended = central("rollout", "create", document, "--wave", "100:0s", "--watch", "--json", *of)
    assert ended.status == 0, ended


def test_pages_and_tokens_of_a_central_are_reached_as_those_of_a_node(central: Commands) -> None:
    opened = central.at_large("open")
    assert (opened.status, opened.err) == (0, "works once, within 60 s\n"), opened
    assert opened.out.startswith(f"{central.central.url}/sign-in/")
    made = central.at_large("token", "create", "auditor", "--scope", "audit:read", "--json").value
    listed = central.at_large("token", "list", "--json").value
    assert made["id"] in [each["id"] for each in listed]
    why = central.at_large("why-denied", "admin", "fleet", "--token", "auditor")
    assert "may not" in why.out, why
    assert central.at_large("token", "revoke", "auditor").status == 0


def test_what_only_a_node_does_says_that_a_central_is_none(central: Commands) -> None:
    for words in (("status",), ("job", "list"), ("config", "show")):
        asked = central.at_large(*words)
        assert asked.status == 1, asked
        assert f"error: {central.central.url} answered 404, and not as a toft node does" in asked.err
        assert "a central is asked by toft central" in asked.err
