"""Kill -9 of the daemon as a person sees it: nothing that was acknowledged is lost or done twice."""

import contextlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from tests import daemons, nodes
from tests.command_line import CommandLine
from tests.daemons import Daemon
from tests.leaks import leaks_checked as leaks_checked
from tests.waiting import eventually

from toft.host import process_tree

pytestmark = pytest.mark.usefixtures("leaks_checked")
NAME = "misbehaving"
LONG = ("do=work", "seconds=60")


@pytest.fixture
def toft(toft_home: Path, tmp_path: Path) -> CommandLine:
    nodes.register(toft_home)
    found = CommandLine(toft_home, tmp_path)
    found.settings(lanes=2)
    return found


def submit(toft: CommandLine, *arguments: str) -> str:
    return str(toft("job", "submit", NAME, *arguments, "--json").value["id"])


def show(toft: CommandLine, job: str) -> dict[str, Any]:
    found: dict[str, Any] = toft("job", "show", job, "--json").value
    return found


def runs(toft: CommandLine, job: str) -> dict[str, Any]:
    return eventually(
        lambda: found if (found := show(toft, job))["state"] == "running" and found["progress"] else None, 30
    )


def kill_all(daemon: Daemon, *, everything: bool) -> None:
    """End the daemon without asking, alone or together with what it started; nothing of it may be left."""
    family = list(process_tree.descendants(daemon.pid))
    assert len(family) >= 2, "a keeper and a worker"
    # The daemon first: while it lives it sees its worker end, and rightly says that the job failed.
    daemon.kill()
    for each in family if everything else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(each.pid, signal.SIGKILL)
    eventually(lambda: not [each for each in family if process_tree.alive(each.pid)], 2)


@pytest.mark.parametrize("everything", [False, True], ids=["daemon", "everything"])
def test_a_restart_alone_brings_every_job_to_a_right_state(toft: CommandLine, everything: bool) -> None:
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: (toft("down", "--now"), daemons.reap()))
        assert toft("up", "--detach").status == 0
        daemon = Daemon(toft)
        done = submit(toft, "do=echo", "value=1")
        assert toft("job", "wait", done, "--timeout", "30").status == 0
        ran = submit(toft, *LONG)
        safe = submit(toft, *LONG, "--idempotent")
        for job in (ran, safe):
            runs(toft, job)
        waits = submit(toft, "do=echo", "value=2", "--priority", "-1")
        later = submit(toft, "do=echo", "value=3", "--after", waits)
        kill_all(daemon, everything=everything)
        assert toft("up", "--detach").status == 0
        interrupted = show(toft, ran)
        assert (interrupted["state"], interrupted["attempt"]) == ("interrupted", 1)
        assert toft("job", "wait", ran, "--json").status == 1
        assert runs(toft, safe)["attempt"] == 2
        assert toft("job", "wait", later, "--timeout", "30").status == 0
        before = show(toft, done)
        assert (before["state"], before["attempt"], before["result"]) == ("completed", 1, 1)
        told = [json.loads(line) for line in toft("job", "events", safe, "--json").out.splitlines()]
        assert [each["cursor"] for each in told] == sorted({each["cursor"] for each in told})
        assert [each["to"] for each in told if each["type"] == "state"] == [
            "running", "interrupted", "pending", "running"
        ]  # fmt: skip
        assert "the node ended" in toft("why", ran).out
        assert toft("job", "retry", ran).status == 0
        assert runs(toft, ran)["attempt"] == 2
        for job in (ran, safe):
            assert toft("job", "cancel", job).status == 0


def test_who_waits_for_a_job_hears_what_became_of_it_when_the_daemon_is_killed(toft: CommandLine) -> None:
    with daemons.running(toft.home, toft.directory, lanes=2) as daemon:
        job = submit(toft, *LONG)
        runs(toft, job)
        waiting = toft.start("job", "wait", job, "--json")
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.0)
        kill_all(daemon, everything=False)
        out, err = waiting.communicate(timeout=30)
        assert waiting.returncode == 1, (out, err)
        if out:  # it looked itself, and found what the next daemon would
            assert json.loads(out)["state"] == "interrupted"
        else:
            assert json.loads(err)["error"]["hint"]


def test_what_was_acknowledged_is_done_however_often_the_daemon_is_killed(toft: CommandLine) -> None:
    """Somebody submits without a pause, each time until it is answered; a key makes that safe."""
    acknowledged: dict[str, str] = {}
    stop = threading.Event()

    def go_on_submitting() -> None:
        number = 0
        while not stop.is_set():
            key = f"key-{number}"
            done = toft(
                *("job", "submit", NAME, "do=echo", f"value={number}", "--idempotent"),
                *("--idempotency-key", key, "--json"),
            )
            if done.status == 0:
                acknowledged[key] = json.loads(done.out)["id"]
                number += 1

    with contextlib.ExitStack() as stack:
        stack.callback(lambda: (toft("down", "--now"), daemons.reap()))
        assert toft("up", "--detach").status == 0
        user = threading.Thread(target=go_on_submitting)
        user.start()
        stack.callback(user.join)
        stack.callback(stop.set)
        for kills in range(1, 4):
            eventually(lambda kills=kills: len(acknowledged) >= 3 * kills, 60)
            Daemon(toft).kill()
            eventually(lambda: toft("up", "--detach").status == 0, 30)
        eventually(lambda: len(acknowledged) >= 12, 60)
        stop.set()
        user.join()
        assert len(set(acknowledged.values())) == len(acknowledged)
        for key, job in acknowledged.items():
            assert toft("job", "wait", job, "--timeout", "30").status == 0, job
            assert show(toft, job)["result"] == int(key[4:])
        everything = toft("job", "list", "--json", "--limit", "1000").value
        assert len(everything) - len(acknowledged) in (0, 1), "one may have been stored and not answered"


def test_an_orderly_end_lets_what_runs_end_and_interrupts_what_does_not(toft: CommandLine) -> None:
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: (toft("down", "--now"), daemons.reap()))
        toft.settings(lanes=2, drain_s=6.0)
        assert toft("up", "--detach").status == 0
        long = submit(toft, *LONG)
        runs(toft, long)
        short = submit(toft, "do=work", "seconds=4")
        eventually(lambda: show(toft, short)["state"] != "pending", 30)
        waits = submit(toft, "do=echo", "value=2")
        assert toft("down").status == 0
        daemons.reap()
        assert toft("up", "--detach").status == 0
        assert show(toft, short)["state"] == "completed"
        assert show(toft, long)["state"] == "interrupted"
        assert toft("job", "wait", waits, "--timeout", "30").status == 0
