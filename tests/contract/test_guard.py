"""The guard as a process: it needs nothing but Python, and goes back when the daemon keeps dying."""

import fcntl
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.waiting import eventually

import toft
from toft.managed import generations, guard, moments
from toft.managed.generations import Generations

SOURCES = Path(toft.__file__).parents[1]
BARE = [sys.executable, "-I", "-S", "-c"]
"""An interpreter without any package, ours included: a broken environment."""
START = f"""
import sys; sys.path.insert(0, {str(SOURCES)!r})
from toft.managed import guard; sys.exit(guard.main())
"""

STAYS_WITH_THE_FIRST = """
import os, pathlib, signal, sys
home = pathlib.Path(sys.argv[1])
with (home / 'lives').open('a') as lives:
    lives.write(os.readlink(home / 'managed' / 'active') + '\\n')
if b'"revision": 2' in (home / 'managed' / 'active' / 'document').read_bytes():
    import nothing_like_it
signal.pause()
"""
ENDS_IN_EVERY_WAY = """
import os, pathlib, signal, sys
path = pathlib.Path(sys.argv[1]) / 'lives'
with path.open('a') as lives:
    lives.write(os.environ['TOFT_BOOT'] + os.environ['TOFT_SUPERVISED'] + '\\n')
count = len(path.read_text().split())
if count == 2:
    os.kill(os.getpid(), signal.SIGKILL)
if count < 4:
    sys.exit(75 if count == 1 else 0)
signal.pause()
"""


def supervised(home: Path, program: str) -> list[str]:
    path = home / "daemon.py"
    path.write_text(program)
    start = [*BARE, START, "--home", str(home), "--supervise", "--"]
    return [*start, sys.executable, str(path), str(home)]


def offer(number: int) -> generations.Offer:
    return generations.offer(json.dumps({"schema_version": 1, "revision": number}).encode(), revision=number)


@pytest.fixture
def engine(tmp_path: Path) -> Generations:
    made = Generations.at(tmp_path)
    made.commit(offer(1), made.boot("first").nonce)
    assert made.confirm(made.boot("second"))
    return made


def run(home: Path, *arguments: str, timeout_s: float = 30) -> subprocess.CompletedProcess[str]:
    command = [*BARE, START, "--home", str(home), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)


def test_it_needs_no_package_and_tells_the_daemon_which_boot_it_is(
    engine: Generations, tmp_path: Path
) -> None:
    tells = "import os; print(os.environ['TOFT_BOOT'])"
    done = run(tmp_path, "--", sys.executable, "-c", tells)
    assert done.returncode == 0, done.stderr
    nonce = done.stdout.strip()
    adopted = engine.adopt(nonce)
    assert adopted
    assert adopted.etag == offer(1).meta.etag


def test_while_a_daemon_runs_it_decides_nothing(engine: Generations, tmp_path: Path) -> None:
    before = engine.read()
    busy = tmp_path / "run" / "daemon.lock"
    busy.parent.mkdir()
    with busy.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        tells = "import os; print('TOFT_BOOT' in os.environ)"
        done = run(tmp_path, "--", sys.executable, "-c", tells)
    assert done.stdout.strip() == "False"
    assert engine.read() == before


def test_a_generation_under_which_the_daemon_keeps_dying_is_left(engine: Generations, tmp_path: Path) -> None:
    engine.commit(offer(2), "cli")
    command = supervised(tmp_path, STAYS_WITH_THE_FIRST)
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: engine.read().state.bad != () and _lives(tmp_path)[-1] == "slot-b", within_s=60)
        assert _lives(tmp_path) == ["slot-a"] * 5 + ["slot-b"]
        [bad] = engine.read().state.bad
        assert (bad.etag, bad.reason) == (offer(2).meta.etag, "crash_loop")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 128 + signal.SIGTERM


def test_it_starts_a_command_again_however_that_ends(engine: Generations, tmp_path: Path) -> None:
    command = supervised(tmp_path, ENDS_IN_EVERY_WAY)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: len(_lives(tmp_path)) == 4, within_s=30)
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert [line for line in said.splitlines() if "ended" in line] == [
        f"guard: ended with {status}" for status in (guard.RESTART, -signal.SIGKILL, 0, -signal.SIGTERM)
    ]
    assert len(set(_lives(tmp_path))) == 4, "each life is a boot of its own"


def test_a_command_that_is_not_there_does_not_end_the_supervisor(engine: Generations, tmp_path: Path) -> None:
    missing, before = tmp_path / "interpreter", engine.read().state.booted
    command = [*BARE, START, "--home", str(tmp_path), "--supervise", "--", str(missing)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        eventually(lambda: engine.read().state.booted != before, within_s=20)
        missing.write_text("#!/bin/sh\necho there >> " + str(tmp_path / "lives") + "; exec sleep 60\n")
        missing.chmod(0o755)
        eventually(lambda: _lives(tmp_path) == ["there"], within_s=30)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def test_a_disk_that_takes_nothing_does_not_keep_the_daemon_from_starting(tmp_path: Path) -> None:
    home = tmp_path / "file"
    home.write_text("not a directory")
    done = run(home, "--", sys.executable, "-c", "print('started')")
    assert done.stdout == "started\n"
    assert "cannot decide" in done.stderr


def test_the_moment_is_of_this_machine() -> None:
    first, second = moments.read(), moments.read()
    assert first.machine == second.machine != ""
    assert 0 <= second.since(first, most=60) < 5


def _lives(home: Path) -> list[str]:
    path = home / "lives"
    return path.read_text().split() if path.exists() else []
