"""What a daemon shares between its clients, what it does not, and what it says when it is stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import daemons, nodes
from tests.daemons import Daemon
from tests.waiting import eventually

import toft
from toft.kernel import errors


@pytest.fixture
def daemon(toft_home: Path, tmp_path: Path) -> Iterator[Daemon]:
    nodes.register(toft_home)
    with daemons.running(toft_home, tmp_path) as running:
        yield running


def test_settings_of_the_moment_are_private_and_end_with_their_session(daemon: Daemon) -> None:
    with toft.connect() as one, toft.connect() as other:
        shared = other.load("misbehaving")
        mine = one.load("misbehaving", {"label": "mine"}, concurrency=2)
        assert (mine.id, mine.call("where")["label"]) == ("misbehaving", "mine")
        assert (shared.id, shared.call("where")["label"]) == ("misbehaving", "plain")
        assert one.instance("misbehaving").call("where")["label"] == "mine"
        pid = mine.stats()["pid"]
        assert pid != shared.stats()["pid"]
        with pytest.raises(errors.ConflictError):
            one.load("misbehaving", {"label": "another"})
        one.close()
        eventually(lambda: not Path(f"/proc/{pid}").exists())
        assert shared.call("echo", value=1) == 1
        assert other.config("misbehaving")["label"] == "plain"


def test_an_instance_that_another_one_uses_stays_for_it(daemon: Daemon) -> None:
    with toft.connect() as one, toft.connect() as other:
        with one.load("misbehaving"):
            theirs = other.load("misbehaving")
            pid = theirs.stats()["pid"]
        assert theirs.call("where")["label"] == "plain"
        assert theirs.stats()["pid"] == pid
        theirs.unload()
        assert other.instances() == []


def test_a_command_meets_what_is_remembered_now_and_not_what_was_loaded_then(daemon: Daemon) -> None:
    toft_ = daemon.toft
    assert '"plain"' in toft_("run", "misbehaving.where", "--json").out
    toft_("plugin", "config", "misbehaving", "label=changed")
    assert '"changed"' in toft_("run", "misbehaving.where", "--json").out
    with toft.connect() as node:
        before = node.load("misbehaving").stats()["pid"]
        with toft.connect(embedded=True) as elsewhere:
            elsewhere.set_options("misbehaving", {"concurrency": 3})
        now = node.load("misbehaving")
    with toft.connect() as node:
        now = node.load("misbehaving")
        assert (now.options.concurrency, now.stats()["pid"] != before) == (3, True)
        toft_("secret", "set", "misbehaving", "NAME", "--value", "secret-value-1")
        assert node.load("misbehaving").stats()["pid"] == now.stats()["pid"]  # it declares none
        toft_("plugin", "disable", "misbehaving")
        assert toft_("run", "misbehaving.echo", "--json").error["code"] == "instance.disabled"


def test_runs_of_one_command_share_the_worker_and_special_ones_do_not(daemon: Daemon) -> None:
    granted = daemon.toft.directory / "granted"
    granted.mkdir()
    for more, label in (((), "plain"), (("--config", "label=x"), "x"), (("--writable", "granted"), "plain")):
        for _ in range(2):
            told = daemon.toft("run", "misbehaving.where", "--json", *more).value
            assert (told["instance"], told["result"]["label"]) == ("misbehaving", label)
    # One worker for the two plain runs, one for each of the others.
    assert daemon.log().count("new='ready'") == 5
    assert [each["instance"] for each in daemon.status()["instances"]] == ["misbehaving"]
    relative = daemon.toft("run", "misbehaving.write_file", "--writable", "granted", f"path={granted}/file")
    assert relative.status == 0, relative.err
    assert (granted / "file").read_text() == "was here\n"


def test_a_program_with_other_settings_gets_a_node_of_its_own(daemon: Daemon) -> None:
    with toft.connect(cancel_grace_s=0.123) as node:
        assert type(node).__name__ == "NodeBesideDaemon"
        plugin = node.load("misbehaving")
        pid = plugin.stats()["pid"]
        assert daemon.status()["instances"] == []
        # Only one process runs the jobs of a home.
        job = node.jobs.submit("misbehaving", {"value": 5}, action="echo")
        assert job.result(timeout_s=30) == 5
        assert daemon.status()["instances"] != []
    assert not Path(f"/proc/{pid}").exists()
    with toft.connect() as node:
        assert type(node).__name__ == "DaemonNode"
    project = daemon.toft.directory / ".toft" / "manifests"
    project.mkdir(parents=True)
    code = "import toft\nwith toft.connect() as node: print(type(node).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=daemon.toft.directory, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "NodeBesideDaemon\n", done.stderr


def test_a_stop_gives_running_calls_their_time_and_refuses_new_ones(daemon: Daemon) -> None:
    with toft.connect() as node:
        plugin = node.load("misbehaving")
        running = plugin.start("work", seconds=1.0)
        os.kill(daemon.pid, signal.SIGTERM)
        eventually(lambda: "event='draining'" in daemon.log())
        with pytest.raises(errors.UnavailableError) as refused:
            plugin.call("echo", value=1)
        assert refused.value.code == "daemon.draining"
        assert running.result(timeout_s=30) >= 1.0
        eventually(lambda: not daemon.place.is_held(), 20)
        with pytest.raises(errors.UnavailableError) as gone:
            plugin.call("echo", value=1)
        assert gone.value.code == "daemon.gone"


def test_what_has_not_ended_by_the_deadline_is_interrupted_and_told(toft_home: Path, tmp_path: Path) -> None:
    nodes.register(toft_home)
    with daemons.running(toft_home, tmp_path, drain_s=0.3) as daemon:
        # drain_s is the daemon's own, and no reason for a node of one's own.
        with toft.connect() as node:
            assert not node.is_embedded
            call = node.load("misbehaving").start("work", seconds=60)
            job = node.jobs.submit("misbehaving", {"seconds": 60}, action="work")
            eventually(lambda: job.refresh().state == "running", 20)
            assert daemon.toft("down", "--json").status == 0
            with pytest.raises(errors.UnavailableError) as interrupted:
                call.result(timeout_s=20)
            assert interrupted.value.code == "daemon.stopped"
        assert daemon.toft("up", "--detach").status == 0
        told = daemon.toft("job", "show", job.id, "--json").value
        assert (told["state"], told["attempt"]) == ("interrupted", 1)
        assert daemon.toft("why", job.id, "--json").value


def test_down_now_does_not_wait(daemon: Daemon) -> None:
    with toft.connect() as node:
        call = node.load("misbehaving").start("work", seconds=60)
        assert daemon.toft("down", "--now", "--timeout", "15", "--json").status == 0
        with pytest.raises(errors.UnavailableError):
            call.result(timeout_s=5)


def test_jobs_go_on_after_a_kill_when_the_daemon_is_started_again(daemon: Daemon) -> None:
    with toft.connect() as node:
        once = node.jobs.submit("misbehaving", {"seconds": 60}, action="work")
        again = node.jobs.submit("misbehaving", {"seconds": 0.5}, action="work", idempotent=True)
        waiting = node.jobs.submit("misbehaving", {"value": [1, 2]}, action="echo", after=[again.id])
        eventually(lambda: once.refresh().state == "running", 20)
        eventually(lambda: again.refresh().state != "pending", 20)
        daemon.kill()
    assert daemon.toft("up", "--detach").status == 0
    with toft.connect() as node:
        assert node.jobs.get(once.id).state == "interrupted"
        assert node.jobs.wait(waiting.id, 30).state == "completed"
        assert node.jobs.result(waiting.id) == [1, 2]
        assert node.jobs.retry(once.id).state in ("pending", "running")
        assert node.jobs.cancel(once.id, grace_s=0.1).id == once.id
        assert node.jobs.wait(once.id, 30).state == "cancelled"


def test_exact_values_and_large_results_of_jobs_cross(daemon: Daemon) -> None:
    with toft.connect() as node:
        value = {(1, "a"): {2, 3}, "bytes": b"\0\1", "path": Path("/x"), "nan": [float("inf")]}
        job = node.jobs.submit("misbehaving", {"value": value}, action="echo")
        assert job.result(timeout_s=30) == value
        large = node.jobs.submit("misbehaving", {"size_bytes": 5_000_000}, action="huge")
        assert len(large.result(timeout_s=30)) == 5_000_000
        assert large.to_dict()["result"]["size_bytes"] >= 5_000_000
        failed = node.jobs.submit("misbehaving", {"kind": "TransientError"}, action="raise_error")
        with pytest.raises(Exception, match="as told") as caught:
            failed.result(timeout_s=30)
        assert type(caught.value).__name__ == "TransientError"
        with pytest.raises(errors.NotFoundError):
            node.jobs.get("job_none")


def shape(value: Any) -> Any:
    """Return what a value is made of."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in value.items()}
    return [shape(each) for each in value] if isinstance(value, (list, tuple)) else type(value)


def test_what_is_told_of_jobs_has_the_same_types_there_and_here(daemon: Daemon) -> None:
    with toft.connect() as there, toft.connect(embedded=True, runs_jobs=False) as here:
        job = there.jobs.submit("misbehaving", {"kind": "TransientError"}, action="raise_error", retry=2)
        step = {"plugin": "misbehaving", "action": "echo", "arguments": {"value": 1}}
        sequence = there.jobs.wait_sequence(there.jobs.submit_sequence([step]).id, 30)
        assert job.wait(30).state == "failed"
        far, near = there.jobs.attempts(job.id), here.jobs.attempts(job.id)
        assert [type(each).__name__ for each in far] == ["Attempt", "Attempt"]
        for one, other in zip(
            (*far, *there.jobs.events(job=job.id)), (*near, *here.jobs.events(job=job.id)), strict=True
        ):
            fields = [{name: getattr(each, name) for name in each.__slots__} for each in (one, other)]
            assert shape(fields[0]) == shape(fields[1])
            assert one.to_dict() == other.to_dict()
        for mine, told in (
            (here.jobs.get(job.id).record, job.record),
            (here.jobs.sequence(sequence.id), sequence),
        ):
            assert told.to_dict() == mine.to_dict()
            for name in told.to_dict():
                assert shape(getattr(told, name)) == shape(getattr(mine, name)), name
        assert sequence.is_finished


class Reader:
    """Reads a stream of events as a browser does."""

    def __init__(self, daemon: Daemon, query: str = "", headers: str = "") -> None:
        self.sock = daemon.connect()
        head = f"GET /v1/events/stream{query} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n"
        self.sock.sendall(head.encode())
        self.came = b""

    def until(self, word: bytes) -> list[dict[str, Any]]:
        """Read until a word came, and return the events so far."""
        while word not in self.came:
            data = self.sock.recv(65536)
            assert data, self.came[-500:]
            self.came += data
        lines = self.came.replace(b"\r\n", b"\n").split(b"\n")
        return [json.loads(each[6:]) for each in lines if each.startswith(b"data: ") and each.endswith(b"}")]


def test_a_browser_that_reconnects_misses_nothing_not_even_over_a_restart(daemon: Daemon) -> None:
    reader = Reader(daemon)
    reader.until(b": events")
    first = daemon.toft("job", "submit", "misbehaving.echo", "--wait", "--json").value["id"]
    seen = reader.until(b'"to":"completed"')
    assert {each["job"] for each in seen} == {first}
    assert f"id: {seen[-1]['cursor']}\nevent: state\n".encode() in reader.came.replace(b"\r\n", b"\n")
    reader.sock.close()
    second = daemon.toft("job", "submit", "misbehaving.echo", "--wait", "--json").value["id"]
    daemon.toft("down")
    daemon.toft("up", "--detach")
    again = Reader(daemon, headers=f"Last-Event-ID: {seen[-1]['cursor']}\r\n")
    missed = again.until(b'"to":"completed"')
    assert missed[0]["type"] == "submitted"
    assert {each["job"] for each in missed} == {second}
    again.sock.close()


def test_readers_that_stop_reading_hold_up_nobody(daemon: Daemon) -> None:
    readers = [Reader(daemon) for _ in range(300)]
    for each in readers:
        each.until(b": events")
    with toft.connect() as node:
        # None of the readers reads a byte while these run.
        jobs = node.jobs.submit_many(
            [{"plugin": "misbehaving", "action": "echo", "arguments": {"value": n}} for n in range(200)]
        )
        assert jobs[-1].wait(60).state == "completed"
        eventually(lambda: node.jobs.status()["queue"]["pending"] == 0, 30)
        assert daemon.status()["state"] == "ready"
    last = readers[-1].until(f'"job":"{jobs[-1].id}"'.encode())
    assert last[0]["type"] == "submitted"
    for each in readers:
        each.sock.close()


def test_no_secret_is_in_the_log(toft_home: Path, tmp_path: Path) -> None:
    nodes.register(toft_home, worker_env=[{"name": "API_KEY", "secret": True, "required": False}])
    with daemons.running(toft_home, tmp_path) as daemon:
        daemon.toft("secret", "set", "misbehaving", "API_KEY", "--value", "hunter2-secret")
        with toft.connect() as node:
            plugin = node.load("misbehaving")
            with pytest.raises(errors.NotFoundError):
                node.load("hunter2-secret")
            assert plugin.call("look")["environ"]["API_KEY"] == "hunter2-secret"
        assert "hunter2" not in daemon.log()
