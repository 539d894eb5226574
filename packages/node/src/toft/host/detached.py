"""Starts a program that goes on without the one who started it, and waits until it says that it is ready."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_MOST = 1 << 20


@dataclass(frozen=True)
class Started:
    """How it went.

    Attributes:
        pid: The process.
        said: What it wrote to its pipe before it closed it or ended.
        is_running: It had not ended when it was looked at.
    """

    pid: int
    said: bytes
    is_running: bool


def start(
    argv: Sequence[str],
    *,
    environ: Mapping[str, str],
    ready_option: str,
    ready: bytes,
    timeout_s: float,
) -> Started:
    """Start a program in a session of its own; blocks until it closes its pipe, ends, or the time is over.

    Args:
        argv: The program and its arguments.
        environ: Its whole environment.
        ready_option: The option by which it is told the descriptor to write to.
        ready: What it writes when it is ready; whatever else it writes says why it is not.
        timeout_s: Seconds to wait.
    """
    receiving, sending = os.pipe2(os.O_CLOEXEC)
    try:
        # Popen would warn about a child it was not told to wait for; this one is meant to stay.
        process = subprocess.Popen(
            [*argv, ready_option, str(sending)],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(sending,),
        )
    except BaseException:
        os.close(receiving)
        raise
    finally:
        os.close(sending)
    try:
        said = _read(receiving, timeout_s)
    finally:
        os.close(receiving)
    if said != ready:
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.terminate()
    status = process.poll()
    if status is None:
        process.returncode = 0  # it stays; nobody here waits for it
    return Started(process.pid, said, is_running=status is None)


def _read(fd: int, timeout_s: float) -> bytes:
    said = b""
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLHUP)
    while len(said) < _MOST and poller.poll(timeout_s * 1000):
        data = os.read(fd, 65536)
        if not data:
            break
        said += data
    return said
