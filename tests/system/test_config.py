"""A document on one node: applied by a command, loaded by the daemon, proven by living, and taken back."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import nodes
from tests.command_line import CommandLine, keep_token
from tests.daemons import Daemon, running
from tests.waiting import eventually

from toft.client.place import Place
from toft.managed import document, generations
from toft.managed.phases import Severity


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with running(tmp_path / "home", tmp_path) as made:
        yield made


def lanes(daemon: Daemon) -> int | None:
    """What it runs with; None while it starts again."""
    asked = daemon.toft("status", "--json")
    return json.loads(asked.out).get("lanes") if asked.out else None


def write(directory: Path, count: int, settle_s: float = 0.1, name: str = "node") -> str:
    path = directory / f"{name}.toml"
    path.write_text(f"schema_version = 1\n[settings]\nlanes = {count}\n[health]\nsettle_s = {settle_s}\n")
    return str(path)


def test_a_document_is_applied_proven_and_taken_back(daemon: Daemon, tmp_path: Path) -> None:
    toft, pid = daemon.toft, daemon.pid
    assert '+    "lanes": 3' in toft("config", "diff", write(tmp_path, 3)).out, (
        "the first one, before it is there"
    )
    first = toft("config", "apply", write(tmp_path, 3), "--wait", "60", "--json").value
    assert (first["action"], first["daemon"], first["outcome"]) == ("applied", "restarts", "confirmed")
    assert daemon.status()["lanes"] == 3
    assert daemon.pid == pid, "it became the next one, so that whoever started it keeps it"
    again = toft("config", "apply", write(tmp_path, 3), "--json").value
    assert again["action"] == "noop_same_etag"

    second = toft("config", "apply", write(tmp_path, 2, settle_s=800), "--json").value
    eventually(lambda: lanes(daemon) == 2, within_s=30)
    shown = toft("config", "show", "--json").value
    assert shown["active"] == second["etag"]
    assert shown["confirmed"] == first["etag"]
    assert shown["phase"] == "staged"
    assert 0 < shown["trial"]["remaining_s"] <= 900
    refused = toft("config", "apply", write(tmp_path, 1), "--json").error
    assert refused["code"] == "generation.probation_active"
    assert '-      "lanes": 3' not in toft("config", "diff").out
    assert '-    "lanes": 3' in toft("config", "diff").out

    back = toft("config", "rollback", "--reason", "too few \x1b[31mlanes", "--json").value
    assert back["active"] == first["etag"]
    eventually(lambda: lanes(daemon) == 3, within_s=30)
    assert back["rolled_back"]["detail"] == "too few \x1b[31mlanes"
    assert "\x1b" not in toft("config", "show").out
    assert toft("config", "diff").out.startswith("--- held back\n+++ running\n")
    events = [each["event"] for each in toft("config", "history", "--json").value]
    assert events == ["staged", "applied", "staged", "rolled_back"]
    assert toft("config", "show", "--json").value["pinned"]
    assert toft("config", "unpin").status == 0


def test_a_daemon_that_is_killed_on_trial_again_and_again_comes_back_with_the_one_before(
    daemon: Daemon, tmp_path: Path
) -> None:
    toft = daemon.toft
    good = toft("config", "apply", write(tmp_path, 3), "--wait", "60", "--json").value["etag"]
    toft("config", "apply", write(tmp_path, 4, settle_s=800), "--json")
    eventually(lambda: lanes(daemon) == 4, within_s=30)
    daemon.kill()
    for _ in range(4):  # the guard counts before anything is loaded; what it starts need not get far
        guard = [sys.executable, "-P", "-m", "toft.managed.guard", "--home", str(toft.home)]
        subprocess.run([*guard, "--", "/bin/false"], check=False)
    assert toft("config", "show", "--json").value["trial"]["boots"] == 5
    assert toft("up", "--detach").status == 0
    shown = toft("config", "show", "--json").value
    assert shown["active"] == good
    assert shown["rolled_back"]["reason"] == "crash_loop"
    assert daemon.status()["lanes"] == 3


def test_what_is_wrong_or_not_served_changes_nothing(tmp_path: Path) -> None:
    toft = CommandLine(tmp_path / "home", tmp_path)
    toft("config", "apply", write(tmp_path, 3), "--json")
    before = toft("config", "show", "--json").value
    bad = tmp_path / "bad.yaml"
    bad.write_text("schema_version: 1\nsettings: {lanes: many}\n")
    error = toft("config", "apply", str(bad), "--json").error
    assert error["code"] == "document.invalid"
    assert error["details"]["problems"][0]["path"] == "settings.lanes"
    error = toft("config", "apply", write(tmp_path, 3, settle_s=900, name="slow"), "--json").error
    assert error["details"]["problems"][0]["path"] == "health.settle_s", "it could never be confirmed"
    bad.write_text("schema_version: 1\nroutes: {web: {}}\n")
    error = toft("config", "apply", str(bad), "--json").error
    assert "not served" in error["message"]
    after = toft("config", "show", "--json").value
    assert {**after, "trial": None} == {**before, "trial": None}
    assert toft("config", "apply", str(tmp_path / "none.toml"), "--json").error["code"] == "request.document"


def test_without_a_daemon_the_next_one_tries_it(tmp_path: Path) -> None:
    toft = CommandLine(tmp_path / "home", tmp_path)
    empty = toft("config", "show", "--json").value
    assert empty["active"] is None
    assert not (tmp_path / "home" / "managed").exists(), "looking makes nothing"
    error = toft("config", "rollback", "--json").error
    assert error["code"] == "generation.nowhere_to_go"
    path = tmp_path / "small.toml"
    path.write_text(
        "schema_version = 1\n[settings]\njobs_pending_limit = 1\nlanes = 5\n[health]\nsettle_s = 0.1\n"
    )
    waited = toft("config", "apply", str(path), "--wait", "600", "--json")
    assert (waited.status, json.loads(waited.out)["daemon"]) == (1, None), "nobody tries it, so nobody waits"
    nodes.register(toft.home)
    assert toft("job", "submit", "misbehaving.echo").status == 0
    error = toft("job", "submit", "misbehaving.echo", "--json").error
    assert error["code"] == "job.queue_full", "it counts for whoever opens this home"
    with running(tmp_path / "home", tmp_path) as daemon:
        assert daemon.status()["lanes"] == 5
        eventually(
            lambda: toft("config", "show", "--json").value["confirmed"] == json.loads(waited.out)["etag"],
            within_s=30,
        )
        os.kill(daemon.pid, signal.SIGHUP)
        assert daemon.status()["state"] == "ready"


def test_how_a_node_stands_is_the_exit_status_of_the_process(tmp_path: Path) -> None:
    toft = CommandLine(tmp_path / "home", tmp_path)
    assert toft("status").status == 0, "there is nothing to tell of"
    engine = generations.Generations.at(toft.home)
    for count in (2, 3):
        engine.boot(f"before-{count}")
        data = document.encode({"schema_version": 1, "settings": {"lanes": count}})
        engine.commit(generations.offer(data), "another")
        assert engine.confirm(engine.boot(f"after-{count}"))
    good = toft("status")
    assert (good.status, good.err) == (0, "")
    assert "stands      healthy" in good.out

    engine.revert("health_failed", Severity.PERMANENT, "red \x1b[2J")
    back = toft("status", "--json")
    assert (back.status, json.loads(back.out)["config"]["standing"]) == (4, "rolled_back")
    back = toft("status")
    assert back.status == 4
    assert "toft config ack" in back.err
    assert "\x1b" not in back.out + back.err
    assert toft("config", "ack").status == 0
    assert toft("status").status == 0

    damaged = toft.home / "managed" / "enrollment.json"
    damaged.write_text("{")
    amiss = toft("status")
    assert amiss.status == 1
    assert "enrollment.json is damaged" in amiss.err
    damaged.unlink()
    joined = toft("join", "https://central.invalid", "-", "--no-daemon", stdin=f"jt_12345678_{'a' * 43}")
    assert joined.status == 0, joined.err
    waits = toft("status")
    assert waits.status == 3
    assert "stands      not enrolled" in waits.out


def over_its_url(daemon: Daemon, directory: Path, shown: dict[str, Any]) -> None:
    """What a person does from another machine after a way back; the same answers, the same exit statuses."""
    made = daemon.toft("token", "create", "elsewhere", "--scope", "admin", "--json").value
    token = keep_token(directory / "token", made["token"])

    def reached() -> CommandLine:
        """Where it listens now: a port that it chooses is another one after a restart."""
        url = str(daemon.status()["listen"])
        return CommandLine(directory / "unused", directory, {"TOFT_URL": url, "TOFT_TOKEN_FILE": token})

    elsewhere = reached()
    assert elsewhere("status").status == 4
    assert elsewhere("config", "show", "--json").value["rolled_back"] == shown["rolled_back"]
    assert elsewhere("config", "explain", "lanes", "--json").value["won"] == "document"
    assert '+    "lanes": 4' in elsewhere("config", "diff", "--against", "lkg").out.splitlines()
    assert elsewhere("config", "drift").status == 0
    assert elsewhere("config", "show", "--effective", "--json").value["body"]["settings"]["lanes"] == 4
    served = elsewhere("config", "diff", "--against", "served")
    assert served.status != 0
    assert "asks no central" in served.err
    assert elsewhere("config", "pin", "--reason", "looking").status == 0
    assert daemon.toft("config", "show", "--json").value["pinned"] == "looking"
    assert elsewhere("config", "unpin").status == 0
    assert elsewhere("config", "ack").status == 0
    assert elsewhere("status").status == 1, "a gate is red, and nothing is on trial that it was red before"

    applied = elsewhere("config", "apply", write(directory, 5, name="far"), "--json").value
    assert (applied["action"], applied["daemon"]) == ("applied", "restarts")
    eventually(lambda: lanes(daemon) == 5, within_s=30)
    eventually(lambda: daemon.toft("config", "show", "--json").value["confirmed"] == applied["etag"])
    back = reached()("config", "rollback", "--reason", "from afar", "--json").value
    assert (back["daemon"], back["rolled_back"]["detail"]) == ("restarts", "from afar")
    eventually(lambda: lanes(daemon) == 4, within_s=30)
    history = reached()("config", "history")
    assert (history.status, "from afar" in history.out.splitlines()[-1]) == (0, True), history
    assert not elsewhere.home.exists(), "nothing of it is here"


def gated(directory: Path, count: int, settle_s: float, **gates: str) -> str:
    path = directory / f"gated-{count}.toml"
    declared = "".join(f'[health.gates.{name}]\nkind = "exec"\ncommand = "{name}"\n' for name in gates)
    path.write_text(
        f"schema_version = 1\n[settings]\nlanes = {count}\n[health]\nsettle_s = {settle_s}\n{declared}"
    )
    return str(path)


def test_a_gate_that_turns_red_takes_a_document_back_and_one_that_was_red_does_not(tmp_path: Path) -> None:
    home = tmp_path / "home"
    listed = [
        f"lanes=/bin/grep -q '\"lanes\":[34]' {home}/managed/active/document",
        "never=/bin/false",
    ]
    with running(home, tmp_path, gate_commands=listed, listen="127.0.0.1:0") as daemon:
        toft = daemon.toft
        good = gated(tmp_path, 3, 0.2, lanes="", never="")
        first = toft("config", "apply", good, "--wait", "60", "--json").value
        again = toft("config", "apply", gated(tmp_path, 4, 0.2, lanes="", never=""), "--wait", "60", "--json")
        assert (first["outcome"], again.value["outcome"]) == ("confirmed", "confirmed")

        bad = toft("config", "apply", gated(tmp_path, 5, 0.2, lanes="", never=""), "--wait", "60", "--json")
        assert json.loads(bad.out)["outcome"] == "rolled_back: health_failed"
        eventually(lambda: lanes(daemon) == 4, within_s=30)
        shown = toft("config", "show", "--json").value
        assert shown["active"] == again.value["etag"]
        assert shown["rolled_back"]["detail"] == "lanes: ended with 1"
        assert [(each["reason"], each["severity"]) for each in shown["bad"]] == [
            ("health_failed", "permanent")
        ]
        over_its_url(daemon, tmp_path, shown)

        refused = toft("config", "apply", gated(tmp_path, 6, 0.2, other=""), "--json").error
        assert "gate_commands" in refused["details"]["problems"][0]["message"]


def test_an_end_wins_over_a_restart_that_drains(daemon: Daemon, tmp_path: Path) -> None:
    nodes.register(daemon.toft.home)
    job = {"plugin": "misbehaving", "action": "work", "arguments": {"seconds": 4}}
    id = daemon.request("POST", "/v1/jobs", job).value["id"]
    eventually(lambda: daemon.request("GET", f"/v1/jobs/{id}").value["state"] == "running", within_s=20)
    daemon.toft("config", "apply", write(tmp_path, 3))
    eventually(lambda: daemon.request("GET", "/v1/status").value["state"] == "draining", within_s=10)
    assert daemon.toft("down", "--json").value["state"] == "stopped"
    assert not daemon.place.is_held(), "it did not become the next one"
    assert daemon.toft("status", "--json").value["state"] == "stopped"


def test_the_next_one_reads_its_settings_where_this_one_did_and_serves_its_clients(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("jobs_pending_limit = 7\n")
    nodes.register(tmp_path / "home")
    with running(tmp_path / "home", tmp_path, {"TOFT_SETTINGS": "mine.toml"}) as daemon:
        path = tmp_path / "node.toml"
        path.write_text(
            "schema_version = 1\n[settings]\nlog_files = 5\ndrain_s = 100\n[health]\nsettle_s = 0.1\n"
        )
        os.kill(daemon.pid, signal.SIGHUP)
        assert daemon.toft("config", "apply", str(path), "--wait", "60").status == 0
        jobs = [{"plugin": "misbehaving", "action": "echo", "delay_s": 60} for _ in range(8)]
        refused = daemon.request("POST", "/v1/jobs", {**jobs[0], "arguments": {}})
        assert refused.status == 201
        full = [daemon.request("POST", "/v1/jobs", each).status for each in jobs]
        assert full[-1] == 503, "the file that was named as a relative path still counts"
        # A program with settings of its own uses it all the same: what the document names is nobody's.
        done = daemon.toft("run", "misbehaving.where", "--json")
        assert done.status == 0, done.err
        assert daemon.request("GET", "/v1/instances").value[0]["instance"] == "misbehaving"
        started = time.monotonic()
        assert daemon.toft("down", "--now").status == 0
        assert time.monotonic() - started < 60
        assert daemon.toft("up", "--detach").status == 0


def test_a_daemon_that_is_told_while_it_starts_is_there_all_the_same(tmp_path: Path) -> None:
    toft = CommandLine(tmp_path / "home", tmp_path)
    starting = toft.start("up")
    place = Place(toft.home)
    record = eventually(place.find, within_s=20)
    for _ in range(50):
        os.kill(record.pid, signal.SIGHUP)
        time.sleep(0.01)
    try:
        eventually(lambda: toft("status", "--json").value["state"] == "ready", within_s=30)
    finally:
        starting.terminate()
        starting.communicate(timeout=30)
    assert starting.returncode == 0
