"""The program of a daemon: `python -m toft.daemon`; people start it with `toft up`."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from toft.daemon import control, process
from toft.kernel import errors
from toft.kernel import settings as node_settings
from toft.managed import generations, guard, phases


def main(arguments: Sequence[str] | None = None) -> int:
    """Be a daemon; a failure is one line of JSON for whoever started it, or for a person."""
    parser = argparse.ArgumentParser(prog="toft up", description=__doc__)
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--listen")
    parser.add_argument("--tls-cert", type=Path)
    parser.add_argument("--tls-key", type=Path)
    parser.add_argument("--insecure-public", action="store_true")
    parser.add_argument("--ready-fd", type=int, default=-1)
    parser.add_argument("--detached", action="store_true")
    given = parser.parse_args(arguments)
    began_in = _directory()
    fd: int = given.ready_fd
    if fd >= 0:
        os.set_inheritable(fd, False)
    try:
        settings = node_settings.read(
            os.environ,
            home=given.home,
            offline=given.offline or None,
            listen=given.listen,
            tls_cert=given.tls_cert,
            tls_key=given.tls_key,
            insecure_public=given.insecure_public or None,
        )
        starts_again = process.run(
            process.Surroundings(
                settings=settings,
                environ=dict(os.environ),
                level="DEBUG" if given.verbose else "INFO",
                takes_stderr=fd >= 0 or given.detached,
                ready=lambda: _tell(fd, control.READY, is_seen=not given.detached),
            )
        )
    except errors.NodeError as error:
        if error.blame in ("caller", "environment") and error.code != "daemon.running":
            _count_no_crash(given.home)
        _fail(fd, error)
        return error.exit_code
    except OSError as error:
        _count_no_crash(given.home)
        _fail(fd, errors.NodeError(str(error), code="daemon.os_error", details={"errno": error.errno}))
        return 1
    return _start_again(settings, given, began_in) if starts_again else 0


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed; then nothing can be read there anyway
        return "/"


def _count_no_crash(home: Path) -> None:
    """Hold a start that failed for what lies outside against no document that is on trial."""
    if (home / "managed").is_dir():
        with contextlib.suppress(OSError, errors.NodeError):
            generations.Generations.at(home).record(phases.stopped)


def _start_again(settings: node_settings.Settings, given: argparse.Namespace, began_in: str) -> int:
    """Leave it to whoever started this process, or become the next one where nobody would."""
    if os.environ.get(guard.SUPERVISED) or os.environ.get("NOTIFY_SOCKET"):
        return guard.RESTART
    command = control.argv(settings, is_verbose=given.verbose)
    if given.detached or given.ready_fd >= 0:
        command.append("--detached")
    # The next one reads its settings where this one did: some of them are told as relative paths.
    with contextlib.suppress(OSError):
        os.chdir(began_in)
    os.execv(command[0], command)


def _tell(fd: int, data: bytes, *, is_seen: bool) -> None:
    if fd >= 0:
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
    elif is_seen:
        sys.stderr.write("ready; Ctrl-C ends it\n")
        sys.stderr.flush()


def _fail(fd: int, error: errors.NodeError) -> None:
    if fd >= 0:
        try:
            os.write(fd, json.dumps({"kind": type(error).__name__, **error.to_dict()}, default=str).encode())
        except OSError:
            sys.stderr.write(f"error: {error.message}\n")
        return
    sys.stderr.write(f"error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"next: {error.hint}\n")


if __name__ == "__main__":
    sys.exit(main())
