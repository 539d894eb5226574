"""Runs one command and owns everything it starts; ends all of it when the node is gone or says stop.

    python -I -S command_main.py LIFELINE_FD COMMAND ARGUMENT...

The other end of the lifeline is held by the node alone: it closes when the node dies, however it dies. This
program is a subreaper, so that a process which left its session still has this one as its parent in the end.
Exit code: the command's own; 128 + signal when a signal ended it; 126 when it could not be started.
"""

import ctypes
import os
import select
import signal
import sys

_SET_CHILD_SUBREAPER = 36


def _children() -> dict[int, list[int]]:
    table: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] != b"Z":
            table.setdefault(int(fields[1]), []).append(int(name))
    return table


def _end_all() -> None:
    # A process may fork between the look and the kill, so look until nobody is left.
    while True:
        table = _children()
        found = list(table.get(os.getpid(), ()))
        for pid in found:
            found.extend(table.get(pid, ()))
        if not found:
            break
        for pid in found:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        _reap(found[0])


def _reap(until: int) -> None:
    while True:
        try:
            pid, _ = os.waitpid(-1, 0)
        except ChildProcessError:
            return
        if pid == until:
            return


def main() -> int:
    """Start the command, wait for its end or the lifeline's, leave nothing behind."""
    lifeline, argv = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.set_inheritable(lifeline, False)
    child = os.fork()
    if child == 0:
        try:
            os.execvpe(argv[0], argv, os.environ)
        except OSError as error:
            os.write(2, f"cannot start {argv[0]}: {error.strerror}\n".encode())
        os._exit(126)
    watch = os.pidfd_open(child)
    ready, _, _ = select.select([lifeline, watch], [], [])
    if watch not in ready:
        _end_all()
        return 128 + signal.SIGKILL
    _, status = os.waitpid(child, 0)
    _end_all()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
