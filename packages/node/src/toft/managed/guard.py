"""Decides which generation counts, then becomes the daemon.

`python -m toft.managed.guard --home DIR -- COMMAND`, standard library only, and nothing of any generation:
when what a generation brings is broken, this still goes back. With `--supervise` it stays and starts the
command again, whenever and however that ends.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from toft.kernel import errors
from toft.managed import generations

BOOT = "TOFT_BOOT"
"""The variable that tells the daemon which boot it is the process of."""
NOTES = "TOFT_BOOT_NOTES"
"""The variable with what the guard found and did, as a list in JSON, for the daemon's log."""
SUPERVISED = "TOFT_SUPERVISED"
"""The variable that tells it that whoever started it will start it again."""
RESTART = 75
"""The exit status of a daemon that wants to be started again, with another generation."""
_LONGEST_PAUSE_S = 30.0
_HEALTHY_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Decide, then run the command."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "--" not in given:
        sys.stderr.write("usage: python -m toft.managed.guard --home DIR [options] -- COMMAND...\n")
        return 2
    command = given[given.index("--") + 1 :]
    parser = argparse.ArgumentParser(prog="toft.managed.guard", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--busy", type=Path, help="decide nothing while this is locked; of the home")
    parser.add_argument("--supervise", action="store_true", help="start it again whenever it ends")
    options = parser.parse_args(given[: given.index("--")])
    # Where the daemon of a home has its lock; under one that runs nothing is counted or decided.
    busy: Path = options.busy or options.home / "run" / "daemon.lock"
    if options.supervise:
        return _Supervisor(options.home, busy, command).run()
    os.execve(command[0], command, decide(options.home, busy, os.environ))
    raise AssertionError("execve does not come back")


def decide(home: Path, busy: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """Boot the generations of a home; return the environment that tells the daemon which boot it is.

    What cannot be decided here is left to the daemon, which boots for itself when nobody has.
    """
    told = {name: value for name, value in environ.items() if name not in (BOOT, NOTES)}
    if busy is not None and _is_locked(busy):
        return told
    if _is_decided(home, environ):
        return dict(environ)
    nonce = secrets.token_hex(16)
    try:
        boot = generations.Generations.at(home).boot(nonce)
    except (OSError, errors.NodeError) as error:
        sys.stderr.write(f"the guard cannot decide: {error}\n")
        return told
    for note in boot.notes:
        sys.stderr.write(f"guard: {note}\n")
    return {**told, BOOT: nonce, **({NOTES: json.dumps(boot.notes)} if boot.notes else {})}


def _is_decided(home: Path, environ: Mapping[str, str]) -> bool:
    """Say whether a supervisor has counted this very start: what it starts may have a guard of its own."""
    if SUPERVISED not in environ or BOOT not in environ:
        return False
    try:
        return generations.Generations.at(home).adopt(environ[BOOT]) is not None
    except OSError:
        return False


def notes(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return what the guard before this process found and did."""
    try:
        return tuple(str(each) for each in json.loads(environ.get(NOTES, "[]")))
    except (ValueError, TypeError, RecursionError):
        return ()


def _is_locked(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class _Supervisor:
    """Starts a command again and again, until somebody ends the supervisor itself."""

    def __init__(self, home: Path, busy: Path, command: list[str]) -> None:
        self._home = home
        self._busy = busy
        self._command = command
        self._ending = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Return the status of the last life."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            signal.signal(number, self._pass_on)
        pause_s = 0.0
        while True:
            began = time.monotonic()
            status = self._live()
            sys.stderr.write(f"guard: ended with {status}\n")
            if self._ending.is_set():
                return status if status >= 0 else 128 - status
            if status == RESTART:
                pause_s = 0.0
                continue
            if time.monotonic() - began > _HEALTHY_S:
                pause_s = 0.0
            # The first time at once: most crashes are single.
            self._ending.wait(pause_s)
            pause_s = min(max(0.5, pause_s * 2), _LONGEST_PAUSE_S)
            if self._ending.is_set():
                return 0

    def _live(self) -> int:
        given = {name: value for name, value in os.environ.items() if name != BOOT}
        environ = decide(self._home, self._busy, {**given, SUPERVISED: "1"})
        try:
            # A group of its own: Ctrl-C at a terminal comes from here, once.
            self._child = subprocess.Popen(self._command, env=environ, process_group=0)
        except OSError as error:
            sys.stderr.write(f"guard: {self._command[0]} does not start: {error}\n")
            return 127
        if self._ending.is_set():
            self._child.terminate()
        return self._child.wait()

    def _pass_on(self, number: int, _frame: object) -> None:
        if number != signal.SIGHUP:
            self._ending.set()
        if self._child is not None and self._child.poll() is None:
            self._child.send_signal(number)


if __name__ == "__main__":
    sys.exit(main())
